// What changed between two texts, line by line (longest common subsequence).
import { h } from '../core/dom.js';
import { t } from '../core/text.js';

/** [[' ' | '+' | '-', line]], of texts of some thousand lines at most. */
export function lines(before, after) {
  let a = before.split('\n'), b = after.split('\n');
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const first = a.slice(0, head), last = tail ? a.slice(-tail) : [];
  a = a.slice(head, a.length - tail);
  b = b.slice(head, b.length - tail);
  const out = first.map((l) => [' ', l]);
  if (a.length * b.length > 4e6) out.push(...a.map((l) => ['-', l]), ...b.map((l) => ['+', l]));
  else {
    const w = b.length + 1, len = new Uint16Array((a.length + 1) * w);
    for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) len[i * w + j] = a[i] === b[j] ? len[(i + 1) * w + j + 1] + 1 : Math.max(len[(i + 1) * w + j], len[i * w + j + 1]);
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { out.push([' ', a[i]]); i++; j++; }
      else if (i < a.length && (j === b.length || len[(i + 1) * w + j] >= len[i * w + j + 1])) out.push(['-', a[i++]]);
      else out.push(['+', b[j++]]);
    }
  }
  return out.concat(last.map((l) => [' ', l]));
}

/** The difference as an element, with three lines around each change. */
export function diff(before, after) {
  const all = lines(before, after);
  if (all.every(([k]) => k === ' ')) return h('p.muted', null, t('Nothing changes.'));
  const near = new Set();
  all.forEach(([k], i) => { if (k !== ' ') for (let j = i - 3; j <= i + 3; j++) near.add(j); });
  const out = [];
  let skipped = 0;
  all.forEach(([k, line], i) => {
    if (!near.has(i)) { skipped++; return; }
    if (skipped) out.push(h('div.skip-line', null, h('span', null, '⋯'), t('{n} lines are the same', { n: skipped })));
    skipped = 0;
    out.push(h('div', { class: k === '+' ? 'add' : k === '-' ? 'del' : '' }, h('span', null, k), line || ' '));
  });
  return h('div.diff', { tabindex: '0', role: 'region', 'aria-label': t('Difference') }, out);
}

/** JSON for people: keys in order, two spaces. */
export function pretty(v) { return v == null ? '' : JSON.stringify(v, null, 2); }
