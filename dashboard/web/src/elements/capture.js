// Takes packets off a site, with the caps that end it.
import { h } from '../core/dom.js';
import { t } from '../core/text.js';
import { api } from '../core/api.js';
import { bytes } from '../core/format.js';
import { siteName } from '../core/fleet.js';
import { openDialog } from './dialog.js';

export function openCapture(s) {
  let busy = null, err = null, got = 0, took = 0, seconds = 10;
  const run = async (form) => {
    const f = new FormData(form);
    seconds = Number(f.get('seconds'));
    err = null; got = 0; took = 0;
    busy = new AbortController();
    const began = Date.now();
    const timer = setInterval(() => { took = (Date.now() - began) / 1000; d.redraw(); }, 500);
    d.redraw();
    try {
      const res = await api('/api/v1/captures', { method: 'POST', raw: true, signal: busy.signal, json: { site: s.id, point: f.get('point'), filter: f.get('filter'), seconds, packets: 100000, bytes: 16 << 20 } });
      const parts = [];
      for (const reader = res.body.getReader(); ;) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        got += value.length;
      }
      const url = URL.createObjectURL(new Blob(parts, { type: 'application/x-pcapng' }));
      h('a', { href: url, download: `${s.id}.pcapng` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    } catch (e) { if (e.name !== 'AbortError') err = e; }
    clearInterval(timer);
    busy = null;
    d.redraw();
  };
  const d = openDialog({
    title: t('Capture packets of {site}', { site: siteName(s) }),
    body: () => h('form', { id: 'capture', class: 'grid gap-3', on: { submit: (e) => { e.preventDefault(); run(e.target); } } },
      h('p.muted', null, t('The file opens in Wireshark. Who captured what is in the audit log.')),
      h('label.field', null, t('Where'), h('select.input', { name: 'point' }, h('option', { value: 'lan' }, t('LAN side')), h('option', { value: 'wan' }, t('All uplinks')), s.uplinks.map((u) => h('option', { value: u.name }, u.name)))),
      h('label.field', null, t('Filter'), h('input.input.mono', { name: 'filter', placeholder: 'host 10.1.1.5 and port 443', spellcheck: 'false', autocomplete: 'off' }), h('span.hint', null, t('host, net, port and protocol, joined by “and”; empty takes everything'))),
      h('label.field', null, t('Seconds, at most 60'), h('input.input', { name: 'seconds', type: 'number', min: 1, max: 60, value: 10 })),
      busy && h('div', { role: 'status', class: 'grid gap-2' }, h('span', null, t('{n} captured', { n: bytes(got) })), h('div.meter', { style: { '--w': `${Math.min(100, 100 * took / seconds)}%` } }, h('i'))),
      err && h('p.wrong', { role: 'alert' }, err.message)),
    footer: (close) => [busy ? h('button.btn', { type: 'button', key: 'stop', on: { click: () => busy.abort() } }, t('Stop')) : h('button.btn', { type: 'button', key: 'close', on: { click: () => close() } }, t('Close')), h('button.btn.primary', { type: 'submit', form: 'capture', disabled: Boolean(busy) }, t('Capture'))],
  });
  d.done.then(() => busy?.abort());
}
