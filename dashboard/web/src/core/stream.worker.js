// Receives the metrics of all paths away from the page: of 3,000 paths a second
// is 1.7 MB of JSON, which would cost the page more than drawing does. What
// goes on is one array of numbers for each frame.
import { fields, states, width } from './metricrow.js';
import { Stream } from './stream.js';

const index = new Map(); // path id -> its number
let fresh = []; // ids whose numbers the page does not know yet
let rows = [];

function take(m) {
  if (m.type !== 'path_metric') return;
  let i = index.get(m.path_id);
  if (i === undefined) {
    index.set(m.path_id, i = index.size);
    fresh.push(m.path_id);
  }
  rows.push(i, Date.parse(m.timestamp), states.indexOf(m.status));
  for (const f of fields) rows.push(m.metrics[f] ?? NaN);
  if (rows.length === width) queueMicrotask(send);
}

function send() {
  const values = Float64Array.from(rows);
  self.postMessage({ fresh, values }, [values.buffer]);
  fresh = [];
  rows = [];
}

self.onmessage = ({ data }) => {
  const stream = new Stream(data.path, take, () => self.postMessage({ link: { open: stream.open, tries: stream.tries } }));
  stream.onopen = (again) => self.postMessage({ opened: again });
};
