// What every page is: an element with a life, states (loading, empty, error,
// stale) and a redraw that is asked for, not done at once.
import { h, icon, patch, scheduler } from './dom.js';
import { t } from './text.js';
import { onQuery, params } from './router.js';
import { Problem } from './api.js';

export class Page extends HTMLElement {
  #life = null;
  loading = true;
  error = null;

  connectedCallback() {
    this.#life = new AbortController();
    this.update = scheduler(() => this.isConnected && this.draw());
    this.classList.add('page');
    onQuery(() => { this.queried(); this.update(); }, this.signal);
    this.update();
    this.start();
  }

  disconnectedCallback() {
    this.#life.abort();
    this.update.cancel();
  }

  /** Ends when the page is left. */
  get signal() { return this.#life.signal; }
  get query() { return params(); }

  /** Pages override these. */
  start() {}
  queried() {}
  render() { return []; }

  /** Runs a read, and shows that it runs and how it went. */
  async load(read) {
    this.loading = true;
    this.update();
    try {
      const value = await read(this.signal);
      this.error = null;
      return value;
    } catch (err) {
      if (err.name === 'AbortError') return undefined;
      if (!(err instanceof Problem)) console.error(err);
      this.error = err;
      return undefined;
    } finally {
      this.loading = false;
      if (this.isConnected) this.update();
    }
  }

  draw() { patch(this, this.render()); }
}

/** The head of a page: its title, what it is in a sentence, and its actions. */
export function head(title, about, ...actions) {
  return h('header.page-head', { key: 'head' },
    h('div', null, h('h1', null, title), about && h('p.muted', null, about)),
    actions.flat().some(Boolean) && h('div.actions', null, actions));
}

/** Grey shapes where something will be. */
export function skeleton(rows = 5) {
  return h('div.skeleton', { key: 'skeleton', role: 'status', 'aria-label': t('Loading') },
    Array.from({ length: rows }, (_, i) => h('div.bone', { style: { '--w': `${95 - i * 37 % 45}%` } })));
}

/** Nothing is there: why, and what to do about it. */
export function empty(symbol, title, text, ...actions) {
  return h('div.empty', { key: 'empty' }, icon(symbol, 'big'), h('h2', null, title), h('p.muted', null, text), actions);
}

/** Something failed: what, and a way to try again. */
export function failed(err, retry) {
  return h('div.empty.failed', { key: 'failed', role: 'alert' }, icon('circle-alert', 'big'),
    h('h2', null, err.status === 403 ? t('Not for your role') : err.status === 501 ? t('Not recorded here') : t('This could not be loaded')),
    h('p.muted', null, err.message),
    err.id && h('p.faint', null, t('Request {id}', { id: err.id })),
    retry && err.status !== 403 && err.status !== 501 && h('button.btn', { type: 'button', on: { click: retry } }, icon('rotate-cw'), t('Try again')));
}
