// Screenshots of every page in both themes: node shots.mjs [world] [page ...]
import { browser, open, out, pages, window_, world } from './rig.mjs';

const [name = 'three', ...only] = process.argv.slice(2);
const w = await world(name);
const b = await browser();
const list = Object.entries(pages).filter(([p]) => !only.length || only.includes(p));
for (const theme of (process.env.THEMES ?? 'light,dark').split(',')) {
  for (const width of (process.env.WIDTHS ?? '1440').split(',').map(Number)) {
    const page = await window_(b, w, process.env.AS ?? 'admin', { theme, viewport: { width, height: width < 600 ? 844 : 900 } });
    for (const [p, path] of list) {
      try {
        await open(page, w, name === 'thousand' ? path.replace('=hq', '=berlin-010').replace('/hq', '/berlin-010') : path);
        await page.waitForTimeout(p === 'topology' || p === 'dashboard' ? 2500 : 700);
        await page.screenshot({ path: `${out}${name}-${p}-${theme}-${width}.png` });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (wide > 0) console.log(`${p} ${width}: ${wide} px too wide`);
      } catch (err) { console.log(p, theme, String(err).split('\n')[0]); }
    }
    for (const line of new Set(await page.bad())) console.log(line);
    await page.context().close();
  }
}
await b.close();
await w.close();
