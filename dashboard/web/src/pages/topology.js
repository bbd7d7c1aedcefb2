// The map, and the same as a list: who cannot use the one uses the other.
import { h, icon } from '../core/dom.js';
import { t, tn, number } from '../core/text.js';
import { fleet, siteName, worse } from '../core/fleet.js';
import { ms, pathName, pct, rate } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { prefer, preferences } from '../core/preferences.js';
import { setParams } from '../core/router.js';
import { choose, search, segments, state, when } from '../elements/bits.js';
import { forgetPlaces } from '../topology/place.js';
import { groupOf } from '../topology/scene.js';
import '../elements/topology.js';
import { sitePanel, pathPanel } from '../elements/details.js';

export default class TopologyPage extends Page {
  open = new Set();

  start() {
    fleet.follow(() => { this.querySelector('p-topology')?.refresh(); this.update(); }, this.signal);
    this.addEventListener('keydown', (e) => { if (e.key === 'Escape' && this.query.get('pick')) this.#pick(null); });
  }

  queried() {}

  #pick(id) {
    setParams({ pick: id });
    this.update();
  }

  #select(n) {
    if (!n) return this.#pick(null);
    if (n.kind === 'group') { this.open = new Set([...this.open, n.group]); return this.update(); }
    return this.#pick(n.paths ? 'edge:' + n.id.replace(' ', '|') : n.id);
  }

  get filter_() {
    const q = this.query;
    return { site: q.get('site') ?? '', status: q.get('status') ?? '', cluster: q.get('cluster') ?? '', open: this.open, whole: q.get('group') === 'none' };
  }

  render() {
    if (!fleet.loadedAt && fleet.error) return [head(t('Topology')), failed(fleet.error, () => fleet.load())];
    if (!fleet.loadedAt) return [head(t('Topology')), skeleton(8)];
    if (!fleet.sites.size) return [head(t('Topology')), h('div.card', null, empty('waypoints', t('No sites yet'), t('The map draws itself from the sites that are configured.'), h('a.btn', { href: '/help/first-site' }, t('How to add the first site'))))];
    const q = this.query;
    const view = q.get('view') ?? 'map';
    const filter = this.filter_;
    const pick = q.get('pick');
    const panel = pick && this.#panel(pick);
    const groups = [...new Set([...fleet.sites.values()].map((s) => groupOf(s)))].sort();
    const big = fleet.sites.size > 150;
    return [
      head(t('Topology'), tn(fleet.sites.size, '{n} site, {paths} paths', '{n} sites, {paths} paths', { paths: number(fleet.paths.size) }),
        segments(t('View'), view, [['map', t('Map'), 'waypoints'], ['list', t('List'), 'list']], (v) => setParams({ view: v === 'map' ? null : v }))),
      h('div.row', { key: 'filters', class: 'mb-4' },
        search(q.get('q') ?? '', t('Find a site'), (v) => this.#find(v)),
        choose(t('Path status'), filter.status, [['', t('Any status')], ['up', t('Up')], ['degraded', t('Degraded')], ['down', t('Down')], ['unknown', t('Unknown')]], (v) => setParams({ status: v })),
        groups.length > 1 && choose(t('Region or cluster'), filter.cluster, [['', t('All regions')], ...groups.map((g) => [g, g])], (v) => setParams({ cluster: v })),
        filter.site && h('button.btn', { type: 'button', on: { click: () => setParams({ site: null, q: null }) } }, icon('x'), t('Only {site} and its neighbours', { site: siteName(fleet.sites.get(filter.site) ?? { id: filter.site }) })),
        big && !filter.site && (this.open.size > 0 || filter.whole ? h('button.btn', { type: 'button', on: { click: () => { this.open = new Set(); setParams({ group: null }); this.update(); } } }, icon('shrink'), t('Group by region')) :
          h('button.btn', { type: 'button', on: { click: () => setParams({ group: 'none' }) } }, icon('expand'), t('Show every site'))),
        Object.keys(preferences.pins).length > 0 && h('button.btn.quiet', { type: 'button', on: { click: () => { prefer({ pins: {} }); forgetPlaces(); this.querySelector('p-topology').filterKey_ = ''; this.update(); } } }, icon('undo-2'), t('Reset the layout'))),
      h('div.topology', { key: 'body', class: panel ? 'split' : '' },
        view === 'map' ? h('div.card.stage', { key: 'stage' },
          h('p-topology', { key: 'canvas', '.filter': filter, '.selected': pick?.startsWith('edge:') ? null : pick, '.onselect': (n) => this.#select(n), '.onpinned': () => this.update(), '.label': t('Map of the network. Arrow keys move, plus and minus zoom; the list view has the same sites and paths.') }),
          h('div.legend', { 'aria-hidden': 'true' }, ['up', 'degraded', 'down', 'unknown'].map((s) => state(s)), h('span.muted', null, t('width: traffic'))),
          this.#none(filter)) : this.#list(filter),
        panel),
    ];
  }

  #none(filter) {
    const scene = this.querySelector('p-topology')?.scene;
    return scene && !scene.nodes.length && (filter.site || filter.status || filter.cluster) && h('div.tip', { class: 'm-4' }, t('Nothing fits these filters.'));
  }

  #find(text) {
    setParams({ q: text });
    const want = text.trim().toLowerCase();
    const s = want && [...fleet.sites.values()].find((x) => siteName(x).toLowerCase().includes(want) || x.id.includes(want));
    if (s) {
      const exact = [...fleet.sites.values()].filter((x) => siteName(x).toLowerCase().includes(want) || x.id.includes(want)).length === 1;
      if (exact && fleet.sites.size > 30) setParams({ site: s.id });
      this.querySelector('p-topology')?.show(s.id);
    } else if (!want) setParams({ site: null });
  }

  #panel(pick) {
    const close = () => { this.#pick(null); this.querySelector('[data-row], canvas')?.focus(); };
    if (pick.startsWith('edge:')) {
      const [a, b] = pick.slice(5).split('|');
      const inside = (id, end) => id === end || end.startsWith('group:') && groupOf(fleet.sites.get(id) ?? { id }) === end.slice(6);
      const list = [...fleet.paths.values()].filter((p) => inside(p.source.id, a) && inside(p.destination.id, b) || inside(p.source.id, b) && inside(p.destination.id, a));
      return pathPanel(`${a.replace('group:', '')} – ${b.replace('group:', '')}`, list, close);
    }
    const s = fleet.sites.get(pick);
    return s ? sitePanel(s, close) : null;
  }

  /** The twin: the same sites and paths, in order of how bad they are. */
  #list(filter) {
    const want = (this.query.get('q') ?? '').trim().toLowerCase();
    const sites = [...fleet.sites.values()].filter((s) => {
      const paths = (fleet.pathsOf.get(s.id) ?? []).filter((p) => p.source.id === s.id);
      return (!want || siteName(s).toLowerCase().includes(want) || s.id.includes(want)) && (!filter.cluster || groupOf(s) === filter.cluster) &&
        (!filter.site || s.id === filter.site || paths.some((p) => p.destination.id === filter.site)) && (!filter.status || s.status === filter.status || paths.some((p) => p.status === filter.status));
    }).sort((a, b) => worse(a.status, b.status) || siteName(a).localeCompare(siteName(b)));
    const most = 200;
    return h('div.card.twin', { key: 'twin', tabindex: '0', role: 'region', 'aria-label': t('Sites and paths') },
      sites.length ? h('ul', null, sites.slice(0, most).map((s) => {
        const own = (fleet.pathsOf.get(s.id) ?? []).filter((p) => p.source.id === s.id && (!filter.status || p.status === filter.status)).sort((a, b) => worse(a.status, b.status));
        return h('li', { key: s.id, class: 'border-b border-line px-4 py-3' },
          h('div.row', null, state(s.status, s.reason), h('button', { type: 'button', 'data-row': s.id, class: 'font-semibold text-accent cursor-pointer min-h-6', on: { click: () => this.#pick(s.id) } }, siteName(s)), s.hub && h('span.tag', null, t('hub')), h('span.muted', null, s.reason), h('span.muted', { class: 'ml-auto' }, t('{up} of {n} paths up', { up: s.paths.up, n: s.paths.total }))),
          own.length > 0 && h('ul', { class: 'pl-5 pt-1 text-[13px]' }, own.slice(0, 12).map((p) => h('li', { key: p.id, class: 'row' }, state(p.status, p.reason), h('a', { class: 'inline-flex items-center min-h-6', href: `/metrics?site=${s.id}&path=${p.id}` }, pathName(p.id)), h('span.muted.num', null, t('{latency}, loss {loss}, {rate}', { latency: ms(p.metrics?.latency_ms), loss: pct(p.metrics?.packet_loss_pct), rate: rate(p.metrics?.bandwidth_mbps) })), p.status !== 'up' && h('span.muted', null, when(p.since)))),
            own.length > 12 && h('li', null, h('a', { href: '/sites/' + s.id }, t('{n} more paths', { n: own.length - 12 })))));
      }), sites.length > most && h('li.muted', { class: 'p-4' }, t('{n} more sites: narrow the filter.', { n: sites.length - most }))) : empty('search-x', t('Nothing fits'), t('No site or path fits these filters.')));
  }
}
customElements.define('page-topology', TopologyPage);
