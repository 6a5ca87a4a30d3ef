// What is deleted can be undone for a while, and is gone for good when somebody says so.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, open } from './browser.mjs';
import { Cluster, clip, waitFor } from './cluster.mjs';

let browser;
let cluster;
before(async () => {
  [browser, cluster] = await Promise.all([launch(), Cluster.start([], { TRASH_TIME: '600' })]);
});
after(async () => {
  await browser?.close();
  await cluster?.stop();
});

const card = (page, video) => page.locator(`[data-testid=video-card][data-video-id="${video}"]`);
const row = (page, video) => page.locator(`[data-testid=trash-row][data-video-id="${video}"]`);

const focused = (page, what, is) => waitFor(`${what} to have the focus`, () => page.evaluate(is));

/** As somebody does who has no mouse. */
async function press(page, button) {
  await button.focus();
  await page.keyboard.press('Enter');
}

/** Says yes to a question. A key too many says no. */
async function agree(page) {
  await focused(page, 'Keep it', () => document.activeElement.textContent.trim() === 'Keep it');
  await page.keyboard.press('Tab');
  await focused(page, 'yes', () => document.activeElement.dataset.testid === 'dialog-confirm');
  await page.keyboard.press('Enter');
}

async function remove(page, video) {
  await press(page, card(page, video).locator('[data-testid=delete]'));
  await agree(page);
  await card(page, video).waitFor({ state: 'detached' });
}

test('a video is deleted, brought back twice and deleted for good, without a mouse and on a phone', async () => {
  const video = cluster.upload(clip(cluster.media, 'film.mp4', 6));
  const page = await open(browser, cluster.url('web'));
  const toast = page.locator('[data-testid=toast]');
  await remove(page, video);
  await toast.filter({ hasText: /can be restored until .*\d\d:\d\d/ }).waitFor();
  assert.deepEqual(await cluster.json('metadata', '/videos'), []);
  // What comes next is under the finger.
  await focused(page, 'Undo', () => document.activeElement.dataset.testid === 'undo');
  await page.keyboard.press('Enter');
  await card(page, video).waitFor();
  await toast.filter({ hasText: 'is back' }).waitFor();
  await press(page, page.locator('[data-testid=dismiss]'));
  await toast.waitFor({ state: 'detached' });

  await page.setViewportSize({ width: 375, height: 720 });
  await remove(page, video);
  await press(page, page.locator('[data-testid=trash] summary'));
  await row(page, video).filter({ hasText: /can be restored until .*\d\d:\d\d/ }).waitFor();
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `${overflow} px too wide for a phone`);
  await press(page, row(page, video).locator('[data-testid=restore]'));
  await card(page, video).waitFor();
  await row(page, video).waitFor({ state: 'detached' });

  await remove(page, video);
  await press(page, row(page, video).locator('[data-testid=purge]'));
  await agree(page);
  await page.locator('[data-testid=trash-empty]').waitFor();
  const [gone] = await cluster.json('metadata', '/videos?status=deleted');
  assert.deepEqual([gone.video_id, gone.restorable_until], [video, undefined]);
  const late = await fetch(`${cluster.url('metadata')}/video/${video}/restore`, { method: 'POST' });
  assert.equal(late.status, 409);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});
