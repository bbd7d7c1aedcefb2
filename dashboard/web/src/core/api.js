// Talks to the dashboard's API. Errors are Problems (RFC 9457).
import { t } from './text.js';

/** An answer that is not what was asked for, or none at all (status 0). */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || body?.title || t('The dashboard did not answer.'));
    this.status = status;
    this.type = body?.type ?? '';
    this.fields = body?.errors ?? [];
    this.id = body?.request_id;
    this.retryAfter = 0;
  }
}

const events = new EventTarget();

/** Calls f when the session has ended. */
export function onSignedOut(f) { events.addEventListener('out', f); }

/**
 * Sends one request.
 *
 * @param {string} path with query
 * @param {object} [o] method, json (body), headers, signal, raw (answer with the Response)
 */
export async function api(path, o = {}) {
  const headers = { Accept: 'application/json', ...o.headers };
  const init = { method: o.method ?? 'GET', headers, signal: o.signal, credentials: 'same-origin', cache: o.cache ?? 'default' };
  if (o.json !== undefined) {
    headers['Content-Type'] = 'application/json';
    init.body = JSON.stringify(o.json);
  }
  let res;
  try {
    res = await fetch(path, init);
  } catch (err) {
    if (err.name === 'AbortError') throw err;
    throw new Problem(0, { detail: t('The dashboard cannot be reached.') });
  }
  if (res.ok) {
    if (o.raw) return res;
    const text = await res.text();
    const body = text ? JSON.parse(text) : null;
    return o.tagged ? { body, tag: res.headers.get('ETag') } : body;
  }
  const body = await res.json().catch(() => null);
  const p = new Problem(res.status, body);
  p.retryAfter = Number(res.headers.get('Retry-After') ?? 0);
  // Reading waits out the rate limit once: the person asked for nothing wrong.
  if (res.status === 429 && init.method === 'GET' && !o.again && p.retryAfter <= 10) {
    await new Promise((r) => setTimeout(r, 1000 * Math.max(1, p.retryAfter)));
    return api(path, { ...o, again: true });
  }
  if (res.status === 401 && !o.quiet) events.dispatchEvent(new Event('out'));
  throw p;
}

/** Every item of a list, over all of its pages. */
export async function all(path, o = {}) {
  const items = [];
  let cursor = '';
  const join = path.includes('?') ? '&' : '?';
  do {
    const page = await api(path + (cursor || o.limit ? `${join}limit=${o.limit ?? 5000}` : '') + (cursor ? `&cursor=${cursor}` : ''), o);
    items.push(...(page.items ?? []));
    cursor = page.next ?? '';
  } while (cursor && items.length < (o.most ?? 50000));
  return items;
}

/** A query string of what is set. */
export function query(values) {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(values)) if (v != null && v !== '') q.set(k, v);
  const text = q.toString();
  return text ? '?' + text : '';
}
