// The rules by which people are called, tried on the past before they are
// saved; the channels that call; and the mutes that do not.
import { h, icon } from '../core/dom.js';
import { t, tn } from '../core/text.js';
import { api } from '../core/api.js';
import { fleet } from '../core/fleet.js';
import { absolute } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { setParams } from '../core/router.js';
import { everywhere, may } from '../core/session.js';
import { severity, when } from '../elements/bits.js';
import { confirmed, done, openDialog, wrong } from '../elements/dialog.js';

const fresh = `name: Slow path
condition:
  type: PathLatency
  threshold_ms: 150
  duration: 5m
severity: warning
`;

/** A rule's condition in words. */
function words(r) {
  const c = r.condition, where = c.path_id || c.policy_id || c.site_id || t('anywhere');
  const long = c.duration && c.duration !== '0s' ? t('for {duration}', { duration: c.duration }) : '';
  const what = { PathLatency: t('latency above {n} ms', { n: c.threshold_ms }), PathLoss: t('loss above {n} %', { n: c.threshold_pct }), PathDown: t('a path is down'), SiteUnreachable: t('a site is unreachable'), PolicyViolation: t('{n} blocked flows within {window}', { n: c.count, window: c.window }) }[c.type];
  return `${what}, ${where} ${long}`.trim();
}

/** The times that a rule would have fired, along the week. */
function picture(trial) {
  const from = Date.parse(trial.from), length = Date.parse(trial.to) - from;
  return h('svg.spark', { viewBox: '0 0 100 30', preserveAspectRatio: 'none', role: 'img', 'aria-label': tn(trial.fired, 'It would have fired {n} time', 'It would have fired {n} times') },
    h('line', { x1: 0, x2: 100, y1: 26, y2: 26, stroke: 'currentColor', 'stroke-width': 0.3 }),
    trial.episodes.map((e) => { const x = 100 * (Date.parse(e.fired_at) - from) / length; return h('rect', { x: x.toFixed(2), y: 6, height: 20, width: Math.max(0.4, 100 * ((e.ended_at ? Date.parse(e.ended_at) : Date.parse(trial.to)) - Date.parse(e.fired_at)) / length).toFixed(2), fill: 'currentColor' }); }));
}

export default class AlertRules extends Page {
  rules = null;
  channels = [];
  mutes = [];
  sent = [];

  start() {
    fleet.follow(() => {}, this.signal);
    this.#read();
  }

  async #read(quiet = false) {
    const list = (path, signal) => api('/api/v1/alerts/' + path, { signal }).then((p) => p.items, () => []);
    const read = async (signal) => {
      this.rules = (await api('/api/v1/alerts/rules?limit=1000', { signal })).items;
      if (everywhere()) {
        const [channels, silences, windows, sent] = await Promise.all([list('channels', signal), list('silences', signal), list('maintenance', signal), list('deliveries?limit=50', signal)]);
        Object.assign(this, { channels, mutes: [...silences, ...windows], sent });
      }
    };
    if (quiet) await read(this.signal).then(() => this.update(), () => {});
    else await this.load(read);
  }

  get #writes() { return may('manage_alerts') && everywhere(); }

  #edit(rule) {
    let text = rule ? JSON.stringify(rule, null, 2) : fresh;
    let trial = null, busy = false, problem = '';
    const ask = async (f) => {
      busy = true; problem = '';
      d.redraw();
      try { await f(); } catch (err) { problem = err.fields?.length ? err.fields.map((x) => `${x.line ? t('line {n}: ', { n: x.line }) : ''}${x.field} ${x.detail}`).join('\n') : err.message; }
      busy = false;
      d.redraw();
    };
    const d = openDialog({
      title: rule ? rule.name : t('New rule'), wide: true,
      body: () => [
        h('label.field', null, t('The rule, as YAML or JSON'), h('textarea.input.mono', { rows: 12, spellcheck: 'false', '.value': text, on: { input: (e) => { text = e.target.value; } } })),
        problem && h('p.wrong', { role: 'alert' }, problem),
        trial && h('div', { class: 'grid gap-2', role: 'status' },
          h('b', null, tn(trial.fired, 'It would have fired {n} time in the last week', 'It would have fired {n} times in the last week')), picture(trial),
          trial.truncated && h('p.muted', null, t('There was not the time to look at everything.')),
          h('ul', { class: 'grid gap-1' }, trial.episodes.slice(0, 7).map((e) => h('li', null, absolute(e.fired_at), ' ', e.target))))],
      footer: (close) => [h('button.btn', { type: 'button', disabled: busy, on: { click: () => ask(async () => { trial = await api('/api/v1/alerts/rules/backtest', { method: 'POST', json: { text } }); }) } }, icon('rotate-cw'), t('Try it on the last week')),
        h('button.btn.primary', { type: 'button', disabled: busy, on: { click: () => ask(async () => { await api('/api/v1/alerts/rules/import', { method: 'POST', json: { text } }); close(); done(t('Saved.')); this.#read(true); }) } }, t('Save'))],
    });
  }

  async #remove(what, path, name) {
    if (!await confirmed({ title: t('Remove {name}', { name }), text: what, action: t('Remove') })) return;
    try { await api(path, { method: 'DELETE' }); done(t('Removed.')); this.#read(true); } catch (err) { wrong(err); }
  }

  async #test(c) {
    try {
      const m = await api(`/api/v1/alerts/channels/${c.name}/test`, { method: 'POST' });
      if (m.state === 'sent') done(t('{name} took the test.', { name: c.name }));
      else wrong(new Error(t('{name} did not: {why}', { name: c.name, why: m.error })));
      this.#read(true);
    } catch (err) { wrong(err); }
  }

  #form(title, fields, send) {
    const values = Object.fromEntries(fields.map((f) => [f.id, f.value ?? '']));
    openDialog({
      title,
      body: (close) => h('form', { class: 'grid gap-3', id: 'alertform', on: { submit: async (e) => { e.preventDefault(); try { await send(values); close(); done(t('Saved.')); this.#read(true); } catch (err) { wrong(err); } } } },
        fields.map((f) => h('label.field', { key: f.id }, f.text, f.options
          ? h('select.input', { on: { change: (e) => { values[f.id] = e.target.value; } } }, f.options.map((o) => h('option', { value: o }, o)))
          : h('input.input', { type: f.type ?? 'text', required: f.required, autocomplete: 'off', spellcheck: 'false', '.value': values[f.id], on: { input: (e) => { values[f.id] = e.target.value; } } })))),
      footer: (close) => [h('button.btn', { type: 'button', on: { click: () => close() } }, t('Cancel')), h('button.btn.primary', { type: 'submit', form: 'alertform' }, t('Save'))],
    });
  }

  #channel() {
    this.#form(t('New channel'), [
      { id: 'name', text: t('Name'), required: true }, { id: 'kind', text: t('Kind'), value: 'email', options: ['email', 'webhook', 'slack', 'pagerduty'] },
      { id: 'server', text: t('Mail server, host:port (e-mail)') }, { id: 'from', text: t('From (e-mail)') }, { id: 'to', text: t('To, separated by commas (e-mail)') }, { id: 'user', text: t('User (e-mail)') },
      { id: 'url', text: t('URL (webhook)') }, { id: 'secret', text: t('Secret: password, signing key, Slack URL or integration key'), type: 'password' },
    ], (v) => api('/api/v1/alerts/channels', { method: 'POST', json: { ...Object.fromEntries(Object.entries(v).filter(([k, x]) => x && k !== 'to')), ...(v.to && { to: v.to.split(',').map((x) => x.trim()) }) } }));
  }

  #window() {
    this.#form(t('New maintenance window'), [
      { id: 'site_id', text: t('Site, * for all'), required: true }, { id: 'from', text: t('From'), type: 'datetime-local', required: true }, { id: 'until', text: t('Until'), type: 'datetime-local', required: true }, { id: 'comment', text: t('Why'), required: true },
    ], (v) => api('/api/v1/alerts/maintenance', { method: 'POST', json: { ...v, from: new Date(v.from).toISOString(), until: new Date(v.until).toISOString() } }));
  }

  async #end(m) {
    try { await api(`/api/v1/alerts/${m.kind === 'silence' ? 'silences' : 'maintenance'}/${m.id}/end`, { method: 'POST' }); done(t('Ended.')); this.#read(true); } catch (err) { wrong(err); }
  }

  render() {
    const tab = this.query.get('tab') ?? 'rules';
    const tabs = [['rules', t('Rules')], ...(everywhere() ? [['channels', t('Channels')], ['mutes', t('Silences and maintenance')], ['deliveries', t('Deliveries')]] : [])];
    const add = { rules: [t('New rule'), () => this.#edit(null)], channels: [t('New channel'), () => this.#channel()], mutes: [t('New maintenance window'), () => this.#window()] }[tab];
    return [
      head(t('Alert rules'), t('When people are called, and how.'), h('a.btn', { href: '/alerts' }, icon('bell'), t('Alerts')), this.#writes && add && h('button.btn.primary', { type: 'button', on: { click: add[1] } }, icon('plus'), add[0])),
      this.error ? failed(this.error, () => this.#read()) : !this.rules ? skeleton(6) : h('div.card', { key: 'c' },
        h('div.tabs', { role: 'tablist', 'aria-label': t('Alert rules') }, tabs.map(([id, text]) => h('button', { key: id, type: 'button', role: 'tab', id: 'tab-' + id, 'aria-selected': String(tab === id), on: { click: () => setParams({ tab: id === 'rules' ? null : id }) } }, text))),
        h('div', { key: tab, role: 'tabpanel', 'aria-labelledby': 'tab-' + tab, class: 'p-4 grid gap-3' }, this.#list(tab))),
    ];
  }

  #list(tab) {
    const row = (key, title, more, ...actions) => h('div.row', { key, class: 'justify-between' }, h('div', { class: 'min-w-0' }, title, h('p.muted', null, more)), h('div.row', null, actions));
    const can = this.#writes, gone = may('delete_config') && everywhere();
    switch (tab) {
      case 'channels': return this.channels.length ? this.channels.map((c) => row(c.name, h('b', null, c.name), `${c.kind} ${c.server ?? c.url ?? ''}${c.has_secret ? '' : ' · ' + t('no secret')}`,
        can && h('button.btn.small', { type: 'button', 'aria-label': t('Test {name}', { name: c.name }), on: { click: () => this.#test(c) } }, t('Test')),
        gone && h('button.btn.small', { type: 'button', 'aria-label': t('Remove {name}', { name: c.name }), on: { click: () => this.#remove(t('Nobody is called by it any more.'), '/api/v1/alerts/channels/' + c.name, c.name) } }, t('Remove')))) : empty('bell', t('No channels yet'), t('Alerts are shown here, and call nobody.'));
      case 'mutes': return this.mutes.length ? this.mutes.map((m) => row(m.id, h('b', null, m.comment), [t('{by}: {what}, until ', { by: m.by, what: [m.rule_id, m.site_id, m.target].filter(Boolean).join(' ') || t('everything') }), absolute(m.until)], can && Date.parse(m.until) > Date.now() && h('button.btn.small', { type: 'button', 'aria-label': t('End {name}', { name: m.comment }), on: { click: () => this.#end(m) } }, t('End')))) : empty('bell', t('Nothing is silenced'), t('A silence is made of an alert, a maintenance window here.'));
      case 'deliveries': return this.sent.length ? this.sent.map((m) => row(m.id, h('b', null, `${m.channel || m.kind}: ${m.alerts[0]?.name ?? ''}`), [when(m.created_at), ` · ${t(m.state)} · ${tn(m.attempts, '{n} attempt', '{n} attempts')} ${m.error ?? ''}`])) : empty('bell', t('Nothing was sent yet'), t('Every message and what became of it appears here.'));
    }
    return this.rules.length ? this.rules.map((r) => row(r.id, [severity(r.severity), ' ', h('b', null, r.name), r.enabled === false && h('span.muted', null, ' ', t('off'))], words(r),
      can && h('button.btn.small', { type: 'button', 'aria-label': t('Edit {name}', { name: r.name }), on: { click: () => this.#edit(r) } }, t('Edit')),
      gone && h('button.btn.small', { type: 'button', 'aria-label': t('Remove {name}', { name: r.name }), on: { click: () => this.#remove(t('Its alerts end.'), '/api/v1/alerts/rules/' + r.id, r.name) } }, t('Remove')))) : empty('bell', t('No rules'), t('Nobody is called for anything.'));
  }
}
customElements.define('page-alertrules', AlertRules);
