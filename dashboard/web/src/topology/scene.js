// What is drawn: sites as nodes, the paths between two sites as one edge, and
// past a size whole regions as one bubble that says how bad its worst is.
import { siteName, worse } from '../core/fleet.js';

/** Past this many sites, regions are drawn instead of sites. */
export const bubbleFrom = 150;

/** Which group a site belongs to: its label region or cluster, or the front of its name. */
export function groupOf(site, by = 'region') {
  return site.labels?.[by] || site.labels?.region || site.labels?.cluster || site.id.replace(/[-_]?\d+$/, '') || site.id;
}

/**
 * Makes a scene.
 *
 * @param {object} fleet with sites and paths
 * @param {object} o filters: text, site (with its neighbours), status, cluster;
 *   open: groups that are shown as sites; whole: never group
 * @returns {{nodes: object[], edges: object[], grouped: boolean, byId: Map}}
 */
export function makeScene(fleet, o = {}) {
  let keep = new Set();
  for (const s of fleet.sites.values()) {
    if (o.cluster && groupOf(s) !== o.cluster) continue;
    keep.add(s.id);
  }
  if (o.site && fleet.sites.has(o.site)) {
    const near = new Set([o.site]);
    for (const p of fleet.pathsOf.get(o.site) ?? []) near.add(p.source.id).add(p.destination.id);
    keep = new Set([...keep].filter((id) => near.has(id)));
  }
  const paths = [];
  for (const p of fleet.paths.values()) {
    if (o.status && p.status !== o.status) continue;
    if (o.site && p.source.id !== o.site && p.destination.id !== o.site) continue;
    if (keep.has(p.source.id) && keep.has(p.destination.id)) paths.push(p);
  }
  if (o.status) {
    const touched = new Set();
    for (const p of paths) touched.add(p.source.id).add(p.destination.id);
    for (const id of [...keep]) if (!touched.has(id) && fleet.sites.get(id).status !== o.status) keep.delete(id);
  }
  const grouped = !o.whole && !o.site && keep.size > bubbleFrom;
  const byId = new Map();
  const nodeOf = new Map();
  for (const id of keep) {
    const s = fleet.sites.get(id);
    const group = groupOf(s);
    if (grouped && !s.hub && !o.open?.has(group)) {
      const key = 'group:' + group;
      let g = byId.get(key);
      if (!g) byId.set(key, g = { id: key, group, kind: 'group', label: group, total: 0, counts: { up: 0, degraded: 0, down: 0, unknown: 0 }, degree: 0, state: 'up', hub: false });
      g.total++;
      g.counts[s.status] = (g.counts[s.status] ?? 0) + 1;
      nodeOf.set(id, g);
    } else {
      const n = { id, group, kind: 'site', label: siteName(s), state: s.status, hub: s.hub, degree: s.paths?.total ?? 0 };
      byId.set(id, n);
      nodeOf.set(id, n);
    }
  }
  for (const g of byId.values()) if (g.kind === 'group') g.state = worst(g.counts);
  const edges = new Map();
  for (const p of paths) {
    const a = nodeOf.get(p.source.id), b = nodeOf.get(p.destination.id);
    if (a === b) continue;
    const [x, y] = a.id < b.id ? [a, b] : [b, a];
    const key = `${x.id} ${y.id}`;
    let e = edges.get(key);
    if (!e) {
      edges.set(key, e = { id: key, a: x, b: y, paths: [] });
      x.degree_ = (x.degree_ ?? 0) + 1;
      y.degree_ = (y.degree_ ?? 0) + 1;
    }
    e.paths.push(p.id);
  }
  const scene = { nodes: [...byId.values()], edges: [...edges.values()], grouped, byId };
  for (const e of scene.edges) measure(e, fleet);
  return scene;
}

function worst(counts) {
  const all = counts.up + counts.degraded + counts.down + counts.unknown;
  // One silent branch does not make its region red: the share decides.
  if (counts.down > 0 && counts.down * 4 >= all) return 'down';
  if (counts.down + counts.degraded > 0 && (all < 20 || (counts.down + counts.degraded) * 50 >= all)) return 'degraded';
  return counts.unknown === all ? 'unknown' : 'up';
}

function measure(e, fleet) {
  let state = 'up', carried = 0, latency = null, loss = null, score = null;
  const states = { up: 0, degraded: 0, down: 0, unknown: 0 };
  for (const id of e.paths) {
    const p = fleet.paths.get(id);
    if (!p) continue;
    states[p.status]++;
    const m = p.metrics ?? {};
    carried += m.bandwidth_mbps ?? 0;
    if (m.latency_ms != null) latency = Math.min(latency ?? Infinity, m.latency_ms);
    if (m.packet_loss_pct != null) loss = Math.max(loss ?? 0, m.packet_loss_pct);
    if (m.score != null) score = Math.max(score ?? 0, m.score);
    if (worse(p.status, state) < 0) state = p.status;
  }
  // Between two sites a path that is down beside one that is up is less bad
  // than no path at all.
  if (e.a.kind === 'group' || e.b.kind === 'group') state = worst(states);
  else if (state === 'down' && states.up + states.degraded > 0) state = 'degraded';
  const share = e.a.kind === 'group' || e.b.kind === 'group' ? carried / e.paths.length * 2 : carried;
  e.state = state;
  e.carried = carried;
  e.width = share >= 500 ? 3 : share >= 50 ? 2 : share >= 5 ? 1 : 0;
  Object.assign(e, { latency, loss, score, states });
}

/** Takes new measurements and states into a scene whose shape is the same. */
export function refreshScene(scene, fleet) {
  for (const n of scene.nodes) {
    if (n.kind !== 'site') continue;
    const s = fleet.sites.get(n.id);
    if (s) n.state = s.status;
  }
  if (scene.grouped) {
    for (const n of scene.nodes) if (n.kind === 'group') n.counts = { up: 0, degraded: 0, down: 0, unknown: 0 };
    for (const s of fleet.sites.values()) {
      const g = !scene.byId.has(s.id) && scene.byId.get('group:' + groupOf(s));
      if (g) g.counts[s.status]++;
    }
    for (const n of scene.nodes) if (n.kind === 'group') n.state = worst(n.counts);
  }
  for (const e of scene.edges) measure(e, fleet);
}

/** How large a node is, in the units of the layout. */
export function radius(n) {
  if (n.kind === 'group') return 14 + Math.sqrt(n.total) * 1.9;
  return (n.hub ? 13 : 6) + Math.min(9, Math.sqrt(n.degree) * 1.2);
}
