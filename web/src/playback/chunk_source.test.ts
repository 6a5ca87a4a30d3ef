import { describe, expect, it } from 'vitest';
import { ChunkSource, NoSource } from './chunk_source';
import { NodeBook } from './node_book';
import { located, nodesOf } from './places';
import {
  type Behaviour,
  CODED,
  codedEntry,
  FIVE,
  madeAt,
  NODES,
  other,
  shardAt,
  type ShardsAt,
  World,
} from './testing';

const ID = 'v-chunk-000';
const DEAD: Behaviour = { kind: 'unreachable' };
const WHOLE: Behaviour = { kind: 'bytes', bytes: CODED.bytes };
const options = { signal: new AbortController().signal, explore: () => 'unmeasured' as const };

const isShard = (url: string) => url.includes('-frag-');
const isGateway = (url: string) => url.startsWith('/gateway');
const isReplica = (url: string) => !isShard(url) && !isGateway(url);

/** A chunk that changes its form: whole at `replicas`, and a shard at each of five other nodes. */
function setUp(replicas: string[], answer: (url: string) => Behaviour | undefined = () => undefined) {
  const world = new World((url) => answer(url) ?? shardAt(url) ?? WHOLE);
  const entry = { ...codedEntry(ID), replicas, replica_ids: replicas };
  const book = new NodeBook(() => world.chance());
  for (const { url, id } of nodesOf(entry)) book.meet(url, id);
  const rounds: string[] = [];
  const source = new ChunkSource(world, book, (id) => `/gateway/v/${id}`, {
    roundOver: (chunk) => void rounds.push(chunk.id),
  });
  return { world, book, source, chunk: located(entry), rounds };
}

const COPIES = ['http://x:7', 'http://y:8'];

describe('a chunk that changes its form', () => {
  it('comes whole while it can', async () => {
    const { world, source, chunk } = setUp(COPIES, (url) => (url.startsWith(COPIES[0]!) ? DEAD : undefined));
    const fetched = await source.fetch(chunk, options);
    expect(fetched.bytes).toEqual(CODED.bytes);
    expect(fetched).toMatchObject({ origins: [{ node: COPIES[1] }], failures: 1 });
    expect(world.requests.every(isReplica)).toBe(true);
  });

  it('comes in shards when every replica fails, which is not yet the end of the round', async () => {
    const { world, source, chunk, rounds } = setUp(COPIES, (url) => (isReplica(url) ? DEAD : undefined));
    const fetched = await source.fetch(chunk, options);
    expect(fetched.bytes).toEqual(CODED.bytes);
    expect(fetched).toMatchObject({ origins: NODES.map((node) => ({ node })), failures: 2 });
    expect(world.requests.map(isReplica)).toEqual([true, true, false, false, false]);
    expect(rounds).toEqual([]);
  });

  it('comes in shards when every replica is to be left alone', async () => {
    const { world, book, source, chunk } = setUp(COPIES);
    for (const url of COPIES) book.pingFailed(url, 0);
    expect((await source.fetch(chunk, options)).bytes).toEqual(CODED.bytes);
    expect(world.requests.every(isShard)).toBe(true);
  });

  it('comes from replicas that were to be left alone when its shards do not give it', async () => {
    const wrong: ShardsAt = FIVE.map((url, index) => [index, url, other(CODED.shards[index]!)] as const);
    const world = new World((url) => (isGateway(url) ? DEAD : (madeAt(wrong)(url) ?? WHOLE)));
    const book = new NodeBook(() => world.chance());
    const entry = { ...codedEntry(ID, wrong), replicas: COPIES, replica_ids: COPIES };
    for (const { url, id } of nodesOf(entry)) book.meet(url, id);
    for (const url of COPIES) book.pingFailed(url, 0);
    const source = new ChunkSource(world, book, (id) => `/gateway/v/${id}`);
    const fetched = await source.fetch(located(entry), options);
    expect(fetched.bytes).toEqual(CODED.bytes);
    expect(fetched.origins).toEqual([{ node: COPIES[0] }]);
    expect(world.requests.filter(isShard).length, 'each once').toBe(5);
  });

  it('comes in shards alone when there are no replicas', async () => {
    const { world, source, chunk, rounds } = setUp([]);
    expect((await source.fetch(chunk, options)).failures).toBe(0);
    expect(world.requests.every(isShard)).toBe(true);
    expect(rounds).toEqual([]);
  });

  it('comes through the gateway when too few shards can be had as well, and a newer manifest is due', async () => {
    const { world, source, chunk, rounds } = setUp(COPIES, (url) => (isGateway(url) ? undefined : DEAD));
    const fetched = await source.fetch(chunk, options);
    expect(fetched.bytes).toEqual(CODED.bytes);
    expect(fetched.origins).toEqual(['gateway']);
    expect(world.requests.filter(isGateway).length).toBe(1);
    expect(rounds).toEqual([ID]);
  });

  it('comes from nodes that were to be left alone when not even the gateway gives it', async () => {
    for (const replicas of [COPIES, []]) {
      const { world, book, source, chunk } = setUp(replicas, (url) => (isGateway(url) ? DEAD : undefined));
      for (const url of book.urls()) book.pingFailed(url, 0);
      const fetched = await source.fetch(chunk, options);
      expect(fetched.bytes).toEqual(CODED.bytes);
      expect(isGateway(world.requests[0]!)).toBe(true);
      expect(world.requests.slice(1).every(replicas.length > 0 ? isReplica : isShard)).toBe(true);
    }
  });

  it('cannot be had when nobody gives it', async () => {
    const { world, source, chunk, rounds } = setUp(COPIES, () => DEAD);
    await expect(source.fetch(chunk, options)).rejects.toBeInstanceOf(NoSource);
    expect(rounds).toEqual([ID]);
    expect(new Set(world.requests).size, 'nothing was asked for twice').toBe(world.requests.length);
  });
});
