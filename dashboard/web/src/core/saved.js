// Keeps a person's preferences with their account too, so that they are the
// same in another browser.
import { api } from './api.js';
import { onPreference, prefer, preferences } from './preferences.js';

let timer = 0;
let loading = false;

/** Takes what the account has; changes are written back a moment later. */
export async function loadPreferences() {
  try {
    const kept = await api('/api/v1/preferences', { quiet: true });
    loading = true;
    prefer({ ...kept.preferences, pins: kept.layout?.pins ?? preferences.pins });
  } catch { /* this browser's own do */ } finally { loading = false; }
  onPreference(() => {
    if (loading) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      const { pins, ...rest } = preferences;
      api('/api/v1/preferences', { method: 'PUT', json: { layout: { pins }, preferences: rest }, quiet: true }).catch(() => {});
    }, 2000);
  });
}
