// A text field for YAML: colours, line numbers, marks at the lines that the
// server complained of. The text is an ordinary field, so that keyboard, screen
// reader, spelling tools and undo work; the colours lie under it.
import { h, patch, scheduler } from '../core/dom.js';
import { t } from '../core/text.js';

const token = /(#.*$)|("(?:[^"\\]|\\.)*"?|'(?:[^']|'')*'?)|^(\s*)(- )?([\w./~-]+)(?=:(\s|$))|(\b\d[\d.]*\b|\btrue\b|\bfalse\b|\bnull\b)|([-:{}[\],|>&*])/g;

/** One line as coloured pieces. */
export function highlight(line) {
  const out = [];
  let at = 0;
  for (const m of line.matchAll(token)) {
    if (m.index > at) out.push(line.slice(at, m.index));
    if (m[1] != null) out.push(h('span.tok-comment', null, m[1]));
    else if (m[2] != null) out.push(h('span.tok-string', null, m[2]));
    else if (m[5] != null) out.push(m[3], m[4] && h('span.tok-mark', null, m[4]), h('span.tok-key', null, m[5]));
    else if (m[7] != null) out.push(h('span.tok-number', null, m[7]));
    else out.push(h('span.tok-mark', null, m[8]));
    at = m.index + m[0].length;
  }
  out.push(line.slice(at));
  return out;
}

export class Yaml extends HTMLElement {
  constructor() {
    super();
    this.value_ = '';
    this.problems_ = [];
    this.update = scheduler(() => this.isConnected && this.draw());
  }
  get value() { return this.value_; }
  set value(v) {
    if (v === this.value_) return;
    this.value_ = v;
    const field = this.querySelector('textarea');
    if (field && field.value !== v) field.value = v;
    this.update();
  }
  /** [{line, detail}] */
  set problems(v) { this.problems_ = v ?? []; this.update(); }
  set readonly(v) { this.readonly_ = v; this.update(); }
  connectedCallback() { this.draw(); }

  draw() {
    const lines = this.value_.split('\n');
    const bad = new Map(this.problems_.filter((p) => p.line).map((p) => [p.line, p.detail]));
    patch(this, h('div.editor', { key: 'e' },
      h('div.gutter', { 'aria-hidden': 'true' }, lines.map((_, i) => [bad.has(i + 1) ? h('b', { title: bad.get(i + 1) }, '● ', i + 1) : String(i + 1), '\n'])),
      h('div.both', null,
        h('pre', { 'aria-hidden': 'true' }, lines.map((l) => h('div', null, l ? highlight(l) : ' '))),
        h('textarea', {
          'aria-label': this.label ?? t('Policy as YAML'), spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off', readonly: this.readonly_ || null,
          'aria-invalid': bad.size ? 'true' : null, '.value': this.value_,
          on: {
            input: (e) => { this.value_ = e.target.value; this.update(); this.oninput_?.(this.value_); },
            keydown: (e) => this.#key(e),
          },
        }))));
  }

  #key(e) {
    const f = e.target;
    // Tab leaves the field, as everywhere; Ctrl+] and Ctrl+[ move lines.
    if (e.key === 'Enter' && !e.isComposing) {
      const line = f.value.slice(f.value.lastIndexOf('\n', f.selectionStart - 1) + 1, f.selectionStart);
      const indent = line.match(/^\s*/)[0] + (/:\s*$/.test(line) ? '  ' : '');
      if (indent) { e.preventDefault(); insert(f, '\n' + indent); }
    } else if (e.ctrlKey && (e.key === ']' || e.key === '[')) {
      e.preventDefault();
      const start = f.value.lastIndexOf('\n', f.selectionStart - 1) + 1;
      const at = f.selectionStart;
      f.setSelectionRange(start, e.key === ']' ? start : Math.min(start + 2, start + f.value.slice(start).match(/^ {0,2}/)[0].length));
      insert(f, e.key === ']' ? '  ' : '');
      f.setSelectionRange(Math.max(start, at + (e.key === ']' ? 2 : -2)), Math.max(start, at + (e.key === ']' ? 2 : -2)));
    }
  }
}
customElements.define('p-yaml', Yaml);

/** Types text into a field so that its own undo knows of it. */
function insert(field, text) {
  if (!document.execCommand('insertText', false, text)) field.setRangeText(text, field.selectionStart, field.selectionEnd, 'end');
  field.dispatchEvent(new Event('input', { bubbles: true }));
}
