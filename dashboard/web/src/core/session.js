// Who is signed in, and what they may do. Hiding a control is a courtesy: the
// API refuses by itself.
import { api, Problem } from './api.js';

export const session = { user: null, role: '', permissions: new Set(), scope: null };

/** Reads who is signed in; false if nobody is. */
export async function loadSession() {
  try {
    const me = await api('/api/v1/auth/me', { quiet: true });
    session.user = me.name;
    session.role = me.role;
    session.permissions = new Set(me.permissions ?? []);
    session.scope = me.scope && Object.keys(me.scope).length ? me.scope : null;
    return true;
  } catch (err) {
    if (err instanceof Problem && err.status === 401) {
      session.user = null;
      return false;
    }
    throw err;
  }
}

export function may(permission) { return !permission || session.permissions.has(permission); }

/** Whether the rights reach the whole fabric and not only some sites. */
export function everywhere() { return !session.scope; }

export async function signIn(username, password) {
  await api('/api/v1/auth/login', { method: 'POST', json: { username, password, session: true }, quiet: true });
  return loadSession();
}

export async function signOut() {
  await api('/api/v1/auth/logout', { method: 'POST', quiet: true }).catch(() => {});
  session.user = null;
}
