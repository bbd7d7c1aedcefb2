// Builds and updates the page's elements. Text becomes text nodes and nothing
// is ever parsed as HTML, so that no name or message of the network can become
// markup (there is no innerHTML in this interface).

import { shapes } from '../vendor/icons.js';

const SVG = 'http://www.w3.org/2000/svg';
const svgTags = new Set(['svg', 'path', 'circle', 'ellipse', 'line', 'rect', 'g', 'polyline', 'polygon']);

// One listener per event and element looks up the newest handler, so that a
// patched element keeps its place and gets its new closures.
function dispatch(event) {
  const handler = this.handlers_?.[event.type];
  if (handler) return handler.call(this, event);
}

/**
 * Makes an element.
 *
 * @param {string} tag name, with classes after dots: 'div.card.wide'
 * @param {object} [props] attributes; class adds classes; on: {event: handler};
 *   style: {property: value} by CSSOM; '.name' sets a property; key names the
 *   element among its siblings; hollow leaves its children alone; true sets an empty attribute, false and
 *   null none.
 * @param {...any} children nodes, texts, numbers, lists of them; null and false are left out
 */
export function h(tag, props, ...children) {
  const [name, ...classes] = tag.split('.');
  const svg = svgTags.has(name);
  const el = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  const list = classes.concat(props?.class ? [props.class] : []);
  if (list.length) el.setAttribute('class', list.join(' '));
  for (const [k, v] of Object.entries(props ?? {})) {
    if (k === 'class' || k === 'key' || k === 'hollow') continue;
    if (k === 'on') listen(el, v);
    else if (k === 'style') style(el, v);
    else if (k[0] === '.') {
      (el.properties_ ??= {})[k.slice(1)] = v;
      el[k.slice(1)] = v;
    } else if (v === true) el.setAttribute(k, '');
    else if (v !== false && v != null) el.setAttribute(k, v);
  }
  el.hollow_ = props?.hollow;
  if (props?.key != null) el.key_ = String(props.key);
  append(el, children);
  return el;
}

function listen(el, handlers) {
  el.handlers_ ??= {};
  for (const [type, handler] of Object.entries(handlers)) {
    if (!handler) continue;
    if (!el.handlers_[type]) el.addEventListener(type, dispatch);
    el.handlers_[type] = handler;
  }
}

function style(el, values) {
  el.style_ = values;
  for (const [k, v] of Object.entries(values)) if (v != null) el.style.setProperty(k, v);
}

function append(el, children) {
  for (const c of children.flat(Infinity)) {
    if (c == null || c === false || c === true) continue;
    el.append(c instanceof Node ? c : String(c));
  }
}

/**
 * An icon by its name; it is decoration, so name what it stands for beside it.
 * Its shapes are made once it is in the page: most icons of a redraw are only
 * compared with those that are there.
 */
export function icon(name, cls = '') {
  const el = h('svg', { class: 'icon ' + cls, 'aria-hidden': 'true', viewBox: '0 0 24 24' });
  el.icon_ = name;
  queueMicrotask(() => { if (el.isConnected && !el.firstChild) drawIcon(el); });
  return el;
}

function drawIcon(el) {
  el.replaceChildren(...(shapes[el.icon_] ?? []).map(([tag, attributes]) => h(tag, attributes)));
}

/**
 * Makes the children of el those given, and keeps elements that are there
 * already: focus, scroll position and what a person has typed stay.
 */
export function patch(el, ...children) {
  const next = document.createDocumentFragment();
  append(next, children);
  morphChildren(el, next);
}

function morphChildren(old, next) {
  const keyed = new Map();
  const wanted = new Set();
  for (const c of next.childNodes) if (c.key_ != null) wanted.add(c.key_);
  // What goes, goes first: what stays then need not be moved, which would take
  // the focus from it.
  for (const c of [...old.childNodes]) {
    if (c.key_ == null) continue;
    if (wanted.has(c.key_)) keyed.set(c.key_, c);
    else c.remove();
  }
  let at = old.firstChild;
  for (const want of [...next.childNodes]) {
    let have = want.key_ != null ? keyed.get(want.key_) : at;
    if (have && want.key_ == null && have.key_ != null) have = null;
    if (have && same(have, want)) {
      if (have === at) at = at.nextSibling;
      else old.insertBefore(have, at);
      if (have !== want) morph(have, want);
    } else old.insertBefore(want, at);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function same(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.key_ ?? null) === (b.key_ ?? null);
}

function morph(old, next) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name, value } of [...next.attributes]) {
    if (name !== 'style' && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (name !== 'style' && !next.hasAttribute(name) && !old.own_?.has(name)) old.removeAttribute(name);
  }
  if (next.style_) style(old, next.style_);
  if (next.handlers_) listen(old, next.handlers_);
  for (const type of Object.keys(old.handlers_ ?? {})) if (!next.handlers_?.[type]) old.handlers_[type] = null;
  for (const [k, v] of Object.entries(next.properties_ ?? {})) {
    if (old[k] !== v && !(k === 'value' && old === document.activeElement)) old[k] = v;
  }
  if (next.icon_) {
    if (old.icon_ === next.icon_ && old.firstChild) return;
    old.icon_ = next.icon_;
    drawIcon(old);
    return;
  }
  // A custom element fills itself, and so does whoever made something hollow.
  if (!next.hollow_ && !old.nodeName.includes('-')) morphChildren(old, next);
}

/** Waits for the next frame once, however often it is called before. */
export function scheduler(run) {
  let asked = 0;
  const schedule = () => {
    if (!asked) asked = requestAnimationFrame(() => { asked = 0; run(); });
  };
  schedule.cancel = () => { cancelAnimationFrame(asked); asked = 0; };
  return schedule;
}
