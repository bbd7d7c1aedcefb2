// What the fabric is now: sites and paths as they were read, kept new by the
// live streams. Pages draw from here at the pace that the person chose, never
// once per message.
import { all, api, Problem } from './api.js';
import { onPreference, preferences } from './preferences.js';
import { MetricStream } from './metricstream.js';
import { Stream } from './stream.js';

const keepEvents = 200;

class Fleet extends EventTarget {
  sites = new Map();
  paths = new Map();
  pathsOf = new Map(); // site id -> its paths at either end
  events = []; // newest first
  loadedAt = 0;
  error = null;
  paused = false;
  moved = 0; // grows when a state changes
  version = 0; // grows with every change
  now = null; // see sums
  recent = []; // sums of the last ticks, for small charts
  shape = 0; // grows when sites or paths come and go

  #metrics = null;
  #happened = null;
  #timer = 0;
  #dirty = false;
  #held = []; // events that came while paused
  #reload = 0;
  #asking = 0;
  #unsure = new Set(); // sites whose state may have changed
  #loading = null;
  #users = 0;

  /** Reads sites and paths, once for all who ask meanwhile. */
  load() {
    this.#loading ??= this.#read().finally(() => { this.#loading = null; });
    return this.#loading;
  }

  async #read() {
    try {
      const [sites, paths] = await Promise.all([all('/api/v1/sites'), all('/api/v1/paths')]);
      this.#take(sites, paths);
      this.error = null;
      this.loadedAt = Date.now();
    } catch (err) {
      this.error = err;
      if (!(err instanceof Problem)) throw err;
    }
    this.#dirty = true;
    this.#tell();
  }

  #take(sites, paths) {
    const changed = sites.length !== this.sites.size || paths.length !== this.paths.size ||
      sites.some((s) => !this.sites.has(s.id)) || paths.some((p) => !this.paths.has(p.id));
    this.sites = new Map(sites.map((s) => [s.id, s]));
    this.paths = new Map(paths.map((p) => [p.id, p]));
    this.pathsOf = new Map(sites.map((s) => [s.id, []]));
    for (const p of paths) {
      this.pathsOf.get(p.source.id)?.push(p);
      this.pathsOf.get(p.destination.id)?.push(p);
    }
    this.moved++;
    if (changed) this.shape++;
  }

  /**
   * Follows the fabric for as long as signal lives: f is called after changes,
   * at most once per refresh interval, and not while the page is hidden.
   */
  async follow(f, signal) {
    const listen = () => f();
    this.addEventListener('change', listen, { signal });
    if (this.#users++ === 0) this.#start();
    signal.addEventListener('abort', () => {
      if (--this.#users === 0) setTimeout(() => this.#users === 0 && this.#stop(), 3000);
    });
    if (!this.loadedAt || Date.now() - this.loadedAt > 60_000) {
      await this.load();
      // Who pauses does not want to see nothing.
      if (this.paused && !signal.aborted) { this.#remember(); f(); }
    } else queueMicrotask(listen);
  }

  #start() {
    if (this.#metrics) return;
    this.#metrics = new MetricStream('/ws/metrics', (...row) => this.#measure(...row), () => this.#link());
    this.#happened = new Stream('/ws/events', (m) => this.#event(m), () => this.#link(), true);
    this.#metrics.onopen = this.#happened.onopen = (again) => { if (again) this.reloadSoon(0); };
    this.#pace();
  }

  #stop() {
    this.#metrics?.close();
    this.#happened?.close();
    this.#metrics = this.#happened = null;
    clearInterval(this.#timer);
    this.loadedAt = 0;
  }

  #pace() {
    clearInterval(this.#timer);
    this.#timer = setInterval(() => {
      // Without a stream, what is shown is read again, gently.
      if (!this.#metrics?.open && !this.paused && !document.hidden && Date.now() - this.loadedAt > 15_000 && !this.error) this.load();
      this.#tell();
    }, preferences.refresh * 1000);
  }

  paceChanged() { if (this.#metrics) this.#pace(); }

  #tell() {
    if (document.hidden || this.paused) return;
    if (this.#dirty) {
      this.#remember();
      this.#dirty = false;
      this.version++;
      this.dispatchEvent(new Event('change'));
    }
    this.dispatchEvent(new Event('tick'));
  }

  /** What the fabric is in numbers, of paths that carry something. */
  sums() {
    const out = { sites: { up: 0, degraded: 0, down: 0, unknown: 0 }, paths: { up: 0, degraded: 0, down: 0, unknown: 0 }, latency: null, p95: null, loss: null, sent: 0, flows: 0 };
    const delays = [];
    let loss = 0, measured = 0;
    for (const s of this.sites.values()) { out.sites[s.status]++; out.flows += s.active_flows ?? 0; }
    for (const p of this.paths.values()) {
      out.paths[p.status]++;
      const m = p.metrics;
      if (!m || p.status !== 'up' && p.status !== 'degraded') continue;
      if (m.latency_ms != null) delays.push(m.latency_ms);
      if (m.packet_loss_pct != null) { loss += m.packet_loss_pct; measured++; }
      out.sent += m.tx_mbps ?? 0;
    }
    if (delays.length) {
      out.latency = delays.reduce((a, b) => a + b, 0) / delays.length;
      out.p95 = Float64Array.from(delays).sort()[Math.min(delays.length - 1, Math.floor(delays.length * 0.95))];
    }
    if (measured) out.loss = loss / measured;
    return out;
  }

  #remember() {
    const s = this.sums();
    this.now = s;
    this.recent.push({ at: Date.now(), latency: s.latency, p95: s.p95, sent: s.sent, up: s.paths.up + s.paths.degraded, flows: s.flows });
    if (this.recent.length > 180) this.recent.shift();
  }

  #link() { this.dispatchEvent(new Event('link')); }

  /** The state of the live streams: 'live', 'paused', 'connecting' or 'down', and since when there is no news. */
  get link() {
    if (this.paused) return { state: 'paused', since: this.pausedAt };
    if (!this.#metrics) return { state: 'idle' };
    if (this.#metrics.open && this.#happened.open) return { state: 'live', since: this.#metrics.heard };
    const since = Math.max(this.#metrics.heard, this.loadedAt);
    return { state: this.#metrics.tries > 1 || this.#happened.tries > 1 ? 'down' : 'connecting', since };
  }

  pause(on) {
    this.paused = on;
    this.pausedAt = Date.now();
    this.#link();
    if (on) return;
    for (const e of this.#held.splice(0).slice(-keepEvents)) this.dispatchEvent(new CustomEvent('happened', { detail: e }));
    this.reloadSoon(0);
  }

  /** Reads everything again, once in a while however often it is asked for. */
  reloadSoon(after = 1500) {
    if (this.#reload) return;
    this.#reload = setTimeout(() => {
      this.#reload = 0;
      if (this.#users > 0 && !this.paused) this.load();
    }, after);
  }

  #measure(id, at, state, read) {
    const p = this.paths.get(id);
    if (!p) return this.reloadSoon(5000);
    p.metrics ??= {};
    read(p.metrics);
    p.observedMs = at;
    if (state && state !== p.status) this.#move(p, state, '', new Date(at).toISOString());
    this.#dirty = true;
    return undefined;
  }

  #move(p, state, reason, at) {
    p.status = state;
    this.moved++;
    p.reason = reason ?? '';
    p.since = at;
    const s = this.sites.get(p.source.id);
    if (s) {
      const counts = { total: 0, up: 0, degraded: 0, down: 0, unknown: 0 };
      for (const q of this.pathsOf.get(s.id)) if (q.source.id === s.id) { counts.total++; counts[q.status]++; }
      s.paths = counts;
    }
    this.#dirty = true;
    this.#askSite(p.source.id);
  }

  /** The server knows what a path's state means for its site: it is asked for the few that changed. */
  #askSite(id) {
    this.#unsure.add(id);
    if (this.#asking) return;
    this.#asking = setTimeout(async () => {
      const ids = [...this.#unsure];
      this.#unsure.clear();
      this.#asking = 0;
      if (!this.#metrics || this.paused) return;
      try {
        const sites = ids.length > 3 ? await all('/api/v1/sites') : await Promise.all(ids.map((s) => api('/api/v1/sites/' + s)));
        for (const s of sites) if (this.sites.has(s.id)) this.sites.set(s.id, s);
        this.moved++;
        this.#dirty = true;
      } catch (err) {
        if (!(err instanceof Problem)) throw err;
      }
    }, 5000);
  }

  #event(m) {
    if (m.type === 'hello' || m.type === 'dropped') return;
    const e = {
      id: m.id ?? `live/${m.seq}`, timestamp: m.timestamp, event_type: m.type,
      severity: m.severity ?? 'info', site_id: m.site_id, source_id: m.path_id ?? m.policy_id ?? m.site_id, data: m.data ?? m, acknowledged: false, fresh: true,
    };
    if (this.events.some((x) => x.id === e.id)) return;
    this.events.unshift(e);
    this.events.length = Math.min(this.events.length, keepEvents);
    if (m.type === 'path_status_change') {
      const p = this.paths.get(m.path_id);
      if (p) this.#move(p, String(m.new_status).toLowerCase(), m.reason, m.timestamp);
    } else if (m.type !== 'policy_block') this.reloadSoon();
    this.#dirty = true;
    if (this.paused) this.#held.push(e);
    else this.dispatchEvent(new CustomEvent('happened', { detail: e }));
  }

  /** Reads the newest events, under those that came live. */
  async loadEvents(limit = 30) {
    const page = await api(`/api/v1/events?limit=${limit}`);
    const seen = new Set(page.items.map((e) => e.id));
    this.events = [...this.events.filter((e) => !seen.has(e.id)), ...page.items]
      .sort((a, b) => (a.timestamp < b.timestamp ? 1 : -1)).slice(0, keepEvents);
    this.#dirty = true;
    this.#tell();
  }
}

export const fleet = new Fleet();
onPreference((change) => { if ('refresh' in change) fleet.paceChanged(); });
document.addEventListener('visibilitychange', () => { if (!document.hidden) fleet.reloadSoon(0); });

const rank = { down: 0, degraded: 1, unknown: 2, up: 3 };
/** Order of states, the worst first. */
export function worse(a, b) { return (rank[a] ?? 2) - (rank[b] ?? 2); }

/** What a site is called for people. */
export function siteName(s) { return s.labels?.name || s.name || s.id; }
