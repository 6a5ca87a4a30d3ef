// Takes pictures of the pages of a running cluster: `node scripts/shot.mjs http://127.0.0.1:8085 DIRECTORY`.
import { launch, open, play } from '../tests/browser/browser.mjs';

const [base, directory] = process.argv.slice(2);
const browser = await launch();
const [video] = await (await fetch(`${base}/api/videos`)).json();
const sizes = { desktop: { width: 1280, height: 860 }, phone: { width: 390, height: 780 } };
for (const [name, path] of Object.entries({ library: '/', watch: `/watch/${video.video_id}`, nodes: '/nodes', consensus: '/consensus' })) {
  for (const [size, viewport] of Object.entries(sizes)) {
    for (const colorScheme of ['light', 'dark']) {
      const page = await open(browser, `${base}${path}`, { viewport, colorScheme });
      if (name === 'watch') {
        await play(page);
        await page.waitForFunction(() => document.querySelector('[data-testid=video]').currentTime > 6);
      } else if (name === 'consensus') {
        // Its stream never ends, so the network is never idle.
        await page.locator('[data-testid=step]').first().waitFor();
        await page.locator('[data-testid=consensus]').waitFor();
      } else {
        await page.locator('[data-testid=system-health]').waitFor();
        await page.waitForLoadState('networkidle');
      }
      await page.screenshot({ path: `${directory}/${name}-${size}-${colorScheme}.png` });
      await page.context().close();
    }
  }
}
await browser.close();
