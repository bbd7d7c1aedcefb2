// Everything that happened, the newest first, and live.
import { h, icon } from '../core/dom.js';
import { t, number } from '../core/text.js';
import { api, query } from '../core/api.js';
import { fleet } from '../core/fleet.js';
import { absolute, known } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { go, setParams } from '../core/router.js';
import { may } from '../core/session.js';
import { choose, debounce, search, severity, when } from '../elements/bits.js';
import { done, openDialog, wrong } from '../elements/dialog.js';
import { eventLink, eventText } from '../elements/event.js';
import { rangePicker } from '../elements/range.js';
import '../elements/table.js';

const types = ['alert_firing', 'alert_resolved', 'path_status_change', 'site_joined', 'site_unreachable', 'site_reachable', 'uplink_carrier', 'policy_block', 'configuration_change', 'revision_applied'];
const rank = { critical: 0, warning: 1, info: 2 };

export default class Events extends Page {
  rows = null;
  next = '';
  #turn = 0;
  #more = false;
  #typed = debounce((v) => setParams({ q: v }), 150);
  columns = [
    { id: 'at', title: t('When'), width: '130px', fixed: true, value: (e) => e.timestamp, cell: (e) => when(e.timestamp) },
    { id: 'severity', title: t('Severity'), width: '110px', value: (e) => rank[e.severity], csv: (e) => e.severity, cell: (e) => severity(e.severity) },
    { id: 'text', title: t('What'), width: 'minmax(320px, 3fr)', fixed: true, value: eventText, cell: (e) => h('span', { title: eventText(e) }, eventText(e)) },
    { id: 'type', title: t('Type'), width: '180px', value: (e) => e.event_type, cell: (e) => h('span.muted', null, e.event_type.replaceAll('_', ' ')) },
    { id: 'site', title: t('Site'), width: '130px', value: (e) => e.site_id ?? '', cell: (e) => e.site_id ?? '' },
    { id: 'ack', title: t('Seen by'), width: '150px', value: (e) => e.acknowledged_by ?? '', cell: (e) => (e.acknowledged ? h('span', { title: known(e.acknowledged_at) ? absolute(e.acknowledged_at) : '' }, e.acknowledged_by) : may('manage_alerts') && !e.fresh ? h('button.btn.small', { type: 'button', 'aria-label': t('Acknowledge: {what}', { what: eventText(e) }), on: { click: () => this.#acknowledge(e) } }, t('Acknowledge')) : '') },
  ];

  start() {
    fleet.follow(() => {}, this.signal);
    fleet.addEventListener('happened', ({ detail }) => { if (this.rows && !this.#past() && this.#fits(detail)) { this.rows = [detail, ...this.rows]; this.update(); } }, { signal: this.signal });
    this.#read();
  }

  #past() { return Boolean(this.query.get('from')); }

  #fits(e) {
    const q = this.query;
    return (!q.get('type') || e.event_type === q.get('type')) && (!q.get('severity') || e.severity === q.get('severity')) && (!q.get('site') || e.site_id === q.get('site')) && q.get('ack') !== 'true';
  }

  queried() { if (this.#filter() !== this.asked) this.#read(); }

  #filter() {
    const q = this.query;
    return query({ limit: 200, type: q.get('type'), severity: q.get('severity'), site: q.get('site'), source: q.get('source'), acknowledged: q.get('ack'), from: q.get('from'), to: q.get('to'), duration: !q.get('from') && q.get('last') });
  }

  async #read() {
    const turn = ++this.#turn;
    this.asked = this.#filter();
    this.rows = null;
    await this.load(async (signal) => {
      const page = await api('/api/v1/events' + this.asked, { signal });
      if (turn !== this.#turn) return;
      this.rows = page.items;
      this.next = page.next ?? '';
    });
  }

  async #end() {
    if (!this.next || this.#more) return;
    this.#more = true;
    try {
      const page = await api(`/api/v1/events${this.asked}&cursor=${this.next}`, { signal: this.signal });
      this.rows = [...this.rows, ...page.items];
      this.next = page.next ?? '';
      this.update();
    } catch { /* the next scroll asks again */ }
    this.#more = false;
  }

  async #acknowledge(e) {
    try {
      Object.assign(e, await api(`/api/v1/events/${e.id}/acknowledge`, { method: 'POST' }));
      this.rows = [...this.rows];
      this.update();
      done(t('Acknowledged.'));
    } catch (err) { wrong(err); }
  }

  #open(e) {
    const link = eventLink(e);
    openDialog({
      title: eventText(e),
      body: () => [h('dl.facts', null, h('dt', null, t('When')), h('dd', null, absolute(e.timestamp)), h('dt', null, t('Severity')), h('dd', null, severity(e.severity)), h('dt', null, t('Type')), h('dd', null, e.event_type), e.site_id && [h('dt', null, t('Site')), h('dd', null, h('a', { href: '/sites/' + e.site_id }, e.site_id))], e.source_id && [h('dt', null, t('About')), h('dd', null, e.source_id)]),
        h('pre.diff', { class: 'p-3', tabindex: '0' }, JSON.stringify(e.data ?? {}, null, 2))],
      footer: (close) => [link && h('button.btn', { type: 'button', on: { click: () => { close(); go(link); } } }, t('Show it'), icon('arrow-right')), h('button.btn.primary', { type: 'button', on: { click: () => close() } }, t('Close'))],
    });
  }

  render() {
    const q = this.query;
    const want = (q.get('q') ?? '').toLowerCase();
    const rows = this.rows && (want ? this.rows.filter((e) => `${eventText(e)} ${e.event_type} ${e.site_id ?? ''}`.toLowerCase().includes(want)) : this.rows);
    const filtered = ['q', 'type', 'severity', 'site', 'source', 'ack', 'from', 'last'].some((k) => q.get(k));
    return [
      head(t('Events'), null, q.get('from') || q.get('last') ? [rangePicker(), h('button.btn', { type: 'button', on: { click: () => setParams({ from: null, to: null, last: null }) } }, t('Newest'))] : h('button.btn', { type: 'button', on: { click: () => setParams({ last: '24h' }) } }, icon('calendar-clock'), t('Look at a time'))),
      h('div.row', { key: 'f', class: 'mb-4' }, search(q.get('q') ?? '', t('Text in what is loaded'), this.#typed),
        choose(t('Severity'), q.get('severity') ?? '', [['', t('Any severity')], ['critical', t('critical')], ['warning', t('warning')], ['info', t('info')]], (v) => setParams({ severity: v })),
        choose(t('Type'), q.get('type') ?? '', [['', t('Any type')], ...types.map((x) => [x, x.replaceAll('_', ' ')])], (v) => setParams({ type: v })),
        choose(t('Acknowledged'), q.get('ack') ?? '', [['', t('Seen or not')], ['false', t('Not acknowledged')], ['true', t('Acknowledged')]], (v) => setParams({ ack: v })),
        q.get('site') && h('button.btn', { type: 'button', on: { click: () => setParams({ site: null }) } }, icon('x'), t('Only {site}', { site: q.get('site') }))),
      this.error ? failed(this.error, () => this.#read()) : !rows ? skeleton(10) : !rows.length ? h('div.card', { key: 'none' }, filtered ? empty('search-x', t('No event fits'), t('Change or clear the filters.')) : empty('bell', t('Nothing happened yet'), t('Changes of paths, sites and policies appear here the moment they happen.'))) :
        h('div.card', { key: 't' }, h('p-table', { '.name': 'events', '.label': t('Events'), '.columns': this.columns, '.rows': rows, '.rowKey': (e) => e.id, '.more': () => this.#end(), '.count': this.next ? t('{n} rows, more below', { n: number(rows.length) }) : t('{n} rows', { n: number(rows.length) }), '.sort': q.get('sort') ? { id: q.get('sort'), down: q.get('down') === '1' } : null, '.onsort': (s) => setParams({ sort: s.id, down: s.down ? 1 : null }), '.onopen': (e) => this.#open(e) })),
    ];
  }
}
customElements.define('page-events', Events);
