// The network as a picture: pan, zoom, hover, select, drag. Its twin for the
// keyboard and the ear is the list beside it; keys work here too.
import { h, icon, patch, scheduler } from '../core/dom.js';
import { t } from '../core/text.js';
import { fleet } from '../core/fleet.js';
import { ms, pct, rate } from '../core/format.js';
import { onPreference, prefer, preferences } from '../core/preferences.js';
import { state } from './bits.js';
import { draw, hit } from '../topology/draw.js';
import { keepPlace, place } from '../topology/place.js';
import { makeScene, radius, refreshScene } from '../topology/scene.js';

export class Topology extends HTMLElement {
  #scene = null;
  #view = { x: 0, y: 0, k: 1, w: 0, h: 0, dpr: 1 };
  #fitted = false;
  #touched = false; // the person chose what is in sight
  #hover = null;
  #drag = null;
  #life = null;
  #made = '';

  constructor() {
    super();
    this.filter_ = {};
    this.paint = scheduler(() => this.isConnected && this.#paint());
  }

  /** Filters of the scene, see makeScene; another one fits the picture anew. */
  set filter(v) {
    const key = JSON.stringify({ ...v, open: [...(v.open ?? [])] });
    if (key === this.filterKey_) return;
    this.filterKey_ = key;
    this.filter_ = v;
    this.#fitted = this.#touched = false;
    if (this.isConnected) this.refresh();
  }
  set selected(v) { this.selected_ = v; this.paint(); }
  set mini(v) { this.mini_ = v; }
  get scene() { return this.#scene; }

  connectedCallback() {
    this.#life = new AbortController();
    const { signal } = this.#life;
    patch(this, h('canvas', { key: 'c', tabindex: this.mini_ ? null : '0', role: this.mini_ ? 'img' : 'application', 'aria-label': this.label ?? t('Map of the network') }),
      !this.mini_ && h('div.zoom', { key: 'z' },
        h('button.btn.square.small', { type: 'button', 'aria-label': t('Zoom in'), on: { click: () => this.zoomBy(1.35) } }, icon('plus')),
        h('button.btn.square.small', { type: 'button', 'aria-label': t('Zoom out'), on: { click: () => this.zoomBy(1 / 1.35) } }, icon('minus')),
        h('button.btn.square.small', { type: 'button', 'aria-label': t('Fit everything in sight'), on: { click: () => { this.#touched = false; this.#fit(); this.paint(); } } }, icon('maximize'))),
      h('div.tip', { key: 't', hidden: true }));
    this.canvas_ = this.querySelector('canvas');
    this.tip_ = this.querySelector('.tip');
    this.ctx_ = this.canvas_.getContext('2d');
    const sizes = new ResizeObserver(() => this.#size());
    sizes.observe(this);
    signal.addEventListener('abort', () => sizes.disconnect());
    onPreference(() => this.paint(), signal);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', this.paint, { signal });
    document.fonts?.ready.then(() => this.paint());
    this.#pointer(this.canvas_);
    this.#size();
    this.refresh();
  }

  disconnectedCallback() { this.#life.abort(); this.paint.cancel(); }

  #size() {
    const { clientWidth: w, clientHeight: h } = this;
    if (!w || !h) return;
    const dpr = Math.min(2, devicePixelRatio || 1);
    const changed = w !== this.#view.w || h !== this.#view.h;
    Object.assign(this.#view, { w, h, dpr });
    this.canvas_.width = Math.round(w * dpr);
    this.canvas_.height = Math.round(h * dpr);
    if (changed && !this.#touched) this.#fit();
    this.#paint();
  }

  /** Takes what is new of the fabric. */
  refresh() {
    const key = `${fleet.shape} ${this.filterKey_} ${this.filter_.status ? fleet.version : ''}`;
    if (this.#scene && key === this.#made) refreshScene(this.#scene, fleet);
    else {
      this.#made = key;
      this.#scene = makeScene(fleet, this.filter_);
      this.#hover = null;
      place(this.#scene, () => { if (!this.#touched) this.#fit(); this.paint(); });
      if (!this.#fitted || !this.#touched) this.#fit();
      this.onscene?.(this.#scene);
    }
    if (this.#hover) this.#tell();
    this.paint();
  }

  #fit() {
    const s = this.#scene, v = this.#view;
    if (!s?.nodes.length || !v.w) return;
    let x0 = Infinity, y0 = Infinity, x1 = -Infinity, y1 = -Infinity;
    for (const n of s.nodes) {
      const r = radius(n);
      x0 = Math.min(x0, n.x - r); x1 = Math.max(x1, n.x + r);
      y0 = Math.min(y0, n.y - r); y1 = Math.max(y1, n.y + r + 14);
    }
    const pad = Math.min(64, v.w / 8, v.h / 7);
    v.k = Math.min(s.nodes.length < 12 ? 2.6 : 1.7, (v.w - 2 * pad) / (x1 - x0 || 1), (v.h - 2 * pad) / (y1 - y0 || 1));
    v.x = v.w / 2 - v.k * (x0 + x1) / 2;
    v.y = v.h / 2 - v.k * (y0 + y1) / 2;
    this.#fitted = true;
  }

  zoomBy(f, px = this.#view.w / 2, py = this.#view.h / 2) {
    const v = this.#view;
    const k = Math.min(6, Math.max(0.04, v.k * f));
    v.x = px - (px - v.x) * k / v.k;
    v.y = py - (py - v.y) * k / v.k;
    v.k = k;
    this.#touched = true;
    this.paint();
  }

  /** Brings a node to the middle. */
  show(id) {
    const n = this.#scene?.byId.get(id);
    if (!n) return;
    const v = this.#view;
    v.k = Math.max(v.k, 0.9);
    v.x = v.w / 2 - n.x * v.k;
    v.y = v.h / 2 - n.y * v.k;
    this.#touched = true;
    this.paint();
  }

  #paint() {
    if (!this.#scene || !this.#view.w) return;
    draw(this.ctx_, this.#scene, this.#view, { hover: this.#hover, selected: this.selected_ });
    this.painted_ = (this.painted_ ?? 0) + 1;
  }

  #pointer(c) {
    const at = (e) => { const b = c.getBoundingClientRect(); return [e.clientX - b.left, e.clientY - b.top]; };
    const v = this.#view;
    c.addEventListener('pointermove', (e) => {
      const [x, y] = at(e);
      const d = this.#drag;
      if (d) {
        if (!d.moved && Math.hypot(x - d.x, y - d.y) < 4) return;
        d.moved = true;
        c.className = 'drag';
        if (d.node) {
          d.node.x = (x - v.x) / v.k;
          d.node.y = (y - v.y) / v.k;
          d.node.dragged = true;
        } else if (!this.mini_ || e.pointerType !== 'touch') {
          v.x = d.vx + x - d.x;
          v.y = d.vy + y - d.y;
          this.#touched = true;
        }
        this.#point(null);
        this.paint();
        return;
      }
      this.at_ = [x, y];
      this.#point(this.#scene && hit(this.#scene, v, x, y));
    });
    c.addEventListener('pointerleave', () => this.#point(null));
    c.addEventListener('pointerdown', (e) => {
      if (e.button) return;
      const [x, y] = at(e);
      const found = this.#scene && hit(this.#scene, v, x, y);
      this.#drag = { x, y, vx: v.x, vy: v.y, found, node: !this.mini_ && found && !found.paths ? found : null };
      c.setPointerCapture(e.pointerId);
    });
    c.addEventListener('pointerup', () => {
      const d = this.#drag;
      this.#drag = null;
      c.className = '';
      if (!d) return;
      if (!d.moved) this.onselect?.(d.found);
      else if (d.node) {
        keepPlace(d.node);
        prefer({ pins: { ...preferences.pins, [d.node.id]: [Math.round(d.node.x), Math.round(d.node.y)] } });
        this.onpinned?.();
      }
    });
    c.addEventListener('pointercancel', () => { this.#drag = null; });
    if (this.mini_) return;
    c.addEventListener('wheel', (e) => { e.preventDefault(); this.zoomBy(Math.exp(-e.deltaY / 400), ...at(e)); }, { passive: false });
    c.addEventListener('keydown', (e) => {
      const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[e.key];
      if (step) { v.x += step[0]; v.y += step[1]; this.#touched = true; this.paint(); }
      else if (e.key === '+' || e.key === '=') this.zoomBy(1.3);
      else if (e.key === '-') this.zoomBy(1 / 1.3);
      else if (e.key === '0') { this.#fit(); this.paint(); }
      else return;
      e.preventDefault();
    });
  }

  #point(found) {
    if (!this.#drag) this.canvas_.className = found ? 'over' : '';
    if (found === this.#hover && !found) return;
    const changed = found !== this.#hover;
    this.#hover = found;
    this.#tell();
    if (changed) this.paint();
  }

  /** The tooltip, with what is true now. */
  #tell() {
    const n = this.#hover;
    this.tip_.hidden = !n;
    if (!n) return;
    patch(this.tip_, this.#about(n));
    const [x, y] = this.at_;
    const { offsetWidth: w, offsetHeight: height } = this.tip_;
    this.tip_.style.transform = `translate(${Math.min(Math.max(4, x + 14), this.#view.w - w - 4)}px, ${y + 18 + height > this.#view.h ? y - height - 10 : y + 18}px)`;
  }

  #about(n) {
    if (n.paths) {
      return [h('b', null, `${n.a.label} – ${n.b.label}`), state(n.state),
        h('div.num', null, t('{latency}, loss {loss}, {rate}', { latency: ms(n.latency), loss: pct(n.loss), rate: rate(n.carried) })),
        h('div.muted', null, t('{n} paths: {up} up, {degraded} degraded, {down} down', { n: n.paths.length, ...n.states }))];
    }
    if (n.kind === 'group') return [h('b', null, n.label), h('div', null, t('{n} sites: {up} up, {degraded} degraded, {down} down', { n: n.total, ...n.counts })), h('div.muted', null, t('Click to open'))];
    const s = fleet.sites.get(n.id);
    if (!s) return [h('b', null, n.label)];
    const own = (fleet.pathsOf.get(n.id) ?? []).filter((p) => p.source.id === n.id);
    const tx = own.reduce((a, p) => a + (p.metrics?.tx_mbps ?? 0), 0);
    return [h('b', null, n.label), state(s.status, s.reason), s.reason && h('div.muted', null, s.reason),
      h('div.num', null, t('{up} of {n} paths up, sends {rate}', { up: s.paths.up, n: s.paths.total, rate: rate(tx) }))];
  }
}
customElements.define('p-topology', Topology);
