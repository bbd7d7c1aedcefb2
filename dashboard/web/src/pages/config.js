// The revisions of the configuration: who made which, what it changed, how far
// it has got; and what all of the fabric shares.
import { h, icon } from '../core/dom.js';
import { t } from '../core/text.js';
import { api } from '../core/api.js';
import { fleet } from '../core/fleet.js';
import { absolute } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { setParams } from '../core/router.js';
import { may } from '../core/session.js';
import { when } from '../elements/bits.js';
import { confirmed, done, wrong } from '../elements/dialog.js';
import { diff, pretty } from '../elements/diff.js';
import '../elements/table.js';

export default class Config extends Page {
  rows = null;
  picked = null;
  change = null;
  nodes = null;
  routing = [];
  #turn = 0;
  columns = [
    { id: 'revision', title: t('Revision'), width: '100px', end: true, fixed: true, value: (r) => r.revision, cell: (r) => h('b', null, r.revision) },
    { id: 'at', title: t('When'), width: '130px', value: (r) => r.at, cell: (r) => when(r.at) },
    { id: 'user', title: t('Who'), width: '140px', value: (r) => r.user, cell: (r) => r.user },
    { id: 'what', title: t('What'), width: 'minmax(240px, 2fr)', fixed: true, value: (r) => `${r.action} ${r.resource_id ?? ''}`, cell: (r) => [r.action.replaceAll('_', ' '), ' ', h('b', null, r.resource_id ?? '')] },
  ];

  start() {
    fleet.follow(() => this.update(), this.signal);
    fleet.addEventListener('happened', ({ detail: e }) => { if (e.event_type === 'configuration_change') this.#read(true); }, { signal: this.signal });
    const timer = setInterval(() => this.picked && this.picked.applied < this.picked.sites && !document.hidden && this.#pick(this.picked.revision, true), 5000);
    this.signal.addEventListener('abort', () => clearInterval(timer));
    this.#read();
  }

  queried() { this.#pick(Number(this.query.get('revision')) || this.rows?.[0]?.revision); }

  async #read(quiet = false) {
    const read = async (signal) => {
      const page = await api('/api/v1/revisions?limit=500', { signal });
      this.rows = page.items;
      this.nodes = await api('/api/v1/nodes', { signal }).then((p) => p.items, () => null);
      this.routing = await api('/api/v1/routing-policies', { signal }).then((p) => p.items, () => []);
    };
    if (quiet) await read(this.signal).catch(() => {});
    else await this.load(read);
    if (this.rows?.length) await this.#pick(Number(this.query.get('revision')) || this.rows[0].revision);
  }

  async #pick(number, quiet = false) {
    if (!number) return;
    const turn = ++this.#turn;
    if (!quiet && this.picked?.revision !== number) this.change = null;
    try {
      const picked = await api('/api/v1/revisions/' + number, { signal: this.signal });
      if (turn !== this.#turn) return;
      this.picked = picked;
      if (may('view_audit') && !this.change) {
        const at = new Date(picked.at);
        const near = await api(`/api/v1/audit?limit=50&action=${picked.action}&from=${new Date(at - 1000).toISOString()}&to=${new Date(+at + 1000).toISOString()}`, { signal: this.signal }).then((p) => p.items, () => []);
        this.change = near.find((a) => (a.resource_id ?? '') === (picked.resource_id ?? ''))?.changes ?? { before: null, after: null };
      }
    } catch (err) { if (err.name !== 'AbortError') this.picked = null; }
    this.update();
  }

  async #node(n, promote) {
    const yes = await confirmed({
      title: promote ? t('Make {site} a dashboard', { site: n.site }) : t('Take the dashboard role from {site}', { site: n.site }), action: promote ? t('Promote') : t('Demote'), danger: !promote, name: promote ? undefined : n.site,
      text: promote ? t('It then collects the metrics of every site and serves these pages too.') : t('Its pages stop; its traffic goes on.'),
    });
    if (!yes) return;
    try {
      await api(`/api/v1/nodes/${n.id}/${promote ? 'promote' : 'demote'}`, { method: 'POST' });
      done(promote ? t('{site} is being promoted.', { site: n.site }) : t('{site} is being demoted.', { site: n.site }));
      this.#read(true);
    } catch (err) { wrong(err); }
  }

  render() {
    if (this.error) return [head(t('Configuration')), failed(this.error, () => this.#read())];
    if (!this.rows) return [head(t('Configuration')), skeleton(8)];
    const tab = this.query.get('tab') ?? 'revisions';
    const tabs = [['revisions', t('Revisions')], ['settings', t('Thresholds and timers')], ...(this.nodes ? [['nodes', t('Appliances')]] : [])];
    return [
      head(t('Configuration'), t('Every change makes a numbered revision, which each site checks, applies and confirms by itself.')),
      h('div.card', { key: 'c' },
        h('div.tabs', { role: 'tablist', 'aria-label': t('Configuration') }, tabs.map(([id, text]) => h('button', { key: id, type: 'button', role: 'tab', id: 'tab-' + id, 'aria-selected': String(tab === id), on: { click: () => setParams({ tab: id === 'revisions' ? null : id }) } }, text))),
        h('div', { key: tab, role: 'tabpanel', 'aria-labelledby': 'tab-' + tab }, tab === 'nodes' ? this.#nodes() : tab === 'settings' ? this.#settings() : this.#revisions())),
    ];
  }

  #revisions() {
    if (!this.rows.length) return empty('git-commit-horizontal', t('No revisions yet'), t('The first change makes the first one.'));
    const r = this.picked;
    return h('div', { class: 'grid lg:grid-cols-2' },
      h('div', { class: 'lg:border-r border-line min-w-0' }, h('p-table', { '.name': 'revisions', '.label': t('Revisions'), '.columns': this.columns, '.rows': this.rows, '.rowKey': (x) => String(x.revision), '.selected': r && String(r.revision), '.onopen': (x) => setParams({ revision: x.revision }) })),
      h('div', { class: 'p-4 grid gap-4 content-start min-w-0', 'aria-live': 'polite' }, !r ? skeleton(4) : [
        h('h2', null, t('Revision {n}', { n: r.revision })),
        h('dl.facts', null, h('dt', null, t('What')), h('dd', null, r.action.replaceAll('_', ' '), ' ', r.resource_id ?? ''), h('dt', null, t('Who')), h('dd', null, r.user), h('dt', null, t('When')), h('dd', null, absolute(r.at))),
        h('div', { class: 'grid gap-2' }, h('div.row', null, h('b', null, t('{applied} of {sites} sites have applied it', { applied: r.applied, sites: r.sites })), r.applied >= r.sites && h('span.tag.ok', null, t('everywhere'))), h('div.meter', { role: 'progressbar', 'aria-label': t('Rollout'), 'aria-valuenow': r.applied, 'aria-valuemin': 0, 'aria-valuemax': r.sites, style: { '--w': `${r.sites ? 100 * r.applied / r.sites : 0}%` } }, h('i')),
          r.failed?.length > 0 && h('ul', { class: 'grid gap-1' }, r.failed.map((f) => h('li.wrong', { key: f.site }, h('a', { href: '/sites/' + f.site }, f.site), ': ', f.why))),
          r.pending?.length > 0 && h('p.muted', null, t('Waiting for {sites}', { sites: r.pending.slice(0, 12).join(', ') + (r.pending.length > 12 ? ' …' : '') }))),
        this.change && (this.change.before != null || this.change.after != null) ? h('div', { class: 'grid gap-2' }, h('h3', null, t('What it changed')), this.change.before?.spec != null || this.change.after?.spec != null ? diff(this.change.before?.spec ?? '', this.change.after?.spec ?? '') : diff(pretty(this.change.before), pretty(this.change.after))) : !may('view_audit') && h('p.muted', null, t('What it changed in detail is in the audit log, which your role does not show.')),
        h('div.row', null, h('a.btn', { href: `/metrics?from=${new Date(Date.parse(r.at) - 15 * 60e3).toISOString()}&to=${new Date(Math.min(Date.now(), Date.parse(r.at) + 15 * 60e3)).toISOString()}` }, icon('chart-line'), t('Metrics around it'))),
      ]));
  }

  /** What each traffic class asks of a path: the thresholds of quality. */
  #settings() {
    if (!this.routing.length) return empty('sliders-horizontal', t('No classes are configured'), t('All traffic is in the default class, with the thresholds that come with the product.'));
    return h('div.plain-list', null, this.routing.map((r) => h('div', { key: r.id, class: 'grid gap-2 !items-start !grid-cols-1', style: { display: 'grid' } }, h('b', null, r.id), h('dl.facts', null, Object.entries(r).filter(([k, v]) => !['id', 'position', 'name'].includes(k) && v != null && v !== '' && v !== 0).map(([k, v]) => [h('dt', { key: k }, k.replaceAll('_', ' ')), h('dd.mono', null, typeof v === 'object' ? JSON.stringify(v) : String(v))])))));
  }

  #nodes() {
    if (!this.nodes.length) return empty('server', t('No appliances yet'), '');
    return h('div.plain-list', null, this.nodes.map((n) => h('div', { key: n.id }, h('b', null, n.site), h('span.tag', { class: n.role === 'dashboard' ? 'accent' : '' }, n.role), n.self && h('span.muted', null, t('this one')), h('span.grow.muted', null, n.version ?? ''), n.seen_at && when(n.seen_at),
      may('manage_nodes') && !n.self && h('button.btn.small', { type: 'button', on: { click: () => this.#node(n, n.role !== 'dashboard') } }, n.role === 'dashboard' ? t('Demote') : t('Promote')))));
  }
}
customElements.define('page-config', Config);

