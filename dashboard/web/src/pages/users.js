// Users, roles and API tokens; and one's own password.
import { h, icon } from '../core/dom.js';
import { t } from '../core/text.js';
import { api } from '../core/api.js';
import { absolute, known, none } from '../core/format.js';
import { empty, failed, head, Page, skeleton } from '../core/page.js';
import { setParams } from '../core/router.js';
import { everywhere, may, session } from '../core/session.js';
import { copy, when } from '../elements/bits.js';
import { confirmed, done, openDialog, wrong } from '../elements/dialog.js';

export default class Users extends Page {
  users = null;
  roles = [];
  permissions = [];
  tokens = [];

  start() { this.#read(); }

  get manages() { return may('manage_users') && everywhere(); }

  async #read() {
    await this.load(async (signal) => {
      const [roles, tokens, users] = await Promise.all([api('/api/v1/roles', { signal }), api('/api/v1/tokens' + (this.manages ? '?all=true' : ''), { signal }), this.manages ? api('/api/v1/users', { signal }) : null]);
      this.roles = roles.items;
      this.permissions = roles.permissions;
      this.tokens = tokens.items;
      this.users = users?.items ?? [];
    });
  }

  render() {
    if (this.error) return [head(t('Users and tokens')), failed(this.error, () => this.#read())];
    if (this.users === null) return [head(t('Users and tokens')), skeleton(8)];
    const tabs = [...(this.manages ? [['users', t('Users')]] : []), ['tokens', this.manages ? t('API tokens') : t('Your API tokens')], ['roles', t('Roles')], ['you', t('Your password')]];
    const tab = this.query.get('tab') ?? tabs[0][0];
    return [
      head(t('Users and tokens'), null, tab === 'users' && this.manages && h('button.btn.primary', { type: 'button', on: { click: () => this.#editUser() } }, icon('plus'), t('Add a user')), tab === 'tokens' && h('button.btn.primary', { type: 'button', on: { click: () => this.#newToken() } }, icon('plus'), t('New token'))),
      h('div.card', { key: 'c' },
        h('div.tabs', { role: 'tablist', 'aria-label': t('Users and tokens') }, tabs.map(([id, text]) => h('button', { key: id, type: 'button', role: 'tab', id: 'tab-' + id, 'aria-selected': String(tab === id), on: { click: () => setParams({ tab: id }) } }, text))),
        h('div', { key: tab, role: 'tabpanel', 'aria-labelledby': 'tab-' + tab }, tab === 'users' ? this.#users() : tab === 'tokens' ? this.#tokens() : tab === 'roles' ? this.#roles() : this.#password())),
    ];
  }

  #users() {
    return h('div.plain-list', null, this.users.map((u) => h('div', { key: u.name, class: 'flex-wrap' }, icon('circle-user-round'), h('b', null, u.name), h('span.tag', { class: u.role === 'admin' ? 'accent' : '' }, u.role), u.disabled && h('span.tag.down', null, t('disabled')), u.issuer && h('span.tag', null, t('single sign-on')),
      h('span.grow.muted', null, u.scope && Object.keys(u.scope).length ? t('only sites with {labels}', { labels: Object.entries(u.scope).map((e) => e.join('=')).join(', ') }) : t('whole fabric')), h('span.muted', null, t('added'), ' ', when(u.created_at)),
      h('button.btn.small', { type: 'button', 'aria-label': t('Edit {user}', { user: u.name }), on: { click: () => this.#editUser(u) } }, icon('pencil'), t('Edit')), u.name !== session.user && h('button.btn.small.square', { type: 'button', 'aria-label': t('Remove {user}', { user: u.name }), on: { click: () => this.#removeUser(u) } }, icon('x')))));
  }

  #editUser(u) {
    let problems = {};
    const d = openDialog({
      title: u ? t('Edit {user}', { user: u.name }) : t('Add a user'),
      body: () => h('form', { id: 'user', class: 'grid gap-3', on: { submit: async (e) => {
        e.preventDefault();
        const f = new FormData(e.target);
        const scope = Object.fromEntries((f.get('scope') ?? '').split(/[\s,]+/).filter((x) => x.includes('=')).map((x) => x.split('=')));
        const json = { role: f.get('role'), scope };
        if (f.get('password')) json.password = f.get('password');
        try {
          if (u) await api('/api/v1/users/' + u.name, { method: 'PUT', json: { ...json, disabled: f.get('disabled') === 'on' }, headers: { 'If-Match': `"${u.version}"` } });
          else await api('/api/v1/users', { method: 'POST', json: { ...json, name: f.get('name') } });
          d.close();
          done(u ? t('{user} is changed.', { user: u.name }) : t('{user} may sign in now.', { user: f.get('name') }));
          this.#read();
        } catch (err) {
          problems = Object.fromEntries((err.fields ?? []).map((p) => [p.field, p.detail]));
          if (!err.fields?.length) wrong(err);
          d.redraw();
        }
      } } },
      !u && h('label.field', null, t('User name'), h('input.input', { name: 'name', required: true, autocomplete: 'off', spellcheck: 'false', autofocus: true }), problems.name && h('span.wrong', { role: 'alert' }, problems.name)),
      h('label.field', null, u ? t('New password (leave empty to keep it)') : t('Password'), h('input.input', { name: 'password', type: 'password', required: !u, minlength: 12, autocomplete: 'new-password' }), h('span', { class: problems.password ? 'wrong' : 'hint' }, problems.password ?? t('At least 12 characters'))),
      h('label.field', null, t('Role'), h('select.input', { name: 'role' }, this.roles.map((r) => h('option', { key: r.name, value: r.name, selected: (u?.role ?? 'viewer') === r.name }, r.name)))),
      h('label.field', null, t('Only sites with these labels'), h('input.input', { name: 'scope', value: Object.entries(u?.scope ?? {}).map((e) => e.join('=')).join(' '), placeholder: 'region=emea' }), h('span.hint', null, problems.scope ?? t('Empty: the whole fabric'))),
      u && u.name !== session.user && h('label.check', null, h('input', { type: 'checkbox', name: 'disabled', checked: u.disabled }), t('May not sign in'))),
      footer: (close) => [h('button.btn', { type: 'button', on: { click: () => close() } }, t('Cancel')), h('button.btn.primary', { type: 'submit', form: 'user' }, t('Save'))],
    });
  }

  async #removeUser(u) {
    if (!await confirmed({ title: t('Remove {user}', { user: u.name }), name: u.name, text: t('Sessions and tokens of the user end at once. What the user did stays in the audit log.'), action: t('Remove') })) return;
    try { await api('/api/v1/users/' + u.name, { method: 'DELETE' }); done(t('{user} is removed.', { user: u.name })); } catch (err) { wrong(err); }
    this.#read();
  }

  #tokens() {
    if (!this.tokens.length) return empty('key-round', t('No tokens yet'), t('A token lets a program use the API in your name, with no more rights than you have.'));
    return h('div.plain-list', null, this.tokens.map((k) => h('div', { key: k.id, class: 'flex-wrap' }, icon('key-round'), h('b', null, k.name), k.user !== session.user && h('span.muted', null, k.user), h('span.grow.muted', { title: k.permissions.join(', ') }, t('{n} permissions', { n: k.permissions.length }), ', ', known(k.used_at) ? [t('used'), ' ', when(k.used_at)] : t('not used since the start')), h('span.muted', null, t('until {at}', { at: absolute(k.expires_at) })),
      h('button.btn.small', { type: 'button', 'aria-label': t('Revoke {name}', { name: k.name }), on: { click: () => this.#revoke(k) } }, t('Revoke')))));
  }

  #newToken() {
    let secret = '';
    const d = openDialog({
      title: t('New API token'),
      body: () => (secret ? [h('p', null, t('Copy the token now. It is not shown again.')), h('div.row', null, h('code', { class: 'flex-1 break-all p-3 border border-line rounded-md' }, secret), h('button.btn', { type: 'button', on: { click: () => copy(secret).then(() => done(t('Copied.')), wrong) } }, icon('copy'), t('Copy')))] :
        h('form', { id: 'token', class: 'grid gap-3', on: { submit: async (e) => {
          e.preventDefault();
          const f = new FormData(e.target);
          try {
            const made = await api('/api/v1/tokens', { method: 'POST', json: { name: f.get('name'), permissions: f.getAll('p'), expires_at: new Date(Date.now() + Number(f.get('days')) * 86400e3).toISOString() } });
            secret = made.secret;
            d.redraw();
            this.#read();
          } catch (err) { wrong(err); }
        } } },
        h('label.field', null, t('What it is for'), h('input.input', { name: 'name', required: true, maxlength: 64, autofocus: true })),
        h('label.field', null, t('Good for'), h('select.input', { name: 'days' }, [[7, t('7 days')], [30, t('30 days')], [90, t('90 days')], [365, t('1 year')]].map(([n, text]) => h('option', { value: n, selected: n === 90 }, text)))),
        h('fieldset', { class: 'grid sm:grid-cols-2' }, h('legend', { class: 'font-semibold mb-1' }, t('May')), [...session.permissions].map((p) => h('label.check', { key: p }, h('input', { type: 'checkbox', name: 'p', value: p, checked: p.startsWith('view_') }), p.replaceAll('_', ' ')))))),
      footer: (close) => (secret ? h('button.btn.primary', { type: 'button', on: { click: () => close() } }, t('Done')) : [h('button.btn', { type: 'button', on: { click: () => close() } }, t('Cancel')), h('button.btn.primary', { type: 'submit', form: 'token' }, t('Make it'))]),
    });
  }

  async #revoke(k) {
    if (!await confirmed({ title: t('Revoke {name}', { name: k.name }), text: t('Programs that use it are refused from this moment on.'), action: t('Revoke') })) return;
    try { await api('/api/v1/tokens/' + k.id, { method: 'DELETE' }); done(t('{name} is revoked.', { name: k.name })); } catch (err) { wrong(err); }
    this.#read();
  }

  /** The matrix of roles and permissions. */
  #roles() {
    return h('div', { class: 'overflow-x-auto', tabindex: '0', role: 'region', 'aria-label': t('Roles and permissions') }, h('table', { class: 'text-[13px] w-full border-collapse' },
      h('thead', null, h('tr', null, h('th', { scope: 'col', class: 'text-left px-4 py-2' }, t('Permission')), this.roles.map((r) => h('th', { key: r.name, scope: 'col', class: 'px-3 py-2' }, r.name)))),
      h('tbody', null, this.permissions.map((p) => h('tr', { key: p, class: 'border-t border-line' }, h('th', { scope: 'row', class: 'text-left font-normal px-4 py-1.5' }, p.replaceAll('_', ' ')), this.roles.map((r) => h('td', { key: r.name, class: 'text-center' }, r.permissions.includes(p) ? [icon('check', 'inline text-up'), h('span.visually-hidden', null, t('yes'))] : h('span.muted', null, none))))))));
  }

  #password() {
    return h('form', { class: 'grid gap-3 p-5 max-w-md', on: { submit: async (e) => {
      e.preventDefault();
      const f = new FormData(e.target);
      if (f.get('new') !== f.get('again')) return wrong(new Error(t('The two passwords differ.')));
      try {
        await api('/api/v1/auth/password', { method: 'PUT', json: { old_password: f.get('old'), new_password: f.get('new') } });
        e.target.reset();
        done(t('The password is changed. Your other sessions have ended.'));
      } catch (err) { wrong(err); }
      return undefined;
    } } },
    h('input', { type: 'text', autocomplete: 'username', value: session.user, hidden: true, 'aria-hidden': 'true' }),
    h('label.field', null, t('Password now'), h('input.input', { name: 'old', type: 'password', required: true, autocomplete: 'current-password' })),
    h('label.field', null, t('New password'), h('input.input', { name: 'new', type: 'password', required: true, minlength: 12, autocomplete: 'new-password' }), h('span.hint', null, t('At least 12 characters'))),
    h('label.field', null, t('New password again'), h('input.input', { name: 'again', type: 'password', required: true, autocomplete: 'new-password' })),
    h('div', null, h('button.btn.primary', { type: 'submit' }, t('Change the password'))));
  }
}
customElements.define('page-users', Users);
