// Keys that work on every page, in one place for the help overlay too.

const bindings = new Map();

/** Binds a key such as '/', '?', 'ctrl+k' or 'g d' (one after the other). */
export function bind(key, about, run, signal) {
  bindings.set(key, { key, about, run });
  signal?.addEventListener('abort', () => bindings.delete(key));
}

export function bound() { return [...bindings.values()]; }

let first = '';
let firstAt = 0;

document.addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('input, textarea, select, [contenteditable]');
  const mod = event.ctrlKey || event.metaKey ? 'ctrl+' : '';
  if (event.altKey || event.isComposing) return;
  const key = mod + event.key.toLowerCase();
  if (typing && !mod) return;
  if (document.querySelector('dialog[open]') && key !== 'ctrl+k') return;
  const now = Date.now();
  const both = now - firstAt < 1200 ? bindings.get(`${first} ${key}`) : null;
  const found = both ?? bindings.get(key);
  first = key;
  firstAt = now;
  if (!found) return;
  event.preventDefault();
  firstAt = 0;
  found.run(event);
});
