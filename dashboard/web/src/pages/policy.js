// One policy: as YAML and as pictures of the same, tried before it is applied.
import { h, icon } from '../core/dom.js';
import { t, tn } from '../core/text.js';
import { all, api } from '../core/api.js';
import { fleet } from '../core/fleet.js';
import { policyName } from '../core/format.js';
import { failed, head, Page, skeleton } from '../core/page.js';
import { blank, parse, write } from '../core/policymodel.js';
import { go, setParams } from '../core/router.js';
import { everywhere, may } from '../core/session.js';
import { choose, debounce, segments } from '../elements/bits.js';
import { confirmed, done, wrong } from '../elements/dialog.js';
import { diff } from '../elements/diff.js';
import { builder } from '../elements/builder.js';
import '../elements/yaml.js';

export default class PolicyPage extends Page {
  text = '';
  kept = ''; // what the server has
  mode = 'enforced';
  keptMode = 'enforced';
  answer = 'drop';
  tag = '';
  problems = [];
  simulated = null; // {text, result} or {text, error}
  busy = false;
  endpoints = [];
  #check = debounce(() => this.#dry(), 500);

  get fresh() { return !this.params.id; }
  get writable() { return may('manage_policies') && everywhere(); }

  start() {
    fleet.follow(() => {}, this.signal);
    this.leave_ = (e) => { if (this.dirty) e.preventDefault(); };
    addEventListener('beforeunload', this.leave_, { signal: this.signal });
    all('/api/v1/endpoints', { signal: this.signal }).then((l) => { this.endpoints = l; this.update(); }, () => {});
    this.#read();
  }

  get dirty() { return this.text !== this.kept || this.mode !== this.keptMode; }

  async #read() {
    if (this.fresh) {
      this.text = write(blank());
      this.kept = '';
      this.loading = false;
      this.loaded = true;
      return this.update();
    }
    await this.load(async (signal) => {
      const { body, tag } = await api('/api/v1/policies/' + this.params.id, { tagged: true, signal });
      Object.assign(this, { text: body.spec, kept: body.spec, mode: body.mode, keptMode: body.mode, answer: body.answer, tag, policy: body, loaded: true });
    });
    return undefined;
  }

  #changed(text) {
    this.text = text;
    this.problems = [];
    this.update();
    this.#check();
  }

  get id_() {
    try {
      const o = parse(this.text);
      return `${o.kind === 'ClusterNetworkPolicy' ? '' : o.metadata?.namespace ?? 'default'}~${o.metadata?.name}`;
    } catch { return ''; }
  }

  #send(o = {}) {
    const body = { spec: this.text, mode: this.mode, answer: this.answer, ...(o.force && { force: true }) };
    const dry = o.dry ? '?dry_run=true' : '';
    return this.fresh ? api('/api/v1/policies' + dry, { method: 'POST', json: body }) : api(`/api/v1/policies/${this.params.id}${dry}`, { method: 'PUT', json: body, headers: { 'If-Match': this.tag } });
  }

  /** The server says whether the text is a policy, with lines. */
  async #dry() {
    if (!this.writable || !this.text.trim()) return;
    const text = this.text;
    try {
      await this.#send({ dry: true });
      if (text === this.text) this.problems = [];
    } catch (err) {
      if (text === this.text) this.problems = err.fields?.length ? err.fields : [{ detail: err.message }];
    }
    this.update();
  }

  async #simulate() {
    const text = this.text;
    this.busy = true;
    this.update();
    try {
      const recent = may('view_flows') ? await api('/api/v1/flows?limit=500&duration=1h').then((p) => p.items, () => []) : [];
      const seen = new Set();
      const flows = recent.filter((f) => { const k = `${f.src} ${f.dst} ${f.protocol} ${f.port}`; return ['tcp', 'udp', 'sctp'].includes(f.protocol) && !seen.has(k) && seen.add(k); }).map((f) => ({ from: f.src, to: f.dst, protocol: f.protocol.toUpperCase(), port: f.port }));
      const result = await api(`/api/v1/policies/${this.fresh ? this.id_ : this.params.id}/simulate`, { method: 'POST', json: { spec: text, mode: 'enforced', flows } });
      this.simulated = { text, result };
    } catch (err) {
      this.simulated = { text, error: err };
      if (err.fields?.some((f) => f.line)) this.problems = err.fields;
    }
    this.busy = false;
    this.update();
  }

  async #apply(force = false) {
    this.busy = true;
    this.update();
    const before = { text: this.kept, mode: this.keptMode };
    try {
      const a = await this.#send({ force });
      const id = a.id || this.params.id || this.id_;
      done(a.unchanged ? t('Nothing changes.') : t('Revision {n} is on its way to the sites.', { n: a.revision }), this.fresh || a.unchanged ? null : async () => {
        await api('/api/v1/policies/' + id, { method: 'PUT', json: { spec: before.text, mode: before.mode, answer: this.answer } }).then(() => done(t('It is as it was before.')), wrong);
        if (this.isConnected) this.#read();
      });
      this.kept = this.text;
      this.keptMode = this.mode;
      if (this.fresh) go('/policies/' + id, { replace: true });
      else await this.#read();
    } catch (err) {
      if (err.type.endsWith(':refused') && !force) {
        this.busy = false;
        const yes = await confirmed({ title: t('This would cut something off'), text: err.message, action: t('Apply it anyway'), details: h('ul', { class: 'list-disc pl-5' }, err.fields.map((f) => h('li', { key: f.detail }, f.detail))), name: this.id_.split('~')[1] });
        if (yes) return this.#apply(true);
      } else {
        this.problems = err.fields ?? [];
        wrong(err);
      }
    }
    this.busy = false;
    this.update();
    return undefined;
  }

  render() {
    if (this.error) return [head(t('Policy')), failed(this.error, () => this.#read())];
    if (!this.loaded) return skeleton(10);
    const view = this.query.get('view') ?? 'yaml';
    const name = this.fresh ? t('New policy') : this.policy?.name ?? this.params.id;
    document.title = `${name} · Patronus`;
    const simulatedNow = this.simulated?.text === this.text;
    return [
      head(name, this.fresh ? t('Write it, try it on the last hour’s flows, then apply it.') : `${this.policy.kind}, ${this.policy.namespace || t('whole cluster')}`,
        segments(t('View'), view, [['yaml', t('YAML'), 'code'], ['builder', t('Builder'), 'blocks'], ...(this.kept && this.dirty ? [['diff', t('Changes'), 'git-compare']] : [])], (v) => setParams({ view: v === 'yaml' ? null : v })),
        this.writable && choose(t('Mode'), this.mode, [['enforced', t('Enabled')], ['staged', t('Staged: only counts')], ['disabled', t('Disabled')]], (v) => { this.mode = v; this.update(); }),
        everywhere() && h('button.btn', { type: 'button', disabled: this.busy, on: { click: () => this.#simulate() } }, icon('flask-conical'), t('Simulate')),
        this.writable && h('button.btn.primary', { type: 'button', disabled: this.busy || !this.dirty || this.problems.length > 0, title: simulatedNow ? null : t('Simulating first shows what it would change'), on: { click: () => this.#apply() } }, t('Apply'))),
      h('div', { key: view }, view === 'builder' ? this.#builder() : view === 'diff' ? diff(this.kept, this.text) :
        h('p-yaml', { '.value': this.text, '.problems': this.problems, '.readonly': !this.writable, '.oninput_': (v) => this.#changed(v) })),
      this.problems.length > 0 && h('ul', { key: 'p', class: 'mt-3 grid gap-1', role: 'alert' }, this.problems.map((p, i) => h('li.wrong', { key: i }, p.line ? t('Line {n}: ', { n: p.line }) : '', p.field && p.field !== 'spec' ? `${p.field} ` : '', p.detail))),
      this.#result(simulatedNow),
    ];
  }

  #builder() {
    try {
      return builder(parse(this.text), { endpoints: this.endpoints, writable: this.writable, change: (o) => this.#changed(write(o)) });
    } catch {
      return h('div.card', { class: 'p-5' }, h('p', null, t('The builder does not read this YAML; it can be edited as text.')));
    }
  }

  #result(current) {
    const s = this.simulated;
    if (!s) return null;
    if (s.error) return h('section.card', { key: 'sim', class: 'mt-4 p-4', role: 'alert' }, h('h2', null, t('Simulation')), h('p.wrong', null, s.error.fields?.length ? s.error.fields.map((f) => f.detail).join('; ') : s.error.message));
    const r = s.result;
    const changed = r.flows.filter((f) => f.changed);
    const cut = changed.filter((f) => f.before.allowed);
    return h('section.card', { key: 'sim', class: 'mt-4', 'aria-live': 'polite', 'aria-label': t('Simulation') },
      h('header', null, h('h2', null, t('What it would change')), !current && h('span.tag.staged', null, t('of an older text'))),
      h('div.body', { class: 'grid gap-4' },
        h('p', null, h('b', null, tn(changed.length, '{n} of the last hour’s flows would change', '{n} of the last hour’s flows would change')), r.flows.length ? t(' of {n} different ones; {cut} would be cut.', { n: r.flows.length, cut: cut.length }) : t('; none was recorded.')),
        changed.length > 0 && h('ul.plain-list', null, changed.slice(0, 20).map((f, i) => h('li', { key: i }, h('span.tag', { class: f.after.allowed ? 'ok' : 'down' }, f.after.allowed ? t('newly allowed') : t('newly blocked')), h('span.num.grow', null, `${f.from ?? f.flow?.from} → ${f.to ?? f.flow?.to} ${f.protocol ?? f.flow?.protocol ?? ''} ${f.port ?? f.flow?.port ?? ''}`), h('span.muted', null, policyName(f.after.policy) || f.after.reason)))),
        h('div', null, h('h3', null, tn(r.differences.length, '{n} pair of endpoints differs', '{n} pairs of endpoints differ')), r.differences.length > 0 && h('ul', { class: 'grid gap-1 pt-2 text-[13px]' }, r.differences.slice(0, 30).map((p) => h('li', { key: p.from + p.to, class: 'row' }, h('b', null, p.from), '→', h('b', null, p.to), ports(p.lost, t('loses'), 'down'), ports(p.gained, t('gains'), 'ok'))), (r.truncated || r.differences.length > 30) && h('li.muted', null, t('and more')))),
        h('div', null, h('h3', null, t('Conflicts and oddities')), r.findings.length ? h('ul', { class: 'grid gap-2 pt-2 text-[13px]' }, r.findings.map((f, i) => h('li', { key: i, class: 'row' }, h('span.tag', { class: f.refused ? 'refused' : f.severity === 'error' ? 'down' : f.severity === 'warning' ? 'warning' : '' }, f.refused ? t('refused') : t(String(f.severity))), h('span', null, f.policy && h('b', null, policyName(f.policy), ': '), f.text, f.other && h('span.muted', null, ' (', policyName(f.other), ')'))))) : h('p.muted', null, t('None found.')))));
  }
}
customElements.define('page-policy', PolicyPage);

function ports(list, what, cls) {
  return list?.length > 0 && h('span.tag', { class: cls }, `${what} ${list.slice(0, 4).map((p) => `${p.protocol} ${p.first === 0 && p.last === 65535 || p.first === 1 && p.last === 65535 ? t('all') : p.first === p.last ? p.first : `${p.first}–${p.last}`}`).join(', ')}${list.length > 4 ? ' …' : ''}`);
}
