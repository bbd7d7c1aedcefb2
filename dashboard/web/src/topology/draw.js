// Draws a scene on a canvas. Edges of one look are one path, so that 3,000 of
// them are a dozen strokes.
import { token } from '../core/color.js';
import { radius } from './scene.js';

const dashes = { up: [], degraded: [7, 4], down: [2, 4], unknown: [1, 5] };
const order = ['up', 'unknown', 'degraded', 'down'];
const widths = [1, 1.6, 2.6, 4];

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {object} scene
 * @param {{x: number, y: number, k: number, w: number, h: number, dpr: number}} view
 * @param {{hover: object, selected: string, quiet: boolean}} o
 */
export function draw(ctx, scene, view, o = {}) {
  const { k, w, h, dpr } = view;
  ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
  ctx.clearRect(0, 0, w, h);
  const X = (x) => x * k + view.x, Y = (y) => y * k + view.y;
  const focus = o.hover ?? (o.selected && scene.byId.get(o.selected)) ?? null;
  const many = scene.edges.length > 400;
  edges(ctx, scene, X, Y, { w, h, faint: many && !focus ? 0.5 : focus && !focus.paths ? 0.22 : 0.9, few: !many });
  if (focus) {
    const list = focus.paths ? [focus] : scene.edges.filter((e) => e.a === focus || e.b === focus);
    edges(ctx, { edges: list }, X, Y, { w, h, faint: 1, few: true, bold: 1 });
  }
  nodes(ctx, scene, X, Y, view, o, focus);
}

function edges(ctx, scene, X, Y, o) {
  const buckets = new Map();
  for (const e of scene.edges) {
    const x0 = X(e.a.x), y0 = Y(e.a.y), x1 = X(e.b.x), y1 = Y(e.b.y);
    if (Math.max(x0, x1) < 0 || Math.min(x0, x1) > o.w || Math.max(y0, y1) < 0 || Math.min(y0, y1) > o.h) continue;
    const key = e.state + e.width;
    let b = buckets.get(key);
    if (!b) buckets.set(key, b = { state: e.state, width: e.width, line: new Path2D() });
    b.line.moveTo(x0, y0);
    b.line.lineTo(x1, y1);
  }
  for (const state of order) {
    for (const b of buckets.values()) {
      if (b.state !== state) continue;
      ctx.strokeStyle = token(state);
      ctx.lineWidth = widths[b.width] + (o.bold ?? 0) + (state === 'up' || state === 'unknown' ? 0 : 0.6);
      ctx.globalAlpha = state === 'up' || state === 'unknown' ? o.faint : Math.max(0.85, o.faint);
      ctx.setLineDash(o.few || state !== 'up' ? dashes[state] : []);
      ctx.stroke(b.line);
    }
  }
  ctx.globalAlpha = 1;
  ctx.setLineDash([]);
}

function nodes(ctx, scene, X, Y, view, o, focus) {
  const { k, w, h } = view;
  const surface = token('surface'), ink = token('ink');
  const scale = Math.min(scene.nodes.length < 12 ? 1.9 : 1.4, Math.max(0.35, k));
  const labels = [];
  const all = scene.nodes.length;
  for (const state of order) {
    const fill = token(state);
    const soft = token(state + '-soft');
    for (const n of scene.nodes) {
      if (n.state !== state) continue;
      const x = X(n.x), y = Y(n.y), r = Math.max(2.4, radius(n) * scale);
      if (x < -60 || y < -60 || x > w + 60 || y > h + 60) continue;
      n.px = x; n.py = y; n.pr = r;
      ctx.fillStyle = n.kind === 'group' ? soft : fill;
      ctx.strokeStyle = n.kind === 'group' ? fill : surface;
      ctx.lineWidth = n.kind === 'group' ? 2.5 : Math.min(2, r / 3);
      ctx.beginPath();
      mark(ctx, state, n.kind, x, y, r);
      ctx.fill();
      ctx.stroke();
      if (n.hub && r > 6) {
        ctx.beginPath();
        ctx.arc(x, y, r + 4, 0, 7);
        ctx.strokeStyle = fill;
        ctx.lineWidth = 1.5;
        ctx.stroke();
      }
      if (state === 'down' && n.kind === 'site' && r > 4) cross(ctx, x, y, r * 0.45, surface);
      if (n.id === o.selected || n === focus) {
        ctx.beginPath();
        ctx.arc(x, y, r + 7, 0, 7);
        ctx.strokeStyle = token('accent');
        ctx.lineWidth = 2.5;
        ctx.stroke();
      }
      const named = n.kind === 'group' || all <= 30 || n === focus || n.id === o.selected || n.hub ||
        all <= 150 && (k > 0.8 || state === 'down' || state === 'degraded') || k > 1.5;
      if (named) labels.push(n);
    }
  }
  ctx.textAlign = 'center';
  ctx.lineJoin = 'round';
  const taken = [];
  const first = (n) => (n === focus || n.id === o.selected ? 0 : n.kind === 'group' || n.hub ? 1 : n.state === 'up' ? 3 : 2);
  labels.sort((a, b) => first(a) - first(b));
  for (const n of labels) label(ctx, n, o, taken, surface, ink);
}

function mark(ctx, state, kind, x, y, r) {
  if (kind === 'group' || state === 'up' || state === 'unknown') ctx.arc(x, y, r, 0, 7);
  else if (state === 'degraded') {
    ctx.moveTo(x, y - r * 1.25);
    ctx.lineTo(x + r * 1.2, y + r * 0.85);
    ctx.lineTo(x - r * 1.2, y + r * 0.85);
    ctx.closePath();
  } else ctx.rect(x - r, y - r, 2 * r, 2 * r);
}

function cross(ctx, x, y, r, color) {
  ctx.strokeStyle = color;
  ctx.lineWidth = Math.max(1.4, r / 2.5);
  ctx.beginPath();
  ctx.moveTo(x - r, y - r); ctx.lineTo(x + r, y + r);
  ctx.moveTo(x + r, y - r); ctx.lineTo(x - r, y + r);
  ctx.stroke();
}

function label(ctx, n, o, taken, surface, ink) {
  const size = n.hub || n.kind === 'group' ? 13 : 12;
  ctx.font = `${n.hub || n.kind === 'group' ? 620 : 500} ${size}px Inter, sans-serif`;
  const text = n.label.length > 24 ? n.label.slice(0, 23) + '…' : n.label;
  const width = ctx.measureText(text).width + 8;
  const y = n.py + n.pr + (n.hub ? 18 : 14);
  const box = [n.px - width / 2, y - 12, n.px + width / 2, y + 4];
  if (n.id !== o.selected && taken.some((t) => t[0] < box[2] && t[2] > box[0] && t[1] < box[3] && t[3] > box[1])) return;
  taken.push(box);
  ctx.lineWidth = 4;
  ctx.strokeStyle = surface;
  ctx.strokeText(text, n.px, y);
  ctx.fillStyle = ink;
  ctx.fillText(text, n.px, y);
  if (n.kind !== 'group') return;
  const bad = n.counts.down + n.counts.degraded;
  ctx.font = `650 ${Math.max(11, Math.min(18, n.pr * 0.62))}px Inter, sans-serif`;
  ctx.textBaseline = 'middle';
  ctx.fillStyle = token(n.state);
  ctx.fillText(bad ? `${bad}/${n.total}` : String(n.total), n.px, n.py + 1);
  ctx.textBaseline = 'alphabetic';
}

/** The node at a point of the canvas, or the edge, or null. */
export function hit(scene, view, px, py) {
  let best = null, near = Infinity;
  for (const n of scene.nodes) {
    const d = Math.hypot(n.x * view.k + view.x - px, n.y * view.k + view.y - py);
    const r = Math.max(9, radius(n) * Math.min(1.4, Math.max(0.35, view.k)) + 3);
    if (d < r && d < near) { best = n; near = d; }
  }
  if (best) return best;
  near = 6;
  for (const e of scene.edges) {
    const x0 = e.a.x * view.k + view.x, y0 = e.a.y * view.k + view.y, x1 = e.b.x * view.k + view.x, y1 = e.b.y * view.k + view.y;
    const dx = x1 - x0, dy = y1 - y0, long = dx * dx + dy * dy || 1;
    const t = Math.max(0, Math.min(1, ((px - x0) * dx + (py - y0) * dy) / long));
    const d = Math.hypot(x0 + t * dx - px, y0 + t * dy - py);
    if (d < near) { best = e; near = d; }
  }
  return best;
}
