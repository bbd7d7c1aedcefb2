// The command palette: every page, site, path and policy, and what can be done.
import { h, icon, patch } from '../core/dom.js';
import { t } from '../core/text.js';
import { fleet, siteName } from '../core/fleet.js';
import { pathName } from '../core/format.js';
import { dark, prefer } from '../core/preferences.js';
import { go, offered } from '../core/router.js';
import { may } from '../core/session.js';

function commands() {
  const list = offered().map((r) => ({ icon: r.icon, text: t(r.title), kind: t('Page'), run: () => go(r.path) }));
  list.push({ icon: 'sun-moon', text: t('Switch between light and dark'), kind: t('Command'), run: () => prefer({ theme: dark() ? 'light' : 'dark' }) });
  list.push({ icon: fleet.paused ? 'play' : 'pause', text: fleet.paused ? t('Resume live data') : t('Pause live data'), kind: t('Command'), run: () => fleet.pause(!fleet.paused) });
  list.push({ icon: 'keyboard', text: t('Show the keys'), kind: t('Command'), run: () => import('./keyhelp.js').then((m) => m.openHelp()) });
  if (may('manage_policies')) list.push({ icon: 'plus', text: t('New policy'), kind: t('Command'), run: () => go('/policies/new') });
  if (may('view_events')) list.push({ icon: 'circle-alert', text: t('Alert rules and channels'), kind: t('Command'), run: () => go('/alerts/rules') });
  for (const s of fleet.sites.values()) list.push({ icon: 'building', text: siteName(s), more: s.id, kind: t('Site'), run: () => go('/sites/' + s.id) });
  for (const p of fleet.paths.values()) list.push({ icon: 'route', text: pathName(p.id), kind: t('Path'), run: () => go(`/metrics?site=${p.source.id}&path=${p.id}`) });
  return list;
}

/** Letters in order, and better the closer they stand. */
function rank(text, want) {
  const at = text.indexOf(want);
  if (at >= 0) return 1000 - at - text.length / 100;
  let from = 0, gaps = 0;
  for (const c of want) {
    const i = text.indexOf(c, from);
    if (i < 0) return 0;
    gaps += i - from;
    from = i + 1;
  }
  return Math.max(1, 200 - gaps);
}

export function openPalette() {
  if (document.querySelector('dialog[open]')) return;
  const everything = commands();
  let found = everything.slice(0, 12);
  let at = 0;
  const el = h('dialog.modal.palette', { 'aria-label': t('Find anything') });
  const run = (c) => { el.close(); c?.run(); };
  const draw = () => {
    patch(el,
      h('input.input', {
        role: 'combobox', 'aria-expanded': 'true', 'aria-controls': 'found', 'aria-autocomplete': 'list', 'aria-activedescendant': found.length ? 'found-' + at : null,
        'aria-label': t('Find anything'), placeholder: t('Find a page, site, path or policy'), autofocus: true, spellcheck: 'false', autocomplete: 'off',
        on: {
          input: (e) => {
            const want = e.target.value.trim().toLowerCase();
            found = (want ? everything.map((c) => [rank(`${c.text} ${c.more ?? ''}`.toLowerCase(), want), c]).filter(([r]) => r > 0).sort((a, b) => b[0] - a[0]).map(([, c]) => c) : everything).slice(0, 12);
            at = 0;
            draw();
          },
          keydown: (e) => {
            if (e.key === 'ArrowDown' || e.key === 'ArrowUp') {
              e.preventDefault();
              at = (at + (e.key === 'ArrowDown' ? 1 : found.length - 1)) % Math.max(1, found.length);
              draw();
              el.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' });
            } else if (e.key === 'Enter') { e.preventDefault(); run(found[at]); }
          },
        },
      }),
      h('div', { role: 'listbox', id: 'found', 'aria-label': t('Found') }, found.map((c, i) => h('div', { role: 'option', id: 'found-' + i, 'aria-selected': String(i === at), on: { click: () => run(c), pointermove: () => { if (at !== i) { at = i; draw(); } } } }, icon(c.icon), h('span', null, c.text), h('span.faint', null, c.kind)))),
      found.length === 0 && h('p.muted', { class: 'p-5' }, t('Nothing is called that.')));
  };
  draw();
  document.body.append(el);
  el.addEventListener('close', () => el.remove());
  el.addEventListener('click', (e) => { if (e.target === el) el.close(); });
  el.showModal();
}
