import { describe, expect, it } from 'vitest';
import type { Manifest } from '../api/types';
import { NoSource } from './chunk_source';
import { VideoGone } from './gone';
import { PlaybackSession } from './session';
import {
  type Behaviour,
  chunkBytes,
  CODED,
  codedEntry,
  makeManifest,
  NODES,
  shardAt,
  type ShardsAt,
  World,
} from './testing';
import { Cancelled, patienceMs } from './transfer';

const SIZE = 20_000;
const never = new AbortController().signal;

/** Every address has every chunk, unless `override` says otherwise. */
function worldWith(override: (url: string) => Behaviour | undefined = () => undefined): World {
  return new World((url) => {
    const id = url.split('/').pop()!;
    const size = id === 'v-init' ? 700 : SIZE;
    return override(url) ?? { kind: 'bytes', bytes: chunkBytes(id, size) };
  });
}

function sessionIn(world: World, segments = [1, 2, 3], playhead = () => 0) {
  const options = { gateway: (id: string) => `/gateway/v/${id}`, playhead, bufferedSec: () => 0 };
  return new PlaybackSession(makeManifest(segments, SIZE), world, options);
}

const whole = (...sequence: number[]) =>
  Buffer.concat(sequence.map((n) => chunkBytes(`v-chunk-${String(n).padStart(3, '0')}`, SIZE)));

const nodeOf = (url: string) => NODES.find((node) => url.startsWith(node));

describe('a session', () => {
  it('gives segments whole and in order, from the nodes, verified', async () => {
    const world = worldWith();
    const session = sessionIn(world);
    let received = 0;
    const loaded = await session.load(2, never, (count) => (received += count));
    expect(Buffer.from(loaded.data).equals(whole(3, 4, 5))).toBe(true);
    expect(received).toBe(3 * SIZE);
    expect(world.requests.every((url) => nodeOf(url))).toBe(true);
    expect(session.totals).toMatchObject({ chunks: 3, verifiedBytes: 3 * SIZE, failovers: 0, gatewayChunks: 0 });
    const init = await session.load('init', never, () => {});
    expect(Buffer.from(init.data).equals(Buffer.from(chunkBytes('v-init', 700)))).toBe(true);
  });

  it('spreads over the nodes, four transfers at most, and fetches no chunk twice', async () => {
    const world = worldWith();
    const session = sessionIn(world, [9, 2]);
    await session.load(0, never, () => {});
    await session.load(1, never, () => {});
    expect(world.openMax).toBe(4);
    expect(new Set(world.requests.map(nodeOf)).size).toBe(3);
    expect(world.requests.length).toBe(11);
  });

  it('fetches ahead what begins within 30 s of the playhead, and the next segment in any case', async () => {
    let playhead = 0;
    const world = worldWith();
    const session = sessionIn(world, [1, 1, 1, 1, 1, 1], () => playhead);
    await session.load(0, never, () => {});
    await world.settle();
    expect(session.cells.filter((cell) => cell.state === 'done').map((cell) => cell.sequence)).toEqual([0, 1, 2]);
    await session.load(3, never, () => {});
    await world.settle();
    expect(session.cells.find((cell) => cell.sequence === 4)!.state).toBe('done');
    expect(session.cells.find((cell) => cell.sequence === 5)!.state).toBe('idle');
    playhead = 25;
    await session.load(4, never, () => {});
    await world.settle();
    expect(session.cells.find((cell) => cell.sequence === 5)!.state).toBe('done');
  });

  it('goes to another replica at once when a node refuses, is gone, or gives other bytes', async () => {
    const bad: Behaviour[] = [
      { kind: 'unreachable' },
      { kind: 'status', status: 503 },
      { kind: 'status', status: 404 },
      { kind: 'bytes', bytes: chunkBytes('another', SIZE) },
      { kind: 'bytes', bytes: chunkBytes('v-chunk-000', SIZE - 1) },
      { kind: 'bytes', bytes: chunkBytes('v-chunk-000', SIZE + 1) },
    ];
    for (const behaviour of bad) {
      const world = worldWith((url) => (url.startsWith(NODES[0]!) ? behaviour : undefined));
      const session = sessionIn(world, [6]);
      const loaded = await session.load(0, never, () => {});
      expect(Buffer.from(loaded.data).equals(whole(0, 1, 2, 3, 4, 5))).toBe(true);
      expect(session.totals.failovers).toBeGreaterThan(0);
      expect(session.cells.some((cell) => cell.from === 'node-a')).toBe(false);
      expect(session.errors).toEqual([]);
      expect(world.now(), 'no time passed').toBe(0);
    }
  });

  it.each([{ kind: 'silent' }, { kind: 'hangs after', bytes: chunkBytes('v-chunk-000', 100) }] as Behaviour[])(
    'leaves a node that is $kind within two seconds',
    async (behaviour) => {
      const world = worldWith((url) => (url.startsWith(NODES[1]!) ? behaviour : undefined));
      const session = sessionIn(world, [3]);
      const loading = session.load(0, never, () => {});
      await world.pass(1_999);
      expect(Buffer.from((await loading).data).equals(whole(0, 1, 2))).toBe(true);
      expect(session.events.some((event) => event.text.includes('node-b stalled'))).toBe(true);
    },
  );

  it('does not blame a node for a page that was held up itself', async () => {
    const world = worldWith((url) => (url.startsWith(NODES[1]!) ? { kind: 'silent' } : undefined));
    const session = sessionIn(world, [3]);
    const loading = session.load(0, never, () => {});
    await world.settle();
    world.freeze(5_000);
    await world.pass(1);
    expect(session.totals.failovers).toBe(0);
    await world.pass(patienceMs(null));
    expect(session.totals.failovers).toBe(1);
    await loading;
  });

  it('leaves a dead node alone for a while instead of trying it for every chunk', async () => {
    const world = worldWith((url) => (url.startsWith(NODES[2]!) ? { kind: 'unreachable' } : undefined));
    const session = sessionIn(world, [20]);
    await session.load(0, never, () => {});
    expect(world.requests.filter((url) => url.startsWith(NODES[2]!)).length).toBeLessThanOrEqual(4);
    const view = session.nodes().find((node) => node.id === 'node-c')!;
    expect(view.state).toBe('backing_off');
    expect(view.reliability).toBe(0);
  });

  it('goes on asking a node that cannot tell whether it had a chunk for the others', async () => {
    for (const { code, isLeftAlone } of [
      { code: 'incomplete', isLeftAlone: false },
      { code: 'unavailable', isLeftAlone: true },
    ]) {
      const lost = (url: string) => url.startsWith(NODES[2]!) && Number(url.slice(-3)) < 10;
      const world = worldWith((url) => (lost(url) ? { kind: 'status', status: 503, code } : undefined));
      const session = sessionIn(world, [10, 10]);
      await session.load(0, never, () => {});
      const view = session.nodes().find((node) => node.id === 'node-c')!;
      expect(session.totals.failovers).toBeGreaterThan(0);
      expect({ code, isLeftAlone: view.state === 'backing_off' }).toEqual({ code, isLeftAlone });
      const loaded = await session.load(1, never, () => {});
      expect(Buffer.from(loaded.data).equals(whole(10, 11, 12, 13, 14, 15, 16, 17, 18, 19))).toBe(true);
      expect({ code, isAsked: session.cells.some((cell) => cell.from === 'node-c') }).toEqual({ code, isAsked: !isLeftAlone });
    }
  });

  it('falls back to the gateway when every replica fails, and verifies that too', async () => {
    const world = worldWith((url) => (nodeOf(url) ? { kind: 'unreachable' } : undefined));
    const session = sessionIn(world, [2]);
    const loaded = await session.load(0, never, () => {});
    expect(Buffer.from(loaded.data).equals(whole(0, 1))).toBe(true);
    expect(session.totals.gatewayChunks).toBe(2);
    expect(session.cells.filter((cell) => cell.from === 'gateway').length).toBe(2);

    const lying = worldWith((url) =>
      nodeOf(url) ? { kind: 'unreachable' } : { kind: 'bytes', bytes: chunkBytes('another', SIZE) },
    );
    await expect(sessionIn(lying, [1]).load(0, never, () => {})).rejects.toBeInstanceOf(NoSource);
  });

  it('can be asked again after a failure, and keeps what it already has', async () => {
    let broken = true;
    const world = worldWith((url) => (broken && url.endsWith('chunk-001') ? { kind: 'status', status: 503 } : undefined));
    const session = sessionIn(world, [2]);
    await expect(session.load(0, never, () => {})).rejects.toBeInstanceOf(NoSource);
    expect(session.errors.length).toBe(1);
    broken = false;
    await world.pass(10_000);
    const loaded = await session.load(0, never, () => {});
    expect(Buffer.from(loaded.data).equals(whole(0, 1))).toBe(true);
    expect(world.requests.filter((url) => url.endsWith('chunk-000')).length).toBe(1);
  });

  it('takes a cancelled segment up where it was', async () => {
    const world = worldWith((url) => (url.startsWith(NODES[0]!) ? { kind: 'silent' } : undefined));
    const session = sessionIn(world, [3]);
    const controller = new AbortController();
    const loading = session.load(0, controller.signal, () => {});
    controller.abort();
    await expect(loading).rejects.toBeInstanceOf(Cancelled);
    const again = session.load(0, never, () => {});
    await world.pass(2_000);
    expect(Buffer.from((await again).data).equals(whole(0, 1, 2))).toBe(true);
    expect(world.requests.length).toBe(4);
  });

  it('pings every node every three seconds until it is closed', async () => {
    const world = worldWith();
    const session = sessionIn(world);
    session.start();
    await world.pass(6_100);
    expect(world.pings.length).toBe(9);
    session.close();
    await world.pass(10_000);
    expect(world.pings.length).toBe(9);
  });
});

describe('what is missing', () => {
  const TWO = 'v-chunk-002';

  /** Eight segments of one chunk each, of which nobody has the third. */
  function setUp() {
    const state: { playhead: number; bufferedSec: number; third: Behaviour } = {
      playhead: 0,
      bufferedSec: 0,
      third: { kind: 'status', status: 404 },
    };
    const world = worldWith((url) => (url.endsWith(TWO) ? state.third : undefined));
    const session = new PlaybackSession(makeManifest([1, 1, 1, 1, 1, 1, 1, 1], SIZE), world, {
      gateway: (id) => `/gateway/v/${id}`,
      playhead: () => state.playhead,
      bufferedSec: () => state.bufferedSec,
    });
    const missing = () => [...session.missing].map(({ id }) => id);
    const heldUpBy = () => session.heldUpBy().map(({ id }) => id);
    return { state, world, session, missing, heldUpBy };
  }

  it('holds playback up where it is needed next, and nowhere else', async () => {
    const { state, world, session, missing, heldUpBy } = setUp();
    await session.load(0, never, () => {});
    await world.pass(1);
    expect(missing()).toEqual([TWO]);
    // It is played from the twentieth second to the thirtieth.
    const table: [playhead: number, bufferedSec: number, isHeldUp: boolean][] = [
      [0, 10, false],
      [0, 20, true],
      [3, 16.8, true],
      [15, 4, false],
      [20, 0, true],
      [29, 0, true],
      [30, 0, false],
      [75, 5, false],
    ];
    for (const [playhead, bufferedSec, isHeldUp] of table) {
      Object.assign(state, { playhead, bufferedSec });
      expect(heldUpBy(), `${playhead} s, ${bufferedSec} s buffered`).toEqual(isHeldUp ? [TWO] : []);
    }
  });

  it('is forgotten where the viewer went elsewhere, and found out again where they came back', async () => {
    const { state, world, session, missing } = setUp();
    await session.load(0, never, () => {});
    await world.pass(1);
    await session.load(1, never, () => {});
    await world.pass(1);
    expect(missing(), 'it is next').toEqual([TWO]);
    state.playhead = 50;
    await session.load(5, never, () => {});
    expect(missing()).toEqual([]);
    state.playhead = 20;
    await expect(session.load(2, never, () => {})).rejects.toBeInstanceOf(NoSource);
    expect(missing()).toEqual([TWO]);
    // Asked for again, and given up.
    state.third = { kind: 'silent' };
    const loading = expect(session.load(2, never, () => {})).rejects.toBeInstanceOf(Cancelled);
    await world.settle();
    expect(missing()).toEqual([TWO]);
    session.close();
    await loading;
    await world.settle();
    expect(missing()).toEqual([]);
  });

  it('never comes once the video is no more, which is heard of and said', async () => {
    let isDeleted = true;
    const lost = (url: string) => url.endsWith('v-chunk-001');
    const world = worldWith((url) => (lost(url) ? { kind: 'status', status: 404 } : undefined));
    const manifest = makeManifest([1, 1], SIZE);
    const session = new PlaybackSession(manifest, world, {
      gateway: (id) => `/gateway/v/${id}`,
      playhead: () => 0,
      bufferedSec: () => 0,
      newerManifest: async () => {
        if (isDeleted) throw new VideoGone('video v was deleted');
        return manifest;
      },
    });
    const asksInVain = async () => {
      await expect(session.load(1, never, () => {})).rejects.toBeInstanceOf(NoSource);
      await world.pass(10_000);
    };
    expect(session.gone).toBeNull();
    await asksInVain();
    expect(session.gone).toBe('video v was deleted');
    await asksInVain();
    expect(session.events.filter(({ text }) => text.includes('video v was deleted')).length, 'said once').toBe(1);
    // What nodes still have of it can be watched.
    expect(Buffer.from((await session.load(0, never, () => {})).data).equals(whole(0))).toBe(true);
    await world.pass(10_000);
    isDeleted = false;
    await asksInVain();
    expect(session.gone, 'it was restored').toBeNull();
    isDeleted = true;
    await asksInVain();
    expect(session.gone).toBe('video v was deleted');
    session.tryAgain();
    expect(session.gone).toBeNull();
  });

  it('is no sign of a video that is no more where the service cannot say', async () => {
    const world = worldWith(() => ({ kind: 'status', status: 404 }));
    const session = new PlaybackSession(makeManifest([1], SIZE), world, {
      gateway: (id) => `/gateway/v/${id}`,
      playhead: () => 0,
      bufferedSec: () => 0,
      newerManifest: () => Promise.reject(new Error('the service does not answer')),
    });
    await expect(session.load(0, never, () => {})).rejects.toBeInstanceOf(NoSource);
    await world.settle();
    expect(session.gone).toBeNull();
  });
});

describe('a session of a video in shards', () => {
  function manifest(version: number, shards?: ShardsAt): Manifest {
    const made = makeManifest([1], SIZE);
    const coded = { redundancy_mode: 'erasure_coding' as const, ...codedEntry('v-chunk-000', shards) };
    return { ...made, version, chunks: made.chunks.map((chunk) => ({ ...chunk, ...coded })) };
  }
  const options = { gateway: (id: string) => `/gateway/v/${id}`, playhead: () => 0, bufferedSec: () => 0 };
  const isDead = (url: string) => /^http:..[abc]:/.test(url);
  const withDead = () =>
    worldWith((url) => {
      if (url.startsWith('/gateway')) return { kind: 'status', status: 503 };
      return isDead(url) ? { kind: 'unreachable' } : shardAt(url);
    });

  it('plays it, and shows who served it', async () => {
    const session = new PlaybackSession(manifest(1), worldWith(shardAt), options);
    const loaded = await session.load(0, never, () => {});
    expect(Buffer.from(loaded.data).equals(Buffer.from(CODED.bytes))).toBe(true);
    expect(session.totals).toMatchObject({ chunks: 1, verifiedBytes: CODED.bytes.length, failovers: 0, gatewayChunks: 0 });
    const cell = session.cells.find(({ id }) => id === 'v-chunk-000');
    expect(cell).toMatchObject({ state: 'done', from: 'node-a', givers: ['node-a', 'node-b', 'node-c'] });
    const shards = Object.fromEntries(session.nodes().map(({ id, chunks }) => [id, chunks]));
    expect(shards).toMatchObject({ 'node-a': 1, 'node-b': 1, 'node-c': 1 });
  });

  it('fetches its shards once for all who ask for it meanwhile', async () => {
    const world = worldWith(shardAt);
    const session = new PlaybackSession(manifest(1), world, options);
    const loaded = await Promise.all([1, 2, 3].map(() => session.load(0, never, () => {})));
    for (const { data } of loaded) expect(Buffer.from(data).equals(Buffer.from(CODED.bytes))).toBe(true);
    const shards = world.requests.filter((url) => url.includes('-frag-'));
    expect(new Set(shards).size).toBe(shards.length);
    // Playback waits for it: one more than is needed.
    expect(shards.length).toBe(4);
  });

  it('fails with three of five dead, and plays on from where a newer manifest says', async () => {
    let asked = 0;
    const moved = ['http://f:6', 'http://g:7', 'http://h:8', 'http://d:4', 'http://e:5'];
    const newer = manifest(2, moved.map((url, index) => [index, url] as const));
    const newerManifest = async () => {
      asked += 1;
      return newer;
    };
    const world = withDead();
    const session = new PlaybackSession(manifest(1), world, { ...options, newerManifest });
    await expect(session.load(0, never, () => {})).rejects.toBeInstanceOf(NoSource);
    // The three dead, and the gateway.
    expect(session.totals.failovers).toBe(4);
    expect(asked).toBe(1);
    const before = world.requests.length;
    const loaded = await session.load(0, never, () => {});
    expect(Buffer.from(loaded.data).equals(Buffer.from(CODED.bytes))).toBe(true);
    expect(session.cells.find(({ id }) => id === 'v-chunk-000')!.givers).toEqual(['node-f', 'node-g', 'node-h']);
    expect(world.requests.slice(before).filter(isDead)).toEqual([]);
    expect(asked).toBe(1);
  });

  it('names what nobody gives, however often it is asked for, until it comes, and keeps some errors', async () => {
    let isBack = false;
    const world = worldWith((url) => {
      if (url.startsWith('/gateway')) return { kind: 'status', status: 503 };
      return isDead(url) && !isBack ? { kind: 'unreachable' } : shardAt(url);
    });
    const session = new PlaybackSession(manifest(1), world, options);
    expect(session.missing.size).toBe(0);
    for (let times = 0; times < 101; times += 1) {
      await expect(session.load(0, never, () => {})).rejects.toBeInstanceOf(NoSource);
      expect([...session.missing].map(({ id }) => id)).toEqual(['v-chunk-000']);
    }
    expect(session.errors.length).toBe(100);
    isBack = true;
    const loaded = await session.load(0, never, () => {});
    expect(Buffer.from(loaded.data).equals(Buffer.from(CODED.bytes))).toBe(true);
    expect(session.missing.size).toBe(0);
  });

  it('goes from copies that are gone to the shards that a newer manifest names', async () => {
    const copies = makeManifest([1], SIZE);
    const { size_bytes, checksum } = codedEntry('v-chunk-000');
    copies.chunks = copies.chunks.map((chunk) => ({ ...chunk, size_bytes, checksum }));
    const gone = (url: string): Behaviour | undefined => shardAt(url) ?? { kind: 'status', status: 404 };
    const session = new PlaybackSession(copies, worldWith(gone), { ...options, newerManifest: async () => manifest(2) });
    await expect(session.load(0, never, () => {})).rejects.toBeInstanceOf(NoSource);
    const loaded = await session.load(0, never, () => {});
    expect(Buffer.from(loaded.data).equals(Buffer.from(CODED.bytes))).toBe(true);
  });

  it('takes nothing from a manifest that is not newer, or is of other bytes', async () => {
    const other = manifest(2);
    other.chunks = other.chunks.map((chunk) => ({ ...chunk, checksum: `sha256:${'0'.repeat(64)}` }));
    for (const answer of [manifest(1), other]) {
      const shards = ['http://f:6', 'http://g:7', 'http://h:8'].map((url, index) => ({
        ...answer.chunks[0]!.fragments!.shards[index]!,
        node_url: url,
      }));
      answer.chunks[0]!.fragments!.shards = shards;
      const world = withDead();
      const session = new PlaybackSession(manifest(1), world, { ...options, newerManifest: async () => answer });
      await expect(session.load(0, never, () => {})).rejects.toBeInstanceOf(NoSource);
      await expect(session.load(0, never, () => {})).rejects.toBeInstanceOf(NoSource);
      expect(world.requests.some((url) => /^http:..[fgh]:/.test(url))).toBe(false);
    }
  });
});
