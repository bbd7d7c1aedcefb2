// Figures beside the bars: bytes, main-thread CPU, first paint, memory. Bytes
// and CPU are gates; times on the wall are told, since machines differ.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { browser, figure, limit, median, open, window_, world } from './rig.mjs';

let b;
before(async () => { b = await browser(); });
after(async () => { await b.close(); });

/** CPU seconds of the page's main thread so far. */
async function cpu(client) {
  const { metrics } = await client.send('Performance.getMetrics');
  const of = (name) => metrics.find((m) => m.name === name).value;
  return { task: of('TaskDuration'), script: of('ScriptDuration'), thread: of('ThreadTime') ?? of('TaskDuration'), heap: of('JSHeapUsedSize') };
}

async function watched(page) {
  const client = await page.context().newCDPSession(page);
  await client.send('Performance.enable', { timeDomain: 'threadTicks' });
  return client;
}

describe('three sites', () => {
  let w;
  before(async () => { w = await world('three'); });
  after(async () => { await w.close(); });

  test('first visit: kilobytes on the wire, gzip', { timeout: limit(90_000) }, async () => {
    const bars = { '/dashboard': 180, '/flows': 110, '/events': 110, '/sites': 110, '/policies': 110, '/metrics?site=hq': 250, '/topology': 250 };
    for (const [path, bar] of Object.entries(bars)) {
      const page = await window_(b, w, 'admin');
      await page.setExtraHTTPHeaders({ 'Accept-Encoding': 'gzip' });
      const client = await page.context().newCDPSession(page);
      await client.send('Network.enable');
      let bytes = 0, data = 0, requests = 0;
      const kind = new Map();
      client.on('Network.responseReceived', (e) => kind.set(e.requestId, e.response.url));
      client.on('Network.loadingFinished', (e) => {
        const url = kind.get(e.requestId) ?? '';
        if (url.includes('/api/')) data += e.encodedDataLength; else bytes += e.encodedDataLength;
        requests++;
      });
      await open(page, w, path);
      await page.waitForTimeout(500);
      const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
      figure(`KB of ${path}`, Math.round(bytes / 100) / 10, bar, { data_kb: Math.round(data / 100) / 10, requests, fcp_ms: Math.round(paint), fcp_bar_ms: 1000 });
      assert.ok(bytes / 1000 <= bar, `${path} weighs ${bytes} bytes`);
      await page.context().close();
    }
  });

  test('a page asks the API little enough for the limit of a user', { timeout: limit(60_000) }, async () => {
    const page = await window_(b, w, 'admin');
    let asked = 0;
    page.on('request', (r) => { if (r.url().includes('/api/')) asked++; });
    await open(page, w, '/dashboard');
    asked = 0;
    await page.waitForTimeout(15_000);
    figure('API requests of the dashboard in a minute', asked * 4, 100);
    assert.ok(asked * 4 <= 50);
    await page.context().close();
  });

  test('six lines of 3,600 points: one more second costs little', { timeout: limit(60_000) }, async () => {
    const page = await window_(b, w, 'admin');
    await open(page, w, '/metrics?site=hq');
    const client = await watched(page);
    await page.evaluate(() => {
      const chart = document.querySelector('p-chart');
      const now = Date.now();
      window.lines = Array.from({ length: 6 }, (_, k) => ({ label: 'p' + k, color: ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#6d5bc4', '#5b6b00'][k], points: Array.from({ length: 3600 }, (_, i) => ({ x: now - (3600 - i) * 1000, y: 20 + 8 * k + Math.sin(i / 40) * 4 })) }));
      window.tick = () => {
        const x = window.lines[0].points.at(-1).x + 1000;
        for (const l of window.lines) { l.points.shift(); l.points.push({ x, y: 30 }); }
        chart.data_ = { ...chart.data_, series: window.lines, from: x - 3600e3, to: x };
        chart.draw();
      };
    });
    const costs = [];
    for (let i = 0; i < 12; i++) {
      const from = await cpu(client);
      await page.evaluate(() => new Promise((r) => requestAnimationFrame(() => { window.tick(); r(); })));
      costs.push(((await cpu(client)).task - from.task) * 1000);
    }
    figure('CPU ms of a chart tick, 6 x 3,600', Math.round(median(costs) * 10) / 10, 25, { least: Math.round(Math.min(...costs) * 10) / 10 });
    await page.context().close();
  });
});

describe('a thousand sites', () => {
  let w;
  before(async () => { w = await world('thousand'); });
  after(async () => { await w.close(); });

  test('live ticks of 2,991 paths', { timeout: limit(120_000) }, async () => {
    for (const [path, bar] of [['/dashboard', 25], ['/topology', 25], ['/sites', 25]]) {
      const page = await window_(b, w, 'admin');
      const client = await watched(page);
      await open(page, w, path);
      await page.waitForTimeout(4000);
      const costs = [];
      for (let i = 0; i < 10; i++) {
        const from = await cpu(client);
        const began = Date.now();
        await page.waitForTimeout(1000);
        costs.push(((await cpu(client)).task - from.task) * 1000 / ((Date.now() - began) / 1000));
      }
      const value = Math.round(median(costs) * 10) / 10;
      figure(`CPU ms of the main thread in a second of ${path}, 1,000 sites`, value, bar, { least: Math.round(Math.min(...costs)), most: Math.round(Math.max(...costs)), p95_bar: 50 });
      await page.context().close();
    }
  });

  test('the whole map: 1,000 nodes, 2,991 edges', { timeout: limit(90_000) }, async () => {
    const page = await window_(b, w, 'admin');
    const client = await watched(page);
    await open(page, w, '/sites');
    await page.waitForTimeout(1500);
    const from = await cpu(client);
    await page.evaluate(() => {
      const a = document.createElement('a');
      a.href = '/topology?group=none';
      document.querySelector('.content').append(a);
      a.click();
    });
    await page.waitForFunction(() => document.querySelector('p-topology')?.scene?.nodes.length >= 1000 && document.querySelector('p-topology').painted_ >= 2, null, { timeout: 30_000 });
    const value = ((await cpu(client)).task - from.task) * 1000;
    const size = await page.evaluate(() => { const s = document.querySelector('p-topology').scene; return [s.nodes.length, s.edges.length]; });
    figure('CPU ms to load the map on the main thread', Math.round(value), 300, { nodes: size[0], edges: size[1] });
    await page.context().close();
  });

  test('memory stays flat', { timeout: limit(150_000) }, async () => {
    const seconds = Number(process.env.SOAK ?? 30);
    const page = await window_(b, w, 'admin');
    const client = await watched(page);
    await client.send('HeapProfiler.enable');
    await open(page, w, '/dashboard');
    const heap = async () => { await client.send('HeapProfiler.collectGarbage'); return (await cpu(client)).heap / 1e6; };
    await page.waitForTimeout(8000);
    const first = await heap();
    await page.waitForTimeout(seconds * 1000);
    const last = await heap();
    figure('heap MB gained in 10 minutes, projected', Math.round((last - first) * 600 / seconds * 10) / 10, 1, { seconds, heap_mb: Math.round(last * 10) / 10 });
    await page.context().close();
  });
});
