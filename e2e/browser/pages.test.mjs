// Every page in every state of the fabric: nothing breaks, nothing leaves the
// origin, nothing is violated, and axe finds nothing in either theme.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { browser, figure, go, limit, open, out, pages, window_, world } from './rig.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];

let b;
before(async () => { b = await browser(); });
after(async () => { await b.close(); });

const at = (w, path) => (w.name === 'thousand' ? path.replace('site=hq', 'site=berlin-010').replace('/sites/hq', '/sites/berlin-010') : w.name === 'empty' ? path.replace(/\/policies\/default~.*/, '/policies/new') : path);

for (const name of ['empty', 'three', 'thousand']) {
  describe(`world ${name}`, () => {
    let w;
    before(async () => { w = await world(name); });
    after(async () => { await w.close(); });

    test('every page', { timeout: limit(240_000) }, async () => {
      const page = await window_(b, w, 'admin');
      await open(page, w, '/help/keys');
      // Axe runs where the policy forbids scripts that are not ours: the debugger
      // evaluates it, which no policy concerns.
      await page.evaluate(axe);
      const found = [];
      for (const [p, path] of Object.entries(pages)) {
        await go(page, at(w, path));
        await page.waitForTimeout(250);
        // Structure is checked in light, colours in both where pages are at their fullest.
        for (const theme of name === 'three' ? ['light', 'dark'] : name === 'empty' ? ['light'] : ['dark']) {
          await page.emulateMedia({ colorScheme: theme, reducedMotion: 'reduce' });
          await page.evaluate(async () => {
            for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
            await Promise.all(document.getAnimations().map((a) => a.finished.catch(() => {})));
          });
          const options = theme === 'light' || name === 'thousand' ? { runOnly: rules } : { runOnly: { type: 'rule', values: ['color-contrast'] } };
          const { violations } = await page.evaluate((o) => window.axe.run(document, { ...o, resultTypes: ['violations'] }), options);
          for (const v of violations) found.push(`${theme} ${p}: ${v.id}: ${v.nodes.slice(0, 3).map((n) => `${n.target} ${n.any[0]?.message ?? n.failureSummary}`).join(' | ')}`);
          await page.screenshot({ path: `${out}${name}-${p}-${theme}.png` });
        }
      }
      const bad = [...new Set(await page.bad())];
      figure(`axe violations, world ${name}`, found.length, 0);
      figure(`console errors, CSP violations and foreign requests, world ${name}`, bad.length, 0);
      assert.deepEqual([...found, ...bad], []);
      await page.context().close();
    });
  });
}

describe('three sites', () => {
  let w;
  before(async () => { w = await world('three'); });
  after(async () => { await w.close(); });

  test('a phone shows every page without scrolling sideways', { timeout: limit(60_000) }, async () => {
    const page = await window_(b, w, 'admin', { viewport: { width: 390, height: 844 } });
    await open(page, w, '/help');
    for (const [p, path] of Object.entries(pages)) {
      await go(page, path);
      await page.waitForTimeout(200);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${p} is wider than the screen`);
      await page.screenshot({ path: `${out}three-${p}-390.png` });
    }
    assert.deepEqual(await page.bad(), []);
    await page.context().close();
  });

  test('without live streams every page works and says that it is out of date', { timeout: limit(90_000) }, async () => {
    const page = await window_(b, w, 'admin', { tolerate: /WebSocket/ });
    await page.routeWebSocket(/\/ws\//, (ws) => ws.close());
    await open(page, w, '/help');
    for (const [p, path] of Object.entries(pages)) {
      await go(page, path);
      assert.ok((await page.textContent('.content')).length > 40, p);
    }
    await page.waitForSelector('.live.down', { timeout: 15_000 });
    assert.match(await page.textContent('.live'), /Reconnecting/);
    await page.context().close();
  });

  test('a viewer sees no control that the API would refuse', { timeout: limit(60_000) }, async () => {
    const page = await window_(b, w, 'viewer');
    await open(page, w, '/help');
    const forbidden = /^(edit|remove|delete|apply|new policy|test|test now|capture|acknowledge|judge again|promote|demote|add a user|save)$/i;
    for (const [p, path] of Object.entries(pages)) {
      if (p === 'audit') continue;
      await go(page, path);
      const names = await page.$$eval('.content button, .content a.btn', (list) => list.map((e) => (e.getAttribute('aria-label') ?? e.textContent).trim()));
      for (const n of names) assert.ok(!forbidden.test(n), `${p} offers "${n}" to a viewer`);
    }
    await go(page, '/audit');
    assert.match(await page.textContent('.content'), /Not for your role/);
    assert.equal(await page.$('.side a[href="/audit"]'), null);
    const answers = await page.evaluate(async () => {
      const send = (method, path, body) => fetch(path, { method, headers: { 'Content-Type': 'application/json' }, body: body && JSON.stringify(body) }).then((r) => r.status);
      return [await send('DELETE', '/api/v1/policies/default~block-ssh'), await send('POST', '/api/v1/policies', { spec: 'x' }), await send('DELETE', '/api/v1/sites/east'), await send('POST', '/api/v1/paths/hq.wan0~east.wan0/test', {}), await send('GET', '/api/v1/audit'), await send('POST', '/api/v1/captures', { site: 'hq' }), await send('GET', '/api/v1/users')];
    });
    assert.deepEqual(answers, answers.map(() => 403));
    await page.context().close();
  });

  test('the keyboard alone reaches every control, and leaves it', { timeout: limit(90_000) }, async () => {
    const page = await window_(b, w, 'admin');
    await open(page, w, '/help');
    await page.keyboard.press('p'); // nothing changes while we walk
    for (const [p, path] of Object.entries(pages)) {
      await go(page, path);
      const wanted = await page.evaluate(() => {
        const list = [...document.querySelectorAll('a[href], button:not(:disabled), input:not([hidden]):not(:disabled), select, textarea, [tabindex="0"]')].filter((e) => e.checkVisibility() && e.tabIndex >= 0 && !e.closest('[inert]'));
        list.forEach((e, i) => { e.walk_ = i; });
        window.walk = list;
        return list.length;
      });
      const met = new Set();
      let invisible = 0;
      for (let i = 0; i < 2 * wanted + 80; i++) { // a table brings more rows as one walks through it
        await page.keyboard.press('Tab');
        const now = await page.evaluate(() => {
          const e = document.activeElement;
          const s = getComputedStyle(e);
          return { walk: e.walk_, seen: e === document.body || s.outlineStyle !== 'none' && s.outlineWidth !== '0px' };
        });
        if (now.walk != null) met.add(now.walk);
        if (!now.seen) invisible++;
        if (met.size >= wanted) break;
      }
      // A control that is gone by now, as a row of a table that moved on, cannot be met.
      const missed = await page.evaluate((have) => window.walk.filter((e, i) => !have.includes(i) && e.isConnected).map((e) => e.getAttribute('aria-label') ?? e.textContent), [...met]);
      assert.ok(missed.length <= 2, `${p}: ${met.size} of ${wanted} controls met by Tab; missed ${missed.join(', ')}`);
      assert.equal(invisible, 0, `${p}: focus is not visible on ${invisible} controls`);
    }
    await page.context().close();
  });

  test('keys: palette, search, help, go to', { timeout: limit(40_000) }, async () => {
    const page = await window_(b, w, 'admin');
    await open(page, w, '/dashboard');
    await page.keyboard.press('Control+k');
    await page.keyboard.type('east.wan0 → hq');
    await page.keyboard.press('Enter');
    await page.waitForURL(/\/metrics\?site=east&path=east.wan0~hq.wan0/);
    await page.keyboard.press('g');
    await page.keyboard.press('f');
    await page.waitForURL(/\/flows/);
    await page.waitForSelector('p-table');
    await page.keyboard.press('/');
    assert.equal(await page.evaluate(() => document.activeElement.matches('[data-search]')), true);
    await page.keyboard.press('Escape');
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press('?');
    await page.waitForSelector('dialog[open]');
    await page.keyboard.press('Escape');
    assert.equal(await page.$('dialog[open]'), null);
    assert.deepEqual(await page.bad(), []);
    await page.context().close();
  });
});

describe('hostile names and messages', () => {
  let w;
  before(async () => { w = await world('hostile'); });
  after(async () => { await w.close(); });

  test('are text on every page', { timeout: limit(90_000) }, async () => {
    const page = await window_(b, w, 'admin');
    let shown = false;
    await open(page, w, '/help');
    for (const path of Object.values(pages)) {
      await go(page, path);
      await page.waitForTimeout(400);
      shown ||= (await page.textContent('body')).includes('onerror');
      assert.equal(await page.evaluate(() => window.attacked), undefined, path);
    }
    assert.ok(shown, 'the attack was never shown, so this proves nothing');
    const bad = await page.bad();
    figure('scripts run by hostile texts, CSP and Trusted Types violations', bad.length, 0);
    assert.deepEqual(bad, []);
    await page.context().close();
  });
});
