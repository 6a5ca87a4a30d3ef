// What is stored is counted and mended, and the page shows it live.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, open } from './browser.mjs';
import { Cluster, clip } from './cluster.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

const becomes = (page, health) =>
  page.locator(`[data-testid=census][data-health=${health}]`).waitFor({ timeout: 90_000 });

test('a node falls silent for good: what it held is made anew, before everybody\'s eyes', async () => {
  const env = { HEARTBEAT_INTERVAL: '1', NODE_TIMEOUT: '5', REPAIR_GRACE: '5' };
  const cluster = await Cluster.start(['--nodes', '4', '--no-restart'], env);
  try {
    const film = clip(cluster.media, 'film.mp4', 30, { size: '320x180' });
    const video = cluster.upload(film);
    const page = await open(browser, `${cluster.url('web')}/census`);
    await becomes(page, 'healthy');
    const { chunks } = await cluster.json('metadata', `/manifest/${video}`);
    const whole = `${(chunks.length + 1).toLocaleString('en-GB')} whole`;
    await page.locator('[data-testid=tally-whole]', { hasText: whole }).waitFor();
    const nodes = (await cluster.json('metadata', '/nodes/all')).nodes;
    const victim = nodes.find((node) => chunks[0].replicas.includes(node.public_url));
    cluster.signal(victim.node_id, 'SIGKILL');
    await becomes(page, 'under_replicated');
    await page.locator(`[data-testid=not-whole][data-video="${video}"]`).waitFor();
    await page.setViewportSize({ width: 375, height: 720 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 0, `${overflow} px too wide for a phone`);
    await becomes(page, 'healthy');
    await page.waitForFunction(() => Number(document.querySelector('[data-testid=repairs-done]').textContent) > 0);
    for (const chunk of (await cluster.json('metadata', `/manifest/${video}`)).chunks) {
      assert.equal(chunk.replicas.length, 3);
      assert.ok(!chunk.replicas.includes(victim.public_url), `${chunk.chunk_id} is still at ${victim.node_id}`);
    }
    assert.deepEqual(page.problems, []);
  } catch (error) {
    for (const call of ['/census', '/repairs', '/nodes/all']) {
      console.error(call, JSON.stringify(await cluster.json('metadata', call)));
    }
    throw error;
  } finally {
    await cluster.stop();
  }
});
