// All sites as a table.
import { h } from '../core/dom.js';
import { t } from '../core/text.js';
import { fleet, siteName } from '../core/fleet.js';
import { known } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { go, setParams } from '../core/router.js';
import { choose, debounce, search, state, when } from '../elements/bits.js';
import '../elements/table.js';

const rank = { down: 0, degraded: 1, unknown: 2, up: 3 };

const columns = () => [
  { id: 'status', title: t('State'), width: '120px', fixed: true, value: (s) => rank[s.status], csv: (s) => s.status, cell: (s) => state(s.status, s.reason) },
  { id: 'name', title: t('Site'), width: 'minmax(160px, 1.4fr)', fixed: true, value: siteName, cell: (s) => h('a', { href: '/sites/' + s.id }, siteName(s)) },
  { id: 'location', title: t('Location'), width: 'minmax(110px, 1fr)', value: (s) => s.labels.location ?? '', cell: (s) => s.labels.location ?? '' },
  { id: 'prefixes', title: t('Prefixes'), width: 'minmax(150px, 1fr)', value: (s) => s.prefixes.join(' '), cell: (s) => h('span.num', null, s.prefixes.join(', ')) },
  { id: 'up', title: t('Paths up'), width: '110px', end: true, value: (s) => s.paths.up, cell: (s) => `${s.paths.up} / ${s.paths.total}` },
  { id: 'flows', title: t('Flows'), width: '90px', end: true, value: (s) => s.active_flows, cell: (s) => s.active_flows },
  { id: 'revision', title: t('Revision'), width: '110px', end: true, value: (s) => s.revision, cell: (s) => (s.in_sync || !s.revision ? s.revision || '–' : h('span', { title: t('not the newest') }, s.revision, ' ', h('span.tag.staged', null, t('old')))) },
  { id: 'reason', title: t('Why'), width: 'minmax(160px, 1.4fr)', value: (s) => s.reason ?? '', cell: (s) => h('span.muted', { title: s.reason }, s.reason ?? '') },
  { id: 'version', title: t('Software'), width: '110px', hidden: true, value: (s) => s.software_version ?? '', cell: (s) => s.software_version ?? '' },
  { id: 'seen', title: t('Heard'), width: '120px', value: (s) => s.seen_at ?? '', cell: (s) => (known(s.seen_at) ? when(s.seen_at) : t('never')) },
];

export default class Sites extends Page {
  columns = columns();
  #find = debounce((v) => setParams({ q: v }), 150);

  start() { fleet.follow(() => this.update(), this.signal); }

  render() {
    if (!fleet.loadedAt && fleet.error) return [head(t('Sites')), failed(fleet.error, () => fleet.load())];
    if (!fleet.loadedAt) return [head(t('Sites')), skeleton(8)];
    if (!fleet.sites.size) return [head(t('Sites')), h('div.card', null, empty('building', t('No sites yet'), t('A site appears here as soon as it is in the configuration.'), h('a.btn', { href: '/help/first-site' }, t('How to add the first site'))))];
    const q = this.query;
    const want = (q.get('q') ?? '').toLowerCase();
    const states = (q.get('status') ?? '').split(',').filter(Boolean);
    const rows = [...fleet.sites.values()].filter((s) => (!states.length || states.includes(s.status)) &&
      (!want || `${siteName(s)} ${s.id} ${s.labels.location ?? ''} ${s.prefixes.join(' ')} ${Object.entries(s.labels).map((e) => e.join('=')).join(' ')}`.toLowerCase().includes(want)));
    return [
      head(t('Sites')),
      h('div.row', { key: 'f', class: 'mb-4' }, search(q.get('q') ?? '', t('Name, location, prefix or label'), this.#find),
        choose(t('State'), q.get('status') ?? '', [['', t('Any state')], ['down,degraded', t('Needs attention')], ['up', t('Up')], ['degraded', t('Degraded')], ['down', t('Down')], ['unknown', t('Unknown')], ...(['degraded,down'].includes(q.get('status')) ? [['degraded,down', t('Needs attention')]] : [])], (v) => setParams({ status: v }))),
      h('div.card', { key: 'table' }, h('p-table', { '.name': 'sites', '.label': t('Sites'), '.columns': this.columns, '.rows': rows, '.rowKey': (s) => s.id, '.sort': { id: q.get('sort') ?? 'status', down: q.get('down') === '1' }, '.onsort': (s) => setParams({ sort: s.id, down: s.down ? 1 : null }), '.onopen': (s) => go('/sites/' + s.id) })),
    ];
  }
}
customElements.define('page-sites', Sites);
