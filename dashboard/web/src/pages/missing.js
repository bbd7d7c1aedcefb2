import { h } from '../core/dom.js';
import { t } from '../core/text.js';
import { empty, Page } from '../core/page.js';

export default class Missing extends Page {
  render() { return empty('map', t('There is no page at this address'), t('The link may be old, or the thing it names may be gone.'), h('a.btn', { href: '/dashboard' }, t('Go to the overview'))); }
}
customElements.define('page-missing', Missing);
