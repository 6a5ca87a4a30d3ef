// A film becomes shards, by a choice on the page, which shows how far that is, and plays with any two of five nodes dead;
// with three it says what it waits for. Then it has copies again.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, test } from 'node:test';

import { appended, keepAppended, launch, open, playToEnd, state } from './browser.mjs';
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

/** Who is lost is missed soon, and what it has is not made anew. */
const SETTINGS = {
  HEARTBEAT_INTERVAL: '1',
  NODE_TIMEOUT: '5',
  REPAIR_GRACE: '3600',
  MIGRATION_RATE: '500000000',
  GC_GRACE: '1',
  GC_INTERVAL: '1',
};

/** The browser was given the film itself, to the last byte: what the smart client saved before any node was lost. */
async function wasGiven(page, film) {
  const given = await appended(page);
  const how = `in pieces of ${given.pieces} bytes, to ${given.sourceBuffers} buffers`;
  assert.equal(given.sha256, film, `every byte in the browser, ${how}`);
}

test('a film in shards plays with the two worst nodes of five dead', async () => {
  await inCluster(['--nodes', '5', '--no-restart'], SETTINGS, async (cluster) => {
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
    await keepAppended(page);
    await page.goto(`${cluster.url('web')}/watch/${video}`);
    const end = await playToEnd(page, 2);
    assert.equal(end.vstack.stalls, 0, 'no stall');
    await wasGiven(page, before);
    assert.equal(end.vstack.byNode.gateway ?? 0, 0, `straight from the nodes: ${JSON.stringify(end.vstack.byNode)}`);
    const givers = await page.evaluate(() => window.__vstack.givers);
    for (const { chunk_id: chunk } of coded) {
      assert.ok(givers[chunk]?.length >= 2, `${chunk} came from ${givers[chunk]}`);
      assert.ok(!givers[chunk].some((giver) => worst.includes(giver)), `${chunk} from a dead node: ${givers[chunk]}`);
    }
    assert.equal(sha256(cluster.played(video)), before, 'every byte by the smart client, with two nodes dead');
    // Once it is counted the page asks once a minute.
    await page.locator('[data-testid=survives]', { hasText: 'survives no lost node' }).waitFor({ timeout: 120_000 });
    await page.goto(cluster.url('web'));
    const card = page.locator(`[data-testid=video-card][data-video-id="${video}"]`);
    await card.locator('[data-testid=survives]', { hasText: 'survives no lost node' }).waitFor();
    assert.deepEqual(page.problems, []);
  });
});

test('with three of five nodes lost the page says what it waits for, and plays on when one is back', async () => {
  await inCluster(['--nodes', '5', '--no-restart'], SETTINGS, async (cluster) => {
    const video = cluster.upload(film(cluster));
    const before = sha256(cluster.played(video));
    const page = await open(browser, `${cluster.url('web')}/storage-efficiency`);
    await chooses(page, video, 'erasure_coding');
    const { init, chunks } = await cluster.json('metadata', `/manifest/${video}`);
    const coded = chunks.filter((chunk) => chunk.redundancy_mode === 'erasure_coding');
    const nodes = [...new Set(coded.flatMap((chunk) => chunk.fragments.shards.map((shard) => shard.node_id)))];
    assert.equal(nodes.length, 5);
    // Of the init segment there are three copies: two of them stay, so that it is shards that are missing.
    const without = nodes.filter((node) => !init.replica_ids.includes(node));
    const back = init.replica_ids[0];
    assert.equal(without.length, 2, `copies of the init segment are on ${init.replica_ids}`);
    for (const node of without) cluster.signal(node, 'SIGKILL');
    cluster.signal(back, 'SIGSTOP');
    await keepAppended(page);
    await page.goto(`${cluster.url('web')}/watch/${video}`);
    const waits = page.locator('[data-testid=player-waiting]');
    await waits.filter({ hasText: /nor the gateway give chunk \d+/ }).waitFor({ timeout: 60_000 });
    await page.locator('[data-testid=survives]', { hasText: 'cannot be read now' }).waitFor({ timeout: 120_000 });
    // Longer than hls.js asks for what nobody gives: the page has it go on.
    await page.waitForFunction(() => window.__vstack.errors.some((error) => error.startsWith('player: ')), undefined, { timeout: 180_000 });
    await waits.waitFor();
    const meanwhile = await state(page);
    assert.equal(meanwhile.ended, false);
    assert.equal(meanwhile.error, null);
    // Nobody clicks on anything.
    cluster.signal(back, 'SIGCONT');
    await page.evaluate(() => {
      const video = document.querySelector('[data-testid=video]');
      video.muted = true;
      video.playbackRate = 4;
      video.play().catch(() => {});
    });
    await page.waitForFunction(() => document.querySelector('[data-testid=video]').ended, undefined, { timeout: 60_000 });
    await waits.waitFor({ state: 'detached' });
    assert.equal(await page.locator('[data-testid=player-failure]').count(), 0);
    assert.equal((await state(page)).ranges.length, 1);
    await wasGiven(page, before);
    assert.deepEqual(page.problems, []);
  });
});

const numberOf = (text) => Number(text.replaceAll(',', ''));

/** What the cluster tells of one video that changes its form, and of everything, by form. */
async function told(cluster, video) {
  const [overhead, { videos, migration }] = await Promise.all([
    cluster.json('metadata', '/storage/overhead'),
    cluster.json('metadata', '/redundancy/videos'),
  ]);
  const kept = videos.find((one) => one.video_id === video);
  const of = (chunks, logical, physical) => ({ chunks, logical, physical });
  return {
    waiting: migration.waiting_chunks,
    waitingOfVideo: kept.waiting_chunks,
    percent: kept.waiting_chunks > 0 ? Math.round(100 * (1 - kept.waiting_chunks / (kept.replicated_chunks + kept.coded_chunks))) : null,
    copies: of(overhead.replication_chunks, overhead.replication_logical_bytes, overhead.replication_physical_bytes),
    shards: of(overhead.erasure_coded_chunks, overhead.erasure_logical_bytes, overhead.erasure_physical_bytes),
    // Of a video that has both.
    taken:
      kept.replicated_logical_bytes > 0 && kept.coded_logical_bytes > 0
        ? [
            [kept.replicated_placed_bytes, kept.replicated_logical_bytes],
            [kept.coded_placed_bytes, kept.coded_logical_bytes],
          ]
        : [],
  };
}

/** The same as the page shows it; null while it shows nothing yet. */
async function shown(page, video) {
  const texts = await page.evaluate((id) => {
    const text = (selector) => document.querySelector(selector)?.textContent.replaceAll(/\s+/g, ' ').trim() ?? '';
    const row = document.querySelector(`[data-testid=kept][data-video="${id}"]`);
    return {
      waiting: text('[data-testid=migration-waiting]'),
      waitingOfVideo: row?.dataset.waiting ?? '',
      percent: row?.querySelector('[role=progressbar]')?.ariaValueNow ?? null,
      copies: text('[data-testid=as-copies]'),
      shards: text('[data-testid=as-shards]'),
      taken: [...(row?.querySelectorAll('[data-testid=taken-by-form]') ?? [])].map((one) => one.textContent.trim()),
    };
  }, video);
  const form = (text) => {
    const [, chunks, logical, physical] = /([\d,]+) chunks?, ([\d.]+ \w+) on ([\d.]+ \w+)/.exec(text) ?? [];
    return chunks ? { chunks: numberOf(chunks), logical: bytesOf(logical), physical: bytesOf(physical) } : null;
  };
  const taken = texts.taken.map((text) => /^\w+ ([\d.]+ \w+) for ([\d.]+ \w+)$/.exec(text)?.slice(1).map(bytesOf));
  const [copies, shards] = [form(texts.copies), form(texts.shards)];
  if (!copies || !shards || texts.waiting === '') return null;
  return {
    waiting: numberOf(texts.waiting),
    waitingOfVideo: Number(texts.waitingOfVideo),
    percent: texts.percent === null ? null : Number(texts.percent),
    copies,
    shards,
    taken,
  };
}

/** Whether figures are those that are told, bytes to the two or three digits that are shown. */
function isSame(one, other) {
  if (typeof one === 'number' && typeof other === 'number') return Math.abs(one - other) <= (other < 1000 ? 0 : other * 0.05);
  if (one === null || other === null || typeof one !== 'object' || typeof other !== 'object') return one === other;
  return Object.keys(other).length === Object.keys(one).length && Object.keys(other).every((key) => isSame(one[key], other[key]));
}

/** Waits until it is so, and the page shows what is told at that moment: the same before and after a look at the page. */
function shows(page, cluster, video, what, isSo) {
  return waitFor(what, async () => {
    const before = await told(cluster, video);
    const seen = await shown(page, video);
    const after = await told(cluster, video);
    const isOfOneMoment = JSON.stringify(before) === JSON.stringify(after);
    return isOfOneMoment && isSo(after) && isSame(seen, after) ? after : null;
  });
}

test('while a film changes its form the page shows how far that is, and what each form takes', async () => {
  const slowly = { ...SETTINGS, MIGRATION_RATE: '1000000', CHUNK_SIZE: '400000' };
  await inCluster(['--nodes', '5', '--no-restart'], slowly, async (cluster) => {
    const video = cluster.upload(film(cluster));
    const page = await open(browser, `${cluster.url('web')}/storage-efficiency`);
    const row = page.locator(`[data-testid=kept][data-video="${video}"]`);
    const pause = async (paused) => {
      await page.locator(`[data-testid=migration][data-paused=${!paused}] [data-testid=migration-switch]`).click();
      await waitFor('the cluster to know', async () =>
        (await cluster.json('metadata', '/redundancy/videos')).migration.paused === paused);
      await page.locator(`[data-testid=migration][data-paused=${paused}]`).waitFor();
    };
    await pause(true);
    await row.locator('[data-testid=keep-as]').selectOption('erasure_coding');
    const first = await shows(page, cluster, video, 'all of it to wait', ({ waiting, shards }) => waiting > 8 && shards.chunks === 0);
    assert.equal(first.waitingOfVideo, first.waiting);

    await pause(false);
    await waitFor('some of it to be shards', async () => (await told(cluster, video)).waiting <= first.waiting - 2);
    await pause(true);
    const isBetween = ({ waiting, shards }) => waiting > 0 && waiting < first.waiting && shards.chunks > 0;
    const between = await shows(page, cluster, video, 'both forms to be shown', isBetween);
    assert.ok(between.percent > first.percent && between.percent < 100, `${first.percent} %, then ${between.percent} %`);
    assert.equal(between.taken.length, 2, 'what each form of the film takes');
    assert.equal(between.copies.chunks + between.shards.chunks, first.copies.chunks);
    assert.ok(between.shards.physical < 2 * between.shards.logical, JSON.stringify(between.shards));

    await pause(false);
    // Nobody loads the page anew: it follows while chunks become shards.
    await page.waitForFunction(
      ([id, percent]) => {
        const bar = document.querySelector(`[data-testid=kept][data-video="${id}"] [role=progressbar]`);
        return bar !== null && Number(bar.ariaValueNow) > percent;
      },
      [video, between.percent],
      { timeout: 60_000 },
    );
    const last = await shows(page, cluster, video, 'nothing to wait any more', ({ waiting }) => waiting === 0);
    assert.equal(last.shards.chunks, first.waiting);
    assert.equal(last.percent, null, 'there is no bar of what is done');
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
