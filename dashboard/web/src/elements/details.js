// What is told of a site or of the paths between two, beside the map.
import { h, icon } from '../core/dom.js';
import { t } from '../core/text.js';
import { fleet, siteName, worse } from '../core/fleet.js';
import { known, ms, pathName, pct, rate } from '../core/format.js';
import { may } from '../core/session.js';
import { state, when } from './bits.js';
import { testPath } from './pathtest.js';

function panel(title, close, ...body) {
  return h('aside.card', { key: 'panel', class: 'self-start', 'aria-label': title },
    h('header', null, h('h2', null, title), h('button.btn.quiet.square.small', { type: 'button', 'aria-label': t('Close'), on: { click: close } }, icon('x'))),
    h('div.body', { class: 'grid gap-4' }, body));
}

export function sitePanel(s, close) {
  const own = (fleet.pathsOf.get(s.id) ?? []).filter((p) => p.source.id === s.id).sort((a, b) => worse(a.status, b.status));
  return panel(siteName(s), close,
    h('div.row', null, state(s.status), s.hub && h('span.tag', null, t('hub')), s.reason && h('span.muted', null, s.reason)),
    h('dl.facts', null, s.labels.location && [h('dt', null, t('Location')), h('dd', null, s.labels.location)],
      h('dt', null, t('Prefixes')), h('dd.num', null, s.prefixes.join(', ') || '–'),
      h('dt', null, t('Active flows')), h('dd.num', null, s.active_flows),
      h('dt', null, t('Revision')), h('dd.num', null, s.revision || '–', s.in_sync ? '' : ' ' + t('(not the newest)')),
      h('dt', null, t('Heard')), h('dd', null, known(s.seen_at) ? when(s.seen_at) : t('never'))),
    h('div', null, h('h3', null, t('Paths')), pathList(own)),
    h('div.row', null, h('a.btn', { href: '/sites/' + s.id }, t('Open the site'), icon('arrow-right')), h('a.btn', { href: `/topology?site=${s.id}&pick=${s.id}` }, t('Isolate')),
      may('view_flows') && h('a.btn', { href: `/flows?site=${s.id}` }, t('Flows')), may('view_events') && h('a.btn', { href: `/events?site=${s.id}` }, t('Events'))));
}

function pathList(paths) {
  return h('ul', { class: 'grid gap-2 pt-2' }, paths.slice(0, 20).map((p) => h('li', { key: p.id, class: 'grid gap-0.5' },
    h('div.row', null, state(p.status, p.reason), h('a', { class: 'inline-flex items-center min-h-6', href: `/metrics?site=${p.source.id}&path=${p.id}` }, pathName(p.id))),
    h('div.muted.num', { class: 'text-xs' }, t('{latency}, loss {loss}, {rate}', { latency: ms(p.metrics?.latency_ms), loss: pct(p.metrics?.packet_loss_pct), rate: rate(p.metrics?.bandwidth_mbps) })))),
  paths.length > 20 && h('li.muted', null, t('{n} more paths', { n: paths.length - 20 })));
}

export function pathPanel(title, paths, close) {
  const list = paths.sort((a, b) => worse(a.status, b.status) || (a.id < b.id ? -1 : 1));
  return panel(title, close,
    list.length ? list.slice(0, 12).map((p) => h('div', { key: p.id, class: 'grid gap-2 border-b border-line pb-3' },
      h('div.row', null, state(p.status), h('b', null, pathName(p.id))), p.reason && h('div.muted', null, p.reason),
      h('dl.facts', null, h('dt', null, t('Latency')), h('dd.num', null, ms(p.metrics?.latency_ms)), h('dt', null, t('Jitter')), h('dd.num', null, ms(p.metrics?.jitter_ms)),
        h('dt', null, t('Packet loss')), h('dd.num', null, pct(p.metrics?.packet_loss_pct)), h('dt', null, t('Bandwidth')), h('dd.num', null, rate(p.metrics?.bandwidth_mbps)),
        h('dt', null, t('Score')), h('dd.num', null, p.metrics?.score ?? '–'), h('dt', null, t('Since')), h('dd', null, when(p.since))),
      h('div.row', null, h('a.btn.small', { href: `/metrics?site=${p.source.id}&path=${p.id}` }, icon('chart-line'), t('Graph')),
        may('test_paths') && h('button.btn.small', { type: 'button', on: { click: () => testPath(p) } }, icon('gauge'), t('Test now'))))) : h('p.muted', null, t('No path between them.')));
}
