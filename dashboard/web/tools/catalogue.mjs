// Gathers every message of the interface into src/messages/en.json, for
// translators: node dashboard/web/tools/catalogue.mjs
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const src = fileURLToPath(new URL('../src/', import.meta.url));
const literal = String.raw`'((?:[^'\\]|\\.)*)'`;
const single = new RegExp(String.raw`\bt\(\s*${literal}`, 'g');
const plural = new RegExp(String.raw`\btn\([^']*?,\s*${literal},\s*${literal}`, 'g');

function walk(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((e) => (e.isDirectory() ? walk(join(folder, e.name)) : [join(folder, e.name)]));
}

/** Every message, in order. */
export function messages() {
  const found = new Set();
  for (const name of walk(src).filter((f) => f.endsWith('.js'))) {
    const text = readFileSync(name, 'utf8');
    for (const m of text.matchAll(single)) found.add(m[1].replace(/\\(.)/g, '$1'));
    for (const m of text.matchAll(plural)) { found.add(m[1]); found.add(m[2]); }
  }
  return [...found].filter(Boolean).sort();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = join(src, 'messages/en.json');
  const text = JSON.stringify(Object.fromEntries(messages().map((m) => [m, m])), null, 1) + '\n';
  writeFileSync(file, text);
  console.log(`${messages().length} messages`);
}
