// The frame around every page: navigation, search, the state of the live data,
// and the page itself.
import { h, icon, patch, scheduler } from '../core/dom.js';
import { t } from '../core/text.js';
import { fleet, worse } from '../core/fleet.js';
import { span } from '../core/format.js';
import { bind } from '../core/keys.js';
import { dark, onPreference, prefer, preferences } from '../core/preferences.js';
import { go, here, offered, onNavigate } from '../core/router.js';
import { session, signOut } from '../core/session.js';
import { failed, skeleton } from '../core/page.js';
import { openPalette } from './palette.js';
import { menu } from './menu.js';
import { logo } from './logo.js';

// It comes when it is asked for. The palette is there: who presses Ctrl K types on at once.
const openHelp = () => import('./keyhelp.js').then((m) => m.openHelp());

const staleAfter = 10_000;
const pages = new Map(); // name -> its element's constructor

export class Shell extends HTMLElement {
  #page = null;
  #failed = null;
  #bones = null;
  #error = null;
  #loading = false;
  #drawer = false;
  #turn = 0;

  connectedCallback() {
    this.update = scheduler(() => this.draw());
    onNavigate((at) => this.#show(at));
    onPreference(() => this.update());
    fleet.addEventListener('link', this.update);
    setInterval(() => session.user && !document.hidden && this.update(), 2000);
    bind('/', t('Search on this page'), () => {
      const field = this.querySelector('.content [data-search]');
      if (field) { field.focus(); field.select(); } else openPalette();
    });
    bind('?', t('Show the keys'), openHelp);
    bind('ctrl+k', t('Find a page, site, path or policy'), openPalette);
    bind('p', t('Pause or resume live data'), () => fleet.pause(!fleet.paused));
    bind('t', t('Switch between light and dark'), () => prefer({ theme: dark() ? 'light' : 'dark' }));
    for (const [key, to] of [['o', '/dashboard'], ['t', '/topology'], ['s', '/sites'], ['m', '/metrics'], ['f', '/flows'], ['p', '/policies'], ['e', '/events']]) {
      bind(`g ${key}`, t('Go to {page}', { page: to }), () => go(to));
    }
    this.addEventListener('keydown', (e) => {
      if (e.key === 'Escape' && this.#drawer) { this.#drawer = false; this.update(); this.querySelector('.menu-button')?.focus(); }
    });
  }

  async #show(at) {
    const turn = ++this.#turn;
    this.#drawer = false;
    this.#error = this.#failed = null;
    const name = at.route.page;
    let made = pages.get(name);
    if (!made) {
      this.#loading = true;
      this.update();
      try {
        made = (await import(`../pages/${name}.js`)).default;
        pages.set(name, made);
      } catch (err) {
        console.warn('page did not load', err);
        this.#error = Object.assign(new Error(t('The dashboard may have been updated. Load the page again.')), { reload: true });
      }
      if (turn !== this.#turn) return;
      this.#loading = false;
    }
    if (made) {
      this.#page = new made();
      this.#page.params = at.params;
    }
    document.title = `${t(at.route.title)} · Patronus`;
    this.draw();
    scrollTo(0, 0);
    // Who moves by keyboard or hears the page starts at its content.
    if (turn > 1) this.querySelector('main')?.focus({ preventScroll: true });
  }

  draw() {
    const at = here();
    if (!at) return;
    const bare = at.route.open;
    this.classList.toggle('bare', Boolean(bare));
    this.classList.toggle('narrow', preferences.sidebar === 'narrow' && !bare);
    this.classList.toggle('drawer', this.#drawer);
    if (bare) patch(this, h('main', { key: 'bare', id: 'main', tabindex: '-1', hollow: true }));
    else {
      patch(this,
        h('a.skip', { key: 'skip', href: '#main', on: { click: (e) => { e.preventDefault(); this.querySelector('main').focus(); } } }, t('Skip to the content')),
        this.#side(at), this.#drawer && h('button.scrim', { key: 'scrim', type: 'button', 'aria-label': t('Close the menu'), on: { click: () => { this.#drawer = false; this.update(); } } }),
        h('div.main', { key: 'main' }, this.#top(), this.#stale(), h('main.content', { id: 'main', tabindex: '-1', hollow: true })));
    }
    // The page is put in by hand: an element that is moved begins its life anew.
    const main = this.querySelector('main'), content = this.#content();
    if (main.firstChild !== content) main.replaceChildren(content);
  }

  #content() {
    if (this.#error) return (this.#failed ??= failed(this.#error, () => location.reload()));
    if (this.#loading || !this.#page) return (this.#bones ??= skeleton(8));
    return this.#page;
  }

  #side(at) {
    const current = at.route.under ?? at.route.path;
    const links = [];
    let group = '';
    for (const r of offered()) {
      if (r.group && r.group !== group) {
        group = r.group;
        links.push(h('div.group', { key: group }, h('span', null, t(group))));
      }
      const bad = r.path === '/sites' ? [...fleet.sites.values()].filter((s) => worse(s.status, 'unknown') < 0).length : 0;
      links.push(h('a.link', { key: r.path, href: r.path, 'aria-current': r.path === current && 'page', title: preferences.sidebar === 'narrow' && t(r.title) },
        icon(r.icon), h('span', null, t(r.title)), bad > 0 && preferences.sidebar !== 'narrow' && h('i.count', { 'aria-label': t('{n} need attention', { n: bad }) }, bad)));
    }
    const narrow = preferences.sidebar === 'narrow';
    return h('nav.side', { key: 'side', 'aria-label': t('Pages'), id: 'navigation' },
      h('a.brand', { href: '/dashboard' }, logo(), h('span', null, 'Patronus')), links,
      h('div.foot', null, h('button.link.collapse-button', { type: 'button', class: 'w-full', on: { click: () => prefer({ sidebar: narrow ? 'open' : 'narrow' }) } },
        icon(narrow ? 'panel-left-open' : 'panel-left-close'), h('span', null, narrow ? t('Widen the menu') : t('Narrow the menu')))));
  }

  #top() {
    const link = fleet.link;
    return h('header.top', { key: 'top' },
      h('button.btn.square.quiet.menu-button', { type: 'button', 'aria-label': t('Menu'), 'aria-expanded': String(this.#drawer), 'aria-controls': 'navigation', on: { click: () => { this.#drawer = !this.#drawer; this.draw(); this.querySelector('.side a')?.focus(); } } }, icon('menu')),
      h('button.find', { type: 'button', on: { click: openPalette } }, icon('search'), h('span', null, t('Find anything')), h('kbd', { 'aria-hidden': 'true' }, 'Ctrl K')),
      h('div.space'), link.state !== 'idle' && this.#live(link),
      menu({ key: 'who', label: session.user ?? '', icon: 'circle-user-round', text: session.user }, () => [
        h('div.title', null, t('{user}, {role}', { user: session.user, role: session.role }), session.scope && h('div', null, Object.entries(session.scope).map(([k, v]) => `${k}=${v}`).join(', '))),
        h('hr'),
        h('div.title', null, t('Theme')),
        h('div.segments', { class: 'm-1', role: 'group', 'aria-label': t('Theme') }, [['auto', t('System')], ['light', t('Light')], ['dark', t('Dark')]].map(([v, label]) =>
          h('button', { type: 'button', 'aria-pressed': String(preferences.theme === v), on: { click: () => prefer({ theme: v }) } }, label))),
        h('button', { type: 'button', on: { click: () => prefer({ utc: !preferences.utc }) } }, icon('clock'), preferences.utc ? t('Show local times') : t('Show times in UTC')),
        h('button', { type: 'button', on: { click: () => prefer({ density: preferences.density === 'compact' ? 'comfortable' : 'compact' }) } }, icon('rows-3'), preferences.density === 'compact' ? t('Comfortable rows') : t('Compact rows')),
        h('button', { type: 'button', on: { click: openHelp } }, icon('keyboard'), t('Keys')),
        h('a', { href: '/help' }, icon('book-open'), t('Handbook')),
        h('hr'),
        h('button', { type: 'button', on: { click: async () => { await signOut(); location.assign('/login'); } } }, icon('log-out'), t('Sign out')),
      ]));
  }

  #live(link) {
    const says = {
      live: ['live-on', t('Live')], paused: ['paused', t('Paused')],
      connecting: ['', t('Connecting')], down: ['down', t('Reconnecting')],
    }[link.state];
    return [
      h('div.live', { key: 'live', class: says[0], role: 'status' }, h('i'), h('span', null, says[1])),
      h('button.btn.square.quiet', { key: 'pause', type: 'button', 'aria-label': fleet.paused ? t('Resume live data') : t('Pause live data'), title: fleet.paused ? t('Resume live data') : t('Pause live data'), on: { click: () => fleet.pause(!fleet.paused) } }, icon(fleet.paused ? 'play' : 'pause')),
      h('select.input.refresh', { key: 'pace', 'aria-label': t('Refresh interval'), on: { change: (e) => prefer({ refresh: Number(e.target.value) }) } },
        [1, 2, 3, 4, 5].map((n) => h('option', { value: n, selected: preferences.refresh === n }, t('{n} s', { n })))),
    ];
  }

  #stale() {
    const link = fleet.link;
    const silent = link.since ? Date.now() - link.since : 0;
    if (link.state === 'paused') return h('div.stale', { key: 'stale' }, icon('pause'), t('Paused {span} ago: what you see does not change.', { span: span(silent) }));
    // A fabric without paths has nothing to say, which is no silence.
    if ((link.state !== 'down' && link.state !== 'live') || silent < staleAfter || link.state === 'live' && !fleet.paths.size) return null;
    return h('div.stale', { key: 'stale', role: 'alert' }, icon('wifi-off'), t('No live data for {span}. What you see may be out of date.', { span: span(silent) }));
  }
}
customElements.define('p-shell', Shell);
