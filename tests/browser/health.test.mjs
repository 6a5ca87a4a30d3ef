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

/** Each repair says what was done, why, and who has the bytes now; and no harmed copy is forgotten. */
async function whatWasDoneIsTold(page, victim) {
  await page.locator('[data-testid=repairs-all]', { hasText: 'Show all' }).click();
  await page.locator('[data-testid=repairs-all]', { hasText: 'Show the last' }).waitFor();
  const repairs = await page.$$eval('[data-testid=repair]', (rows) =>
    rows.map((row) => ({
      what: row.dataset.what,
      reason: row.querySelector('[data-testid=repair-reason]')?.textContent ?? '',
      to: row.querySelector('[data-testid=repair-to]').textContent,
    })),
  );
  assert.ok(repairs.length > 12, `${repairs.length} repairs`);
  const moved = repairs.filter(({ what, reason }) => what === 'move' && reason.includes(victim.node_id));
  assert.ok(moved.some(({ to }) => /storage-node-\d/.test(to)), JSON.stringify(repairs));
  assert.ok(!moved.some(({ to }) => to.includes(victim.node_id)), JSON.stringify(moved));
  const harmed = await page.evaluate(() => {
    const figure = (name) => Number(document.querySelector(`[data-testid=harmed-${name}]`).textContent.replaceAll(',', ''));
    return { found: figure('found'), parts: ['repaired', 'open', 'beyond', 'ended'].map(figure) };
  });
  assert.equal(harmed.parts.reduce((sum, part) => sum + part, 0), harmed.found);
}

test('a node falls silent for good: what it held is made anew, before everybody\'s eyes', async () => {
  const env = { HEARTBEAT_INTERVAL: '1', NODE_TIMEOUT: '5', REPAIR_GRACE: '5', ZONE: 'cellar' };
  const cluster = await Cluster.start(['--nodes', '4', '--no-restart'], env);
  try {
    // Of more chunks than are named before somebody asks for all of them.
    const film = clip(cluster.media, 'film.mp4', 200, { size: '320x180' });
    const video = cluster.upload(film);
    const page = await open(browser, `${cluster.url('web')}/census`);
    await becomes(page, 'healthy');
    const { chunks } = await cluster.json('metadata', `/manifest/${video}`);
    const whole = `${(chunks.length + 1).toLocaleString('en-GB')} whole`;
    await page.locator('[data-testid=tally-whole]', { hasText: whole }).waitFor();
    await page.locator('[data-testid=system-health][data-status=healthy]').waitFor();
    await page.locator('[data-testid=zones]', { hasText: '1 zone for 3 copies' }).waitFor();
    const nodes = (await cluster.json('metadata', '/nodes/all')).nodes;
    const victim = nodes.find((node) => chunks[0].replicas.includes(node.public_url));
    cluster.signal(victim.node_id, 'SIGKILL');
    await becomes(page, 'under_replicated');
    const notWhole = page.locator(`[data-testid=not-whole][data-video="${video}"]`);
    await notWhole.filter({ hasText: /\d:\d\d to \d:\d\d/ }).waitFor();
    await notWhole.getByRole('button', { name: 'Show all' }).waitFor();
    await page.setViewportSize({ width: 375, height: 720 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 0, `${overflow} px too wide for a phone`);
    await becomes(page, 'healthy');
    await page.waitForFunction(() => Number(document.querySelector('[data-testid=repairs-done]').textContent) > 0);
    for (const chunk of (await cluster.json('metadata', `/manifest/${video}`)).chunks) {
      assert.equal(chunk.replicas.length, 3);
      assert.ok(!chunk.replicas.includes(victim.public_url), `${chunk.chunk_id} is still at ${victim.node_id}`);
    }
    await whatWasDoneIsTold(page, victim);
    await page.goto(`${cluster.url('web')}/nodes`);
    await page.locator('[data-testid=zone]', { hasText: 'cellar' }).nth(3).waitFor();
    await page.locator('[data-testid=system-health][data-status=degraded]').waitFor();
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
