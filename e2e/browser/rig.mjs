// What every test of the pages stands on: the server with an invented fabric,
// Debian's chromium, and a watch over everything that must not happen.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

export const root = fileURLToPath(new URL('../..', import.meta.url));
export const out = fileURLToPath(new URL('../out/browser/', import.meta.url));
mkdirSync(out, { recursive: true });

/** How long a test may take; SLOW is how many times slower this machine is than an idle one. */
const slow = Number(process.env.SLOW ?? 1);
export function limit(ms) { return ms * slow; }

export const password = 'correct horse battery';

/** Pages with the addresses that show them at their fullest. */
export const pages = {
  dashboard: '/dashboard', topology: '/topology', 'topology-list': '/topology?view=list', sites: '/sites', site: '/sites/hq', metrics: '/metrics?site=hq', flows: '/flows', policies: '/policies',
  policy: '/policies/default~backend-ingress-policy', builder: '/policies/default~backend-ingress-policy?view=builder', events: '/events', audit: '/audit', config: '/config', users: '/users', help: '/help',
};

/** Starts a world; ends with close(). */
export async function world(name, ...flags) {
  const binary = process.env.FLEET ?? root + 'bin/fleet';
  if (!existsSync(binary)) throw new Error(`${binary} is missing: make e2e-browser builds it`);
  const child = spawn(binary, ['-world', name, ...flags], { stdio: ['pipe', 'pipe', 'inherit'] });
  const line = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once('line', resolve);
    child.once('exit', (code) => reject(new Error(`fleet ended with ${code}`)));
  });
  const { url, code } = JSON.parse(line);
  return {
    name, url, code, pid: child.pid,
    async close() {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.stdin.end();
      await Promise.race([gone, new Promise((resolve) => setTimeout(() => { child.kill('SIGKILL'); resolve(); }, 5000))]);
    },
  };
}

export async function browser() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--disable-gpu', '--no-sandbox', '--disable-background-networking'] });
}

/** A browser window of a user, with a watch over what must not happen. */
export async function window_(b, w, user, o = {}) {
  const context = await b.newContext({ ignoreHTTPSErrors: true, viewport: o.viewport ?? { width: 1440, height: 900 }, colorScheme: o.theme ?? 'light', reducedMotion: o.motion ? 'no-preference' : 'reduce', bypassCSP: Boolean(o.bypassCSP) });
  if (user) {
    const res = await context.request.post(w.url + '/api/v1/auth/login', { data: { username: user, password, session: true }, headers: { 'Sec-Fetch-Site': 'same-origin', Origin: w.url } });
    if (!res.ok()) throw new Error(`sign in as ${user}: ${res.status()} ${await res.text()}`);
  }
  const page = await context.newPage();
  page.setDefaultTimeout(limit(15_000));
  const bad = [];
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (e) => window.violations.push(`${e.violatedDirective} ${e.blockedURI} ${e.sample} ${e.sourceFile}:${e.lineNumber}`));
    window.addEventListener('unhandledrejection', (e) => console.error('unhandled', e.reason?.stack ?? e.reason));
  });
  page.on('console', (m) => { if (m.type() === 'error' && !o.tolerate?.test(m.text())) bad.push(`console: ${m.text()}`); });
  page.on('pageerror', (e) => bad.push(`error: ${e.stack ?? e.message}`));
  page.on('request', (r) => { const u = new URL(r.url()); if (!['data:', 'blob:'].includes(u.protocol) && u.host !== new URL(w.url).host) bad.push(`off origin: ${r.url()}`); });
  page.bad = async () => {
    const violations = await page.evaluate(() => window.violations).catch(() => []);
    return [...bad, ...violations.map((v) => `csp: ${v}`)];
  };
  return page;
}

/** Opens a page and waits until it shows something other than its skeleton. */
export async function open(page, w, path) {
  await page.goto(w.url + path);
  await page.waitForSelector('.page, .gate', { timeout: limit(20_000) });
  await page.waitForFunction(() => !document.querySelector('.skeleton'), null, { timeout: limit(20_000) });
  await page.evaluate(() => document.fonts.ready);
}

/** Goes to another page as a click does, without loading everything again. */
export async function go(page, path) {
  await page.evaluate((to) => {
    const a = document.createElement('a');
    a.href = to;
    document.querySelector('.content').append(a);
    a.click();
    a.remove();
  }, path);
  // The old page stands until the new one's module has come.
  await page.evaluate(() => new Promise((r) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(r)), 120)));
  await page.waitForFunction(() => document.querySelector('.page')?.childElementCount && !document.querySelector('.skeleton'), null, { timeout: limit(15_000) });
}

/** A figure beside its bar, as one line of JSON. */
export function figure(name, value, bar, more = {}) {
  console.log(JSON.stringify({ figure: name, value, bar, ...more }));
}

export function median(list) { return [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)]; }
