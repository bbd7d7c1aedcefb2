// Tokens of the style sheet for those who draw on a canvas, which knows no
// light-dark().
import { dark } from './preferences.js';

const probe = document.createElement('i');
probe.hidden = true;
document.documentElement.append(probe);
let cache = new Map();
let theme = null;

/** What a token such as 'accent' is at the moment, as rgb(). */
export function token(name) {
  const now = dark();
  if (now !== theme) {
    theme = now;
    cache = new Map();
  }
  let v = cache.get(name);
  if (!v) {
    probe.style.color = `var(--${name})`;
    v = getComputedStyle(probe).color;
    cache.set(name, v);
  }
  return v;
}

/** The colour of the i-th series of a chart. */
export function seriesColor(i) { return token(`series-${i % 6 + 1}`); }
