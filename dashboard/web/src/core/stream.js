// One WebSocket that comes back by itself.

const calm = 30_000; // longest pause between tries, ms

export class Stream {
  open = false;
  tries = 0;
  heard = 0;
  seq = 0; // of the last message
  epoch = '';
  onopen = null;

  #url;
  #take;
  #link;
  #socket = null;
  #closed = false;
  #timer = 0;
  #resume = false;

  /**
   * take(message) gets each message, link() is called when the connection comes
   * or goes; with resume, what was missed meanwhile is asked for.
   */
  constructor(path, take, link, resume = false) {
    this.#resume = resume;
    this.#url = location.origin.replace(/^http/, 'ws') + path;
    this.#take = take;
    this.#link = link;
    this.#connect();
  }

  #connect() {
    const from = this.#resume && this.seq ? `&from=${this.seq}&epoch=${this.epoch}` : '';
    const socket = new WebSocket(this.#url + '?batch=true' + from);
    this.#socket = socket;
    socket.onopen = () => {
      const again = this.tries > 0;
      this.open = true;
      this.tries = 0;
      this.heard = Date.now();
      this.onopen?.(again);
      this.#link();
    };
    socket.onmessage = (e) => {
      this.heard = Date.now();
      let m;
      try { m = JSON.parse(e.data); } catch { return; }
      if (m.type === 'hello') {
        // Numbers of another start of the dashboard mean nothing here.
        if (this.epoch && this.epoch !== m.epoch) this.seq = 0;
        this.epoch = m.epoch;
      }
      for (const one of m.messages ?? [m]) {
        if (one.seq > this.seq) this.seq = one.seq;
        this.#take(one);
      }
    };
    socket.onclose = () => {
      this.open = false;
      if (this.#closed) return;
      this.tries++;
      // Half of the pause is by chance: a thousand browsers do not come back at once.
      const pause = Math.min(calm, 500 * 2 ** this.tries) * (0.5 + Math.random() / 2);
      this.#timer = setTimeout(() => this.#connect(), pause);
      this.#link();
    };
  }

  send(message) { if (this.open) this.#socket.send(JSON.stringify(message)); }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#socket.close();
  }
}
