// Path metrics over time: latency, jitter, loss, bandwidth under one crosshair.
import { h, icon } from '../core/dom.js';
import { t, tn } from '../core/text.js';
import { api, query } from '../core/api.js';
import { seriesColor } from '../core/color.js';
import { fleet, siteName } from '../core/fleet.js';
import { metrics, pathName } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { setParams } from '../core/router.js';
import { may } from '../core/session.js';
import { choose } from '../elements/bits.js';
import { eventText } from '../elements/event.js';
import { testPath } from '../elements/pathtest.js';
import { lookAt, range, rangePicker } from '../elements/range.js';
import { Together } from '../elements/chart.js';

const shown = ['latency_ms', 'packet_loss_pct', 'bandwidth_mbps', 'jitter_ms'];
const most = 12; // lines in a chart

export default class Metrics extends Page {
  together = new Together();
  data = null; // metric -> [{path, points: [{x, y, min, max}]}]
  marks = [];
  hidden = new Set();
  #asked = '';
  #turn = 0;
  #readAt = 0;

  start() {
    this.together.addEventListener('zoom', (e) => lookAt(e.detail.from, e.detail.to));
    fleet.follow(() => this.#live(), this.signal);
    if (fleet.loadedAt) this.#read();
  }

  queried() { this.#read(); }

  /** The site and path that are looked at; the first site of a small fabric if none is named. */
  get picked_() {
    const q = this.query;
    const path = q.get('path') ?? '';
    const site = q.get('site') || (path ? path.split('.')[0] : '') || [...fleet.sites.values()].sort((a, b) => Number(b.hub) - Number(a.hub) || (siteName(a) < siteName(b) ? -1 : 1))[0]?.id || '';
    return { site, path };
  }

  async #read() {
    const { site, path } = this.picked_;
    if (!site) { this.loading = false; return this.update(); }
    const r = range();
    const asked = [site, path, r.last || `${r.from}-${r.to}`].join(' ');
    if (asked !== this.#asked) { this.data = null; this.hidden = new Set(); }
    this.#asked = asked;
    const turn = ++this.#turn;
    const span = { from: new Date(r.from).toISOString(), to: new Date(r.to).toISOString(), step: `${Math.max(1, Math.ceil((r.to - r.from) / 400_000))}s` };
    this.#readAt = Date.now();
    await this.load(async (signal) => {
      let found;
      if (path) found = (await api(`/api/v1/paths/${path}/metrics${query({ ...span, metric: shown.join(',') })}`, { signal })).metrics;
      else found = (await Promise.all(shown.map((metric) => api(`/api/v1/metrics/timeseries${query({ ...span, metric, site })}`, { signal })))).flatMap((a) => a.metrics);
      if (turn !== this.#turn) return;
      const data = {};
      for (const m of found) {
        data[m.metric] = m.series.map((s) => ({ path: s.path_id, points: s.points.map((p) => ({ x: Date.parse(p.at), y: p.mean, min: p.min, max: p.max })) })).sort((a, b) => (a.path < b.path ? -1 : 1));
      }
      this.data = data;
      this.span = r;
    });
    if (turn === this.#turn && may('view_events')) {
      const page = await api(`/api/v1/events${query({ from: span.from, to: span.to, ...(path ? { source: path } : { site }), limit: 50 })}`, { signal: this.signal }).catch(() => ({ items: [] }));
      this.marks = page.items.filter((e) => e.event_type === 'path_status_change' || e.event_type === 'uplink_carrier').map((e) => ({ x: Date.parse(e.timestamp), text: eventText(e), state: String(e.data?.new_status ?? 'unknown').toLowerCase() }));
      this.update();
    }
  }

  /** New values of the live stream go to the end of the lines. */
  #live() {
    if (!this.#asked) return this.#read();
    const r = range();
    if (!this.data || !r.last || this.loading) return this.update();
    // Long spans are read again instead: their points are means.
    if (Date.now() - this.#readAt > Math.max(30_000, (r.to - r.from) / 60)) return this.#read();
    for (const metric of shown) {
      for (const s of this.data[metric] ?? []) {
        const p = fleet.paths.get(s.path);
        const x = p?.observedMs;
        if (p && x > (s.points.at(-1)?.x ?? 0) + 500) s.points.push({ x, y: p.metrics[metric], min: null, max: null });
        while (s.points.length && s.points[0].x < r.from - 60e3) s.points.shift();
      }
    }
    this.span = r;
    return this.update();
  }

  render() {
    if (!fleet.loadedAt && !fleet.error) return [head(t('Path metrics')), skeleton(8)];
    if (!fleet.loadedAt) return [head(t('Path metrics')), failed(fleet.error, () => fleet.load())];
    const { site, path } = this.picked_;
    if (!site) return [head(t('Path metrics')), h('div.card', null, empty('chart-line', t('No paths yet'), t('Every path between two sites is measured once a second, from the moment it exists.'), h('a.btn', { href: '/help/first-site' }, t('How to add the first site'))))];
    const sites = [...fleet.sites.values()].sort((a, b) => siteName(a).localeCompare(siteName(b), 'en', { numeric: true }));
    const own = (fleet.pathsOf.get(site) ?? []).filter((p) => p.source.id === site).sort((a, b) => (a.id < b.id ? -1 : 1));
    const one = fleet.paths.get(path);
    return [
      head(t('Path metrics'), null, rangePicker(), one && may('test_paths') && h('button.btn', { type: 'button', on: { click: () => testPath(one) } }, icon('gauge'), t('Test now'))),
      h('div.row', { key: 'pick', class: 'mb-4' },
        h('label.row', null, h('span.muted', null, t('Site')), choose(t('Site'), site, sites.map((s) => [s.id, siteName(s)]), (v) => setParams({ site: v, path: null }, { push: true }))),
        h('label.row', null, h('span.muted', null, t('Path')), choose(t('Path'), path, [['', tn(own.length, 'Its path', 'All {n} paths')], ...own.map((p) => [p.id, pathName(p.id)])], (v) => setParams({ site, path: v }, { push: true })))),
      this.#keys(),
      this.error ? failed(this.error, () => this.#read()) : !this.data ? skeleton(10) : h('div.stack', { key: 'charts' }, shown.map((m) => this.#chart(m))),
      this.data && h('p.faint', { key: 'hint', class: 'mt-3' }, t('Drag over a chart to zoom all of them; the back button returns. Triangles mark changes of state.')),
    ];
  }

  get lines_() {
    const paths = [...new Set(Object.values(this.data ?? {}).flatMap((l) => l.map((s) => s.path)))].sort();
    return paths.slice(0, most);
  }

  #keys() {
    const lines = this.lines_;
    if (lines.length < 2) return null;
    const all = new Set(Object.values(this.data).flatMap((l) => l.map((s) => s.path))).size;
    return h('div.keys', { key: 'keys', class: 'mb-3', role: 'group', 'aria-label': t('Paths shown') }, lines.map((path, i) => h('button', { key: path, type: 'button', 'aria-pressed': String(!this.hidden.has(path)), style: { '--c': `var(--series-${i % 6 + 1})` }, on: { click: (e) => this.#toggle(path, e.shiftKey) } }, h('i'), pathName(path))),
      all > lines.length && h('span.muted', { class: 'text-xs self-center' }, t('The first {n} of {all}; choose a path to see another.', { n: lines.length, all })));
  }

  #toggle(path, alone) {
    const others = this.lines_.filter((p) => p !== path);
    if (alone) this.hidden = others.every((p) => this.hidden.has(p)) ? new Set() : new Set(others);
    else if (this.hidden.has(path)) this.hidden.delete(path); else this.hidden.add(path);
    this.update();
  }

  #chart(metric) {
    const about = metrics[metric];
    const lines = this.lines_;
    const single = lines.length === 1;
    const list = (this.data[metric] ?? []).filter((s) => lines.includes(s.path));
    const series = list.map((s) => {
      const i = lines.indexOf(s.path);
      return {
        label: pathName(s.path), color: seriesColor(i), hidden: this.hidden.has(s.path), points: s.points,
        band: single && s.points.some((p) => p.max != null) && { low: s.points.map((p) => ({ x: p.x, y: p.min })), high: s.points.map((p) => ({ x: p.x, y: p.max })) },
      };
    });
    const newest = single && series[0]?.points.findLast((p) => p.y != null);
    const label = t('{metric} over time of {n} paths', { metric: t(about.title), n: series.length });
    return h('section.card.chart-card', { key: metric, 'aria-label': t(about.title) },
      h('header', null, h('h2', null, `${t(about.title)} (${about.unit})`), single && h('span.faint', null, t('line: mean, band: least to greatest')), newest && h('span.now', null, about.format(newest.y))),
      h('p-chart', { '.data': { series, from: this.span.from, to: this.span.to, unit: '', format: about.format, marks: this.marks, together: this.together, label, suggestedMax: metric === 'packet_loss_pct' ? 1 : undefined } }));
  }
}
customElements.define('page-metrics', Metrics);
