// One flow and why it goes the way it goes: the decision it was treated under,
// and what would be decided now.
import { h, icon } from '../core/dom.js';
import { t, number } from '../core/text.js';
import { api } from '../core/api.js';
import { absolute, bytes, none, pathName, policyName } from '../core/format.js';
import { skeleton } from '../core/page.js';
import { may } from '../core/session.js';
import { state, when } from './bits.js';
import { done, openDialog, wrong } from './dialog.js';

export function showFlow(have, key, site, changed) {
  let flow = have, err = null, now = null, nowErr = null;
  const d = openDialog({
    title: t('Flow'), wide: true,
    body: () => (err && !flow ? h('p.wrong', { role: 'alert' }, err.message) : !flow ? skeleton(5) : [summary(flow), decision(flow), h('section', { key: 'now' }, h('h3', { class: 'mb-2' }, t('If it began now')), now ? explanation(now) : nowErr ? h('p.muted', null, nowErr.message) : h('button.btn', { type: 'button', on: { click: ask } }, icon('route'), t('Ask the site')))]),
    footer: (close) => [
      flow && h('a.btn', { href: `/flows?q=${flow.src}`, on: { click: () => close() } }, t('Flows of {ip}', { ip: flow.src })),
      flow?.path_id && h('a.btn', { href: `/metrics?site=${flow.path_id.split('.')[0]}&path=${flow.path_id}`, on: { click: () => close() } }, t('Its path')),
      may('delete_flows') && flow && h('button.btn', { type: 'button', on: { click: reevaluate } }, icon('rotate-cw'), t('Judge again')),
      h('button.btn.primary', { type: 'button', on: { click: () => close() } }, t('Close'))],
  });
  async function reevaluate() {
    try {
      await api(`/api/v1/flows/${flow.flow_key}?site=${flow.site}`, { method: 'DELETE' });
      done(t('The next packet of the flow is judged anew.'));
      d.close();
      changed();
    } catch (e) { wrong(e); }
  }
  async function ask() {
    try {
      now = (await api(`/api/v1/explain?site=${flow.site}`, { method: 'POST', json: { from: flow.src, to: flow.dst, port: flow.port || undefined, protocol: flow.protocol } })).explanation;
      nowErr = null;
    } catch (e) { nowErr = e; }
    d.redraw();
  }
  api(`/api/v1/flows/${key}${site ? `?site=${site}` : ''}`).then((f) => { flow = f; d.redraw(); }, (e) => { err = e; d.redraw(); });
  return d;
}

function summary(f) {
  return h('dl.facts', { key: 'sum' },
    h('dt', null, t('From')), h('dd.num', null, `${f.src}${f.src_port ? ':' + f.src_port : ''}`), h('dt', null, t('To')), h('dd.num', null, `${f.dst}${f.port ? ':' + f.port : ''} `, f.protocol.toUpperCase()),
    h('dt', null, t('Status')), h('dd', null, f.status === 'blocked' ? h('span.tag.down', null, t('Blocked')) : h('span.tag.ok', null, f.status)),
    h('dt', null, t('Seen at')), h('dd', null, f.site), h('dt', null, t('Path')), h('dd', null, f.path_id ? pathName(f.path_id) : none), h('dt', null, t('Class')), h('dd', null, f.class || none),
    h('dt', null, t('There')), h('dd.num', null, t('{packets} packets, {bytes}', { packets: number(f.packets), bytes: bytes(f.bytes) })), h('dt', null, t('Back')), h('dd.num', null, t('{packets} packets, {bytes}', { packets: number(f.reverse.packets), bytes: bytes(f.reverse.bytes) })),
    h('dt', null, t('Began')), h('dd', null, absolute(f.created_at)), h('dt', null, t('Last packet')), h('dd', null, when(f.seen_at)));
}

function decision(f) {
  const r = f.decision;
  if (!r) return h('p.muted', { key: 'dec' }, t('The decision was not recorded.'));
  return h('section', { key: 'dec', class: 'grid gap-3' }, h('h3', null, t('Why this way')),
    h('ol', { class: 'list-decimal pl-5 grid gap-2 text-[13px]' },
      h('li', null, party(r.from, f.src, r.from_labels), ' → ', party(r.to, f.dst, r.to_labels)),
      h('li', null, r.policy ? [t('Policy'), ' ', h('b', null, policyName(r.policy)), r.rule >= 0 ? t(', rule {n}', { n: r.rule + 1 }) : '', ': ', reason(r.reason)] : [t('No policy decides'), ': ', reason(r.reason)], h('span.muted', null, ' ', t('(judged {what} here)', { what: [r.judged_egress && t('leaving'), r.judged_ingress && t('arriving')].filter(Boolean).join(', ') || t('nothing') }))),
      h('li', null, t('Traffic class {name}', { name: r.class || none })),
      r.candidates?.length > 0 && h('li', null, t('Paths considered'), candidates(r.candidates, r.winner)),
      h('li', null, r.winner ? [t('Goes by'), ' ', h('b', null, pathName(r.winner)), r.why ? `: ${r.why}` : ''] : t('No path was chosen'))),
    h('p.faint', null, t('Decided {at}, rules version {n}', { at: absolute(r.decided_at), n: r.rules_version })));
}

function reason(r) { return String(r ?? '').replaceAll('_', ' ').replaceAll('-', ' '); }

function party(p, ip, labels) {
  const name = p?.name ? `${p.namespace ? p.namespace + '/' : ''}${p.name}` : ip;
  return h('span', null, h('b', null, name), p?.site ? t(' at {site}', { site: p.site }) : '', Object.entries(labels ?? {}).slice(0, 4).map(([k, v]) => [' ', h('span.tag', { key: k }, `${k}=${v}`)]));
}

function candidates(list, winner) {
  return h('ul', { class: 'grid gap-1 pt-1' }, list.map((c) => {
    const id = c.path_id ?? c.Path, usable = c.usable ?? c.Usable, score = c.score ?? c.Score;
    return h('li', { key: id, class: 'row' }, state(String(c.status ?? c.State ?? 'unknown').toLowerCase()), h('span', { class: id === winner ? 'font-semibold' : '' }, pathName(id)), h('span.muted.num', null, score >= 0 && score != null ? t('score {n}', { n: score }) : t('no score')), !usable && h('span.tag', null, t('not usable')), id === winner && h('span.tag.accent', null, t('chosen')), c.Note && h('span.muted', null, c.Note));
  }));
}

/** What a site says that it would do (netstack.Explanation). */
export function explanation(x) {
  const side = (name, s) => s && h('li', { key: name }, h('b', null, name), ': ', s.allowed ? t('allowed') : t('denied'), ', ', reason(s.reason), s.policy && [' ', t('by'), ' ', policyName(s.policy)],
    s.considered?.length > 0 && h('ul', { class: 'pl-4 text-xs muted' }, s.considered.map((c) => h('li', { key: c.policy }, `${policyName(c.policy)}: ${c.why}`))));
  return h('div', { class: 'grid gap-2 text-[13px]' },
    h('p', null, h('span.tag', { class: /forward|deliver/i.test(x.verdict) ? 'ok' : 'down' }, x.verdict), ' ', reason(x.reason)),
    h('ol', { class: 'list-decimal pl-5 grid gap-1' }, side(t('Leaving'), x.policy?.egress), side(t('Arriving'), x.policy?.ingress),
      h('li', null, t('Traffic class {name}', { name: x.class || none })), h('li', null, t('Route {prefix} to {site}', { prefix: x.route || none, site: x.site || none })),
      x.candidates?.length > 0 && h('li', null, t('Paths considered'), candidates(x.candidates, x.winner)), h('li', null, x.winner ? [t('Goes by'), ' ', h('b', null, pathName(x.winner)), x.why ? `: ${x.why}` : ''] : t('No path was chosen'))));
}
