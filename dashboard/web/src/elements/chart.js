// A chart over time: Chart.js with what an operator needs and it lacks: one
// crosshair for all charts of a page, a brush that zooms them together, marks
// for events, and gaps that stay gaps.
import '../vendor/chart.js';
import { h, scheduler } from '../core/dom.js';
import { absolute, clock, day } from '../core/format.js';
import { token } from '../core/color.js';
import { dark, onPreference } from '../core/preferences.js';

const { Chart } = globalThis;

/** A group of charts that share crosshair and brush. */
export class Together extends EventTarget {
  at = null;
  move(at, from) { this.at = at; this.from = from; this.dispatchEvent(new Event('move')); }
  zoom(from, to) { this.dispatchEvent(new CustomEvent('zoom', { detail: { from, to } })); }
}

function steps(from, to, most) {
  const s = 1000, m = 60 * s, hour = 60 * m, d = 24 * hour;
  const sizes = [s, 5 * s, 10 * s, 30 * s, m, 2 * m, 5 * m, 10 * m, 15 * m, 30 * m, hour, 2 * hour, 3 * hour, 6 * hour, 12 * hour, d, 2 * d, 7 * d, 14 * d, 30 * d];
  const size = sizes.find((x) => (to - from) / x <= most) ?? 60 * d;
  const offset = -new Date(from).getTimezoneOffset() * m;
  const ticks = [];
  for (let x = Math.ceil((from + offset) / size) * size - offset; x <= to; x += size) ticks.push({ value: x, size });
  return ticks;
}

export class TimeChart extends HTMLElement {
  #chart = null;
  #life = null;
  #drag = null;

  constructor() {
    super();
    this.update = scheduler(() => this.isConnected && this.draw());
  }

  /** {series: [{label, color, points: [{x, y}], band}], from, to, unit, format, min, marks: [{x, text}], together, label} */
  set data(v) { this.data_ = v; this.update(); }

  connectedCallback() {
    this.#life = new AbortController();
    const { signal } = this.#life;
    onPreference(() => { this.#chart?.destroy(); this.#chart = null; this.update(); }, signal);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { this.#chart?.destroy(); this.#chart = null; this.update(); }, { signal });
    this.update();
  }

  disconnectedCallback() {
    this.#life.abort();
    this.#chart?.destroy();
    this.#chart = null;
  }

  #make() {
    const canvas = this.querySelector('canvas') ?? h('canvas', { role: 'img', 'aria-label': this.data_.label });
    if (!canvas.isConnected) this.append(canvas);
    const ink = token('muted'), line = token('line');
    const el = this;
    this.#chart = new Chart(canvas, {
      type: 'line',
      data: { datasets: [] },
      options: {
        animation: false, parsing: false, normalized: true, responsive: true, maintainAspectRatio: false, spanGaps: false,
        interaction: { mode: 'index', intersect: false, axis: 'x' },
        elements: { point: { radius: 0, hitRadius: 0, hoverRadius: 0 }, line: { borderWidth: 1.6, tension: 0 } },
        scales: {
          x: {
            type: 'linear', grid: { color: line, drawTicks: false }, border: { display: false },
            afterBuildTicks: (axis) => { axis.ticks = steps(axis.min, axis.max, Math.max(2, Math.floor(axis.width / 90))); },
            ticks: { color: ink, font: { family: 'Inter', size: 11 }, maxRotation: 0, autoSkip: false, padding: 6, callback: (v, i, all) => (all[i].size >= 86400_000 ? day(v) : clock(v, all[i].size < 60_000)) },
          },
          y: {
            beginAtZero: true, grid: { color: line, drawTicks: false }, border: { display: false },
            afterFit: (axis) => { axis.width = 62; },
            ticks: { color: ink, font: { family: 'Inter', size: 11 }, maxTicksLimit: 5, padding: 8, callback: (v) => `${Number(v.toPrecision(4))}${el.data_.unit ? ' ' + el.data_.unit : ''}` },
          },
        },
        plugins: { legend: { display: false }, tooltip: { enabled: false }, decimation: { enabled: false } },
      },
      plugins: [{ id: 'crosshair', afterDatasetsDraw: (chart) => el.#overlay(chart) }],
    });
    this.#pointer(canvas);
  }

  #pointer(canvas) {
    if (canvas.bound_) return;
    canvas.bound_ = true;
    const at = (e) => this.#chart.scales.x.getValueForPixel(e.clientX - canvas.getBoundingClientRect().left);
    canvas.addEventListener('pointermove', (e) => {
      if (!this.#chart) return;
      if (this.#drag) this.#drag.to = at(e);
      this.data_.together?.move(at(e), this);
    });
    canvas.addEventListener('pointerleave', () => { this.#drag = null; this.data_.together?.move(null, this); });
    canvas.addEventListener('pointerdown', (e) => {
      if (e.button) return;
      canvas.setPointerCapture(e.pointerId);
      this.#drag = { from: at(e), to: at(e) };
    });
    canvas.addEventListener('pointerup', () => {
      const d = this.#drag;
      this.#drag = null;
      if (!d) return;
      const x = this.#chart.scales.x;
      if (Math.abs(x.getPixelForValue(d.to) - x.getPixelForValue(d.from)) > 8) {
        this.data_.together?.zoom(Math.max(x.min, Math.min(d.from, d.to)), Math.min(x.max, Math.max(d.from, d.to)));
      } else this.data_.together?.move(d.to, this);
    });
  }

  #overlay(chart) {
    const { ctx, chartArea: area, scales: { x } } = chart;
    const v = this.data_;
    ctx.save();
    for (const m of v.marks ?? []) {
      if (m.x < x.min || m.x > x.max) continue;
      const px = x.getPixelForValue(m.x);
      ctx.strokeStyle = token(m.state ?? 'degraded');
      ctx.setLineDash([3, 3]);
      line(ctx, px, area.top, px, area.bottom);
      ctx.setLineDash([]);
      ctx.fillStyle = ctx.strokeStyle;
      ctx.beginPath();
      ctx.moveTo(px - 4, area.top); ctx.lineTo(px + 4, area.top); ctx.lineTo(px, area.top + 6);
      ctx.fill();
    }
    if (this.#drag) {
      const a = x.getPixelForValue(this.#drag.from), b = x.getPixelForValue(this.#drag.to);
      ctx.fillStyle = token('accent');
      ctx.globalAlpha = 0.16;
      ctx.fillRect(Math.min(a, b), area.top, Math.abs(b - a), area.bottom - area.top);
      ctx.globalAlpha = 1;
    }
    const at = v.together?.at;
    if (at != null && at >= x.min && at <= x.max) {
      const px = Math.round(x.getPixelForValue(at)) + 0.5;
      ctx.strokeStyle = token('line-strong');
      line(ctx, px, area.top, px, area.bottom);
      this.#values(ctx, chart, at, px);
    }
    ctx.restore();
  }

  /** What each series was at the crosshair. */
  #values(ctx, chart, at, px) {
    const v = this.data_;
    const rows = [];
    chart.data.datasets.forEach((d) => {
      if (d.hidden || d.band) return;
      const p = nearest(d.data, at);
      if (p) {
        rows.push([d.borderColor, d.label, v.format(p.y)]);
        ctx.fillStyle = d.borderColor;
        ctx.beginPath();
        ctx.arc(chart.scales.x.getPixelForValue(p.x), chart.scales.y.getPixelForValue(p.y), 3, 0, 7);
        ctx.fill();
      }
    });
    if (!rows.length) return;
    const shown = rows.slice(0, 8);
    ctx.font = '12px Inter, sans-serif';
    const title = absolute(at);
    const width = Math.max(ctx.measureText(title).width, ...shown.map((r) => ctx.measureText(`${r[1]}  ${r[2]}`).width + 34)) + 20;
    const height = 26 + shown.length * 18;
    const left = px + 12 + width > chart.width ? px - 12 - width : px + 12;
    const top = Math.min(chart.chartArea.top + 4, Math.max(0, chart.height - height));
    ctx.fillStyle = token('raised');
    ctx.strokeStyle = token('line');
    ctx.beginPath();
    ctx.roundRect(left, top, width, height, 6);
    ctx.fill();
    ctx.stroke();
    ctx.textBaseline = 'top';
    ctx.fillStyle = token('muted');
    ctx.fillText(title, left + 10, top + 7);
    shown.forEach(([color, label, value], i) => {
      const y = top + 25 + i * 18;
      ctx.fillStyle = color;
      ctx.fillRect(left + 10, y + 5, 10, 3);
      ctx.fillStyle = token('ink');
      ctx.textAlign = 'left';
      ctx.fillText(label, left + 26, y);
      ctx.textAlign = 'right';
      ctx.fillText(value, left + width - 10, y);
      ctx.textAlign = 'left';
    });
  }

  draw() {
    if (!this.data_) return;
    if (!this.#chart) this.#make();
    const v = this.data_;
    if (v.together && v.together !== this.together_) {
      this.together_ = v.together;
      v.together.addEventListener('move', () => this.#chart?.draw(), { signal: this.#life.signal });
    }
    const sets = [];
    for (const s of v.series) {
      if (s.band) {
        sets.push({ label: s.label, data: s.band.low, borderWidth: 0, hidden: s.hidden, band: true });
        sets.push({ label: s.label, data: s.band.high, borderWidth: 0, fill: '-1', backgroundColor: fade(s.color), hidden: s.hidden, band: true });
      }
      sets.push({ label: s.label, data: s.points, borderColor: s.color, hidden: s.hidden });
    }
    this.#chart.data.datasets = sets;
    this.#chart.options.scales.x.min = v.from;
    this.#chart.options.scales.x.max = v.to;
    this.#chart.options.scales.y.max = v.max;
    this.#chart.options.scales.y.suggestedMax = v.suggestedMax;
    this.#chart.canvas.setAttribute('aria-label', v.label);
    this.#chart.update('none');
  }
}
customElements.define('p-chart', TimeChart);

function line(ctx, x0, y0, x1, y1) {
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}

function fade(color) { return color.replace('rgb(', 'rgba(').replace(')', `, ${dark() ? 0.18 : 0.13})`); }

/** The point nearest to x, in a list that is in order; null in a gap. */
export function nearest(points, x) {
  let low = 0, high = points.length - 1;
  if (high < 0) return null;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (points[mid].x < x) low = mid + 1; else high = mid;
  }
  const a = points[low - 1], b = points[low];
  const p = a && x - a.x < Math.abs(b.x - x) ? a : b;
  const wide = points.length > 1 ? (points[points.length - 1].x - points[0].x) / (points.length - 1) * 2.5 : Infinity;
  return p.y == null || Number.isNaN(p.y) || Math.abs(p.x - x) > wide ? null : p;
}
