// Markdown as the handbook uses it, made into elements: headings, paragraphs,
// lists, code, tables, links, emphasis. No HTML passes.
import { h } from './dom.js';

const inline = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\(([^)\s]+)\)/g;

function spans(text) {
  const out = [];
  let at = 0;
  for (const m of text.matchAll(inline)) {
    out.push(text.slice(at, m.index));
    if (m[1] != null) out.push(h('code', null, m[1]));
    else if (m[2] != null) out.push(h('b', null, m[2]));
    else if (m[3] != null) out.push(h('em', null, m[3]));
    else out.push(h('a', { href: link(m[5]) }, m[4]));
    at = m.index + m[0].length;
  }
  out.push(text.slice(at));
  return out;
}

/** Links between files of the handbook become links between pages; others stay on this server. */
function link(to) {
  const page = to.match(/^(?:\.\/)?([a-z-]+)\.md(#.*)?$/);
  if (page) return (page[1] === 'index' ? '/help' : '/help/' + page[1]) + (page[2] ?? '');
  return /^[/#]/.test(to) && !to.startsWith('//') ? to : '#';
}

function slug(text) { return text.toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, ''); }

export function markdown(text) {
  const lines = text.split('\n');
  const out = [];
  let i = 0;
  while (i < lines.length) {
    const l = lines[i];
    const head = l.match(/^(#{1,4}) (.*)$/);
    if (head) { out.push(h('h' + head[1].length, { id: slug(head[2]) }, spans(head[2]))); i++; } else if (l.startsWith('```')) {
      const from = ++i;
      while (i < lines.length && !lines[i].startsWith('```')) i++;
      out.push(h('pre', { tabindex: '0' }, h('code', null, lines.slice(from, i).join('\n'))));
      i++;
    } else if (/^\s*([-*]|\d+\.) /.test(l)) {
      const ordered = /^\s*\d/.test(l);
      const items = [];
      while (i < lines.length && (/^\s*([-*]|\d+\.) /.test(lines[i]) || /^\s{2,}\S/.test(lines[i]) && items.length)) {
        const m = lines[i].match(/^\s*([-*]|\d+\.) (.*)$/);
        if (m) items.push(m[2]); else items[items.length - 1] += ' ' + lines[i].trim();
        i++;
      }
      out.push(h(ordered ? 'ol' : 'ul', null, items.map((x) => h('li', null, spans(x)))));
    } else if (l.startsWith('<!--')) i++;
    else if (l.startsWith('|')) {
      const rows = [];
      while (i < lines.length && lines[i].startsWith('|')) rows.push(lines[i++].split('|').slice(1, -1).map((c) => c.trim()));
      const [top, , ...rest] = rows;
      out.push(h('table', { tabindex: '0' }, h('thead', null, h('tr', null, top.map((c) => h('th', { scope: 'col' }, spans(c))))), h('tbody', null, rest.map((r) => h('tr', null, r.map((c) => h('td', null, spans(c))))))));
    } else if (l.trim()) {
      const from = i;
      while (i < lines.length && lines[i].trim() && !/^(#{1,4} |```|\||\s*([-*]|\d+\.) )/.test(lines[i])) i++;
      out.push(h('p', null, spans(lines.slice(from, i).join(' '))));
    } else i++;
  }
  return out;
}
