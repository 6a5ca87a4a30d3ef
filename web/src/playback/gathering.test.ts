import { describe, expect, it } from 'vitest';
import { Gathering } from './gathering';
import { NodeBook } from './node_book';
import { located, nodesOf } from './places';
import type { Explore } from './score';
import {
  type Behaviour,
  CODED,
  codedAs,
  type CodedChunk,
  codedEntry,
  FIVE,
  madeAt,
  other,
  shardAt,
  type ShardsAt,
  shardNames,
  World,
} from './testing';
import { Cancelled } from './transfer';

interface Setting {
  answer(url: string): Behaviour | undefined;
  shards: ShardsAt;
  explore(): Explore;
  checksum: string;
  coded: CodedChunk;
}

const [A, B, C, D, E] = FIVE as [string, string, string, string, string];
const F = 'http://f:6';

const SILENT: Behaviour = { kind: 'silent' };
const DEAD: Behaviour = { kind: 'unreachable' };
/** Of the right length, and wrong. */
const OTHER: Behaviour = { kind: 'bytes', bytes: CODED.shards[4]! };

/** Every node has its shard, nothing is known of any, and nobody waits, unless the setting says otherwise. */
function setUp({ answer, shards, explore, checksum, coded }: Partial<Setting> = {}) {
  const world = new World((url) => answer?.(url) ?? madeAt(shards ?? [])(url) ?? shardAt(url, coded) ?? DEAD);
  const entry = codedEntry('v-chunk-000', shards, coded);
  const book = new NodeBook(() => world.chance());
  for (const { url, id } of nodesOf(entry)) book.meet(url, id);
  const chunk = located({ ...entry, checksum: checksum ?? entry.checksum });
  const failed: string[] = [];
  const unjoined: string[] = [];
  const events = {
    transferFailed: ({ id }: { id: string }, _: unknown, kind: string) => void failed.push(`${id.slice(-1)} ${kind}`),
    joinFailed: ({ id }: { id: string }) => void unjoined.push(id),
  };
  const controller = new AbortController();
  const options = { signal: controller.signal, explore: explore ?? (() => 'unmeasured' as const) };
  const gathering = new Gathering({ env: world, book, events }, chunk, chunk.places.coded!, options);
  const node = (url: string) => book.view(world.now()).find((view) => view.url === url)!;
  return { world, book, gathering, controller, failed, unjoined, node };
}

const at = (node: string, behaviour: Behaviour) => (url: string) => (url.startsWith(node) ? behaviour : undefined);
const dead = (...nodes: string[]) => (url: string) => (nodes.some((node) => url.startsWith(node)) ? DEAD : undefined);

/** Nothing that happened speaks against it. */
const UNBLAMED = { failures: 0, reliability: 1, state: 'ready', pending: 0 };

describe('gathering shards', () => {
  it('takes the data shards side by side, and joins them without decoding', async () => {
    const { world, gathering, failed, node } = setUp();
    const finding = gathering.find('ready');
    expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2']);
    const found = await finding;
    expect(found?.bytes).toEqual(CODED.bytes);
    expect(found?.origins).toEqual([{ node: A }, { node: B }, { node: C }]);
    expect(world.decoder.count).toBe(0);
    expect(world.requests.length).toBe(3);
    expect({ failures: gathering.failures, failed }).toEqual({ failures: 0, failed: [] });
    expect(node(B)).toMatchObject({ chunks: 1, bytes: CODED.shards[1]!.length, pending: 0 });
    expect(node(D)).toMatchObject({ chunks: 0, bytes: 0 });
  });

  it('does with any three of five, and asks nobody twice', async () => {
    for (let first = 0; first < 5; first++) {
      for (let second = first + 1; second < 5; second++) {
        const gone = [FIVE[first]!, FIVE[second]!];
        const { world, gathering } = setUp({ answer: dead(...gone) });
        const found = await gathering.find('ready');
        expect(found?.bytes, `without ${gone}`).toEqual(CODED.bytes);
        expect(found?.origins.some((origin) => origin !== 'gateway' && gone.includes(origin.node))).toBe(false);
        expect(world.decoder.count).toBe(first < 3 ? 1 : 0);
        expect(new Set(world.requests).size).toBe(world.requests.length);
        expect(world.now(), 'no time passed').toBe(0);
      }
    }
  });

  const BAD: { kind: string; answer: Behaviour }[] = [
    { kind: 'corrupt', answer: OTHER },
    { kind: 'missing', answer: { kind: 'status', status: 404 } },
  ];
  it.each(BAD)('replaces a shard that is $kind by another, and marks its node', async ({ kind, answer }) => {
    const { world, gathering, failed, node } = setUp({ answer: at(B, answer) });
    const found = await gathering.find('ready');
    expect(found?.bytes).toEqual(CODED.bytes);
    expect(found?.origins).toEqual([{ node: A }, { node: C }, { node: D }]);
    expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'd3']);
    expect(failed).toEqual([`1 ${kind}`]);
    expect(gathering.failures).toBe(1);
    // It was a bad copy, so the node is not left alone.
    expect(node(B)).toMatchObject({ failures: 1, reliability: 0, chunks: 0, state: 'ready' });
  });

  it('leaves a node alone that does not answer at all', async () => {
    const { gathering, node } = setUp({ answer: dead(B) });
    await gathering.find('ready');
    expect(node(B)).toMatchObject({ failures: 1, state: 'backing_off' });
  });

  it('overtakes a slow node with one more shard, and does not blame it', async () => {
    const late = (node: string, index: number, afterMs: number) =>
      at(node, { kind: 'late', bytes: CODED.shards[index]!, afterMs });
    const { world, gathering, failed, node } = setUp({
      answer: (url) => late(A, 0, 10)(url) ?? late(B, 1, 8)(url) ?? late(C, 2, 1_000)(url),
    });
    const finding = gathering.find('ready');
    // Twice the 10 ms of the slower that arrived, and 5 ms.
    await world.pass(24);
    expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2']);
    await world.pass(1);
    expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'd3']);
    const found = await finding;
    expect(found?.bytes).toEqual(CODED.bytes);
    expect(found).toMatchObject({ startedAt: 0, firstByteAt: 8, endedAt: 25 });
    expect(shardNames(world.aborted)).toEqual(['c2']);
    expect(failed).toEqual([]);
    expect(node(C)).toMatchObject(UNBLAMED);
  });

  it('waits for none that is about as fast as the others', async () => {
    const ms: Record<string, number> = { a: 10, b: 12, c: 28 };
    const { world, gathering } = setUp({
      answer: (url) => {
        const [, name = '', index = ''] = /^http:..(\w).*-frag-(\d)/.exec(url) ?? [];
        return { kind: 'late', bytes: CODED.shards[Number(index)]!, afterMs: ms[name] ?? 0 };
      },
    });
    const finding = gathering.find('ready');
    await world.pass(28);
    expect((await finding)?.bytes).toEqual(CODED.bytes);
    expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2']);
    expect(world.aborted).toEqual([]);
  });

  it('asks for one more at once while playback waits, and gives up the last', async () => {
    const { world, gathering, failed, node } = setUp({ answer: at(C, SILENT), explore: () => 'no' });
    const finding = gathering.find('ready');
    expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'd3']);
    const found = await finding;
    expect(found?.bytes).toEqual(CODED.bytes);
    expect(found?.origins).toEqual([{ node: A }, { node: B }, { node: D }]);
    expect(world.decoder.count).toBe(1);
    expect(world.now(), 'no time passed').toBe(0);
    await world.settle();
    expect(shardNames(world.aborted)).toEqual(['c2']);
    expect(failed).toEqual([]);
    expect(node(C)).toMatchObject(UNBLAMED);
  });

  it('asks for one more when playback begins to wait', async () => {
    let explore: Explore = 'unmeasured';
    const { world, gathering, controller } = setUp({ answer: () => SILENT, explore: () => explore });
    const finding = gathering.find('ready');
    await world.pass(199);
    expect(world.requests.length).toBe(3);
    explore = 'no';
    await world.pass(100);
    // And not for yet another one.
    await world.pass(500);
    expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'd3']);
    controller.abort();
    await expect(finding).rejects.toBeInstanceOf(Cancelled);
  });

  it('leaves two silent nodes within two seconds', async () => {
    const { world, gathering } = setUp({ answer: (url) => at(A, SILENT)(url) ?? at(B, SILENT)(url) });
    const finding = gathering.find('ready');
    await world.pass(1_999);
    expect((await finding)?.origins).toEqual([{ node: C }, { node: D }, { node: E }]);
  });

  it('gives up at once when fewer than three can be had', async () => {
    const { world, gathering, failed, node } = setUp({ answer: dead(A, B, C) });
    expect(await gathering.find('ready')).toBeNull();
    expect(failed).toEqual(['0 unreachable', '1 unreachable', '2 unreachable']);
    expect(gathering.failures).toBe(3);
    expect(world.now()).toBe(0);
    const asked = world.requests.length;
    expect(await gathering.find('everyone'), 'the dead are not asked again').toBeNull();
    expect(world.requests.length).toBe(asked);
    await world.settle();
    for (const url of [D, E]) expect(node(url)).toMatchObject(UNBLAMED);
  });

  it('asks nodes that are to be left alone only as the last hope, and nobody else in vain', async () => {
    const { world, book, gathering } = setUp();
    for (const url of [A, B, C]) book.pingFailed(url, 0);
    expect(await gathering.find('ready')).toBeNull();
    expect(world.requests).toEqual([]);
    expect((await gathering.find('everyone'))?.bytes).toEqual(CODED.bytes);
    expect(shardNames(world.requests)).toEqual(['d3', 'e4', 'a0']);
  });

  it('prefers other shards to those of a much slower node, but not to those of a somewhat slower one', async () => {
    for (const { latencyMs, asked } of [
      { latencyMs: 40, asked: ['b1', 'c2', 'd3'] },
      { latencyMs: 14, asked: ['a0', 'b1', 'c2'] },
    ]) {
      const { world, book, gathering } = setUp();
      for (const url of FIVE) {
        book.transferBegan(url, 0);
        book.progress(url, 9, 1_000_000);
        book.transferDone(url, 10, 1_000_000);
        book.pingAnswered(url, url === A ? latencyMs : 5);
      }
      expect((await gathering.find('ready'))?.bytes).toEqual(CODED.bytes);
      expect(shardNames(world.requests).sort(), `${latencyMs} ms`).toEqual(asked);
    }
  });

  describe('when a node holds two shards', () => {
    it('takes both', async () => {
      const { world, gathering } = setUp({ shards: [[0, A], [1, A], [2, B], [3, C], [4, D]] });
      const found = await gathering.find('ready');
      expect(found?.bytes).toEqual(CODED.bytes);
      expect(found?.origins).toEqual([{ node: A }, { node: B }]);
      expect(shardNames(world.requests).sort()).toEqual(['a0', 'a1', 'b2']);
    });

    it('does without both when it is dead', async () => {
      const { gathering } = setUp({ shards: [[0, A], [1, A], [2, B], [3, C], [4, D]], answer: dead(A) });
      const found = await gathering.find('ready');
      expect(found?.bytes).toEqual(CODED.bytes);
      expect(found?.origins).toEqual([{ node: B }, { node: C }, { node: D }]);
    });

    it('does not ask it for the other when it failed for the one', async () => {
      const { world, gathering } = setUp({ shards: [[0, A], [1, B], [2, C], [3, A], [4, D]], answer: dead(A) });
      expect((await gathering.find('ready'))?.bytes).toEqual(CODED.bytes);
      expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'd4']);
    });

    it('asks it for the other last of all when only its copy of the one was bad', async () => {
      const { world, gathering } = setUp({
        shards: [[0, A], [1, B], [2, C], [3, A], [4, D]],
        answer: (url) => (url.includes('frag-0?') ? OTHER : dead(D)(url)),
      });
      expect((await gathering.find('ready'))?.bytes).toEqual(CODED.bytes);
      expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'd4', 'a3']);
    });
  });

  describe('when a shard is at two nodes', () => {
    const shards: ShardsAt = [[0, A], [0, F], [1, B], [2, C], [3, D], [4, E]];

    it('takes it from one of them', async () => {
      const { world, gathering } = setUp({ shards });
      expect((await gathering.find('ready'))?.bytes).toEqual(CODED.bytes);
      expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2']);
    });

    it('goes to the other one, which spares decoding', async () => {
      const { world, gathering } = setUp({ shards, answer: dead(A) });
      expect((await gathering.find('ready'))?.bytes).toEqual(CODED.bytes);
      expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'f0']);
      expect(world.decoder.count).toBe(0);
    });

    it('does not count it twice', async () => {
      const { gathering } = setUp({ shards: [[0, A], [0, F], [1, B]] });
      expect(await gathering.find('everyone')).toBeNull();
    });

    it('asks both while playback waits and no other is left', async () => {
      const { world, gathering } = setUp({ shards: shards.slice(0, 4), answer: at(A, SILENT), explore: () => 'no' });
      const found = await gathering.find('ready');
      expect(found?.origins).toEqual([{ node: F }, { node: B }, { node: C }]);
      await world.settle();
      expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'f0']);
      expect(shardNames(world.aborted)).toEqual(['a0']);
    });
  });

  describe('when shards were made wrongly', () => {
    /** One at each node, of which these were. */
    const wrong = (...indexes: number[]): ShardsAt =>
      FIVE.map((url, index) =>
        indexes.includes(index) ? ([index, url, other(CODED.shards[index]!)] as const) : ([index, url] as const),
      );

    it('tries other sets, with one further shard at a time, and blames no node', async () => {
      const { world, gathering, failed, unjoined, node } = setUp({
        shards: wrong(1),
        answer: at(D, { kind: 'late', bytes: CODED.shards[3]!, afterMs: 50 }),
      });
      const finding = gathering.find('ready');
      await world.pass(49);
      expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'd3']);
      await world.pass(1);
      const found = await finding;
      expect(found?.bytes).toEqual(CODED.bytes);
      expect(found?.origins).toEqual([{ node: A }, { node: C }, { node: D }]);
      expect(world.requests.length).toBe(4);
      expect({ failed, unjoined }).toEqual({ failed: [], unjoined: ['v-chunk-000'] });
      expect(gathering.failures).toBe(1);
      for (const url of FIVE) expect(node(url)).toMatchObject(UNBLAMED);
    });

    it('finds any three that are right', async () => {
      for (let first = 0; first < 5; first++) {
        for (let second = 0; second <= first; second++) {
          const { world, gathering } = setUp({ shards: wrong(first, second) });
          const found = await gathering.find('ready');
          expect(found?.bytes, `${first} and ${second} are wrong`).toEqual(CODED.bytes);
          expect(new Set(world.requests).size).toBe(world.requests.length);
        }
      }
    });

    it('gives up when fewer than three are right, and fetches none of them again', async () => {
      const { world, gathering, failed, unjoined, node } = setUp({ shards: wrong(0, 2, 3) });
      expect(await gathering.find('ready')).toBeNull();
      expect({ failed, unjoined }).toEqual({ failed: [], unjoined: ['v-chunk-000'] });
      expect(gathering.failures).toBe(1);
      for (const url of FIVE) expect(node(url)).toMatchObject(UNBLAMED);
      expect(await gathering.find('everyone')).toBeNull();
      expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2', 'd3', 'e4']);
    });

    it('goes on with what only those have who were to be left alone', async () => {
      const { world, book, gathering } = setUp({ shards: wrong(0) });
      for (const url of [D, E]) book.pingFailed(url, 0);
      expect(await gathering.find('ready')).toBeNull();
      expect(shardNames(world.requests)).toEqual(['a0', 'b1', 'c2']);
      expect((await gathering.find('everyone'))?.bytes).toEqual(CODED.bytes);
      expect(shardNames(world.requests).length).toBe(4);
    });

    it('tries a bounded number of sets, and fetches no more than these are of', async () => {
      const coded = codedAs('16+16', 130);
      const shards = coded.shards.map((_, index) => [index, `http://n${index}:1`] as const);
      const { world, gathering } = setUp({ coded, shards, checksum: `sha256:${'0'.repeat(64)}` });
      expect(await gathering.find('everyone')).toBeNull();
      // The first set needs no decoding.
      expect(world.decoder.count).toBe(64);
      expect(world.requests.length).toBe(18);
    });
  });

  describe('when two shards are listed with one index', () => {
    const WRONG = other(CODED.shards[1]!);
    const reverse: ShardsAt = [[0, A], [1, B, WRONG], [1, B], [2, C]];
    const LISTED: { how: string; shards: ShardsAt }[] = [
      { how: 'at one node', shards: [[0, A], [1, B], [1, B, WRONG], [2, C]] },
      { how: 'at one node, the wrong one first', shards: reverse },
      { how: 'at two nodes', shards: [[0, A], [1, B, WRONG], [1, F], [2, C]] },
    ];
    it.each(LISTED)('takes none for the other: $how', async ({ shards }) => {
      const { world, gathering, failed } = setUp({ shards });
      expect((await gathering.find('ready'))?.bytes).toEqual(CODED.bytes);
      expect(failed).toEqual([]);
      expect(world.requests.length).toBeLessThanOrEqual(4);
    });

    it('asks for the other one when the node lacks the one', async () => {
      const { gathering, failed } = setUp({
        shards: reverse,
        answer: (url) => (madeAt(reverse)(url) ? { kind: 'status', status: 404 } : undefined),
      });
      expect((await gathering.find('ready'))?.bytes).toEqual(CODED.bytes);
      expect(failed).toEqual(['1 missing']);
    });

    it('calls bytes corrupt that are those of the other', async () => {
      const { gathering, failed } = setUp({
        shards: reverse,
        answer: (url) => (url.startsWith(B) ? { kind: 'bytes', bytes: CODED.shards[1]! } : undefined),
      });
      expect((await gathering.find('ready'))?.bytes).toEqual(CODED.bytes);
      expect(failed).toEqual(['1 corrupt']);
    });
  });

  const CODES = [
    { shape: '1+1', sizeBytes: 9 },
    { shape: '2+2', sizeBytes: 33 },
    { shape: '4+1', sizeBytes: 50 },
    { shape: '10+4', sizeBytes: 301 },
    { shape: '16+16', sizeBytes: 130 },
  ];
  it.each(CODES)('reads $shape with as many nodes dead as there are parity shards', async ({ shape, sizeBytes }) => {
    const coded = codedAs(shape, sizeBytes);
    const shards = coded.shards.map((_, index) => [index, `http://n${index}:1`] as const);
    for (const first of [0, coded.dataShards]) {
      const gone = shards.slice(first, first + coded.parityShards).map(([, url]) => `${url}/`);
      const { world, gathering } = setUp({ coded, shards, answer: dead(...gone) });
      expect((await gathering.find('ready'))?.bytes).toEqual(coded.bytes);
      expect(world.decoder.count).toBe(first === 0 ? 1 : 0);
    }
  });

  it('gives everything up when it is cancelled', async () => {
    const { world, gathering, controller, failed, node } = setUp({ answer: at(C, SILENT) });
    const finding = gathering.find('ready');
    await world.settle();
    controller.abort();
    await expect(finding).rejects.toBeInstanceOf(Cancelled);
    await world.settle();
    expect(shardNames(world.aborted)).toEqual(['c2']);
    expect(failed).toEqual([]);
    for (const url of FIVE) expect(node(url)).toMatchObject(UNBLAMED);
    await expect(gathering.find('ready')).rejects.toBeInstanceOf(Cancelled);
    expect(world.requests.length).toBe(3);
  });
});
