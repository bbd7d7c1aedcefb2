// Where nodes stand: at once in a ring around the hubs, then where the layout
// puts them. Those that stood somewhere stay: a new site moves no old one.
import { preferences } from '../core/preferences.js';
import { startWorker } from '../core/worker.js';
import { radius } from './scene.js';

const stood = new Map(); // id -> [x, y], for as long as the page lives
let worker = null;
let turn = 0;

/** Gives every node of a scene a place; moved() is called when places change. */
export function place(scene, moved) {
  const fresh = [];
  const hubs = scene.nodes.filter((n) => n.hub);
  const rest = scene.nodes.filter((n) => !n.hub).sort((a, b) => (a.group === b.group ? (a.id < b.id ? -1 : 1) : a.group < b.group ? -1 : 1));
  const spread = Math.max(110, 26 * Math.sqrt(scene.nodes.length) * 1.5);
  const put = (n, x, y) => {
    const pin = preferences.pins[n.id];
    const before = pin ?? stood.get(n.id);
    if (before) { [n.x, n.y] = before; n.fixed = Boolean(pin); } else { n.x = x; n.y = y; fresh.push(n); }
  };
  hubs.forEach((n, i) => {
    const a = i / Math.max(1, hubs.length) * 2 * Math.PI, r = hubs.length > 1 ? spread * 0.3 : 0;
    put(n, r * Math.cos(a), r * Math.sin(a));
  });
  rest.forEach((n, i) => {
    // Neighbours in order stand together: regions become sectors.
    const ring = rest.length > 60 ? 0.55 + 0.5 * ((i * 7) % 11) / 11 : 1;
    const a = i / Math.max(1, rest.length) * 2 * Math.PI - Math.PI / 2;
    put(n, spread * ring * Math.cos(a) * 1.25, spread * ring * Math.sin(a));
  });
  if (!fresh.length) return;
  const now = ++turn;
  worker ??= startWorker(new URL('./layout.worker.js', import.meta.url).href);
  const index = new Map(scene.nodes.map((n, i) => [n, i]));
  const isFresh = new Set(fresh);
  worker.onmessage = ({ data }) => {
    if (data.turn !== turn) return;
    scene.nodes.forEach((n, i) => {
      if (n.dragged) return;
      n.x = data.at[2 * i];
      n.y = data.at[2 * i + 1];
      if (data.done) stood.set(n.id, [n.x, n.y]);
    });
    moved(data.done);
  };
  worker.postMessage({
    turn: now,
    nodes: scene.nodes.map((n) => ({ x: n.x, y: n.y, fx: isFresh.has(n) ? undefined : n.x, fy: isFresh.has(n) ? undefined : n.y, r: radius(n), hub: n.hub || n.kind === 'group', links: n.degree_ ?? 0 })),
    links: scene.edges.map((e) => ({ source: index.get(e.a), target: index.get(e.b) })),
  });
}

export function keepPlace(n) { stood.set(n.id, [n.x, n.y]); }

export function forgetPlaces() { stood.clear(); }
