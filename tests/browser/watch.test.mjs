// The main job in a browser: upload through the page, watch, kill a node, and see it play on.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch, open, play, playToEnd, seek, state } from './browser.mjs';
import { Cluster, clip, codecs, shared, waitFor } from './cluster.mjs';

// PARALLEL_MAX of the page's segment store.
const FETCHED_AT_ONCE = 4;

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

async function withCluster(work, ...options) {
  const cluster = await Cluster.start(...options);
  try {
    await work(cluster);
  } finally {
    await cluster.stop();
  }
}

async function uploadThroughPage(page, path, title) {
  await page.locator('[data-testid=file-input]').setInputFiles(path);
  await page.locator('[data-testid=title-input]').first().fill(title);
  await page.locator('[data-testid=start-upload]').click();
  const row = page.locator('[data-testid=upload]', { hasText: title });
  await row.locator('[data-testid=watch-link]').waitFor({ timeout: 120_000 });
  return row;
}

test('upload through the page, watch, kill a node: it plays on', async () => {
  await withCluster(async (cluster) => {
    // Much longer than what a player fetches ahead: when the node dies, chunks are still to be fetched.
    const film = clip(cluster.media, 'film.mp4', 90, { size: '640x360', noise: '4M' });
    const page = await open(browser, cluster.url('web'));
    const row = await uploadThroughPage(page, film, 'A film of ours');
    await row.locator('[data-testid=upload-line]', { hasText: 'survives 2 lost nodes' }).waitFor();
    await row.locator('[data-testid=watch-link]').click();
    await page.waitForURL('**/watch/*');
    await play(page, 1);
    await page.waitForFunction(() => window.__vstack && Object.keys(window.__vstack.chunks).length >= 2);
    await page.locator('[data-testid=survives]', { hasText: 'survives 2 lost nodes' }).waitFor();
    const early = await state(page);
    const busiest = Object.entries(early.vstack.byNode).filter(([id]) => id !== 'gateway').sort((a, b) => b[1] - a[1])[0][0];
    // Which service that is, the metadata service knows: the page shows node labels or disk ids.
    const nodes = (await cluster.json('metadata', '/nodes/all')).nodes;
    const victim = nodes.find((node) => busiest.includes(node.node_id) || busiest.startsWith(node.disk_uuid))?.node_id;
    assert.ok(victim, `a node that served chunks: ${busiest}`);
    cluster.signal(victim, 'SIGKILL');
    const atDeath = new Set(Object.keys((await state(page)).vstack.chunks));
    await page.evaluate(() => {
      document.querySelector('[data-testid=video]').playbackRate = 4;
    });
    await page.waitForFunction(() => document.querySelector('[data-testid=video]').ended, undefined, { timeout: 60_000 });
    const end = await state(page);
    assert.deepEqual(end.vstack.errors, []);
    assert.equal(end.vstack.stalls, 0, 'no stall');
    assert.equal(end.ranges.length, 1);
    const later = Object.entries(end.vstack.chunks).filter(([id]) => !atDeath.has(id));
    // As many as are fetched at once may have arrived by then, and been looked at a little later.
    const fromTheDead = later.filter(([, from]) => from === busiest).length;
    assert.ok(fromTheDead <= FETCHED_AT_ONCE, `${fromTheDead} of ${later.length} chunks from a dead node`);
    assert.ok(later.length > 2 * FETCHED_AT_ONCE, `chunks were still to be fetched: ${later.length}`);
    assert.deepEqual(page.problems, []);
    const video = page.url().split('/').pop();
    await waitFor('the view to be counted', async () => (await cluster.json('metadata', `/video/${video}/popularity`)).view_count === 1);
    await page.context().close();
  }, ['--no-restart']);
});

test('eight kinds of files play to their end, and seek', async () => {
  await withCluster(async (cluster) => {
    const page = await open(browser, cluster.url('web'));
    const files = [
      clip(cluster.media, 'plain.mp4', 14),
      clip(cluster.media, 'matroska.mkv', 14),
      clip(cluster.media, 'quicktime.mov', 14),
      clip(cluster.media, 'flash.flv', 14),
      clip(cluster.media, 'webm.webm', 14, { codecs: codecs.vp9 }),
      clip(cluster.media, 'old.avi', 14, { codecs: codecs.mpeg4 }),
      clip(cluster.media, 'one keyframe.mp4', 25, { codecs: codecs.oneGop }),
      clip(cluster.media, 'no sound.mp4', 14, { codecs: codecs.silent }),
      clip(cluster.media, 'big.mp4', 14, { size: '640x360', noise: '8M' }),
      shared('media/bbb_60s_vp9_opus.webm'),
      shared('media/audio_starts_1500ms_late.mp4'),
    ].filter(Boolean);
    for (const file of files) {
      const title = file.split('/').pop();
      await page.goto(cluster.url('web'));
      const row = await uploadThroughPage(page, file, title);
      await row.locator('[data-testid=watch-link]').click();
      await page.waitForURL('**/watch/*');
      const end = await playToEnd(page, 4);
      assert.equal(end.vstack.stalls, 0, `${title}: no stall`);
      assert.equal(end.vstack.byNode.gateway, 0, `${title}: all chunks straight from the nodes`);
      await seek(page, end.duration * 0.6);
      await seek(page, end.duration * 0.1);
      assert.deepEqual(page.problems, [], title);
    }
    await page.context().close();
  });
});

test('the page works from another address, without crypto.subtle, and through the gateway', async () => {
  await withCluster(async (cluster) => {
    const video = cluster.upload(clip(cluster.media, 'film.mp4', 14));
    const port = new URL(cluster.url('web')).port;
    const elsewhere = await launch(['--host-resolver-rules=MAP films.example 127.0.0.1']);
    try {
      const page = await open(elsewhere, `http://films.example:${port}/watch/${video}`);
      assert.equal(await page.evaluate(() => window.isSecureContext), false, 'a plain-http address of another machine');
      const end = await playToEnd(page, 4);
      assert.ok(end.vstack.hasher !== 'subtle', `hashed by ${end.vstack.hasher}`);
      // This origin is not among the nodes' CORS origins, so every direct fetch fails: the gateway steps in.
      assert.ok(end.vstack.byNode.gateway > 0, JSON.stringify(end.vstack.byNode));
    } finally {
      await elsewhere.close();
    }
  });
});

test('from an allowed address of another machine the nodes serve directly', async () => {
  await withCluster(async (cluster) => {
    const video = cluster.upload(clip(cluster.media, 'film.mp4', 14));
    const port = new URL(cluster.url('web')).port;
    const elsewhere = await launch(['--host-resolver-rules=MAP films.example 127.0.0.1']);
    try {
      const page = await open(elsewhere, `http://films.example:${port}/watch/${video}`);
      const end = await playToEnd(page, 4);
      assert.equal(end.vstack.byNode.gateway, 0, JSON.stringify(end.vstack.byNode));
    } finally {
      await elsewhere.close();
    }
  }, ['--public-host', 'films.example']);
});

test('a replica that fails is left for another', async () => {
  await withCluster(async (cluster) => {
    const video = cluster.upload(clip(cluster.media, 'film.mp4', 20, { size: '640x360', noise: '4M' }));
    // Its connections open and nothing comes: worse than dead.
    cluster.signal('storage-node-2', 'SIGSTOP');
    const page = await open(browser, `${cluster.url('web')}/watch/${video}`);
    const end = await playToEnd(page, 2);
    assert.ok(end.vstack.failovers >= 1, 'a node nobody knows yet is tried, and left');
    assert.equal(end.vstack.byNode.gateway, 0, 'for another node, not for the gateway');
    cluster.signal('storage-node-2', 'SIGCONT');
    await page.context().close();
  });
});

test('rubbish is refused with a reason, and nodes and health are shown live', async () => {
  await withCluster(async (cluster) => {
    const { writeFileSync } = await import('node:fs');
    const rubbish = `${cluster.media}/rubbish.mp4`;
    writeFileSync(rubbish, 'This is no video. '.repeat(1000));
    const page = await open(browser, cluster.url('web'));
    await page.locator('[data-testid=file-input]').setInputFiles(rubbish);
    await page.locator('[data-testid=start-upload]').click();
    const reason = page.locator('[data-testid=upload-error]');
    await reason.waitFor({ timeout: 30_000 });
    assert.ok((await reason.textContent()).length > 10);
    assert.equal((await cluster.json('metadata', '/videos')).length, 0);

    await page.goto(`${cluster.url('web')}/nodes`);
    await page.locator('[data-testid=node-card][data-status=healthy]').nth(2).waitFor({ timeout: 20_000 });
    cluster.signal('storage-node-3', 'SIGKILL');
    await page.locator('[data-testid=node-card][data-status=down]').waitFor({ timeout: 60_000 });
    assert.deepEqual(page.problems, []);
    await page.context().close();
  }, ['--no-restart'], { NODE_TIMEOUT: '6', HEARTBEAT_INTERVAL: '1' });
});

test('pages fit a phone, can be used by keyboard, and load nothing from elsewhere', async () => {
  await withCluster(async (cluster) => {
    const video = cluster.upload(clip(cluster.media, 'film.mp4', 10));
    for (const path of ['/', `/watch/${video}`, '/nodes', '/census']) {
      const page = await open(browser, 'about:blank', { viewport: { width: 375, height: 720 } });
      const hosts = new Set();
      page.on('request', (request) => hosts.add(new URL(request.url()).hostname));
      await page.goto(`${cluster.url('web')}${path}`);
      await page.waitForLoadState('load');
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(overflow <= 0, `${path} is ${overflow} px too wide`);
      await page.keyboard.press('Tab');
      assert.notEqual(await page.evaluate(() => document.activeElement.tagName), 'BODY', `${path}: Tab goes somewhere`);
      assert.deepEqual([...hosts].filter((host) => host !== '127.0.0.1' && host !== ''), [], path);
      await page.context().close();
    }
  });
});
