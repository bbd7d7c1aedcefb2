// How a path's measurements travel from the worker: number, time, state, then
// these fields; NaN is unknown.
export const fields = ['latency_ms', 'jitter_ms', 'packet_loss_pct', 'bandwidth_mbps', 'tx_mbps', 'rx_mbps', 'score'];
export const states = ['up', 'degraded', 'down', 'unknown'];
export const width = 3 + fields.length;
