// Small things that many pages show.
import { h, icon } from '../core/dom.js';
import { t } from '../core/text.js';
import { absolute, ago, clock, known, none } from '../core/format.js';

const words = { up: 'Up', degraded: 'Degraded', down: 'Down', unknown: 'Unknown' };

/** A state's shape: circle, triangle, crossed square, ring. */
export function shape(state) {
  const s = (...c) => h('svg', { viewBox: '0 0 10 10', 'aria-hidden': 'true', fill: 'currentColor', stroke: 'none' }, c);
  switch (state) {
    case 'up': return s(h('circle', { cx: 5, cy: 5, r: 4.2 }));
    case 'degraded': return s(h('path', { d: 'M5 .8 9.6 9H.4z' }));
    case 'down': return s(h('path', { d: 'M1 1h8v8H1z' }), h('path', { d: 'm3 3 4 4m0-4L3 7', fill: 'none', stroke: 'var(--surface)', 'stroke-width': 1.3 }));
  }
  return s(h('circle', { cx: 5, cy: 5, r: 3.4, fill: 'none', stroke: 'currentColor', 'stroke-width': 1.6 }));
}

/** A state with shape, colour and word. */
export function state(value, more) {
  const known_ = words[value] ? value : 'unknown';
  return h('span.state', { class: known_, title: more || null }, shape(known_), t(words[known_]));
}

/** A time: how long ago, and in full on hover. */
export function when(at, { full = false } = {}) {
  if (!known(at)) return h('span.muted', null, none);
  return h('time', { datetime: at, title: absolute(at) }, full ? absolute(at) : ago(at));
}

/** A time of day; the full time on hover. */
export function at(time) { return h('time.num', { datetime: time, title: absolute(time) }, clock(time)); }

export const severities = { info: 'info', warning: 'warning', critical: 'critical' };
export function severity(value) { return h('span.tag', { class: severities[value] ?? '' }, t(value ?? 'info')); }

/** A line chart without axes, for a tile. values may have nulls, which are gaps. */
export function spark(values, label) {
  const known_ = values.filter((v) => v != null);
  if (known_.length < 2) return h('svg.spark', { viewBox: '0 0 100 30', 'aria-hidden': 'true' });
  const low = Math.min(...known_), high = Math.max(...known_), height = high - low || 1;
  const x = (i) => (i / (values.length - 1) * 100).toFixed(2), y = (v) => (28 - (v - low) / height * 24).toFixed(2);
  let line = '', begun = false;
  values.forEach((v, i) => {
    if (v == null) { begun = false; return; }
    line += `${begun ? 'L' : 'M'}${x(i)} ${y(v)}`;
    begun = true;
  });
  const whole = values.every((v) => v != null);
  return h('svg.spark', { viewBox: '0 0 100 30', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    whole && h('path.area', { d: `${line}L100 30L0 30Z` }), h('path.line', { d: line }));
}

/** The search field of a page; '/' goes there. */
export function search(value, label, oninput) {
  return h('div.search', { key: 'search' }, icon('search'),
    h('input.input', { type: 'search', 'data-search': true, value, '.value': value, 'aria-label': label, placeholder: label, spellcheck: 'false', autocomplete: 'off', on: { input: (e) => oninput(e.target.value) } }));
}

/** A choice of one of many: options are [value, text]. */
export function choose(label, value, options, onchange) {
  return h('select.input', { key: label, 'aria-label': label, '.value': value, on: { change: (e) => onchange(e.target.value) } },
    options.map(([v, text]) => h('option', { key: v, value: v, selected: v === value }, text)));
}

export function segments(label, value, options, onchange) {
  return h('div.segments', { key: label, role: 'group', 'aria-label': label }, options.map(([v, text, symbol]) =>
    h('button', { type: 'button', key: v, 'aria-pressed': String(v === value), on: { click: () => onchange(v) } }, symbol && icon(symbol), text)));
}

/** Waits until a person has stopped typing. */
export function debounce(f, wait = 250) {
  let timer = 0;
  return (...args) => { clearTimeout(timer); timer = setTimeout(() => f(...args), wait); };
}

/** Hands a file to the browser. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export async function copy(text) { await navigator.clipboard.writeText(text); }
