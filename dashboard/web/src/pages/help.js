// The handbook inside the product, and the reference of the API.
import { h } from '../core/dom.js';
import { t } from '../core/text.js';
import { api, Problem } from '../core/api.js';
import { failed, Page, skeleton } from '../core/page.js';
import { markdown } from '../core/markdown.js';

const base = new URL('../handbook/', import.meta.url).pathname;
/** Pages of the handbook, in order: file, title; a line without file is a heading. */
const contents = [
  ['', 'Begin'], ['index', 'What is what'], ['first-site', 'Add the first site'], ['overview', 'Read the overview'],
  ['', 'Tasks'], ['policies', 'Write and try a policy'], ['paths', 'Find out why a path is bad'], ['flows', 'Find out why a flow goes where it goes'], ['changes', 'Change the configuration'], ['commands', 'Use the command line and scripts'], ['export', 'Send history elsewhere'], ['users', 'Users, roles and tokens'],
  ['', 'When something is wrong'], ['alerts', 'Alerts'], ['troubleshooting', 'By symptom'],
  ['', 'Reference'], ['keys', 'Keys and search'], ['glossary', 'Words'], ['api', 'API'], ['configuration', 'Configuration'], ['metrics', 'Metrics'], ['cli', 'Commands'], ['third-party', 'Licences'],
];

export default class Help extends Page {
  body = null;

  async start() {
    const id = this.params.id ?? 'index';
    await this.load(async (signal) => {
      if (id === 'api') this.body = reference(await api('/api/v1/openapi.json', { signal }));
      else if (id === 'third-party') this.body = [h('h1', null, t('Licences')), h('pre', { tabindex: '0' }, await text('../third-party.txt', signal))];
      else {
        if (!contents.some(([file]) => file === id)) throw new Problem(404, { detail: t('The handbook has no such page.') });
        this.body = markdown(await text(`${id}.md`, signal));
      }
    });
    const title = this.querySelector('.prose h1')?.textContent;
    if (title) document.title = `${title} · Patronus`;
  }

  render() {
    const id = this.params.id ?? 'index';
    return h('div.book', null,
      h('nav', { 'aria-label': t('Handbook') }, contents.map(([file, title]) => (file ? h('a', { key: file, href: file === 'index' ? '/help' : '/help/' + file, 'aria-current': file === id && 'page' }, t(title)) : h('div.group', { key: title }, t(title))))),
      h('article.prose', { key: id }, this.error ? failed(this.error) : this.body ?? skeleton(8)));
  }
}
customElements.define('page-help', Help);

async function text(name, signal) {
  const res = await fetch(base + name, { signal });
  if (!res.ok) throw new Problem(res.status, { detail: t('The handbook has no such page.') });
  return res.text();
}

/** The API as the server describes itself (OpenAPI). */
function reference(doc) {
  const rows = Object.entries(doc.paths).flatMap(([path, item]) => Object.entries(item).filter(([m]) => ['get', 'post', 'put', 'delete'].includes(m)).map(([method, o]) => ({ path, method, o })));
  return [h('h1', null, t('API')), h('p', null, t('Made from the table that the server serves. Programs use a token from “Users and tokens” as a bearer token.'), ' ', h('a', { href: '/api/v1/openapi.json', download: 'openapi.json' }, t('As OpenAPI file'))),
    rows.map(({ path, method, o }) => h('section', { key: method + path }, h('h3', null, h('code', null, `${method.toUpperCase()} ${path}`)), h('p', null, o.summary ?? o.description),
      o.parameters?.length > 0 && h('ul', null, o.parameters.map((p) => h('li', { key: p.name }, h('code', null, p.name), ' ', p.description ?? p.schema?.type ?? '')))))];
}
