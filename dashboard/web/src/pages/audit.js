// Who did what, and what it changed.
import { h, icon } from '../core/dom.js';
import { t, number } from '../core/text.js';
import { api, query } from '../core/api.js';
import { absolute } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { setParams } from '../core/router.js';
import { debounce, search, when } from '../elements/bits.js';
import { openDialog, wrong, done } from '../elements/dialog.js';
import { diff, pretty } from '../elements/diff.js';
import { rangePicker, range } from '../elements/range.js';
import '../elements/table.js';

export default class Audit extends Page {
  rows = null;
  next = '';
  #more = false;
  #turn = 0;
  #typed = debounce((v) => setParams({ q: v }), 150);
  columns = [
    { id: 'at', title: t('When'), width: '130px', fixed: true, value: (a) => a.timestamp, cell: (a) => when(a.timestamp) },
    { id: 'user', title: t('User'), width: '130px', fixed: true, value: (a) => a.user_id, cell: (a) => h('b', null, a.user_id || '–') },
    { id: 'action', title: t('Action'), width: 'minmax(160px, 1fr)', value: (a) => a.action, cell: (a) => a.action.replaceAll('_', ' ') },
    { id: 'what', title: t('On'), width: 'minmax(200px, 1.4fr)', value: (a) => `${a.resource_type} ${a.resource_id ?? ''}`, cell: (a) => [h('span.muted', null, a.resource_type.replaceAll('_', ' '), ' '), a.resource_id ?? ''] },
    { id: 'outcome', title: t('Outcome'), width: '110px', value: (a) => a.outcome, cell: (a) => h('span.tag', { class: a.outcome === 'ok' ? 'ok' : 'refused' }, a.outcome) },
    { id: 'ip', title: t('From'), width: '150px', value: (a) => a.ip_address ?? '', cell: (a) => h('span.num', null, a.ip_address ?? '') },
    { id: 'agent', title: t('Program'), width: '200px', hidden: true, value: (a) => a.user_agent ?? '', cell: (a) => a.user_agent ?? '' },
    { id: 'seq', title: t('Number'), width: '90px', end: true, hidden: true, value: (a) => a.seq, cell: (a) => a.seq },
  ];

  start() { this.#read(); }
  queried() { if (this.#filter() !== this.asked) this.#read(); }

  #filter() {
    const q = this.query;
    const r = (q.get('from') || q.get('last')) && range();
    return query({ newest: true, limit: 200, user: q.get('user'), action: q.get('action'), resource_type: q.get('type'), resource_id: q.get('id'), from: r && new Date(r.from).toISOString().slice(0, 17) + '00Z', to: r && !r.last && new Date(r.to).toISOString() });
  }

  async #read() {
    const turn = ++this.#turn;
    this.asked = this.#filter();
    this.rows = null;
    await this.load(async (signal) => {
      const page = await api('/api/v1/audit' + this.asked, { signal });
      if (turn !== this.#turn) return;
      this.rows = page.items;
      this.next = page.next ?? '';
    });
  }

  async #end() {
    if (!this.next || this.#more) return;
    this.#more = true;
    try {
      const page = await api(`/api/v1/audit${this.asked}&cursor=${this.next}`, { signal: this.signal });
      this.rows = [...this.rows, ...page.items];
      this.next = page.next ?? '';
      this.update();
    } catch { /* the next scroll asks again */ }
    this.#more = false;
  }

  async #verify() {
    try {
      const v = await api('/api/v1/audit/verify');
      if (v.intact) done(t('All {n} records are as they were written.', { n: number(v.records) }));
      else wrong(new Error(t('The log was altered: {why}', { why: v.why })));
    } catch (err) { wrong(err); }
  }

  #open(a) {
    const { before, after } = a.changes ?? {};
    openDialog({
      title: `${a.action.replaceAll('_', ' ')} ${a.resource_id ?? ''}`, wide: true,
      body: () => [h('dl.facts', null, h('dt', null, t('When')), h('dd', null, absolute(a.timestamp)), h('dt', null, t('User')), h('dd', null, a.user_id || '–'), h('dt', null, t('Outcome')), h('dd', null, a.outcome), h('dt', null, t('From')), h('dd.num', null, a.ip_address ?? '–'), h('dt', null, t('Program')), h('dd', null, a.user_agent ?? '–')),
        before == null && after == null ? h('p.muted', null, t('It changed nothing that is kept.')) : before?.spec != null || after?.spec != null ? diff(before?.spec ?? '', after?.spec ?? '') : diff(pretty(before), pretty(after))],
      footer: (close) => h('button.btn.primary', { type: 'button', on: { click: () => close() } }, t('Close')),
    });
  }

  render() {
    const q = this.query;
    const want = (q.get('q') ?? '').toLowerCase();
    const rows = this.rows?.filter((a) => !want || `${a.user_id} ${a.action} ${a.resource_type} ${a.resource_id ?? ''} ${a.ip_address ?? ''}`.toLowerCase().includes(want));
    return [
      head(t('Audit log'), t('Everything that people and programs did here. Records are chained: one that is altered or missing shows.'), q.get('from') || q.get('last') ? rangePicker() : h('button.btn', { type: 'button', on: { click: () => setParams({ last: '24h' }) } }, icon('calendar-clock'), t('Look at a time')), h('button.btn', { type: 'button', on: { click: () => this.#verify() } }, icon('link'), t('Check the chain'))),
      h('div.row', { key: 'f', class: 'mb-4' }, search(q.get('q') ?? '', t('User, action or thing, in what is loaded'), this.#typed)),
      this.error ? failed(this.error, () => this.#read()) : !rows ? skeleton(10) : !rows.length ? h('div.card', null, empty('scroll-text', t('Nothing fits'), t('No record fits these filters.'))) :
        h('div.card', { key: 't' }, h('p-table', { '.name': 'audit', '.label': t('Audit log'), '.columns': this.columns, '.rows': rows, '.rowKey': (a) => String(a.seq), '.more': () => this.#end(), '.sort': q.get('sort') ? { id: q.get('sort'), down: q.get('down') === '1' } : null, '.onsort': (s) => setParams({ sort: s.id, down: s.down ? 1 : null }), '.onopen': (a) => this.#open(a) })),
    ];
  }
}
customElements.define('page-audit', Audit);
