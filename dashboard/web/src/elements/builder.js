// The visual builder: who may come in on the left, whom the policy protects in
// the middle, where that may go to on the right. Labels are dragged from the
// tray; every drag has a button that does the same.
import { h, icon } from '../core/dom.js';
import { t } from '../core/text.js';
import { peerText, portText, selectorText } from '../core/policytext.js';
import { openDialog } from './dialog.js';
import { menu } from './menu.js';

/** @param {object} o the policy; given {endpoints, writable, change(policy)} */
export function builder(o, given) {
  if (o?.kind !== 'NetworkPolicy') return h('div.card', { class: 'p-5' }, h('p', null, t('The builder knows NetworkPolicies; this one is edited as text.')));
  const { writable } = given;
  const spec = o.spec ??= {};
  const types = new Set(spec.policyTypes ?? ['Ingress']);
  const change = (edit) => {
    const copy = structuredClone(o);
    copy.spec ??= {};
    edit(copy.spec, copy);
    given.change(copy);
  };
  return h('div', { key: 'builder', class: 'grid gap-3' },
    writable && h('div.row', null,
      h('label.row', null, h('span.muted', null, t('Name')), h('input.input', { value: o.metadata?.name ?? '', class: 'w-56', spellcheck: 'false', on: { change: (e) => change((_, c) => { (c.metadata ??= {}).name = e.target.value.trim(); }) } })),
      h('label.row', null, h('span.muted', null, t('Namespace')), h('input.input', { value: o.metadata?.namespace ?? 'default', class: 'w-40', spellcheck: 'false', on: { change: (e) => change((_, c) => { (c.metadata ??= {}).namespace = e.target.value.trim(); }) } }))),
    writable && tray(given.endpoints, (piece, zone) => drop(change, piece, zone)),
    h('div.builder', null,
      side('Ingress', t('May come in from'), spec.ingress, types, change, writable),
      target(spec, given, change, writable),
      side('Egress', t('May go out to'), spec.egress, types, change, writable)));
}

/** Labels that endpoints have, and blocks of addresses, to be dragged. */
function tray(endpoints, place) {
  const labels = new Map();
  for (const e of endpoints) for (const [k, v] of Object.entries(e.labels ?? {})) labels.set(`${k}=${v}`, (labels.get(`${k}=${v}`) ?? 0) + 1);
  const pieces = [...labels].sort((a, b) => b[1] - a[1]).slice(0, 60).map(([text, n]) => ({ kind: 'label', text, n }));
  pieces.push({ kind: 'any', text: t('every endpoint') }, { kind: 'block', text: '10.0.0.0/8' });
  return h('div.card', { class: 'p-3 grid gap-2' }, h('h3', null, t('Drag into a column, or choose where')),
    h('div.tray', null, pieces.map((p) => h('span.piece', { key: p.text, draggable: 'true', on: { dragstart: (e) => { e.dataTransfer.setData('application/json', JSON.stringify(p)); e.dataTransfer.effectAllowed = 'copy'; } } },
      icon(p.kind === 'block' ? 'network' : 'tag'), p.text, p.n && h('span.muted', null, p.n),
      menu({ key: 'to', label: t('Put {what} into', { what: p.text }), icon: 'plus', class: 'quiet small square' }, () => [
        h('button', { type: 'button', on: { click: () => place(p, 'Ingress') } }, t('May come in from')), h('button', { type: 'button', on: { click: () => place(p, 'target') } }, t('Protects')), h('button', { type: 'button', on: { click: () => place(p, 'Egress') } }, t('May go out to'))])))));
}

function drop(change, piece, zone) {
  const [k, ...v] = piece.text.split('=');
  const selector = piece.kind === 'label' ? { matchLabels: { [k]: v.join('=') } } : {};
  change((spec) => {
    if (zone === 'target') {
      if (piece.kind === 'block') return;
      if (piece.kind === 'any') spec.podSelector = {};
      else ((spec.podSelector ??= {}).matchLabels ??= {})[k] = v.join('=');
      return;
    }
    const list = (spec[zone.toLowerCase()] ??= []);
    list.push({ [zone === 'Ingress' ? 'from' : 'to']: [piece.kind === 'block' ? { ipBlock: { cidr: piece.text } } : { podSelector: selector }] });
    spec.policyTypes = [...new Set([...(spec.policyTypes ?? ['Ingress']), zone])];
  });
}

function dropZone(zone, change, writable) {
  if (!writable) return {};
  return {
    dragover: (e) => { e.preventDefault(); e.currentTarget.classList.add('over'); },
    dragleave: (e) => e.currentTarget.classList.remove('over'),
    drop: (e) => {
      e.preventDefault();
      e.currentTarget.classList.remove('over');
      const text = e.dataTransfer.getData('application/json');
      if (text) drop(change, JSON.parse(text), zone);
    },
  };
}

function target(spec, given, change, writable) {
  const labels = Object.entries(spec.podSelector?.matchLabels ?? {});
  const n = given.endpoints.filter((e) => labels.every(([k, v]) => e.labels?.[k] === v)).length;
  return h('section.zone.target', { key: 'target', 'aria-label': t('Protects'), on: dropZone('target', change, writable) },
    h('h3', null, t('Protects')),
    labels.length ? labels.map(([k, v]) => h('div.piece', { key: k }, icon('shield-check'), h('span.grow', null, `${k}=${v}`), writable && h('button.btn.quiet.square.small', { type: 'button', 'aria-label': t('Remove {what}', { what: `${k}=${v}` }), on: { click: () => change((s) => { delete s.podSelector.matchLabels[k]; }) } }, icon('x')))) : h('div.piece', null, icon('shield-check'), t('everything in the namespace')),
    spec.podSelector?.matchExpressions?.length > 0 && h('div.piece', null, selectorText({ matchExpressions: spec.podSelector.matchExpressions })),
    h('p.muted', { class: 'text-xs' }, t('{n} known endpoints have these labels', { n })));
}

function side(direction, title, rules, types, change, writable) {
  const key = direction.toLowerCase(), peers = direction === 'Ingress' ? 'from' : 'to';
  const closed = types.has(direction);
  return h('section.zone', { key, 'aria-label': title, on: dropZone(direction, change, writable) },
    h('h3', null, title),
    writable ? h('label.check', null, h('input', { type: 'checkbox', '.checked': closed, on: { change: (e) => change((s) => { const set = new Set(s.policyTypes ?? ['Ingress']); if (e.target.checked) set.add(direction); else { set.delete(direction); delete s[key]; } s.policyTypes = [...set]; }) } }), t('Only what is listed')) : null,
    !closed ? h('p.muted', null, t('Not limited by this policy')) : !(rules?.length) ? h('p.muted', null, t('Nothing: all is blocked')) : rules.map((r, i) => h('div.rule', { key: i },
      (r[peers]?.length ? r[peers] : [null]).map((p, j) => h('div', { key: j, class: 'flex items-center gap-2' }, icon(p?.ipBlock ? 'network' : 'tag'), h('span', { class: 'flex-1 break-words' }, p ? peerText(p) : t('anywhere')),
        writable && p?.ipBlock && h('button.btn.quiet.square.small', { type: 'button', 'aria-label': t('Edit the block'), on: { click: () => editBlock(p.ipBlock.cidr, (cidr) => change((s) => { s[key][i][peers][j].ipBlock.cidr = cidr; })) } }, icon('pencil')))),
      h('div.row', null, (r.ports ?? []).map((p, j) => h('span.tag.accent', { key: j }, portText(p), writable && h('button', { type: 'button', class: 'cursor-pointer min-w-6', 'aria-label': t('Remove {what}', { what: portText(p) }), on: { click: () => change((s) => { s[key][i].ports.splice(j, 1); if (!s[key][i].ports.length) delete s[key][i].ports; }) } }, '×'))), !r.ports?.length && h('span.muted', null, t('every port')),
        writable && h('button.btn.small', { type: 'button', on: { click: () => editPort((port) => change((s) => { (s[key][i].ports ??= []).push(port); })) } }, icon('plus'), t('Port')),
        writable && h('button.btn.quiet.square.small', { type: 'button', 'aria-label': t('Remove the rule'), on: { click: () => change((s) => { s[key].splice(i, 1); }) } }, icon('trash'))))));
}

function editPort(add) {
  const d = openDialog({
    title: t('Add a port'),
    body: () => h('form', { id: 'port', class: 'grid gap-3', on: { submit: (e) => { e.preventDefault(); const f = new FormData(e.target); const port = f.get('port').trim(); d.close(); add({ protocol: f.get('protocol'), ...(port && { port: /^\d+$/.test(port) ? Number(port) : port }) }); } } },
      h('label.field', null, t('Protocol'), h('select.input', { name: 'protocol' }, ['TCP', 'UDP', 'SCTP'].map((p) => h('option', null, p)))),
      h('label.field', null, t('Port or its name'), h('input.input', { name: 'port', autofocus: true, pattern: '[0-9]{1,5}|[a-z0-9]([a-z0-9\\-]*[a-z0-9])?', placeholder: '8080' }), h('span.hint', null, t('Empty: every port of the protocol')))),
    footer: (close) => [h('button.btn', { type: 'button', on: { click: () => close() } }, t('Cancel')), h('button.btn.primary', { type: 'submit', form: 'port' }, t('Add'))],
  });
}

function editBlock(cidr, set) {
  const d = openDialog({
    title: t('Block of addresses'),
    body: () => h('form', { id: 'block', class: 'grid gap-3', on: { submit: (e) => { e.preventDefault(); d.close(); set(new FormData(e.target).get('cidr').trim()); } } }, h('label.field', null, t('Prefix'), h('input.input.mono', { name: 'cidr', value: cidr, autofocus: true, required: true }))),
    footer: (close) => [h('button.btn', { type: 'button', on: { click: () => close() } }, t('Cancel')), h('button.btn.primary', { type: 'submit', form: 'block' }, t('Save'))],
  });
}
