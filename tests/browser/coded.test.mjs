// A film becomes shards, by a choice on the page, and plays with any two of five nodes dead; then it has copies again.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, test } from 'node:test';

import { launch, open, playToEnd } from './browser.mjs';
import { clip, inCluster, waitFor } from './cluster.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** What the gateway gives as one file. It keeps what it read last: only what it gives first comes from nodes for certain. */
async function downloaded(cluster, video) {
  const answer = await fetch(`${cluster.url('web')}/video/${video}/download`);
  assert.equal(answer.status, 200);
  return sha256(new Uint8Array(await answer.arrayBuffer()));
}

/** Some five megabytes: what is shown needs a few chunks that are large enough, and more would only take longer. */
const film = (cluster) => clip(cluster.media, 'film.mp4', 20, { size: '640x360', noise: '2M' });

/** Chooses a form on the page, and waits until nothing is left in the other. */
async function chooses(page, video, choice) {
  const row = page.locator(`[data-testid=kept][data-video="${video}"]`);
  await row.locator('[data-testid=keep-as]').selectOption(choice);
  const done = page.locator(`[data-testid=kept][data-video="${video}"][data-mode="${choice}"][data-waiting="0"]`);
  const settled = choice === 'replication' ? done.filter({ hasNotText: 'as shards' }) : done.filter({ hasText: 'as shards' });
  await settled.waitFor({ timeout: 120_000 });
}

const UNITS = ['B', 'kB', 'MB', 'GB'];

/** The bytes that a figure such as `12.3 MB` says. */
function bytesOf(text) {
  const [, number, unit] = /^([\d.]+) (\w+)$/.exec(text) ?? [];
  return Number(number) * 1000 ** UNITS.indexOf(unit);
}

/**
 * Waits until the page's figures are those that the cluster tells, to the digits that are shown, and shards save what they
 * should: the old copies are there, too, until they are collected.
 */
async function tellsTheTruth(page, cluster, encoded) {
  const figure = async (id) => (await page.locator(`[data-testid=${id}]`).textContent()).trim();
  const isNear = (shown, told) => Math.abs(shown - told) <= told * 0.01;
  await waitFor('the page to show what is', async () => {
    const told = await cluster.json('metadata', '/storage/overhead');
    const saved = 100 * (1 - told.total_physical_bytes / (told.total_logical_bytes * 3));
    return isNear(bytesOf(await figure('logical-bytes')), told.total_logical_bytes)
      && isNear(bytesOf(await figure('physical-bytes')), told.total_physical_bytes)
      && Math.abs(Number.parseFloat(await figure('savings')) - saved) < 0.2
      && saved > 30
      && (await figure('migration-waiting')) === '0'
      && (await figure('migration-encoded')) === String(encoded);
  });
}

test('a film in shards plays with the two worst nodes of five dead', async () => {
  const env = {
    HEARTBEAT_INTERVAL: '1',
    NODE_TIMEOUT: '5',
    REPAIR_GRACE: '3600',
    MIGRATION_RATE: '500000000',
    GC_GRACE: '1',
    GC_INTERVAL: '1',
  };
  await inCluster(['--nodes', '5', '--no-restart'], env, async (cluster) => {
    const video = cluster.upload(film(cluster));
    const before = sha256(cluster.played(video));
    const page = await open(browser, `${cluster.url('web')}/storage-efficiency`);
    await chooses(page, video, 'erasure_coding');
    await page.setViewportSize({ width: 375, height: 720 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 0, `${overflow} px too wide for a phone`);
    await page.setViewportSize({ width: 1200, height: 800 });
    const manifest = await cluster.json('metadata', `/manifest/${video}`);
    const coded = manifest.chunks.filter((chunk) => chunk.redundancy_mode === 'erasure_coding');
    assert.ok(coded.length > manifest.chunks.length / 2, `${coded.length} of ${manifest.chunks.length} are large enough`);
    await tellsTheTruth(page, cluster, coded.length);
    await page.locator(`[data-testid=kept][data-video="${video}"]`, { hasText: '2 lost nodes' }).waitFor();
    assert.equal(sha256(cluster.played(video)), before, 'the smart client makes chunks of shards');
    // The worst are those with most of the shards that need no decoding.
    const plain = new Map();
    for (const { fragments } of coded) {
      for (const shard of fragments.shards.filter((one) => one.fragment_index < fragments.data_shards)) {
        plain.set(shard.node_id, (plain.get(shard.node_id) ?? 0) + 1);
      }
    }
    const worst = [...plain].sort((a, b) => b[1] - a[1]).slice(0, 2).map(([node]) => node);
    for (const node of worst) cluster.signal(node, 'SIGKILL');
    assert.equal(await downloaded(cluster, video), before, 'every byte by the gateway, with two nodes dead');
    await page.goto(`${cluster.url('web')}/watch/${video}`);
    const end = await playToEnd(page, 2);
    assert.equal(end.vstack.stalls, 0, 'no stall');
    assert.equal(end.vstack.byNode.gateway ?? 0, 0, `straight from the nodes: ${JSON.stringify(end.vstack.byNode)}`);
    const givers = await page.evaluate(() => window.__vstack.givers);
    for (const { chunk_id: chunk } of coded) {
      assert.ok(givers[chunk]?.length >= 2, `${chunk} came from ${givers[chunk]}`);
      assert.ok(!givers[chunk].some((giver) => worst.includes(giver)), `${chunk} from a dead node: ${givers[chunk]}`);
    }
    assert.equal(sha256(cluster.played(video)), before, 'every byte by the smart client, with two nodes dead');
    await page.locator('[data-testid=survives]', { hasText: 'survives no lost node' }).waitFor({ timeout: 60_000 });
    await page.goto(cluster.url('web'));
    const card = page.locator(`[data-testid=video-card][data-video-id="${video}"]`);
    await card.locator('[data-testid=survives]', { hasText: 'survives no lost node' }).waitFor();
    assert.deepEqual(page.problems, []);
  });
});

test('a film in shards becomes copies again, and fewer nodes than it takes are refused in words', async () => {
  const env = { HEARTBEAT_INTERVAL: '1', MIGRATION_RATE: '500000000' };
  await inCluster(['--nodes', '3', '--no-restart'], env, async (cluster) => {
    const video = cluster.upload(film(cluster));
    const before = sha256(cluster.played(video));
    const page = await open(browser, `${cluster.url('web')}/storage-efficiency`);
    await chooses(page, video, 'erasure_coding');
    const survives = await cluster.json('metadata', '/redundancy/videos');
    assert.equal(survives.videos[0].failures_survived, 1, 'two, two and one shards');
    await chooses(page, video, 'replication');
    assert.equal(await downloaded(cluster, video), before, 'every byte by the gateway, of copies made of shards');
    cluster.signal('storage-node-3', 'SIGKILL');
    await waitFor('it to be missed', async () =>
      (await cluster.json('metadata', '/nodes/all')).nodes.some((node) => node.status === 'down'));
    const row = page.locator(`[data-testid=kept][data-video="${video}"]`);
    await row.locator('[data-testid=keep-as]').selectOption('erasure_coding');
    await row.locator('[data-testid=keep-error]', { hasText: 'needs 3 nodes' }).waitFor();
    assert.deepEqual(page.problems, []);
  });
});
