// Which time is looked at: the last hour, or from then to then. It lives in the
// address bar as ?last=1h or ?from=…&to=….
import { h, icon } from '../core/dom.js';
import { t } from '../core/text.js';
import { absolute, clock, day } from '../core/format.js';
import { params, setParams } from '../core/router.js';
import { menu } from './menu.js';
import { wrong } from './dialog.js';

const lasts = [['5m', '5 minutes'], ['15m', '15 minutes'], ['1h', '1 hour'], ['6h', '6 hours'], ['24h', '24 hours'], ['7d', '7 days'], ['30d', '30 days'], ['90d', '90 days']];
const unit = { m: 60e3, h: 3600e3, d: 86400e3 };

/** The span that the address bar asks for: {from, to, last}, times in ms. */
export function range(now = Date.now()) {
  const q = params();
  const from = Date.parse(q.get('from')), to = Date.parse(q.get('to'));
  if (from && to && from < to) return { from, to, last: '' };
  const last = lasts.some(([v]) => v === q.get('last')) ? q.get('last') : '1h';
  return { from: now - parseInt(last, 10) * unit[last.at(-1)], to: now, last };
}

/** Looks at a span; what was looked at before is behind the back button. */
export function lookAt(from, to) {
  setParams({ last: null, from: new Date(from).toISOString(), to: new Date(to).toISOString() }, { push: true });
}

export function rangePicker() {
  const r = range();
  const label = r.last ? t('Last {span}', { span: t(lasts.find(([v]) => v === r.last)[1]) }) :
    r.to - r.from < 86400e3 ? `${day(r.from)} ${clock(r.from)} – ${clock(r.to)}` : `${day(r.from)} – ${day(r.to)}`;
  const move = (by) => { const w = r.to - r.from; lookAt(Math.min(r.from + by * w, Date.now() - w), Math.min(r.to + by * w, Date.now())); };
  return h('div.row', { key: 'range' },
    h('button.btn.square', { type: 'button', 'aria-label': t('Earlier'), on: { click: () => move(-0.5) } }, icon('chevron-left')),
    menu({ key: 'range', label: t('Time range: {label}', { label }), icon: 'calendar-clock', text: label, class: 'plain' }, () => [
      lasts.map(([v, text]) => h('button', { type: 'button', 'aria-current': r.last === v && 'true', on: { click: () => setParams({ last: v, from: null, to: null }, { push: true }) } }, t('Last {span}', { span: t(text) }), r.last === v && icon('check'))),
      h('hr'),
      h('form', { class: 'grid gap-2 p-2', on: { submit: (e) => {
        e.preventDefault();
        const [a, b] = [...e.target.querySelectorAll('input')].map((i) => new Date(i.value).getTime());
        if (a < b) lookAt(a, b); else wrong(new Error(t('The start must be before the end.')));
      } } }, ['from', 'to'].map((k) => h('label.field', null, k === 'from' ? t('From') : t('To'), h('input.input', { type: 'datetime-local', required: true, value: local(r[k]) }))),
      h('button.btn.primary', { type: 'submit' }, t('Show'))),
    ]),
    h('button.btn.square', { type: 'button', 'aria-label': t('Later'), disabled: Boolean(r.last), on: { click: () => move(0.5) } }, icon('chevron-right')),
    !r.last && h('button.btn', { type: 'button', title: `${absolute(r.from)} – ${absolute(r.to)}`, on: { click: () => setParams({ from: null, to: null, last: params().get('last') ?? '1h' }, { push: true }) } }, t('Back to now')));
}

function local(ms) {
  const d = new Date(ms);
  return new Date(d - d.getTimezoneOffset() * 60e3).toISOString().slice(0, 16);
}
