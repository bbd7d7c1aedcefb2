// Conversations: who speaks to whom, over which path, by which rule.
import { h, icon } from '../core/dom.js';
import { t, number } from '../core/text.js';
import { api, query } from '../core/api.js';
import { fleet, siteName } from '../core/fleet.js';
import { bytes, none, pathName, policyName } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { setParams } from '../core/router.js';
import { choose, debounce, search, when } from '../elements/bits.js';
import { parseSearch } from '../core/flowsearch.js';
import { rangePicker } from '../elements/range.js';
import '../elements/table.js';

const columns = () => [
  { id: 'src', title: t('Source IP'), width: 'minmax(120px, 1fr)', fixed: true, value: (f) => f.src, cell: (f) => h('span.num', null, f.src) },
  { id: 'dst', title: t('Dest IP'), width: 'minmax(120px, 1fr)', fixed: true, value: (f) => f.dst, cell: (f) => h('span.num', null, f.dst) },
  { id: 'protocol', title: t('Protocol'), width: '90px', value: (f) => f.protocol, cell: (f) => f.protocol.toUpperCase() },
  { id: 'port', title: t('Port'), width: '80px', end: true, value: (f) => f.port, cell: (f) => f.port || none },
  { id: 'path', title: t('Path'), width: 'minmax(180px, 1.4fr)', value: (f) => f.path_id ?? '', cell: (f) => (f.path_id ? h('span', { title: f.path_id }, pathName(f.path_id)) : h('span.muted', null, none)) },
  { id: 'policy', title: t('Policy'), width: 'minmax(140px, 1.3fr)', value: (f) => policyName(f.policy), cell: (f) => h('span', { title: f.policy }, policyName(f.policy) || t('Default')) },
  { id: 'status', title: t('Status'), width: '110px', value: (f) => f.status, cell: (f) => status(f.status) },
  { id: 'class', title: t('Class'), width: '100px', hidden: true, value: (f) => f.class, cell: (f) => f.class },
  { id: 'bytes', title: t('Bytes'), width: '100px', end: true, value: (f) => f.bytes + f.reverse.bytes, cell: (f) => bytes(f.bytes + f.reverse.bytes) },
  { id: 'packets', title: t('Packets'), width: '100px', end: true, hidden: true, value: (f) => f.packets + f.reverse.packets, cell: (f) => number(f.packets + f.reverse.packets) },
  { id: 'site', title: t('Seen at'), width: '100px', value: (f) => f.site, cell: (f) => f.site },
  { id: 'seen', title: t('Last packet'), width: '112px', value: (f) => f.seen_at, cell: (f) => when(f.seen_at) },
];

export function status(s) { return h('span.tag', { class: { active: 'ok', blocked: 'down' }[s] ?? '' }, { active: t('Active'), blocked: t('Blocked'), ended: t('Ended') }[s] ?? s); }

export default class Flows extends Page {
  columns = columns();
  rows = null;
  next = '';
  #turn = 0;
  #more = false;
  #shownFlow = '';
  #typed = debounce((v) => setParams({ q: v }), 300);

  start() {
    fleet.follow(() => {}, this.signal);
    this.#read();
    let last = Date.now();
    fleet.addEventListener('tick', () => {
      // The list follows along while its beginning is looked at; a page of the
      // store costs more than a message, so not with every tick.
      if (Date.now() - last < 5000 || this.loading || this.query.get('from') || (this.querySelector('.table-scroll')?.scrollTop ?? 0) > 200) return;
      last = Date.now();
      this.#read(true);
    }, { signal: this.signal });
  }

  queried() {
    const asked = this.#filter();
    if (asked !== this.asked) this.#read();
    this.#openAsked();
  }

  #filter() {
    const q = this.query;
    const f = { site: q.get('site'), path: q.get('path'), policy: q.get('policy'), status: q.get('status'), ...parseSearch(q.get('q') ?? '') };
    if (q.get('from')) Object.assign(f, { from: q.get('from'), to: q.get('to') });
    else if (q.get('last')) f.duration = q.get('last');
    return query({ limit: 500, ...f });
  }

  async #read(quiet = false) {
    const turn = ++this.#turn;
    this.asked = this.#filter();
    if (!quiet) this.rows = null;
    const read = async (signal) => {
      const page = await api('/api/v1/flows' + this.asked, { signal });
      if (turn !== this.#turn) return;
      this.rows = page.items;
      this.next = page.next ?? '';
    };
    if (quiet) await read(this.signal).then(() => this.update(), () => {});
    else {
      await this.load(read);
      this.#openAsked();
    }
  }

  async #end() {
    if (!this.next || this.#more || this.rows.length > 50_000) return;
    this.#more = true;
    const turn = this.#turn;
    try {
      const page = await api(`/api/v1/flows${this.asked}&cursor=${this.next}`, { signal: this.signal });
      if (turn === this.#turn) {
        this.rows = [...this.rows, ...page.items];
        this.next = page.next ?? '';
        this.update();
      }
    } catch { /* the next scroll asks again */ }
    this.#more = false;
  }

  /** A flow that the address names is opened. */
  async #openAsked() {
    const key = this.query.get('flow'), site = this.query.get('at_site');
    if (key === this.#shownFlow) return;
    this.#shownFlow = key ?? '';
    if (!key) return;
    const have = this.rows?.find((f) => f.flow_key === key && (!site || f.site === site));
    const { showFlow } = await import('../elements/flow.js');
    const d = showFlow(have, key, site, () => this.#read());
    d.done.then(() => { if (this.isConnected) { this.#shownFlow = ''; setParams({ flow: null, at_site: null }); } });
  }

  render() {
    const q = this.query;
    const filtered = ['q', 'site', 'path', 'policy', 'status', 'from', 'last'].some((k) => q.get(k));
    const sites = [...fleet.sites.values()];
    const policies = [...new Set((this.rows ?? []).map((f) => f.policy).filter(Boolean))].map((p) => [p.split('/').slice(1).join('~'), policyName(p)]);
    if (q.get('policy') && !policies.some(([id]) => id === q.get('policy'))) policies.push([q.get('policy'), q.get('policy').replace('~', '/')]);
    const paths = [...new Set((this.rows ?? []).map((f) => f.path_id).filter(Boolean))].sort();
    if (q.get('path') && !paths.includes(q.get('path'))) paths.push(q.get('path'));
    return [
      head(t('Flows'), null, q.get('from') || q.get('last') ? [rangePicker(), h('button.btn', { type: 'button', on: { click: () => setParams({ from: null, to: null, last: null }) } }, t('Newest'))] : h('button.btn', { type: 'button', on: { click: () => setParams({ last: '1h' }) } }, icon('calendar-clock'), t('Look at a time'))),
      h('div.row', { key: 'f', class: 'mb-4' },
        search(q.get('q') ?? '', t('IP, port or protocol: 10.1.0.0/16 port:443 tcp'), this.#typed),
        choose(t('Status'), q.get('status') ?? '', [['', t('Any status')], ['active', t('Active')], ['blocked', t('Blocked')], ['ended', t('Ended')]], (v) => setParams({ status: v })),
        sites.length > 0 && sites.length <= 200 && choose(t('Site'), q.get('site') ?? '', [['', t('All sites')], ...sites.map((s) => [s.id, siteName(s)])], (v) => setParams({ site: v })),
        choose(t('Policy'), q.get('policy') ?? '', [['', t('Any policy')], ...policies], (v) => setParams({ policy: v })),
        choose(t('Path'), q.get('path') ?? '', [['', t('Any path')], ...paths.map((p) => [p, pathName(p)])], (v) => setParams({ path: v })),
        filtered && h('button.btn.quiet', { type: 'button', on: { click: () => setParams({ q: null, site: null, path: null, policy: null, status: null, from: null, to: null, last: null }) } }, icon('x'), t('Clear'))),
      this.error ? failed(this.error, () => this.#read()) : !this.rows ? skeleton(10) :
        !this.rows.length ? h('div.card', { key: 'none' }, filtered ? empty('search-x', t('No flow fits'), t('Change or clear the filters.')) : empty('arrow-left-right', t('No flows yet'), t('As soon as a host behind one site speaks to one behind another, the conversation appears here.'))) :
          h('div.card', { key: 't' }, h('p-table', {
            '.name': 'flows', '.label': t('Flows'), '.columns': this.columns, '.rows': this.rows, '.rowKey': (f) => `${f.site}/${f.flow_key}/${f.created_at}`, '.more': () => this.#end(),
            '.count': this.next ? t('{n} rows, more below', { n: number(this.rows.length) }) : t('{n} rows', { n: number(this.rows.length) }),
            '.sort': q.get('sort') ? { id: q.get('sort'), down: q.get('down') === '1' } : null, '.onsort': (s) => setParams({ sort: s.id, down: s.down ? 1 : null }),
            '.onopen': (f) => setParams({ flow: f.flow_key, at_site: f.site }, { push: true }), '.oncsv': () => this.#csv(),
          })),
    ];
  }

  #csv() {
    h('a', { href: `/api/v1/flows${this.asked.replace('limit=500', 'format=csv')}`, download: 'flows.csv' }).click();
  }
}
customElements.define('page-flows', Flows);

