// A NetworkPolicy between YAML and the visual builder. This reads the YAML that
// people write for NetworkPolicies: mappings, lists, quoted and plain scalars,
// flow lists and mappings, comments. What it does not understand (anchors, tags,
// block texts) it says; the server judges the text itself either way.

class Unreadable extends Error {}

function scalar(s) {
  if (s === '' || s === '~' || s === 'null') return null;
  if (s === 'true') return true;
  if (s === 'false') return false;
  if (/^-?\d+$/.test(s)) return Number(s);
  if (s[0] === '"') return JSON.parse(s);
  if (s[0] === "'") return s.slice(1, -1).replaceAll("''", "'");
  if (s[0] === '{' || s[0] === '[') return flow(s);
  if (/^[&*!|>%@`]/.test(s)) throw new Unreadable(s);
  return s;
}

/** {a: b} and [a, b] on one line. */
function flow(s) {
  let i = 0;
  const skip = () => { while (s[i] === ' ') i++; };
  const word = () => {
    skip();
    if (s[i] === '"' || s[i] === "'") {
      const q = s[i], from = i++;
      while (i < s.length && s[i] !== q) i += s[i] === '\\' && q === '"' ? 2 : 1;
      return scalar(s.slice(from, ++i));
    }
    const from = i;
    while (i < s.length && !',]}'.includes(s[i]) && !(s[i] === ':' && (s[i + 1] === ' ' || s[i + 1] === undefined))) i++;
    return scalar(s.slice(from, i).trim());
  };
  const value = () => {
    skip();
    if (s[i] === '[') {
      const out = [];
      for (i++, skip(); s[i] !== ']'; skip()) { if (i >= s.length) throw new Unreadable(s); out.push(value()); skip(); if (s[i] === ',') i++; }
      i++;
      return out;
    }
    if (s[i] === '{') {
      const out = {};
      for (i++, skip(); s[i] !== '}'; skip()) {
        if (i >= s.length) throw new Unreadable(s);
        const k = String(word());
        skip();
        out[k] = s[i] === ':' ? (i++, value()) : null;
        skip();
        if (s[i] === ',') i++;
      }
      i++;
      return out;
    }
    return word();
  };
  return value();
}

function split(line) {
  const m = line.match(/^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s:#[\]{},"'][^:#]*?):(?:\s+(.*))?$/);
  return m && [m[1].replace(/^["']|["']$/g, ''), (m[2] ?? '').trim()];
}

/** Reads YAML into plain values; throws for what it does not read. */
export function parse(text) {
  const rows = text.split('\n').map((l) => l.replace(/(^|\s)#.*$/, '$1').trimEnd()).filter((l) => l.trim() && l.trim() !== '---')
    .map((l) => ({ indent: l.search(/\S/), text: l.trim() }));
  let i = 0;
  const block = (indent) => {
    if (i >= rows.length || rows[i].indent < indent) return null;
    const at = rows[i].indent;
    if (rows[i].text === '-' || rows[i].text.startsWith('- ')) {
      const list = [];
      while (i < rows.length && rows[i].indent === at && (rows[i].text === '-' || rows[i].text.startsWith('- '))) {
        const rest = rows[i].text.slice(1).trimStart();
        if (!rest) { i++; list.push(block(at + 1)); continue; }
        if (split(rest)) {
          rows[i] = { indent: at + rows[i].text.length - rest.length, text: rest };
          list.push(block(rows[i].indent));
        } else { i++; list.push(scalar(rest)); }
      }
      return list;
    }
    const map = {};
    while (i < rows.length && rows[i].indent === at) {
      const kv = split(rows[i].text);
      if (!kv) throw new Unreadable(rows[i].text);
      i++;
      if (kv[1]) map[kv[0]] = scalar(kv[1]);
      else {
        const next = rows[i];
        map[kv[0]] = next && (next.indent > at || next.indent === at && next.text.startsWith('-')) ? block(next.indent) : null;
      }
    }
    if (i < rows.length && rows[i].indent > at) throw new Unreadable(rows[i].text);
    return map;
  };
  return block(0);
}

function quote(v) {
  if (v === null) return 'null';
  if (typeof v !== 'string') return String(v);
  return /^[A-Za-z_./][\w./~-]*$/.test(v) && !/^(true|false|null|yes|no|on|off)$/i.test(v) ? v : JSON.stringify(v);
}

/** Writes plain values as YAML, as people write NetworkPolicies. */
export function write(v, indent = 0) {
  const pad = ' '.repeat(indent);
  if (Array.isArray(v)) {
    return v.map((x) => {
      if (x !== null && typeof x === 'object' && Object.keys(x).length) return `${pad}- ${write(x, indent + 2).trimStart()}`;
      return `${pad}- ${x !== null && typeof x === 'object' ? (Array.isArray(x) ? '[]' : '{}') : quote(x)}\n`;
    }).join('');
  }
  return Object.entries(v).filter(([, x]) => x !== undefined).map(([k, x]) => {
    if (x !== null && typeof x === 'object') {
      if (!Object.keys(x).length) return `${pad}${quote(k)}: ${Array.isArray(x) ? '[]' : '{}'}\n`;
      return `${pad}${quote(k)}:\n${write(x, Array.isArray(x) ? indent : indent + 2)}`;
    }
    return `${pad}${quote(k)}: ${quote(x)}\n`;
  }).join('');
}

/** What a new policy begins as. */
export function blank() {
  return {
    apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name: 'new-policy', namespace: 'default' },
    spec: { podSelector: { matchLabels: {} }, policyTypes: ['Ingress'], ingress: [] },
  };
}
