// Runs in a worker, so that no layout ever stops the page. d3-force is
// deterministic: the same network always looks the same.
import '../vendor/d3-quadtree.js';
import '../vendor/d3-dispatch.js';
import '../vendor/d3-timer.js';
import '../vendor/d3-force.js';

const { forceSimulation, forceLink, forceManyBody, forceCollide, forceX, forceY } = globalThis.d3;

self.onmessage = ({ data: { turn, nodes, links } }) => {
  const big = nodes.length > 300;
  const simulation = forceSimulation(nodes)
    .force('link', forceLink(links).distance((l) => 70 + (l.source.r + l.target.r)).strength((l) => 0.5 / Math.min(l.source.links || 1, l.target.links || 1)))
    .force('charge', forceManyBody().strength((n) => (n.hub ? -900 : big ? -90 : -420)).theta(1.1).distanceMax(big ? 700 : 1400))
    .force('collide', forceCollide((n) => n.r + (big ? 4 : 20)))
    .force('x', forceX(0).strength(0.035)).force('y', forceY(0).strength(0.055))
    .stop();
  const ticks = big ? 90 : 260;
  simulation.alphaDecay(1 - 0.001 ** (1 / ticks));
  for (let i = 1; i <= ticks; i++) {
    simulation.tick();
    if (i === ticks || big && i % 45 === 0) {
      const at = new Float32Array(nodes.length * 2);
      nodes.forEach((n, k) => { at[2 * k] = n.x; at[2 * k + 1] = n.y; });
      self.postMessage({ turn, at, done: i === ticks }, [at.buffer]);
    }
  }
};
