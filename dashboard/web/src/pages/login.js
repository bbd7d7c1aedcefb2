// Signing in. What is wrong with a try is told by the server, which does not
// say whether the name or the password was.
import { h, icon } from '../core/dom.js';
import { t } from '../core/text.js';
import { api } from '../core/api.js';
import { Page } from '../core/page.js';
import { loadPreferences } from '../core/saved.js';
import { go } from '../core/router.js';
import { session, signIn } from '../core/session.js';
import { logo } from '../elements/logo.js';

export default class Login extends Page {
  wrong = '';
  busy = false;
  wait = 0;

  async start() {
    if (session.user) return go('/dashboard', { replace: true });
    try {
      const { needed } = await api('/api/v1/setup', { quiet: true });
      if (needed) go('/setup', { replace: true });
    } catch { /* signing in says what is wrong */ }
  }

  async #submit(e) {
    e.preventDefault();
    const form = new FormData(e.target);
    this.busy = true;
    this.wrong = '';
    this.update();
    try {
      await signIn(form.get('username'), form.get('password'));
      await loadPreferences();
      const next = this.query.get('next') ?? '/dashboard';
      // Only to a page of ours: nobody is sent elsewhere by a link.
      go(/^\/(?![/\\])/.test(next) ? next : '/dashboard', { replace: true });
    } catch (err) {
      this.wrong = err.status === 401 ? t('Name and password do not fit.') : err.message;
      this.wait = err.retryAfter;
      this.busy = false;
      this.update();
      this.querySelector('input[name=password]')?.select();
    }
  }

  render() {
    return h('div.gate', null, h('div.card', null,
      h('div.logo', null, logo(), 'Patronus'),
      h('h1', null, t('Sign in')),
      h('form', { on: { submit: (e) => this.#submit(e) } },
        h('label.field', null, t('User name'), h('input.input', { name: 'username', autocomplete: 'username', required: true, autofocus: true, spellcheck: 'false', autocapitalize: 'none', maxlength: 64 })),
        h('label.field', null, t('Password'), h('input.input', { name: 'password', type: 'password', autocomplete: 'current-password', required: true, 'aria-invalid': this.wrong ? 'true' : null, 'aria-describedby': this.wrong ? 'wrong' : null })),
        this.wrong && h('p.wrong', { id: 'wrong', role: 'alert' }, this.wrong, this.wait > 0 && ' ' + t('Try again in {n} s.', { n: this.wait })),
        h('button.btn.primary', { type: 'submit', disabled: this.busy }, this.busy ? t('Signing in') : t('Sign in'), icon('arrow-right'))),
      h('p.faint', null, t('Lost the password? An administrator can set a new one.'))));
  }
}
customElements.define('page-login', Login);
