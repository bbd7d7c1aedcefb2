// What people do, clicked through: first start, a policy from idea to applied,
// a flow's decision, a zoom that a colleague opens.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { browser, limit, open, window_, world } from './rig.mjs';

let b;
before(async () => { b = await browser(); });
after(async () => { await b.close(); });

test('first start makes an administrator, once', { timeout: limit(60_000) }, async () => {
  const w = await world('fresh');
  const page = await window_(b, w, null, { tolerate: /40[13]|422/ });
  await page.goto(w.url + '/');
  await page.waitForURL(/\/setup/);
  await page.fill('[name=code]', 'wrong');
  await page.fill('[name=password]', 'a long enough sentence');
  await page.fill('[name=again]', 'a long enough sentence');
  await page.click('button[type=submit]');
  await page.waitForSelector('[role=alert]');
  await page.fill('[name=code]', w.code);
  await page.click('button[type=submit]');
  await page.waitForURL(/\/dashboard/);
  await page.waitForSelector('.verdict');
  await page.context().clearCookies();
  await page.goto(w.url + '/sites?q=hq');
  await page.waitForURL(/\/login\?next=/);
  await page.fill('[name=username]', 'admin');
  await page.fill('[name=password]', 'not it at all');
  await page.click('button[type=submit]');
  assert.match(await page.textContent('#wrong'), /do not fit/);
  await page.fill('[name=password]', 'a long enough sentence');
  await page.click('button[type=submit]');
  await page.waitForURL(/\/sites\?q=hq/);
  assert.deepEqual(await page.bad(), []);
  await w.close();
});

describe('three sites', () => {
  let w, page;
  before(async () => { w = await world('three'); page = await window_(b, w, 'admin', { tolerate: /40[49]|422/ }); });
  after(async () => { await w.close(); });

  test('a policy: write, be told of a mistake, simulate, apply, undo', { timeout: limit(90_000) }, async () => {
    await open(page, w, '/policies/new');
    const yaml = (port) => `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: cache-only\n  namespace: default\nspec:\n  podSelector:\n    matchLabels:\n      app: cache\n  policyTypes: [Ingress]\n  ingress:\n  - ports:\n    - protocol: TCP\n      port: ${port}\n`;
    await page.fill('p-yaml textarea', yaml('99999999'));
    await page.waitForSelector('.wrong');
    assert.match(await page.textContent('[role=alert]'), /Line \d+/);
    await page.fill('p-yaml textarea', yaml('6379'));
    await page.waitForSelector('.wrong', { state: 'detached' });
    await page.click('text=Simulate');
    await page.waitForSelector('text=What it would change');
    await page.click('button:text-is("Apply")');
    await page.waitForURL(/\/policies\/default~cache-only/);
    await open(page, w, '/policies');
    assert.ok(await page.$('text=cache-only'));
    await page.selectOption('select[aria-label="Mode of cache-only"]', 'disabled');
    await page.click('.toast button:has-text("Undo")');
    await page.waitForFunction(() => document.querySelector('select[aria-label="Mode of cache-only"]').value === 'enforced');
    await page.click('button[aria-label="Delete cache-only"]');
    assert.equal(await page.isDisabled('button:text-is("Delete the policy")'), true);
    await page.fill('dialog input', 'cache-only');
    await page.click('button:text-is("Delete the policy")');
    await page.waitForFunction(() => !document.querySelector('section[aria-label="cache-only"]'));
    assert.deepEqual(await page.bad(), []);
  });

  test('the builder: drag a label, and the YAML says the same', { timeout: limit(60_000) }, async () => {
    await open(page, w, '/policies/new?view=builder');
    await page.waitForSelector('.piece:has-text("app=cache")');
    await page.dragAndDrop('.tray .piece:has-text("app=cache")', '.zone.target');
    await page.dragAndDrop('.tray .piece:has-text("app=frontend")', '.zone[aria-label="May come in from"]');
    await page.click('.zone[aria-label="May come in from"] button:has-text("Port")');
    await page.fill('dialog [name=port]', '6379');
    await page.click('dialog button:text-is("Add")');
    await page.click('button:has-text("YAML")');
    const text = await page.inputValue('p-yaml textarea');
    for (const want of ['app: cache', 'app: frontend', 'port: 6379', 'from:']) assert.ok(text.includes(want), `${want} is not in\n${text}`);
  });

  test('a flow: search, open, see the decision; CSV', { timeout: limit(60_000) }, async () => {
    await open(page, w, '/flows');
    await page.fill('[data-search]', 'port:5060 udp');
    await page.waitForURL(/q=port/);
    await page.waitForSelector('p-table .rows .tr');
    const ports = await page.$$eval('p-table .rows .tr', (rows) => rows.map((r) => r.children[3].textContent));
    assert.ok(ports.length > 0 && ports.every((x) => x === '5060'));
    await page.click('p-table .rows .tr >> nth=0');
    await page.waitForSelector('dialog >> text=Why this way');
    assert.match(page.url(), /flow=/);
    await page.click('dialog >> text=Ask the site');
    await page.waitForSelector('dialog >> text=Arriving');
    await page.keyboard.press('Escape');
    const [file] = await Promise.all([page.waitForEvent('download'), page.click('button:has-text("CSV")')]);
    assert.equal(file.suggestedFilename(), 'flows.csv');
  });

  test('a zoom by brush is in the address, and another window shows the same', { timeout: limit(60_000) }, async () => {
    await open(page, w, '/metrics?site=hq');
    const box = await page.locator('p-chart canvas').first().boundingBox();
    await page.mouse.move(box.x + 200, box.y + 60);
    await page.mouse.down();
    await page.mouse.move(box.x + 420, box.y + 60, { steps: 5 });
    await page.mouse.up();
    await page.waitForURL(/from=.*to=/);
    const other = await window_(b, w, 'viewer');
    await other.goto(page.url());
    await other.waitForSelector('p-chart canvas');
    assert.equal(new URL(other.url()).search, new URL(page.url()).search);
    await page.goBack();
    await page.waitForURL(/\/metrics\?site=hq$/);
    await other.context().close();
  });

  test('the map: drag keeps a place, a click tells of a site, the list is its twin', { timeout: limit(60_000) }, async () => {
    await open(page, w, '/topology');
    await page.waitForTimeout(1500);
    const where = await page.evaluate(() => {
      const el = document.querySelector('p-topology'), n = el.scene.nodes.find((x) => x.id === 'east'), r = el.getBoundingClientRect();
      return { x: r.x + n.px, y: r.y + n.py };
    });
    await page.mouse.move(where.x, where.y);
    await page.waitForSelector('.tip:not([hidden]) >> text=east');
    await page.mouse.down();
    await page.mouse.move(where.x + 60, where.y - 40, { steps: 4 });
    await page.mouse.up();
    await page.waitForSelector('text=Reset the layout');
    await page.mouse.click(where.x + 60, where.y - 40);
    await page.waitForSelector('aside >> text=Prefixes');
    assert.match(page.url(), /pick=east/);
    await page.click('button:has-text("List")');
    assert.equal(await page.locator('.twin > ul > li').count(), 3);
  });
});
