// The page Consensus: real messages, live, while something is uploaded.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, open } from './browser.mjs';
import { Cluster, clip, waitFor } from './cluster.mjs';

let browser;
let cluster;
before(async () => {
  [browser, cluster] = await Promise.all([launch(), Cluster.start()]);
});
after(async () => {
  await browser?.close();
  await cluster?.stop();
});

/** What the diagram shows: for each step its kind and chunk, and requests, replies and nodes of its messages. */
const drawn = (page) =>
  page.$$eval('[data-testid=step]', (steps) =>
    steps.map((step) => ({
      kind: step.dataset.kind,
      chunk: step.dataset.chunk,
      messages: Number(step.dataset.messages),
      replies: [...step.querySelectorAll('[data-testid=exchange]')].map((message) => `${message.dataset.node} ${message.dataset.reply}`),
    })),
  );

test('votes appear while a video is uploaded, six messages a chunk, and the figures say the same', async () => {
  const page = await open(browser, `${cluster.url('web')}/consensus`);
  await page.locator('[data-testid=consensus-empty]').waitFor();
  await page.locator('[data-testid=trace-connection][data-state=live]').waitFor();
  const video = cluster.upload(clip(cluster.media, 'film.mp4', 20, { size: '640x360', noise: '4M' }));
  const manifest = await cluster.json('metadata', `/manifest/${video}`);
  const registers = [manifest.init.chunk_id, ...manifest.chunks.map((chunk) => chunk.chunk_id)];
  const whole = (steps) => steps.filter((step) => step.kind === 'put0' && step.messages === 6);
  const steps = await waitFor('every vote to be drawn', async () => {
    const now = await drawn(page);
    return whole(now).length === registers.length ? now : null;
  });
  assert.deepEqual(new Set(whole(steps).map((step) => step.chunk)), new Set(registers));
  for (const step of whole(steps)) {
    assert.deepEqual([...step.replies].sort(), ['storage-node-1 accepted', 'storage-node-2 accepted', 'storage-node-3 accepted']);
  }
  // The costs are asked for every few seconds.
  const figure = (name) => page.locator(`[data-testid=${name}]`);
  await waitFor('the figures', async () => (await figure('messages-per-chunk').textContent()) === '6');
  assert.equal(await figure('round-trips-per-chunk').textContent(), '1');
  const syncs = Number(await figure('syncs-per-chunk').textContent());
  assert.ok(syncs > 0 && syncs <= 3, `${syncs} syncs per chunk`);
  // The new video is listed, and a click on a step shows what its acceptors say.
  await page.locator('[data-testid=step][data-kind=put0]').last().locator('.title').click();
  await page.locator('[data-testid=consensus][data-phase=committed]').waitFor();
  assert.equal(await page.locator('[data-testid=acceptor]').count(), 3);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('filters, pause and the keyboard', async () => {
  const page = await open(browser, `${cluster.url('web')}/consensus`);
  await page.locator('[data-testid=step][data-kind=put0]').first().waitFor();
  const shown = () => page.locator('[data-testid=exchange]').count();
  const all = await shown();
  await page.locator('[data-testid=trace-filter]').fill('storage-node-2');
  await waitFor('one node alone', async () => (await drawn(page)).every((step) => step.replies.every((reply) => reply.startsWith('storage-node-2 '))));
  assert.ok((await shown()) > 0 && (await shown()) < all);
  await page.locator('[data-testid=trace-filter]').fill('');
  await page.getByLabel('Decided', { exact: true }).uncheck({ force: true });
  await waitFor('votes alone', async () => (await drawn(page)).every((step) => step.kind === 'put0'));
  // A message is opened by keyboard, and the next one reached by an arrow key.
  await page.locator('[data-testid=exchange]').first().focus();
  await page.keyboard.press('Enter');
  await page.locator('[data-testid=trace] dl').waitFor();
  await page.keyboard.press('ArrowDown');
  assert.equal(await page.evaluate(() => document.activeElement === document.querySelectorAll('[data-testid=trace] button')[2]), true);
  // What comes during a pause waits.
  await page.keyboard.press('p');
  const before = await shown();
  cluster.upload(clip(cluster.media, 'short.mp4', 6));
  await page.locator('[data-testid=trace-connection]', { hasText: /\d+ wait/ }).waitFor();
  assert.equal(await shown(), before);
  await page.locator('[data-testid=trace-pause]').click();
  await waitFor('what waited', async () => (await shown()) > before);
  await page.locator('[data-testid=trace-clear]').click();
  await waitFor('nothing', async () => (await shown()) === 0);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('it fits a phone, and a chunk in the address is the one shown', async () => {
  const [newest] = await cluster.json('metadata', '/videos');
  const chunk = (await cluster.json('metadata', `/manifest/${newest.video_id}`)).chunks[0].chunk_id;
  const address = `${cluster.url('web')}/consensus?chunk=${chunk}`;
  const page = await open(browser, address, { viewport: { width: 375, height: 720 } });
  await page.locator('[data-testid=step][data-kind=put0]').first().waitFor();
  assert.deepEqual([...new Set((await drawn(page)).map((step) => step.chunk))], [chunk]);
  await page.locator('[data-testid=consensus]').waitFor();
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `${overflow} px too wide`);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});
