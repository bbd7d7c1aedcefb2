// A policy in words.
import { t } from './text.js';
import { parse } from './policymodel.js';

/** Labels as app=backend, tier=db. */
export function selectorText(s) {
  if (!s) return '';
  const labels = Object.entries(s.matchLabels ?? {}).map(([k, v]) => `${k}=${v}`);
  const more = (s.matchExpressions ?? []).map((e) => `${e.key} ${e.operator}${e.values ? ` (${e.values.join(', ')})` : ''}`);
  return [...labels, ...more].join(', ');
}

/** A peer of a rule. */
export function peerText(p) {
  if (p.ipBlock) return p.ipBlock.cidr + (p.ipBlock.except?.length ? ' ' + t('except {list}', { list: p.ipBlock.except.join(', ') }) : '');
  const parts = [];
  if (p.podSelector) parts.push(selectorText(p.podSelector) || t('every endpoint'));
  if (p.namespaceSelector) parts.push(t('in namespaces {what}', { what: selectorText(p.namespaceSelector) || t('of any name') }));
  return parts.join(' ') || JSON.stringify(p);
}

export function portText(p) {
  return `${p.protocol ?? 'TCP'}${p.port != null ? ` ${p.port}` : ''}${p.endPort ? `–${p.endPort}` : ''}`;
}

export function ruleText(rule, direction) {
  const peers = rule[direction === 'Ingress' ? 'from' : 'to'] ?? [];
  const who = peers.length ? peers.map(peerText).join(' ' + t('or') + ' ') : t('anywhere');
  const ports = rule.ports?.length ? t('on {ports}', { ports: rule.ports.map(portText).join(', ') }) : t('on every port');
  return direction === 'Ingress' ? t('Allow from {who} {ports}', { who, ports }) : t('Allow to {who} {ports}', { who, ports });
}

/** {selector, rules}: what a policy selects and allows. */
export function inWords(text) {
  try {
    const o = parse(text);
    const spec = o.spec ?? {};
    if (o.kind !== 'NetworkPolicy') {
      return { selector: selectorText(spec.subject?.pods?.podSelector ?? spec.subject?.namespaces), rules: [...(spec.ingress ?? []), ...(spec.egress ?? [])].map((r) => `${r.action ?? ''} ${r.name ?? ''}`.trim()) };
    }
    const types = spec.policyTypes ?? [];
    return {
      selector: selectorText(spec.podSelector),
      rules: [...(spec.ingress ?? []).map((r) => ruleText(r, 'Ingress')), ...(types.includes('Egress') ? (spec.egress ?? []).map((r) => ruleText(r, 'Egress')) : [])],
    };
  } catch {
    return { selector: '', rules: [t('see the YAML')] };
  }
}
