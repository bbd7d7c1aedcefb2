import { h } from '../core/dom.js';
import { t } from '../core/text.js';
import { session } from '../core/session.js';
import { empty, Page } from '../core/page.js';

export default class Refused extends Page {
  render() { return empty('lock', t('Not for your role'), t('You are signed in as {user}, whose role is {role}. An administrator can give you another one.', { user: session.user, role: session.role }), h('a.btn', { href: '/dashboard' }, t('Go to the overview'))); }
}
customElements.define('page-refused', Refused);
