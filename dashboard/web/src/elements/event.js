// What an event says in a sentence.
import { t } from '../core/text.js';
import { pathName, policyName } from '../core/format.js';

const texts = {
  path_status_change: (d, e) => t('Path {path} is {state}', { path: pathName(d.path_id ?? e.source_id), state: String(d.new_status ?? '').toLowerCase() }) + (d.reason ? `: ${d.reason}` : ''),
  alert_firing: (d, e) => t('Alert: {name}, {target}', { name: d.name ?? '', target: d.target ?? e.source_id ?? '' }),
  alert_resolved: (d, e) => t('Alert is over: {name}, {target}', { name: d.name ?? '', target: d.target ?? e.source_id ?? '' }),
  site_joined: (d, e) => t('{site} joined', { site: d.site_name ?? e.site_id }),
  site_left: (d, e) => t('{site} left', { site: d.site_name ?? e.site_id }),
  site_unreachable: (d, e) => t('{site} is silent', { site: d.site_name ?? e.site_id }),
  site_reachable: (d, e) => t('{site} is heard again', { site: d.site_name ?? e.site_id }),
  policy_block: (d) => t('{policy} blocked {src} to {dst}', { policy: policyName(d.policy_id) || d.policy_name || t('A policy'), src: d.flow?.src ?? '', dst: `${d.flow?.dst ?? ''}${d.flow?.port ? ':' + d.flow.port : ''}` }),
  uplink_carrier: (d, e) => t('{site}: uplink {uplink} {what}', { site: e.site_id ?? '', uplink: d.uplink ?? e.source_id, what: d.carrier || d.up ? t('has carrier') : t('lost carrier') }),
  revision_applied: (d, e) => t('{site} applied revision {n}', { site: e.site_id ?? '', n: d.revision ?? d.rev ?? '' }),
  configuration_change: (d) => t('{user}: {action} {what}', { user: d.user ?? '', action: String(d.action ?? '').replaceAll('_', ' '), what: d.resource_id ?? '' }),
};

/** One line about an event of the API or of the live stream. */
export function eventText(e) {
  const d = e.data ?? {};
  return texts[e.event_type]?.(d, e) ?? [e.event_type.replaceAll('_', ' '), e.source_id ?? e.site_id, d.reason].filter(Boolean).join(' ');
}

/** Where an event's thing is shown. */
export function eventLink(e) {
  const d = e.data ?? {};
  if (e.event_type === 'alert_firing') return '/alerts';
  const path = d.path_id ?? (e.source_id?.includes('~') && e.source_id.includes('.') ? e.source_id : '');
  if (path) return `/metrics?site=${path.split('.')[0]}&path=${path}`;
  if (e.event_type === 'configuration_change' && d.revision) return `/config?revision=${d.revision}`;
  if (e.event_type === 'policy_block' && d.policy_id) return `/flows?status=blocked`;
  return e.site_id ? '/sites/' + e.site_id : null;
}
