// Pure modules of the interface, without a browser.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { root } from './rig.mjs';

const src = join(root, 'dashboard/web/src');
globalThis.localStorage ??= { getItem: () => null, setItem() {} };
globalThis.document ??= { documentElement: { dataset: {}, append() {} }, createElement: () => ({ style: {} }) };
globalThis.matchMedia ??= () => ({ matches: false });
// As make web has put them together: libraries are not in src.
const load = (name) => import(join(root, 'dashboard/web/dist/files', name));

test('YAML: what people write reads as they mean it, and is written back', async () => {
  const { parse, write } = await load('core/policymodel.js');
  const text = `# who may\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: "shop"}\nspec:\n  podSelector:\n    matchLabels:\n      app: web # front\n      tier: '8080'\n  policyTypes: [Ingress, Egress]\n  ingress:\n  - from:\n    - podSelector: {}\n    - ipBlock:\n        cidr: 10.0.0.0/8\n        except:\n        - 10.9.0.0/16\n    ports:\n    - {protocol: TCP, port: 8080}\n    - protocol: UDP\n      port: dns\n  egress: []\n`;
  const want = {
    apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name: 'web', namespace: 'shop' },
    spec: { podSelector: { matchLabels: { app: 'web', tier: '8080' } }, policyTypes: ['Ingress', 'Egress'], ingress: [{ from: [{ podSelector: {} }, { ipBlock: { cidr: '10.0.0.0/8', except: ['10.9.0.0/16'] } }], ports: [{ protocol: 'TCP', port: 8080 }, { protocol: 'UDP', port: 'dns' }] }], egress: [] },
  };
  assert.deepEqual(parse(text), want);
  assert.deepEqual(parse(write(want)), want);
  for (const bad of ['a: &x 1', 'a: |\n  text', 'a\n  b: 1', 'a: {b: 1']) assert.throws(() => parse(bad), undefined, bad);
});

test('CSV: quotes, and no formulas', async () => {
  globalThis.HTMLElement ??= class {};
  globalThis.customElements ??= { define() {} };
  globalThis.addEventListener ??= () => {};
  document.addEventListener ??= () => {};
  const { csvCell } = await load('elements/table.js');
  assert.equal(csvCell('a,b'), '"a,b"');
  assert.equal(csvCell('say "x"'), '"say ""x"""');
  assert.equal(csvCell('=cmd()'), "'=cmd()");
  assert.equal(csvCell(-5), '-5');
  assert.equal(csvCell(null), '');
});

test('flows: what is typed becomes parameters', async () => {
  const { parseSearch } = await load('core/flowsearch.js');
  assert.deepEqual(parseSearch('src:10.1.0.0/16 port:443 verdict:blocked'), { src: '10.1.0.0/16', port: '443', status: 'blocked' });
  assert.deepEqual(parseSearch('udp 5060'), { protocol: 'udp', port: '5060' });
  assert.deepEqual(parseSearch('10.1.1.5'), { q: '10.1.1.5' });
  assert.deepEqual(parseSearch('10.1.0.0/16 10.2.0.0/16 voip'), { src: '10.1.0.0/16', dst: '10.2.0.0/16', q: 'voip' });
});

test('a difference is minimal and complete', async () => {
  const { lines } = await load('elements/diff.js');
  const d = lines('a\nb\nc\nd', 'a\nx\nc\nd\ne');
  assert.deepEqual(d, [[' ', 'a'], ['-', 'b'], ['+', 'x'], [' ', 'c'], [' ', 'd'], ['+', 'e']]);
  const apply = (kinds) => d.filter(([k]) => kinds.includes(k)).map(([, l]) => l).join('\n');
  assert.equal(apply(' -'), 'a\nb\nc\nd');
  assert.equal(apply(' +'), 'a\nx\nc\nd\ne');
});

test('messages: the catalogue is complete, and another one is used', async () => {
  const { messages } = await import(join(root, 'dashboard/web/tools/catalogue.mjs'));
  const kept = JSON.parse(readFileSync(join(src, 'messages/en.json'), 'utf8'));
  assert.deepEqual(Object.keys(kept).sort(), messages(), 'run node dashboard/web/tools/catalogue.mjs');
  const { t, tn, useCatalogue } = await load('core/text.js');
  useCatalogue({ '{n} sites': '{n} Standorte' });
  assert.equal(tn(1200, '{n} site', '{n} sites'), '1,200 Standorte');
  assert.equal(t('Last {span}', { span: 'x' }), 'Last x');
  useCatalogue({});
});

test('no page writes HTML or styles in text, and none is longer than the house allows', () => {
  const walk = (folder) => readdirSync(folder, { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? walk(join(folder, e.name)) : [join(folder, e.name)]));
  for (const name of walk(src).filter((f) => f.endsWith('.js'))) {
    const text = readFileSync(name, 'utf8');
    const code = text.replace(/^\s*(\/\/|\*).*$/gm, '');
    for (const bad of [/\.innerHTML\b/, /\.outerHTML\b/, /insertAdjacentHTML/, /document\.write/, /\beval\(/, /new Function/, /setAttribute\('style'/, /https?:\/\/(?!www\.w3\.org)/]) assert.ok(!bad.test(code), `${name} has ${bad}`);
    assert.ok(text.split('\n').length <= 400, `${name} is longer than 400 lines`);
  }
});
