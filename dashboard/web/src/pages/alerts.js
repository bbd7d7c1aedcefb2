// What calls for a person now, what did, and who has taken it.
import { h, icon } from '../core/dom.js';
import { t, number } from '../core/text.js';
import { api, query } from '../core/api.js';
import { fleet } from '../core/fleet.js';
import { absolute, known, pathName } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { go, setParams } from '../core/router.js';
import { everywhere, may } from '../core/session.js';
import { choose, debounce, search, severity, when } from '../elements/bits.js';
import { done, openDialog, wrong } from '../elements/dialog.js';
import '../elements/table.js';

const rank = { critical: 0, warning: 1, info: 2 };

/** What an alert is about, as people call it. */
export function alertTarget(a) { return a.target.includes('~') && a.target.includes('.') ? pathName(a.target) : a.target; }

function link(a) {
  if (a.condition === 'PolicyViolation') return '/policies/' + a.target;
  return a.condition === 'SiteUnreachable' ? '/sites/' + a.target : `/metrics?site=${a.site_id}&path=${a.target}`;
}

/** What the fabric did about it, in a sentence. */
function did(a) {
  if (a.condition === 'PolicyViolation') return t('The flows were blocked.');
  if (a.condition === 'SiteUnreachable') return t('Its own traffic follows its last good configuration.');
  const p = fleet.paths.get(a.target);
  if (!p) return '';
  const well = (fleet.pathsOf.get(p.source.id) ?? []).find((q) => q.source.id === p.source.id && q.destination.id === p.destination.id && q.id !== p.id && q.status === 'up');
  return well ? t('Flows go by {path} instead.', { path: pathName(well.id) }) : t('No other path between them is up.');
}

export default class Alerts extends Page {
  rows = null;
  total = 0;
  #turn = 0;
  #typed = debounce((v) => setParams({ q: v }), 150);
  columns = [
    { id: 'severity', title: t('Severity'), width: '110px', fixed: true, value: (a) => rank[a.severity], csv: (a) => a.severity, cell: (a) => severity(a.severity) },
    { id: 'name', title: t('Alert'), width: 'minmax(160px, 1fr)', fixed: true, value: (a) => a.name, cell: (a) => h('span', { title: a.name }, a.name) },
    { id: 'target', title: t('About'), width: 'minmax(220px, 2fr)', value: (a) => a.target, cell: (a) => h('span', { title: a.target }, alertTarget(a)) },
    { id: 'since', title: t('Since'), width: '130px', value: (a) => a.since, cell: (a) => when(a.since) },
    { id: 'state', title: t('State'), width: '170px', value: (a) => a.state, cell: (a) => this.#state(a) },
    { id: 'did', title: t('What the fabric did'), width: 'minmax(220px, 2fr)', value: did, cell: (a) => h('span.muted', { title: did(a) }, did(a)) },
    { id: 'ack', title: t('Taken by'), width: '150px', value: (a) => a.acknowledged?.by ?? '', cell: (a) => (a.acknowledged ? h('span', { title: absolute(a.acknowledged.at) }, a.acknowledged.by) : a.state !== 'resolved' && may('manage_alerts') ? h('button.btn.small', { type: 'button', 'aria-label': t('Acknowledge: {what}', { what: `${a.name} ${a.target}` }), on: { click: (e) => { e.stopPropagation(); this.#acknowledge(a); } } }, t('Acknowledge')) : '') },
  ];

  start() {
    fleet.follow(() => this.rows && this.update(), this.signal);
    fleet.addEventListener('happened', ({ detail: e }) => { if (e.event_type.startsWith('alert_')) this.#read(true); }, { signal: this.signal });
    const timer = setInterval(() => !document.hidden && !fleet.paused && this.#read(true), 10_000);
    this.signal.addEventListener('abort', () => clearInterval(timer));
    this.#read();
  }

  queried() { if (this.#filter() !== this.asked) this.#read(); }

  #filter() {
    const q = this.query;
    return query({ limit: 1000, state: q.get('state'), severity: q.get('severity'), site: q.get('site'), rule: q.get('rule') });
  }

  async #read(quiet = false) {
    const turn = ++this.#turn;
    this.asked = this.#filter();
    const read = async (signal) => {
      const page = await api('/api/v1/alerts' + this.asked, { signal });
      if (turn !== this.#turn) return;
      this.rows = page.items;
      this.total = page.total;
    };
    if (quiet) return read(this.signal).then(() => { this.error = null; this.update(); }, () => {});
    this.rows = null;
    return this.load(read);
  }

  #state(a) {
    if (a.state === 'resolved') return h('span', { title: known(a.resolved_at) ? absolute(a.resolved_at) : '' }, t('over: {why}', { why: t(a.why) }));
    if (a.muted_by) return h('span.tag', null, t('silenced'));
    return a.state === 'pending' ? h('span.muted', null, t('about to fire')) : t('firing');
  }

  async #acknowledge(a) {
    try {
      await api(`/api/v1/alerts/${a.id}/acknowledge`, { method: 'POST', json: {} });
      done(t('Acknowledged.'));
      this.#read(true);
    } catch (err) { wrong(err); }
  }

  async #silence(a, minutes, comment, close) {
    try {
      const m = await api('/api/v1/alerts/silences', { method: 'POST', json: { rule_id: a.rule_id, target: a.target, minutes, comment } });
      close();
      done(t('Silenced.'), async () => { await api(`/api/v1/alerts/silences/${m.id}/end`, { method: 'POST' }).catch(wrong); this.#read(true); });
      this.#read(true);
    } catch (err) { wrong(err); }
  }

  #open(a) {
    let minutes = 60, comment = '';
    const mute = a.state !== 'resolved' && may('manage_alerts') && everywhere();
    openDialog({
      title: `${a.name}: ${alertTarget(a)}`,
      body: (close) => [h('dl.facts', null, h('dt', null, t('Severity')), h('dd', null, severity(a.severity)), h('dt', null, t('Since')), h('dd', null, absolute(a.since)), a.resolved_at && [h('dt', null, t('Over')), h('dd', null, absolute(a.resolved_at))], h('dt', null, t('What the fabric did')), h('dd', null, did(a)), a.acknowledged && [h('dt', null, t('Taken by')), h('dd', null, `${a.acknowledged.by} ${a.acknowledged.note ?? ''}`)]),
        mute && h('form', { class: 'grid gap-3', on: { submit: (e) => { e.preventDefault(); this.#silence(a, minutes, comment, close); } } },
          h('h3', null, t('Silence it')),
          h('div.row', null, choose(t('For'), String(minutes), [['30', t('30 minutes')], ['60', t('1 hour')], ['480', t('8 hours')], ['1440', t('1 day')]], (v) => { minutes = Number(v); }),
            h('input.input', { required: true, maxlength: 200, 'aria-label': t('Why'), placeholder: t('Why'), on: { input: (e) => { comment = e.target.value; } } }),
            h('button.btn', { type: 'submit' }, icon('bell'), t('Silence'))))],
      footer: (close) => [h('a.btn', { href: '/help/alerts', on: { click: () => close() } }, icon('book-open'), t('What to do')), h('button.btn', { type: 'button', on: { click: () => { close(); go(link(a)); } } }, t('Show it'), icon('arrow-right')), h('button.btn.primary', { type: 'button', on: { click: () => close() } }, t('Close'))],
    });
  }

  render() {
    const q = this.query;
    const over = q.get('state') === 'resolved';
    const want = (q.get('q') ?? '').toLowerCase();
    const rows = this.rows?.filter((a) => !want || `${a.name} ${a.target} ${a.site_id ?? ''}`.toLowerCase().includes(want));
    return [
      head(t('Alerts'), t('What calls for a person, since when, and what the fabric did about it.'), h('a.btn', { href: '/alerts/rules' }, icon('sliders-horizontal'), t('Rules and channels'))),
      h('div.row', { key: 'f', class: 'mb-4' }, search(q.get('q') ?? '', t('Name, path or site'), this.#typed),
        choose(t('State'), over ? 'resolved' : '', [['', t('Firing')], ['resolved', t('Over')]], (v) => setParams({ state: v })),
        choose(t('Severity'), q.get('severity') ?? '', [['', t('Any severity')], ['critical', t('critical')], ['warning', t('warning')], ['info', t('info')]], (v) => setParams({ severity: v }))),
      this.error ? failed(this.error, () => this.#read()) : !rows ? skeleton(8) : !rows.length ? h('div.card', { key: 'none' }, want || q.get('severity') ? empty('search-x', t('No alert fits'), t('Change or clear the filters.')) : empty('bell', over ? t('Nothing has fired yet') : t('Nothing is firing'), t('Rules judge every path and site every two seconds.'))) :
        h('div.card', { key: 't' }, h('p-table', { '.name': 'alerts', '.label': t('Alerts'), '.columns': this.columns, '.rows': rows, '.rowKey': (a) => a.id, '.count': this.total > this.rows.length ? t('{n} of {total} alerts', { n: number(rows.length), total: number(this.total) }) : t('{n} alerts', { n: number(rows.length) }), '.sort': q.get('sort') ? { id: q.get('sort'), down: q.get('down') === '1' } : null, '.onsort': (s) => setParams({ sort: s.id, down: s.down ? 1 : null }), '.onopen': (a) => this.#open(a) })),
    ];
  }
}
customElements.define('page-alerts', Alerts);
