// The live metrics as a page gets them: from a worker, in numbers.
import { fields, states, width } from './metricrow.js';
import { startWorker } from './worker.js';

export class MetricStream {
  open = false;
  tries = 0;
  heard = 0;
  onopen = null;

  #worker;
  #ids = [];

  /** take(id, at, state, read) gets each path; read(metrics) writes the values into what is there. */
  constructor(path, take, link) {
    this.#worker = startWorker(new URL('./stream.worker.js', import.meta.url).href);
    this.#worker.onmessage = ({ data }) => {
      if (data.link) {
        Object.assign(this, data.link);
        link();
      } else if (data.values) {
        this.heard = Date.now();
        this.#ids.push(...data.fresh);
        this.#rows(data.values, take);
      } else {
        this.heard = Date.now();
        this.onopen?.(data.opened);
      }
    };
    this.#worker.postMessage({ path });
  }

  #rows(v, take) {
    let at = 0;
    const read = (metrics) => {
      for (let k = 0; k < fields.length; k++) {
        const x = v[at + 3 + k];
        metrics[fields[k]] = Number.isNaN(x) ? null : x;
      }
    };
    for (; at < v.length; at += width) take(this.#ids[v[at]], v[at + 1], states[v[at + 2]], read);
  }

  close() { this.#worker.terminate(); }
}
