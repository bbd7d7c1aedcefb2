// How values read: one place, so that a latency looks the same on every page.
import { t } from './text.js';
import { preferences } from './preferences.js';

export const none = '–';

function digits(v) { return v >= 100 ? 0 : v >= 10 ? 1 : 2; }

/** Milliseconds: "12.3 ms". */
export function ms(v) { return v == null ? none : `${v.toFixed(v >= 100 ? 0 : 1)} ms`; }

/** Percent: "0.05 %". */
export function pct(v) { return v == null ? none : `${v === 0 ? '0' : v < 0.01 ? '<0.01' : v.toFixed(digits(v))} %`; }

/** Megabits per second, scaled: "980 Mbit/s", "1.2 Gbit/s". */
export function rate(v) {
  if (v == null) return none;
  if (v >= 1000) return `${(v / 1000).toFixed(digits(v / 1000))} Gbit/s`;
  if (v >= 1 || v === 0) return `${v === 0 ? 0 : v.toFixed(digits(v))} Mbit/s`;
  return `${(v * 1000).toFixed(0)} kbit/s`;
}

/** Bytes, scaled by 1000: "4.2 MB". */
export function bytes(v) {
  if (v == null) return none;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let i = 0;
  while (v >= 1000 && i < units.length - 1) { v /= 1000; i++; }
  return `${i === 0 ? v : v.toFixed(digits(v))} ${units[i]}`;
}

export function score(v) { return v == null ? none : String(v); }

/** Which formatter belongs to a metric of the API, with title and unit. */
export const metrics = {
  latency_ms: { title: 'Latency', unit: 'ms', format: ms },
  jitter_ms: { title: 'Jitter', unit: 'ms', format: ms },
  packet_loss_pct: { title: 'Packet loss', unit: '%', format: pct },
  bandwidth_mbps: { title: 'Bandwidth', unit: 'Mbit/s', format: rate },
  score: { title: 'Score', unit: '', format: score },
};

const cache = new Map();
function formatter(options) {
  const zone = preferences.utc ? 'UTC' : undefined;
  const key = JSON.stringify(options) + zone;
  if (!cache.has(key)) cache.set(key, new Intl.DateTimeFormat('en-GB', { ...options, timeZone: zone, hourCycle: 'h23' }));
  return cache.get(key);
}

/** Time of day: "14:32", with seconds "14:32:15". */
export function clock(at, seconds = false) {
  return formatter({ hour: '2-digit', minute: '2-digit', ...(seconds && { second: '2-digit' }) }).format(new Date(at));
}

/** Full time with its zone. */
export function absolute(at) {
  return formatter({ year: 'numeric', month: 'short', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit', timeZoneName: 'short' }).format(new Date(at));
}

export function day(at) { return formatter({ day: '2-digit', month: 'short' }).format(new Date(at)); }

/** A duration in its two largest units: "2 h 5 min". */
export function span(millis) {
  const s = Math.max(0, Math.round(millis / 1000));
  if (s < 60) return t('{n} s', { n: s });
  if (s < 3600) return t('{n} min', { n: Math.floor(s / 60) });
  if (s < 86400) {
    const m = Math.floor(s / 60) % 60;
    return m ? t('{h} h {m} min', { h: Math.floor(s / 3600), m }) : t('{h} h', { h: Math.floor(s / 3600) });
  }
  return t('{n} d', { n: Math.floor(s / 86400) });
}

/** How long ago: "just now", "5 min ago". */
export function ago(at, now = Date.now()) {
  const gone = now - new Date(at);
  if (gone < 5000) return gone < -5000 ? t('in {span}', { span: span(-gone) }) : t('just now');
  return t('{span} ago', { span: span(gone) });
}

/** Whether a time of the API says anything (Go's zero time does not). */
export function known(at) { return at && !at.startsWith('0001-'); }

/** A path's id for people: "hq.wan0 → east.lte0". */
export function pathName(id) { return (id ?? '').replace('~', ' → '); }

/** A policy's long name for people: its last part. */
export function policyName(long) { return (long ?? '').split('/').slice(1).filter(Boolean).join('/'); }
