// Questions and answers over the page: a dialog, a confirmation, a note.
import { h, icon, patch } from '../core/dom.js';
import { t } from '../core/text.js';

/**
 * Opens a dialog. body(close) makes what is in it and may be called again by
 * the returned redraw; footer(close) its buttons.
 */
export function openDialog({ title, body, footer, wide, label }) {
  const el = h('dialog.modal', { class: wide ? 'wide' : '', 'aria-label': label ?? title });
  const close = (value) => { el.result_ = value; el.close(); };
  const redraw = () => patch(el,
    h('header', { key: 'h' }, h('h2', null, title), h('button.btn.quiet.square.small', { type: 'button', 'aria-label': t('Close'), on: { click: () => close() } }, icon('x'))),
    h('div.body', { key: 'b', tabindex: '-1' }, body(close)), footer && h('footer', { key: 'f' }, footer(close)));
  document.body.append(el);
  redraw();
  el.showModal();
  const done = new Promise((resolve) => el.addEventListener('close', () => { el.remove(); resolve(el.result_); }));
  return { el, close, redraw, done };
}

/**
 * Asks before something is removed. With name, the person types it first.
 * Resolves to true if it is to be done.
 */
export function confirmed({ title, text, action, name, danger = true, details }) {
  let typed = '';
  const ready = () => !name || typed === name;
  const d = openDialog({
    title,
    body: (close) => h('form', { class: 'grid gap-3', id: 'confirm', on: { submit: (e) => { e.preventDefault(); if (ready()) close(true); } } },
      h('p', null, text), details,
      name && h('label.field', null, t('Type {name} to confirm', { name }),
        h('input.input', { autofocus: true, autocomplete: 'off', spellcheck: 'false', on: { input: (e) => { typed = e.target.value.trim(); d.redraw(); } } }))),
    footer: (close) => [h('button.btn', { type: 'button', on: { click: () => close(false) } }, t('Cancel')),
      h('button.btn', { type: 'submit', form: 'confirm', class: danger ? 'danger' : 'primary', disabled: !ready() }, action)],
  });
  return d.done.then(Boolean);
}

class Toasts extends HTMLElement {
  #list = [];
  connectedCallback() {
    this.setAttribute('role', 'status');
    this.setAttribute('aria-live', 'polite');
  }
  add(one) {
    this.#list.push(one);
    this.draw();
    one.timer = setTimeout(() => this.remove_(one), one.undo ? 12000 : one.kind === 'bad' ? 9000 : 5000);
  }
  remove_(one) {
    clearTimeout(one.timer);
    this.#list = this.#list.filter((x) => x !== one);
    this.draw();
  }
  draw() {
    patch(this, this.#list.map((one) => h('div.toast', { key: one.n, class: one.kind },
      h('span', null, one.text),
      one.undo && h('button.btn.small', { type: 'button', on: { click: () => { this.remove_(one); one.undo(); } } }, icon('undo-2'), t('Undo')),
      h('button.btn.quiet.square.small', { type: 'button', 'aria-label': t('Dismiss'), on: { click: () => this.remove_(one) } }, icon('x')))));
  }
}
customElements.define('p-toasts', Toasts);

let count = 0;
function note(kind, text, undo) {
  let el = document.querySelector('p-toasts');
  if (!el) document.body.append(el = document.createElement('p-toasts'));
  el.add({ n: ++count, kind, text, undo });
}

/** Says that something was done; undo takes it back. */
export function done(text, undo) { note('good', text, undo); }

/** Says that something failed. */
export function wrong(err) { note('bad', err.fields?.length ? err.fields.map((f) => `${f.field} ${f.detail}`).join('; ') : err.message); }
