// The network policies, as the product's first drawing has them.
import { h, icon } from '../core/dom.js';
import { t, tn, number } from '../core/text.js';
import { all, api } from '../core/api.js';
import { fleet } from '../core/fleet.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { setParams } from '../core/router.js';
import { everywhere, may } from '../core/session.js';
import { choose, debounce, search } from '../elements/bits.js';
import { confirmed, done, wrong } from '../elements/dialog.js';
import { inWords } from '../core/policytext.js';

export default class Policies extends Page {
  list = null;
  routing = null;
  #typed = debounce((v) => setParams({ q: v }), 150);

  start() {
    fleet.follow(() => {}, this.signal);
    fleet.addEventListener('happened', ({ detail: e }) => { if (e.event_type === 'configuration_change') this.#read(true); }, { signal: this.signal });
    this.#read();
  }

  async #read(quiet = false) {
    const read = async (signal) => {
      [this.list, this.routing] = await Promise.all([all('/api/v1/policies', { signal }), api('/api/v1/routing-policies', { signal }).then((p) => p.items, () => [])]);
    };
    if (quiet) await read(this.signal).then(() => this.update(), () => {});
    else await this.load(read);
  }

  async #mode(p, mode) {
    const before = p.mode;
    const write = async (m) => {
      const { body, tag } = await api('/api/v1/policies/' + p.id, { tagged: true });
      await api('/api/v1/policies/' + p.id, { method: 'PUT', headers: { 'If-Match': tag }, json: { spec: body.spec, mode: m, answer: body.answer } });
    };
    try {
      await write(mode);
      done(t('{policy} is {mode} now.', { policy: p.name, mode: t(mode) }), async () => { await write(before).catch(wrong); this.#read(true); });
    } catch (err) { wrong(err); }
    this.#read(true);
  }

  async #remove(p) {
    let lost = null;
    try { lost = await api(`/api/v1/policies/${p.id}/simulate`, { method: 'POST', json: { remove: true } }); } catch { /* asked without */ }
    const yes = await confirmed({
      title: t('Delete {policy}', { policy: p.name }), name: p.name, action: t('Delete the policy'),
      text: t('What it selects is then judged by the other policies, or by none.'),
      details: lost && h('p.muted', null, tn(lost.differences.length, '{n} pair of endpoints would reach each other differently.', '{n} pairs of endpoints would reach each other differently.')),
    });
    if (!yes) return;
    try {
      const { body, tag } = await api('/api/v1/policies/' + p.id, { tagged: true });
      await api('/api/v1/policies/' + p.id, { method: 'DELETE', headers: { 'If-Match': tag } });
      done(t('{policy} is deleted.', { policy: p.name }), async () => {
        await api('/api/v1/policies', { method: 'POST', json: { spec: body.spec, mode: body.mode, answer: body.answer } }).catch(wrong);
        this.#read(true);
      });
    } catch (err) { wrong(err); }
    this.#read(true);
  }

  render() {
    const q = this.query;
    const add = may('manage_policies') && everywhere() && h('a.btn.primary', { href: '/policies/new' }, icon('plus'), t('New policy'));
    if (this.error) return [head(t('Policies')), failed(this.error, () => this.#read())];
    if (!this.list) return [head(t('Policies')), skeleton(8)];
    const about = t('NetworkPolicies say which labelled endpoints may speak to which.');
    if (!this.list.length) return [head(t('Policies'), about, add), h('div.card', null, empty('shield-check', t('No policies yet'), t('Without a policy, everything may reach everything. The first policy that selects an endpoint closes it, apart from what the policy allows.'), add || null)), this.#routing()];
    const want = (q.get('q') ?? '').toLowerCase();
    const list = this.list.filter((p) => (!want || `${p.namespace}/${p.name} ${p.spec}`.toLowerCase().includes(want)) && (!q.get('mode') || p.mode === q.get('mode')));
    return [
      head(t('Policies'), about, add),
      h('div.row', { key: 'f', class: 'mb-4' }, search(q.get('q') ?? '', t('Name, label or anything in a policy'), this.#typed),
        choose(t('Mode'), q.get('mode') ?? '', [['', t('Any mode')], ['enforced', t('enforced')], ['staged', t('staged')], ['disabled', t('disabled')]], (v) => setParams({ mode: v }))),
      h('div.stack', { key: 'l' }, list.length ? list.map((p) => this.#card(p)) : h('div.card', null, empty('search-x', t('No policy fits'), t('Change or clear the filters.')))),
      this.#routing(),
    ];
  }

  #card(p) {
    const write = may('manage_policies') && everywhere();
    const words = inWords(p.spec);
    return h('section.card.policy', { key: p.id, 'aria-label': p.name },
      h('div.line', null, h('h2', null, h('a', { href: '/policies/' + p.id }, p.name)), p.kind === 'ClusterNetworkPolicy' && h('span.tag', null, t('cluster')), h('span.space'),
        write ? choose(t('Mode of {policy}', { policy: p.name }), p.mode, [['enforced', t('Enabled')], ['staged', t('Staged')], ['disabled', t('Disabled')]], (v) => this.#mode(p, v)) : h('span.tag', { class: { enforced: 'ok', staged: 'staged' }[p.mode] ?? '' }, t({ enforced: 'Enabled', staged: 'Staged', disabled: 'Disabled' }[p.mode] ?? p.mode)),
        h('a.btn', { href: '/policies/' + p.id }, icon(write ? 'pencil' : 'eye'), write ? t('Edit') : t('View')),
        may('delete_policies') && everywhere() && h('button.btn.square', { type: 'button', 'aria-label': t('Delete {policy}', { policy: p.name }), on: { click: () => this.#remove(p) } }, icon('x'))),
      h('dl.facts', null, p.namespace && [h('dt', null, t('Namespace')), h('dd', null, p.namespace)],
        h('dt', null, t('Pod selector')), h('dd', null, words.selector || t('everything in the namespace')), h('dt', null, t('Type')), h('dd', null, p.types.join(', ') || '–'),
        h('dt', null, t('Rules')), h('dd', null, words.rules.length ? words.rules.map((r, i) => h('div', { key: i }, r)) : t('allows nothing'))),
      h('div.sums', null, h('span', null, t('Applied to:'), ' ', h('b', null, tn(p.applies_to, '{n} endpoint', '{n} endpoints'))),
        h('span', null, t('Blocks:'), ' ', p.blocks_last_hour == null ? h('span.muted', null, t('not recorded')) : h('a', { href: `/flows?status=blocked&policy=${p.id}&last=1h` }, tn(p.blocks_last_hour, '{n} flow (last 1h)', '{n} flows (last 1h)'))),
        h('span.muted', null, t('Allowed {n} flows since it is in force', { n: number(p.allowed_flows) })), p.mode === 'staged' && h('span.muted', null, t('Would have denied {n}', { n: number(p.staged_flows) }))));
  }

  #routing() {
    if (!this.routing?.length) return null;
    return h('section.card', { key: 'routing', class: 'mt-4', 'aria-labelledby': 'routing-title' },
      h('header', null, h('h2', { id: 'routing-title' }, t('Routing policies: the first that fits decides the path'))),
      h('div.plain-list', null, this.routing.map((r, i) => h('div', { key: r.id, class: 'flex-wrap' }, h('span.num.muted', null, `${i + 1}.`), h('b', null, r.id), h('span.grow.muted', { class: 'whitespace-normal' }, routeWords(r))))));
  }
}
customElements.define('page-policies', Policies);

function routeWords(r) {
  const out = [];
  const sla = Object.entries(r.sla ?? {}).filter(([, v]) => v != null && v !== 0).map(([k, v]) => `${k.replaceAll('_', ' ')} ${typeof v === 'object' ? JSON.stringify(v) : v}`);
  const match = (Array.isArray(r.match) ? r.match : r.match ? [r.match] : []).map((m) => Object.entries(m).map(([k, v]) => `${k} ${Array.isArray(v) ? v.join(', ') : v}`).join(' '));
  if (match.length) out.push(match.join(' or '));
  if (sla.length) out.push(t('wants {sla}', { sla: sla.join(', ') }));
  return out.join('; ') || t('everything else');
}
