// Measures a path now, and shows what came out.
import { h } from '../core/dom.js';
import { t } from '../core/text.js';
import { api } from '../core/api.js';
import { ms, pathName, pct, rate } from '../core/format.js';
import { openDialog } from './dialog.js';

export function testPath(p) {
  let result = null, err = null, busy = false, throughput = false;
  const run = async () => {
    busy = true; err = null; result = null;
    d.redraw();
    try { result = await api(`/api/v1/paths/${p.id}/test`, { method: 'POST', json: { throughput } }); } catch (e) { err = e; }
    busy = false;
    d.redraw();
  };
  const d = openDialog({
    title: t('Test {path}', { path: pathName(p.id) }),
    body: () => [
      h('p.muted', null, t('Sends probes from {site} and measures delay and loss now. A transfer loads the path for 3 seconds.', { site: p.source.name })),
      h('label.check', null, h('input', { type: 'checkbox', on: { change: (e) => { throughput = e.target.checked; } } }), t('Also measure throughput (at most 100 Mbit/s)')),
      busy && h('p', { role: 'status' }, t('Measuring')),
      err && h('p.wrong', { role: 'alert' }, err.message),
      result && h('dl.facts', { 'aria-live': 'polite' }, h('dt', null, t('Delay')), h('dd.num', null, t('{min} at least, {median} typically, {max} at most', { min: ms(result.min_ms), median: ms(result.median_ms), max: ms(result.max_ms) })),
        h('dt', null, t('Probes lost')), h('dd.num', null, `${pct(result.packet_loss_pct)} (${result.sent - result.received}/${result.sent})`),
        result.tx_mbps != null && [h('dt', null, t('Sent')), h('dd.num', null, rate(result.tx_mbps))], result.rx_mbps != null && [h('dt', null, t('Received')), h('dd.num', null, rate(result.rx_mbps))]),
    ],
    footer: (close) => [h('button.btn', { type: 'button', on: { click: () => close() } }, t('Close')), h('button.btn.primary', { type: 'button', disabled: busy, on: { click: run } }, result ? t('Measure again') : t('Measure'))],
  });
}
