// First start: there is no default password. Who reads the console of the
// appliance knows a code, and makes the first administrator with it.
import { h, icon } from '../core/dom.js';
import { t } from '../core/text.js';
import { api } from '../core/api.js';
import { Page } from '../core/page.js';
import { go } from '../core/router.js';
import { signIn } from '../core/session.js';
import { logo } from '../elements/logo.js';

export default class Setup extends Page {
  wrong = {};
  busy = false;
  password = '';

  async start() {
    const { needed } = await api('/api/v1/setup', { quiet: true }).catch(() => ({ needed: true }));
    if (!needed) go('/login', { replace: true });
  }

  async #submit(e) {
    e.preventDefault();
    const f = new FormData(e.target);
    this.wrong = {};
    if (f.get('password') !== f.get('again')) this.wrong.again = t('The two passwords differ.');
    else {
      this.busy = true;
      try {
        await api('/api/v1/setup', { method: 'POST', quiet: true, json: { code: f.get('code').trim(), username: f.get('username'), password: f.get('password') } });
        await signIn(f.get('username'), f.get('password'));
        return go('/dashboard', { replace: true });
      } catch (err) {
        for (const p of err.fields ?? []) this.wrong[p.field] = p.detail;
        if (!Object.keys(this.wrong).length) this.wrong.code = err.message;
      }
      this.busy = false;
    }
    this.update();
    return undefined;
  }

  #field(name, label, hint, attributes) {
    const wrong = this.wrong[name];
    return h('label.field', null, label,
      h('input.input', { name, required: true, 'aria-invalid': wrong ? 'true' : null, 'aria-describedby': `${name}-more`, ...attributes }),
      h('span', { id: `${name}-more`, class: wrong ? 'wrong' : 'hint', role: wrong ? 'alert' : null }, wrong ? wrong : hint));
  }

  render() {
    const length = this.password.length;
    return h('div.gate', null, h('div.card', null,
      h('div.logo', null, logo(), 'Patronus'),
      h('div', null, h('h1', null, t('Make the first administrator')), h('p.muted', null, t('This dashboard has no users yet, and no default password.'))),
      h('form', { on: { submit: (e) => this.#submit(e) } },
        this.#field('code', t('Setup code'), t('The console of the appliance shows it, and so does “patronus status”.'), { autofocus: true, autocomplete: 'one-time-code', spellcheck: 'false', class: 'mono' }),
        this.#field('username', t('User name'), t('Lower case letters, digits, and . _ -'), { autocomplete: 'username', autocapitalize: 'none', spellcheck: 'false', value: 'admin' }),
        this.#field('password', t('Password'), length === 0 ? t('At least 12 characters; a sentence is easy to remember.') : length < 12 ? t('{n} more characters', { n: 12 - length }) : t('Long enough.'),
          { type: 'password', autocomplete: 'new-password', minlength: 12, on: { input: (e) => { this.password = e.target.value; this.update(); } } }),
        this.#field('again', t('Password again'), '', { type: 'password', autocomplete: 'new-password' }),
        h('button.btn.primary', { type: 'submit', disabled: this.busy }, t('Create and sign in'), icon('arrow-right')))));
  }
}
customElements.define('page-setup', Setup);
