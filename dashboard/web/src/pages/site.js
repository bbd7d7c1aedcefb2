// One site: uplinks, paths, endpoints, what it has applied, and packets off it.
import { h, icon } from '../core/dom.js';
import { t, tn } from '../core/text.js';
import { all, api } from '../core/api.js';
import { fleet, siteName, worse } from '../core/fleet.js';
import { known, ms, none, pathName, pct, rate } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { go, setParams } from '../core/router.js';
import { may } from '../core/session.js';
import { at, severity, state, when } from '../elements/bits.js';
import { confirmed, done, openDialog, wrong } from '../elements/dialog.js';
import { eventText } from '../elements/event.js';
import { testPath } from '../elements/pathtest.js';
import { openCapture } from '../elements/capture.js';
import '../elements/table.js';

const rank = { down: 0, degraded: 1, unknown: 2, up: 3 };

export default class SitePage extends Page {
  endpoints = null;
  events = null;
  columns = [
    { id: 'status', title: t('State'), width: '120px', fixed: true, value: (p) => rank[p.status], csv: (p) => p.status, cell: (p) => state(p.status, p.reason) },
    { id: 'path', title: t('Path'), width: 'minmax(200px, 1.5fr)', fixed: true, value: (p) => p.id, cell: (p) => h('a', { href: `/metrics?site=${p.source.id}&path=${p.id}` }, pathName(p.id)) },
    { id: 'latency', title: t('Latency'), width: '100px', end: true, value: (p) => p.metrics?.latency_ms, cell: (p) => ms(p.metrics?.latency_ms) },
    { id: 'jitter', title: t('Jitter'), width: '100px', end: true, value: (p) => p.metrics?.jitter_ms, cell: (p) => ms(p.metrics?.jitter_ms) },
    { id: 'loss', title: t('Loss'), width: '90px', end: true, value: (p) => p.metrics?.packet_loss_pct, cell: (p) => pct(p.metrics?.packet_loss_pct) },
    { id: 'bandwidth', title: t('Bandwidth'), width: '120px', end: true, value: (p) => p.metrics?.bandwidth_mbps, cell: (p) => rate(p.metrics?.bandwidth_mbps) },
    { id: 'score', title: t('Score'), width: '80px', end: true, value: (p) => p.metrics?.score, cell: (p) => p.metrics?.score ?? none },
    { id: 'mtu', title: t('MTU'), width: '80px', end: true, hidden: true, value: (p) => p.mtu, cell: (p) => p.mtu ?? none },
    { id: 'since', title: t('Since'), width: '120px', value: (p) => p.since ?? '', cell: (p) => when(p.since) },
    { id: 'why', title: t('Why'), width: 'minmax(110px, 1fr)', value: (p) => p.reason ?? '', cell: (p) => h('span.muted', { title: p.reason }, p.reason ?? '') },
    ...(may('test_paths') ? [{ id: 'test', title: t('Test'), width: '84px', cell: (p) => h('button.btn.small', { type: 'button', 'aria-label': t('Test {path}', { path: pathName(p.id) }), on: { click: () => testPath(p) } }, t('Test')) }] : []),
  ];

  start() {
    fleet.follow(() => this.update(), this.signal);
    this.#more();
  }

  async #more() {
    if (may('view_policies')) this.endpoints = await all(`/api/v1/endpoints?site=${this.params.id}`, { signal: this.signal }).catch(() => []);
    if (may('view_events')) this.events = await api(`/api/v1/events?site=${this.params.id}&limit=10`, { signal: this.signal }).then((p) => p.items).catch(() => []);
    this.update();
  }

  async #remove(s) {
    const yes = await confirmed({
      title: t('Remove {site}', { site: siteName(s) }), name: s.id, action: t('Remove the site'),
      text: tn(s.paths.total, 'Every other site forgets it within seconds. {n} path and the traffic over it end.', 'Every other site forgets it within seconds. {n} paths and the traffic over them end.'),
    });
    if (!yes) return;
    try {
      const { tag } = await api('/api/v1/sites/' + s.id, { tagged: true });
      await api('/api/v1/sites/' + s.id, { method: 'DELETE', headers: { 'If-Match': tag } });
      done(t('{site} is removed.', { site: siteName(s) }));
      fleet.load();
      go('/sites');
    } catch (err) { wrong(err); }
  }

  async #edit(s) {
    const { body, tag } = await api('/api/v1/sites/' + s.id, { tagged: true });
    const d = openDialog({
      title: t('Edit {site}', { site: siteName(s) }),
      body: () => h('form', { id: 'edit', class: 'grid gap-3', on: { submit: async (e) => {
        e.preventDefault();
        const f = new FormData(e.target);
        const labels = Object.fromEntries(f.get('labels').split('\n').map((l) => l.trim()).filter(Boolean).map((l) => { const i = l.indexOf('='); return i < 0 ? [l, ''] : [l.slice(0, i).trim(), l.slice(i + 1).trim()]; }));
        try {
          await api('/api/v1/sites/' + s.id, { method: 'PUT', headers: { 'If-Match': tag }, json: {
            name: s.id, labels, address: body.address || undefined,
            prefixes: f.get('prefixes').split(/[\s,]+/).filter(Boolean), uplinks: body.uplinks.map((u) => ({ name: u.name, public_key: u.public_key, endpoints: u.endpoints })),
          } });
          d.close();
          done(t('{site} is changed.', { site: siteName(s) }));
          fleet.load();
        } catch (err) { wrong(err); }
      } } },
      h('label.field', null, t('Prefixes'), h('input.input', { name: 'prefixes', value: body.prefixes.join(', ') }), h('span.hint', null, t('Networks behind this site, separated by commas'))),
      h('label.field', null, t('Labels'), h('textarea.input.mono', { name: 'labels', rows: 4 }, Object.entries(body.labels).map((e) => e.join('=')).join('\n')), h('span.hint', null, t('One name=value on each line; scopes of users select sites by them')))),
      footer: (close) => [h('button.btn', { type: 'button', on: { click: () => close() } }, t('Cancel')), h('button.btn.primary', { type: 'submit', form: 'edit' }, t('Save'))],
    });
  }

  render() {
    const s = fleet.sites.get(this.params.id);
    if (!fleet.loadedAt && fleet.error) return failed(fleet.error, () => fleet.load());
    if (!fleet.loadedAt) return skeleton(8);
    if (!s) return empty('map', t('There is no site called {id}', { id: this.params.id }), t('It may have been removed.'), h('a.btn', { href: '/sites' }, t('All sites')));
    document.title = `${siteName(s)} · Patronus`;
    const own = (fleet.pathsOf.get(s.id) ?? []).filter((p) => p.source.id === s.id).sort((a, b) => worse(a.status, b.status));
    const tab = this.query.get('tab') ?? 'paths';
    const tabs = [['paths', t('Paths ({n})', { n: own.length })], ['uplinks', t('Uplinks ({n})', { n: s.uplinks.length })], ...(may('view_policies') ? [['endpoints', t('Host endpoints ({n})', { n: this.endpoints?.length ?? '…' })]] : []), ...(may('view_events') ? [['events', t('Events')]] : [])];
    return [
      head(siteName(s), h('span.row', null, state(s.status), s.reason && h('span', null, s.reason), s.hub && h('span.tag', null, t('hub'))),
        may('view_flows') && h('a.btn', { href: `/flows?site=${s.id}` }, t('Flows')), h('a.btn', { href: `/topology?site=${s.id}&pick=${s.id}` }, t('On the map')),
        may('capture_packets') && h('button.btn', { type: 'button', on: { click: () => openCapture(s) } }, icon('radio'), t('Capture')),
        may('manage_sites') && h('button.btn', { type: 'button', on: { click: () => this.#edit(s).catch(wrong) } }, icon('pencil'), t('Edit')),
        may('delete_sites') && h('button.btn', { type: 'button', on: { click: () => this.#remove(s) } }, icon('trash'), t('Remove'))),
      h('div.stack', { key: 'b' },
        h('section.card', { key: 'facts' }, h('div.body', null, h('dl.facts', null,
          h('dt', null, t('Name')), h('dd', null, s.id), s.labels.location && [h('dt', null, t('Location')), h('dd', null, s.labels.location)],
          h('dt', null, t('Prefixes')), h('dd.num', null, s.prefixes.join(', ') || none), h('dt', null, t('Overlay address')), h('dd.num', null, s.address || none),
          h('dt', null, t('Labels')), h('dd.row', null, Object.entries(s.labels).map(([k, v]) => h('span.tag', { key: k }, `${k}=${v}`)), !Object.keys(s.labels).length && none),
          h('dt', null, t('Configuration')), h('dd', null, s.revision ? (s.in_sync ? t('revision {n}, the newest', { n: s.revision }) : t('revision {n}, not the newest', { n: s.revision })) : none),
          h('dt', null, t('Software')), h('dd', null, s.software_version || none, known(s.started_at) && [', ', t('started'), ' ', when(s.started_at)]), h('dt', null, t('Heard')), h('dd', null, known(s.seen_at) ? when(s.seen_at) : t('never'))))),
        h('section.card', { key: 'tabs' },
          h('div.tabs', { role: 'tablist', 'aria-label': t('About the site'), on: { keydown: (e) => this.#arrow(e, tabs, tab) } }, tabs.map(([id, text]) => h('button', { key: id, type: 'button', role: 'tab', id: 'tab-' + id, 'aria-selected': String(tab === id), 'aria-controls': 'tab-panel', tabindex: tab === id ? '0' : '-1', on: { click: () => setParams({ tab: id === 'paths' ? null : id }) } }, text))),
          h('div', { key: tab, role: 'tabpanel', id: 'tab-panel', 'aria-labelledby': 'tab-' + tab }, this.#tab(tab, s, own)))),
    ];
  }

  #arrow(e, tabs, tab) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!step) return;
    const i = tabs.findIndex(([id]) => id === tab);
    const next = tabs[(i + step + tabs.length) % tabs.length][0];
    setParams({ tab: next === 'paths' ? null : next });
    requestAnimationFrame(() => requestAnimationFrame(() => this.querySelector('#tab-' + next)?.focus()));
  }

  #tab(tab, s, own) {
    if (tab === 'uplinks') {
      return h('div.plain-list', null, s.uplinks.map((u) => {
        const mine = own.filter((p) => p.uplink === u.name);
        return h('div', { key: u.name, class: 'flex-wrap' }, state(u.carrier === false ? 'down' : mine.length ? mine.map((p) => p.status).sort(worse).at(-1) : 'unknown'), h('b', null, u.name),
          h('span.num.muted', null, u.endpoints.join(', ') || t('no fixed address')), h('span.muted', null, u.carrier === false ? t('no carrier') : tn(mine.length, '{n} path', '{n} paths')), h('code', { class: 'ml-auto break-all' }, u.public_key));
      }));
    }
    if (tab === 'endpoints') {
      if (!this.endpoints) return skeleton(3);
      if (!this.endpoints.length) return empty('tag', t('No host endpoints'), t('Host endpoints are labelled addresses behind the site, which policies select.'));
      return h('div.plain-list', null, this.endpoints.map((e) => h('div', { key: e.id, class: 'flex-wrap' }, h('b', null, `${e.namespace}/${e.name}`), h('span.num', null, (e.addresses ?? []).join(', ')), Object.entries(e.labels ?? {}).map(([k, v]) => h('span.tag', { key: k }, `${k}=${v}`)))));
    }
    if (tab === 'events') {
      if (!this.events) return skeleton(3);
      if (!this.events.length) return empty('bell', t('Nothing happened yet'), '');
      return h('div.plain-list', null, this.events.map((e) => h('div', { key: e.id }, at(e.timestamp), h('span.grow', null, eventText(e)), severity(e.severity))));
    }
    const q = this.query;
    return own.length ? h('p-table', { '.name': 'site-paths', '.label': t('Paths of {site}', { site: siteName(s) }), '.columns': this.columns, '.rows': own, '.rowKey': (p) => p.id, '.sort': { id: q.get('sort') ?? 'status', down: q.get('down') === '1' }, '.onsort': (o) => setParams({ sort: o.id, down: o.down ? 1 : null }), '.onopen': (p) => go(`/metrics?site=${s.id}&path=${p.id}`) }) :
      empty('route', t('No paths yet'), t('Paths appear when this site and another one have keys and addresses of each other.'));
  }
}
customElements.define('page-site', SitePage);
