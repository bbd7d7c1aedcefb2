// A table of any length: only the rows in sight are in the page.
import { h, icon, patch, scheduler } from '../core/dom.js';
import { number, t, tn } from '../core/text.js';
import { prefer, preferences } from '../core/preferences.js';
import { download } from './bits.js';
import { menu } from './menu.js';

const over = 6; // rows beyond the visible ones

/**
 * Properties: name (of the table: keeps columns and names the CSV), columns
 * [{id, title, width, end, value(row) for order and CSV, cell(row), fixed}],
 * rows, rowKey(row), onopen(row), sort {id, down}, onsort(sort), selected,
 * label, bar (extra elements), csv, more() when the end comes into sight.
 */
export class Table extends HTMLElement {
  #scroll = null;
  #sorted = null;
  #focus = 0;
  #first = -1;
  #observer = null;

  constructor() {
    super();
    this.rows_ = [];
    this.update = scheduler(() => this.isConnected && this.draw());
  }

  set columns(v) { this.columns_ = v; this.#sorted = null; this.update(); }
  set rows(v) { if (v !== this.rows_ || v.changed_) this.#sorted = null; this.rows_ = v; this.update(); }
  set sort(v) { const key = `${v?.id}/${v?.down}`; if (key !== this.sortKey_) this.#sorted = null; this.sortKey_ = key; this.sort_ = v; this.update(); }
  get rows() { return this.rows_; }
  get sort() { return this.sort_; }
  get columns() { return this.columns_; }
  set selected(v) { if (v !== this.selected_) { this.selected_ = v; this.update(); } }
  set bar(v) { this.bar_ = v; this.update(); }
  /** Rows that changed in place: draws them without losing anything. */
  touch() { this.#sorted = null; this.update(); }

  connectedCallback() {
    this.update();
    this.#observer = new ResizeObserver(() => this.update());
    this.#observer.observe(this);
  }
  disconnectedCallback() { this.#observer.disconnect(); }

  get shown_() {
    const hidden = new Set(preferences.columns[this.name] ?? this.columns_.filter((c) => c.hidden).map((c) => c.id));
    return this.columns_.filter((c) => c.fixed || !hidden.has(c.id));
  }

  get ordered_() {
    if (this.#sorted) return this.#sorted;
    const column = this.sort_ && this.columns_.find((c) => c.id === this.sort_.id);
    if (!column?.value || this.foreign) return (this.#sorted = this.rows_);
    const sign = this.sort_.down ? -1 : 1;
    this.#sorted = [...this.rows_].sort((a, b) => sign * compare(column.value(a), column.value(b)));
    return this.#sorted;
  }

  draw() {
    if (!this.columns_) return;
    const columns = this.shown_;
    const rows = this.ordered_;
    const height = preferences.density === 'compact' ? 32 : 40;
    const top = this.#scroll?.scrollTop ?? 0, view = this.#scroll?.clientHeight || 600;
    const from = Math.max(0, Math.floor(top / height) - over), to = Math.min(rows.length, Math.ceil((top + view) / height) + over);
    this.#first = from;
    this.#focus = Math.min(this.#focus, Math.max(0, rows.length - 1));
    const template = columns.map((c) => c.width ?? 'minmax(120px, 1fr)').join(' ');
    patch(this,
      h('div.table-bar', { key: 'bar' }, h('span', { 'aria-live': 'polite' }, this.count ?? tn(rows.length, '{n} row', '{n} rows')), h('span.space'), this.bar_, this.csv !== false && rows.length > 0 && this.#csvButton(), this.#chooser()),
      h('div.table-scroll', { key: 'scroll', style: { '--columns': template }, on: { scroll: () => this.#scrolled() } },
        h('div.table', { role: 'grid', 'aria-label': this.label, 'aria-rowcount': rows.length + 1, 'aria-colcount': columns.length },
          h('div', { role: 'rowgroup', class: 'contents' }, h('div.tr.head', { role: 'row', 'aria-rowindex': 1 }, columns.map((c) => this.#head(c)))),
          h('div.rows', { role: 'rowgroup', style: { height: `${rows.length * height}px` }, on: { keydown: (e) => this.#key(e), click: (e) => this.#click(e) } },
            rows.slice(from, to).map((row, i) => this.#row(row, from + i, columns, height))))));
    this.#scroll ??= this.querySelector('.table-scroll');
    if (this.more && to >= rows.length - over && rows.length > 0) this.more();
  }

  #scrolled() {
    const height = preferences.density === 'compact' ? 32 : 40;
    if (Math.abs(Math.floor(this.#scroll.scrollTop / height) - over - this.#first) >= 2) this.update();
  }

  #head(c) {
    const sorted = this.sort_?.id === c.id;
    return h('div.th', { key: c.id, role: 'columnheader', class: c.end ? 'end' : '', 'aria-sort': sorted ? (this.sort_.down ? 'descending' : 'ascending') : null },
      c.value && !c.unsorted ? h('button', { type: 'button', on: { click: () => this.onsort?.({ id: c.id, down: sorted ? !this.sort_.down : Boolean(c.end) }) } }, c.title, sorted && icon(this.sort_.down ? 'arrow-down' : 'arrow-up')) : h('span', null, c.title));
  }

  #row(row, i, columns, height) {
    const key = this.rowKey(row);
    return h('div.tr', {
      key, role: 'row', class: this.onopen ? 'act' : '', 'aria-rowindex': i + 2, 'data-i': i, tabindex: i === this.#focus ? '0' : '-1',
      'aria-selected': this.selected_ === key ? 'true' : null, style: { transform: `translateY(${i * height}px)` },
    }, columns.map((c) => h('div.td', { key: c.id, role: 'gridcell', class: c.end ? 'end' : '' }, c.cell(row))));
  }

  #click(e) {
    const tr = e.target.closest('[data-i]');
    if (!tr || e.target.closest('a, button, input')) return;
    this.#focus = Number(tr.dataset.i);
    this.onopen?.(this.ordered_[this.#focus]);
  }

  #key(e) {
    if (!e.target.matches?.('[data-i]')) return;
    const page = Math.max(1, Math.floor((this.#scroll?.clientHeight ?? 400) / 40) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 };
    if (e.key in steps) {
      e.preventDefault();
      this.#focusRow(Math.min(this.ordered_.length - 1, Math.max(0, Number(e.target.dataset.i) + steps[e.key])));
    } else if ((e.key === 'Enter' || e.key === ' ') && this.onopen) {
      e.preventDefault();
      this.onopen(this.ordered_[Number(e.target.dataset.i)]);
    }
  }

  #focusRow(i) {
    this.#focus = i;
    const height = preferences.density === 'compact' ? 32 : 40;
    const top = i * height, s = this.#scroll;
    if (top < s.scrollTop) s.scrollTop = top;
    else if (top + height > s.scrollTop + s.clientHeight - 36) s.scrollTop = top + height - s.clientHeight + 36;
    this.draw();
    this.querySelector(`[data-i="${i}"]`)?.focus({ preventScroll: true });
  }

  #chooser() {
    const free = this.columns_.filter((c) => !c.fixed);
    if (free.length < 2) return null;
    return menu({ key: 'columns', label: t('Columns'), icon: 'columns-3', class: 'quiet small', text: t('Columns'), stay: true }, () => free.map((c) =>
      h('label.check', { class: 'flex px-2' }, h('input', { type: 'checkbox', checked: this.shown_.includes(c), on: { change: (e) => {
        const hidden = new Set(preferences.columns[this.name] ?? this.columns_.filter((x) => x.hidden).map((x) => x.id));
        if (e.target.checked) hidden.delete(c.id); else hidden.add(c.id);
        prefer({ columns: { ...preferences.columns, [this.name]: [...hidden] } });
        this.update();
      } } }), c.title)));
  }

  #csvButton() {
    return h('button.btn.quiet.small', { key: 'csv', type: 'button', on: { click: () => this.oncsv ? this.oncsv() : download(`${this.name}.csv`, 'text/csv', this.toCSV()) } }, icon('download'), t('CSV'));
  }

  /** What the table shows, as CSV (RFC 4180). */
  toCSV() {
    const columns = this.shown_.filter((c) => c.value);
    const line = (cells) => cells.map(csvCell).join(',') + '\r\n';
    return line(columns.map((c) => c.title)) + this.ordered_.map((r) => line(columns.map((c) => (c.csv ?? c.value)(r)))).join('');
  }
}
customElements.define('p-table', Table);

const order = new Intl.Collator('en', { numeric: true });

function compare(a, b) {
  if (a == null || b == null) return a == null ? (b == null ? 0 : 1) : -1;
  return typeof a === 'number' && typeof b === 'number' ? a - b : order.compare(String(a), String(b));
}

/** One cell. A text that a spreadsheet would take for a formula is marked as text. */
export function csvCell(v) {
  let s = v == null ? '' : String(v);
  if (typeof v === 'string' && /^[=+\-@\t\r]/.test(s)) s = `'${s}`;
  return /[",\r\n]/.test(s) ? `"${s.replaceAll('"', '""')}"` : s;
}

/** How many, with the total if there is more. */
export function counted(n, total) { return total != null && total > n ? t('{n} of {total}', { n: number(n), total: number(total) }) : tn(n, '{n} row', '{n} rows'); }
