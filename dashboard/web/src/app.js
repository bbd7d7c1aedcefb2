// Where the interface begins.
import { onSignedOut } from './core/api.js';
import { applyTheme } from './core/preferences.js';
import { again, here, start } from './core/router.js';
import { loadSession, session } from './core/session.js';
import { loadPreferences } from './core/saved.js';
import { h } from './core/dom.js';
import { failed } from './core/page.js';
import './elements/shell.js';

applyTheme();
onSignedOut(() => {
  if (!session.user || here()?.route.open) return;
  session.user = null;
  again();
});

try {
  if (await loadSession()) await loadPreferences();
  document.body.replaceChildren(h('p-shell'));
  start();
} catch (err) {
  document.body.replaceChildren(failed(err, () => location.reload()));
}
