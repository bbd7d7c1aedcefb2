// The address bar is the state: a page, and in its query everything that makes
// a view, so that a view can be sent to a colleague.
import { may, session } from './session.js';

/**
 * Every page: pattern, module, title, and the permission without which it is
 * not offered. Those with an icon are in the navigation, in this order.
 */
export const routes = [
  { path: '/dashboard', page: 'dashboard', title: 'Overview', icon: 'layout-dashboard', needs: 'view_sites' },
  { path: '/topology', page: 'topology', title: 'Topology', icon: 'waypoints', needs: 'view_sites' },
  { path: '/sites', page: 'sites', title: 'Sites', icon: 'building', needs: 'view_sites' },
  { path: '/sites/:id', page: 'site', title: 'Site', needs: 'view_sites', under: '/sites' },
  { path: '/metrics', page: 'metrics', title: 'Path metrics', icon: 'chart-line', needs: 'view_metrics' },
  { path: '/flows', page: 'flows', title: 'Flows', icon: 'arrow-left-right', needs: 'view_flows' },
  { path: '/policies', page: 'policies', title: 'Policies', icon: 'shield-check', needs: 'view_policies' },
  { path: '/policies/new', page: 'policy', title: 'New policy', needs: 'manage_policies', under: '/policies' },
  { path: '/policies/:id', page: 'policy', title: 'Policy', needs: 'view_policies', under: '/policies' },
  { path: '/alerts', page: 'alerts', title: 'Alerts', icon: 'circle-alert', needs: 'view_events' },
  { path: '/alerts/rules', page: 'alertrules', title: 'Alert rules', needs: 'view_events', under: '/alerts' },
  { path: '/events', page: 'events', title: 'Events', icon: 'bell', needs: 'view_events' },
  { path: '/audit', page: 'audit', title: 'Audit log', icon: 'scroll-text', needs: 'view_audit', group: 'Administration' },
  { path: '/config', page: 'config', title: 'Configuration', icon: 'sliders-horizontal', needs: 'view_config', group: 'Administration' },
  { path: '/users', page: 'users', title: 'Users and tokens', icon: 'users', group: 'Administration' },
  { path: '/help', page: 'help', title: 'Handbook', icon: 'book-open', group: 'Administration' },
  { path: '/help/:id', page: 'help', title: 'Handbook', under: '/help' },
  { path: '/login', page: 'login', title: 'Sign in', open: true },
  { path: '/setup', page: 'setup', title: 'First start', open: true },
];

/** The routes that the person may open, for navigation and palette. */
export function offered() { return routes.filter((r) => r.icon && may(r.needs)); }

function match(pathname) {
  for (const r of routes) {
    const want = r.path.split('/'), have = pathname.split('/');
    if (want.length !== have.length) continue;
    const params = {};
    if (want.every((w, i) => w[0] === ':' ? have[i] && (params[w.slice(1)] = have[i]) : w === have[i])) return { route: r, params };
  }
  return null;
}

const changes = new EventTarget();
let current = null;

/** What is shown: {route, params}. */
export function here() { return current; }

/** Calls f(here) when another page is to be shown. */
export function onNavigate(f) { changes.addEventListener('page', () => f(current)); }

/** Calls f when the query changes on the same page. */
export function onQuery(f, signal) { changes.addEventListener('query', f, { signal }); }

/** The query of the address bar. */
export function params() { return new URLSearchParams(location.search); }

/** Changes parts of the query: a value of '' or null removes. */
export function setParams(values, { push = false } = {}) {
  const q = params();
  for (const [k, v] of Object.entries(values)) {
    if (v == null || v === '') q.delete(k);
    else q.set(k, v);
  }
  const text = q.toString();
  const url = location.pathname + (text ? '?' + text : '');
  if (url === location.pathname + location.search) return;
  history[push ? 'pushState' : 'replaceState'](null, '', url);
  changes.dispatchEvent(new Event('query'));
}

/** Goes to a page of ours. */
export function go(url, { replace = false } = {}) {
  const to = new URL(url, location.href);
  if (to.pathname === location.pathname && current) {
    if (to.search !== location.search) history.pushState(null, '', to);
    changes.dispatchEvent(new Event('query'));
    return;
  }
  history[replace ? 'replaceState' : 'pushState'](null, '', to);
  show();
}

function show() {
  if (location.pathname === '/') history.replaceState(null, '', '/dashboard' + location.search);
  const found = match(location.pathname);
  if (!session.user && !found?.route.open) {
    const next = location.pathname + location.search;
    history.replaceState(null, '', '/login' + (next === '/dashboard' ? '' : '?' + new URLSearchParams({ next })));
    current = match('/login');
  } else if (found && !may(found.route.needs)) current = { route: { page: 'refused', title: 'Not for your role' }, params: {} };
  else current = found ?? { route: { page: 'missing', title: 'Not found' }, params: {} };
  changes.dispatchEvent(new Event('page'));
}

/** Begins: follows links and the back button. */
export function start() {
  let shown = location.pathname;
  addEventListener('popstate', () => {
    if (location.pathname === shown) changes.dispatchEvent(new Event('query'));
    else show();
  });
  changes.addEventListener('page', () => { shown = location.pathname; });
  document.addEventListener('click', (event) => {
    const a = event.target.closest?.('a[href]');
    if (!a || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || a.target || a.hasAttribute('download')) return;
    const to = new URL(a.href, location.href);
    if (to.origin !== location.origin || to.pathname.startsWith('/api/') || to.pathname.startsWith('/assets/')) return;
    if (to.pathname === location.pathname && to.hash && to.search === location.search) return;
    event.preventDefault();
    go(to.pathname + to.search + to.hash);
  });
  show();
}

/** Shows the page anew, as after signing in. */
export function again() { show(); }
