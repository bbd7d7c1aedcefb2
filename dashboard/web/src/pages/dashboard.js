// The first minute: what is wrong, since when, who is affected, what the
// fabric did about it and what changed just before; then the numbers.
import { h, icon } from '../core/dom.js';
import { t, tn, number } from '../core/text.js';
import { api } from '../core/api.js';
import { fleet, worse } from '../core/fleet.js';
import { bytes, known, ms, none, pathName, span } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { go } from '../core/router.js';
import { everywhere, may } from '../core/session.js';
import { at, severity, spark, state, when } from '../elements/bits.js';
import { eventText } from '../elements/event.js';
import { problems } from '../core/problems.js';
import '../elements/topology.js';

export default class Dashboard extends Page {
  flows = null;
  flowsError = null;
  changes = [];
  revision = null;

  async start() {
    fleet.follow(() => { this.loading = false; this.error = fleet.loadedAt ? null : fleet.error; this.#live(); }, this.signal);
    fleet.addEventListener('tick', () => this.update(), { signal: this.signal });
    if (may('view_events')) fleet.loadEvents(30).catch(() => {});
    this.#side();
    const timer = setInterval(() => !document.hidden && !fleet.paused && this.#side(), 20_000);
    this.signal.addEventListener('abort', () => clearInterval(timer));
  }

  async #side() {
    if (may('view_flows')) {
      try {
        const page = await api('/api/v1/flows?status=active&limit=200', { signal: this.signal });
        this.flows = page.items.sort((a, b) => b.bytes + b.reverse.bytes - a.bytes - a.reverse.bytes).slice(0, 10);
        this.flowsError = null;
      } catch (err) { if (err.name !== 'AbortError') this.flowsError = err; }
    }
    if (may('view_config') && everywhere()) {
      try {
        this.changes = (await api('/api/v1/revisions?limit=3', { signal: this.signal })).items;
        this.revision = this.changes[0] && await api(`/api/v1/revisions/${this.changes[0].revision}`, { signal: this.signal });
      } catch { /* the page does without */ }
    }
    this.update();
  }

  #live() {
    this.querySelector('p-topology')?.refresh();
    this.update();
  }

  render() {
    if (this.error) return [head(t('Overview')), failed(this.error, () => fleet.load())];
    if (!fleet.loadedAt) return [head(t('Overview')), skeleton(8)];
    if (!fleet.sites.size) return [head(t('Overview')), this.#first()];
    if (this.moved_ !== fleet.moved) {
      this.moved_ = fleet.moved;
      this.problems_ = problems(fleet);
    }
    const list = this.problems_;
    return [
      head(t('Overview'), null, this.revision && this.#rollout()),
      h('div.stack', { key: 'all' }, this.#verdict(list), fleet.sites.size < 2 && !fleet.paths.size && this.#first(), this.#tiles(),
        h('div', { key: 'state', class: list.length ? 'two' : '' }, list.length > 0 && this.#problems(list),
        h('section.card', { key: 'map', 'aria-labelledby': 'map-title' },
          h('header', null, h('h2', { id: 'map-title' }, t('Network topology')), h('a.btn.quiet.small', { href: '/topology' }, t('Open'), icon('arrow-right'))),
          h('div.mini', null, h('p-topology', { '.mini': true, '.onselect': (n) => this.#open(n), '.label': t('Map of {n} sites; the topology page has the same as a list', { n: fleet.sites.size }) }),
            h('div.legend', { 'aria-hidden': 'true' }, ['up', 'degraded', 'down', 'unknown'].map((s) => state(s)))))),
        h('div.two', { key: 'two' }, may('view_events') && this.#events(), may('view_flows') && this.#flows())),
    ];
  }

  #open(n) {
    if (!n) go('/topology');
    else if (n.paths) go(`/metrics?site=${fleet.paths.get(n.paths[0])?.source.id}&path=${n.paths[0]}`);
    else if (n.kind === 'group') go(`/topology?cluster=${encodeURIComponent(n.group)}`);
    else go('/sites/' + n.id);
  }

  /** Nothing is configured: what to do first. */
  #first() {
    return h('div.card', { key: 'first' }, empty('waypoints', fleet.sites.size ? t('One site so far') : t('No sites yet'),
      fleet.sites.size ? t('A path begins with a second site. As soon as its appliance speaks to this one, both appear here with what is measured between them.') : t('As soon as the first appliance is configured and speaks to this dashboard, it appears here with its paths.'),
      h('div.row', null, h('a.btn.primary', { href: '/help/first-site' }, icon('book-open'), fleet.sites.size ? t('How to add a site') : t('How to add the first site')))));
  }

  #verdict(list) {
    const sites = [...fleet.sites.values()];
    const bad = sites.filter((s) => worse(s.status, 'unknown') < 0);
    const down = bad.some((s) => s.status === 'down');
    const silent = sites.filter((s) => s.status === 'unknown').length;
    const kind = down ? 'down' : bad.length || list.length ? 'degraded' : silent === sites.length ? 'unknown' : 'up';
    const says = bad.length ? tn(bad.length, '{n} of {total} sites needs attention', '{n} of {total} sites need attention', { total: number(sites.length) }) :
      kind === 'unknown' ? t('Waiting to hear from the sites') : tn(sites.length, 'The site is well', 'All {n} sites are well');
    const first = list[0];
    return h('section.card.verdict', { key: 'verdict', class: kind, 'aria-live': 'polite' },
      h('div.mark', null, icon({ up: 'check', degraded: 'triangle-alert', down: 'octagon-alert', unknown: 'hourglass' }[kind])),
      h('div', null, h('h2', null, says), h('p.muted', null, first ? t('Worst: {what}, for {span}.', { what: first.what, span: known(first.since) ? span(Date.now() - Date.parse(first.since)) : none }) :
        !fleet.paths.size ? t('It has no paths to another site yet.') : t('{n} of {total} paths carry traffic.', { n: number(fleet.now ? fleet.now.paths.up + fleet.now.paths.degraded : fleet.paths.size), total: number(fleet.paths.size) }))),
      list.length > 0 && h('a.btn', { href: '#broke' , on: { click: (e) => { e.preventDefault(); this.querySelector('#broke')?.scrollIntoView({ block: 'start', behavior: 'smooth' }); } } }, t('What broke')));
  }

  #tiles() {
    const s = fleet.now ?? fleet.sums();
    const recent = fleet.recent;
    const line = (key, label) => spark(recent.map((r) => r[key]), label);
    const latency = s.latency == null ? [none] : [s.latency.toFixed(1), h('small', null, 'ms')];
    const sent = s.sent >= 1000 ? [(s.sent / 1000).toFixed(2), h('small', null, 'Gbit/s')] : [s.sent.toFixed(s.sent < 10 ? 1 : 0), h('small', null, 'Mbit/s')];
    const tile = (href, label, value, under, picture) => h('a.card.tile', { key: label, href }, h('span.label', null, label), h('span.value', null, value), h('span.under', null, under), picture);
    return h('div.tiles', { key: 'tiles' },
      tile('/sites', t('Total sites'), number(fleet.sites.size), counts(s.sites), shares(s.sites)),
      tile('/topology', t('Active paths'), number(s.paths.up + s.paths.degraded), counts(s.paths), shares(s.paths)),
      tile('/metrics', t('Average latency'), latency, s.p95 == null ? '' : t('95 of 100 paths below {p95}', { p95: ms(s.p95) }), line('latency', t('Latency of the last minutes'))),
      tile('/metrics?metric=bandwidth_mbps', t('Throughput'), sent, t('sent by all sites'), line('sent', t('Throughput of the last minutes'))),
      tile('/flows', t('Active flows'), number(s.flows), s.loss == null ? '' : t('{loss} % lost on average', { loss: s.loss.toFixed(2) }), line('flows', t('Flows of the last minutes'))));
  }

  #problems(list) {
    const shown = list.slice(0, 6);
    return h('section.card', { key: 'problems', id: 'broke', 'aria-labelledby': 'broke-title' },
      h('header', null, h('h2', { id: 'broke-title' }, t('What broke')), h('span.muted', null, tn(list.length, '{n} problem', '{n} problems'))),
      h('ol.problems', null, shown.map((p) => h('li', { key: p.id },
        h('div', null, state(p.state), h('div.faint', null, known(p.since) ? t('for {span}', { span: span(Date.now() - Date.parse(p.since)) }) : '')),
        h('div', null, h('div.row', null, h('a.what', { href: p.href }, p.what), this.#before(p)), h('div', null, p.why), h('div.muted', null, [p.affects, p.did].filter(Boolean).join('. ').replace('..', '.')))))),
      list.length > shown.length && h('footer', { class: 'p-3' }, h('a', { href: '/sites?status=degraded,down' }, t('{n} more', { n: list.length - shown.length }))));
  }

  /** What changed in the quarter of an hour before. */
  #before(p) {
    if (!known(p.since)) return null;
    const since = Date.parse(p.since);
    const change = this.changes.find((c) => c.revision > 1 && Date.parse(c.at) <= since + 5000 && since - Date.parse(c.at) < 15 * 60e3);
    return change && h('a.tag.staged', { href: `/config?revision=${change.revision}`, title: t('{user} changed {what} shortly before', { user: change.user, what: change.resource_id ?? change.resource_type }) }, icon('git-commit-horizontal'), t('after revision {n}', { n: change.revision }));
  }

  #rollout() {
    const r = this.revision;
    if (r.applied >= r.sites) return null;
    return h('a.btn', { href: `/config?revision=${r.revision}` }, t('Revision {n}: {applied} of {sites}', { n: r.revision, applied: r.applied, sites: r.sites }), h('span.meter', { style: { '--w': `${100 * r.applied / r.sites}%` } }, h('i')));
  }

  #events() {
    const list = fleet.events.slice(0, 9);
    return h('section.card', { key: 'events', 'aria-labelledby': 'events-title' },
      h('header', null, h('h2', { id: 'events-title' }, t('Recent events')), h('a.btn.quiet.small', { href: '/events' }, t('All events'))),
      list.length ? h('div.plain-list', null, list.map((e) => h('div', { key: e.id }, at(e.timestamp), h('span.grow', { title: eventText(e) }, eventText(e)), severity(e.severity)))) :
        empty('bell', t('Nothing happened yet'), t('Changes of paths, sites and policies appear here.')));
  }

  #flows() {
    const body = this.flowsError ? failed(this.flowsError, () => this.#side()) : !this.flows ? skeleton(5) : !this.flows.length ? empty('arrow-left-right', t('No active flows'), t('Conversations between sites appear here as they begin.')) :
      h('div.plain-list', null, this.flows.map((f) => h('a', { key: f.flow_key + f.site, href: `/flows?flow=${f.flow_key}&at_site=${f.site}` },
        h('span.grow.num', null, `${f.src} → ${f.dst}`), h('span.muted', null, `${f.protocol.toUpperCase()} ${f.port || ''}`), h('span.muted', { class: 'max-sm:hidden', title: f.path_id }, pathName(f.path_id)), h('span.num', null, bytes(f.bytes + f.reverse.bytes)))));
    return h('section.card', { key: 'flows', 'aria-labelledby': 'flows-title' },
      h('header', null, h('h2', { id: 'flows-title' }, t('Active flows, the largest ten')), h('a.btn.quiet.small', { href: '/flows?status=active' }, t('All flows'))), body);
  }
}
customElements.define('page-dashboard', Dashboard);

/** How states are shared out, as a bar; the words are beside it. */
function shares(c) {
  const all = c.up + c.degraded + c.down + c.unknown || 1;
  return h('div.shares', { 'aria-hidden': 'true' }, ['up', 'degraded', 'down', 'unknown'].filter((k) => c[k] > 0).map((k) => h('i', { key: k, class: k, style: { '--w': `${Math.max(1.5, 100 * c[k] / all)}%` } })));
}

function counts(c) {
  const list = ['up', 'degraded', 'down', 'unknown'].filter((k) => c[k] > 0).map((k) => t(`{n} ${k}`, { n: number(c[k]) }));
  return list.join(', ');
}

