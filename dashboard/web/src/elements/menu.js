// A button that opens a small panel of choices.
import { h, icon, patch } from '../core/dom.js';

class Menu extends HTMLElement {
  #open = false;

  connectedCallback() {
    this.classList.add('menu-holder');
    this.draw();
    this.addEventListener('keydown', (e) => {
      const items = [...this.querySelectorAll('.menu button, .menu a, .menu input')];
      const at = items.indexOf(document.activeElement);
      if (e.key === 'Escape' && this.#open) {
        this.#toggle(false);
        this.querySelector('button').focus();
        e.stopPropagation();
      } else if ((e.key === 'ArrowDown' || e.key === 'ArrowUp') && this.#open) {
        e.preventDefault();
        items[(at + (e.key === 'ArrowDown' ? 1 : items.length - 1)) % items.length]?.focus();
      }
    });
    this.addEventListener('focusout', (e) => {
      if (this.#open && e.relatedTarget && !this.contains(e.relatedTarget)) this.#toggle(false);
    });
    this.outside_ = (e) => this.#open && !this.contains(e.target) && this.#toggle(false);
    document.addEventListener('pointerdown', this.outside_);
  }

  disconnectedCallback() { document.removeEventListener('pointerdown', this.outside_); }

  set options(o) {
    this.options_ = o;
    if (this.isConnected) this.draw();
  }
  set content(f) { this.content_ = f; if (this.isConnected && this.#open) this.draw(); }

  #toggle(open) {
    this.#open = open;
    this.draw();
    if (open) this.querySelector('.menu button, .menu a, .menu input')?.focus();
  }

  draw() {
    const o = this.options_;
    if (!o) return;
    patch(this,
      h('button.btn', { type: 'button', class: o.class ?? 'quiet', 'aria-label': o.label, 'aria-expanded': String(this.#open), title: o.text ? null : o.label, on: { click: () => this.#toggle(!this.#open) } },
        o.icon && icon(o.icon), o.text && h('span', { class: 'max-sm:hidden' }, o.text)),
      this.#open && h('div.menu', { on: { click: (e) => { if (e.target.closest('a, button') && !o.stay) queueMicrotask(() => this.#open && this.draw()); } } }, this.content_()));
  }
}
customElements.define('p-menu', Menu);

/** A menu: options are label, icon, text, class; content makes what is in it. */
export function menu(options, content) {
  return h('p-menu', { key: options.key ?? options.label, '.options': options, '.content': content });
}
