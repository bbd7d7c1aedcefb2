// The overlay that '?' opens.
import { h } from '../core/dom.js';
import { t } from '../core/text.js';
import { bound } from '../core/keys.js';
import { openDialog } from './dialog.js';

export function openHelp() {
  openDialog({
    title: t('Keys'),
    body: () => [h('dl.facts', null, bound().flatMap((b) => [
      h('dt', null, b.key.split(/[ +]/).map((k, i) => [i > 0 && ' ', h('kbd', null, k === 'ctrl' ? 'Ctrl' : k)])), h('dd', null, b.about)]),
    h('dt', null, h('kbd', null, '↑'), ' ', h('kbd', null, '↓')), h('dd', null, t('Move in a table or list')),
    h('dt', null, h('kbd', null, 'Enter')), h('dd', null, t('Open what is selected')),
    h('dt', null, h('kbd', null, 'Esc')), h('dd', null, t('Close a panel or dialog')))],
  });
}
