// What broke: made of what sites and paths say of themselves. A site that is
// silent is one problem, not one for each of its paths.
import { t, tn } from './text.js';
import { absolute, pathName } from './format.js';
import { siteName, worse } from './fleet.js';

/**
 * The problems of a fabric, the worst and widest first:
 * {id, state, what, why, since, affects, did, href, weight}
 */
export function problems(fleet) {
  const list = [];
  const silent = new Set();
  for (const s of fleet.sites.values()) {
    if (s.status !== 'down') continue;
    silent.add(s.id);
    const peers = new Set((fleet.pathsOf.get(s.id) ?? []).map((p) => (p.source.id === s.id ? p.destination.id : p.source.id)));
    list.push({
      id: 'site/' + s.id, state: 'down', href: '/sites/' + s.id, since: s.seen_at, weight: 1000 + peers.size + (s.hub ? 5000 : 0),
      what: t('{site} is silent', { site: siteName(s) }), why: s.seen_at ? t('Not heard of since {at}', { at: absolute(s.seen_at) }) : s.reason,
      affects: tn(peers.size, 'Cut off from {n} site', 'Cut off from {n} sites'), did: t('Its own traffic follows its last good configuration.'),
    });
  }
  // Paths between the same two sites, both directions, are one trouble.
  const pairs = new Map();
  for (const p of fleet.paths.values()) {
    if (silent.has(p.source.id) || silent.has(p.destination.id) || worse(p.status, 'unknown') >= 0) continue;
    const a = `${p.source.id}.${p.uplink}`, b = `${p.destination.id}.${p.remote_uplink}`;
    const key = a < b ? `${a} ${b}` : `${b} ${a}`;
    const had = pairs.get(key);
    if (!had || worse(p.status, had.status) < 0) pairs.set(key, p);
  }
  const uplinks = groupByUplink(fleet, pairs);
  for (const u of uplinks) list.push(u);
  const told = new Set(uplinks.flatMap((u) => u.keys));
  for (const [key, p] of pairs) {
    if (told.has(key)) continue;
    const others = (fleet.pathsOf.get(p.source.id) ?? []).filter((q) => q.source.id === p.source.id && q.destination.id === p.destination.id && q.id !== p.id);
    const well = others.filter((q) => q.status === 'up');
    list.push({
      id: 'path/' + p.id, state: p.status, href: `/metrics?site=${p.source.id}&path=${p.id}`, since: p.since,
      weight: (p.status === 'down' ? 100 : 10) + (well.length ? 0 : 500),
      what: pathName(p.id), why: p.reason || describe(p),
      affects: t('{a} and {b}', { a: name(fleet, p.source.id), b: name(fleet, p.destination.id) }),
      did: well.length ? t('Flows go by {path} instead.', { path: pathName(well[0].id) }) : others.length ? t('No other path between them is up.') : t('It is the only path between them.'),
    });
  }
  for (const s of fleet.sites.values()) {
    if (s.status !== 'degraded' || !s.reason?.startsWith('it refused')) continue;
    list.push({ id: 'refused/' + s.id, state: 'degraded', href: '/sites/' + s.id, since: '', weight: 50, what: t('{site} refused a revision', { site: siteName(s) }), why: s.reason, affects: t('The site keeps its last good configuration.'), did: '' });
  }
  return list.sort((a, b) => worse(a.state, b.state) || b.weight - a.weight || (a.since < b.since ? -1 : 1));
}

/** Many bad paths of one uplink are that uplink's trouble. */
function groupByUplink(fleet, pairs) {
  const of = new Map();
  for (const [key, p] of pairs) {
    for (const end of [`${p.source.id}.${p.uplink}`, `${p.destination.id}.${p.remote_uplink}`]) {
      if (!of.has(end)) of.set(end, []);
      of.get(end).push([key, p]);
    }
  }
  const all = new Map();
  for (const p of fleet.paths.values()) for (const end of [`${p.source.id}.${p.uplink}`, `${p.destination.id}.${p.remote_uplink}`]) all.set(end, (all.get(end) ?? 0) + 1);
  const found = [];
  const taken = new Set();
  for (const [end, list] of [...of].sort((a, b) => b[1].length - a[1].length)) {
    const left = list.filter(([key]) => !taken.has(key));
    // Both ends may tell of a path, so that it counts twice here.
    if (left.length < 3 || left.length * 4 < all.get(end)) continue;
    for (const [key] of left) taken.add(key);
    const [site, uplink] = end.split('.');
    const states = left.map(([, p]) => p.status).sort(worse);
    const since = left.map(([, p]) => p.since ?? '').filter(Boolean).sort()[0];
    const reasons = new Set(left.map(([, p]) => p.reason).filter(Boolean));
    found.push({
      id: 'uplink/' + end, keys: left.map(([key]) => key), state: states[0], href: '/sites/' + site, since, weight: 200 * left.length,
      what: t('{site}: uplink {uplink}', { site: name(fleet, site), uplink }), why: [...reasons].slice(0, 2).join('; ') || t('{n} of its paths are bad at once', { n: left.length }),
      affects: tn(left.length, '{n} path', '{n} paths'), did: t('Flows use the other uplinks where there are any.'),
    });
  }
  return found;
}

function name(fleet, id) {
  const s = fleet.sites.get(id);
  return s ? siteName(s) : id;
}

function describe(p) {
  const m = p.metrics ?? {};
  if (p.status === 'down') return t('No answer to probes');
  if (m.packet_loss_pct > 1) return t('High packet loss ({loss} %)', { loss: m.packet_loss_pct.toFixed(1) });
  if (m.latency_ms != null) return t('Latency {latency} ms', { latency: m.latency_ms.toFixed(0) });
  return t('Outside of what its class asks for');
}
