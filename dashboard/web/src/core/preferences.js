// What a person has chosen for this browser: theme, refresh, zone, columns.
// The server keeps the same for the user where it can (see saved.js).

const KEY = 'patronus';
const defaults = { theme: 'auto', refresh: 1, utc: false, density: 'comfortable', columns: {}, pins: {}, sidebar: 'open' };

function read() {
  try { return { ...defaults, ...JSON.parse(localStorage.getItem(KEY) ?? '{}') }; } catch { return { ...defaults }; }
}

export const preferences = read();
const listeners = new Set();

/** Changes preferences, keeps them and tells who listens. */
export function prefer(change) {
  Object.assign(preferences, change);
  try { localStorage.setItem(KEY, JSON.stringify(preferences)); } catch { /* private window: for this page only */ }
  applyTheme();
  for (const f of listeners) f(change);
}

/** Calls f after each change until signal aborts. */
export function onPreference(f, signal) {
  listeners.add(f);
  signal?.addEventListener('abort', () => listeners.delete(f));
}

export function applyTheme() {
  const root = document.documentElement;
  if (preferences.theme === 'auto') delete root.dataset.theme;
  else root.dataset.theme = preferences.theme;
  root.dataset.density = preferences.density;
}

/** Whether the page is dark now. */
export function dark() {
  return preferences.theme === 'dark' || preferences.theme === 'auto' && matchMedia('(prefers-color-scheme: dark)').matches;
}
