import { expect, it } from 'vitest';
import { entriesOf, located, nodesOf } from './places';
import { CODED, codedEntry, makeManifest, sha256Hex } from './testing';

const [DATA] = CODED.shards as [Uint8Array];
const digest = sha256Hex(DATA);

it('reads where a chunk is from the manifest', () => {
  const entry = codedEntry('v-chunk-000', [[0, 'http://a:1/']]);
  const { places, ...expected } = located({ ...entry, replicas: ['http://x:7/', 'http://y:8'] });
  expect(expected).toEqual({ id: 'v-chunk-000', sizeBytes: 100, sha256: sha256Hex(CODED.bytes) });
  expect(places.replicas).toEqual(['http://x:7', 'http://y:8']);
  expect(places.coded).toEqual({
    dataShards: 3,
    parityShards: 2,
    shardBytes: 34,
    shards: [{ id: 'v-chunk-000-frag-0', sizeBytes: 34, sha256: digest, index: 0, node: 'http://a:1' }],
  });
});

it('knows a chunk without shards', () => {
  expect(located(makeManifest([1]).chunks[0]!).places.coded).toBeNull();
});

it('names every node', () => {
  const coded = codedEntry('v-chunk-000', [[0, 'http://a:1/']]);
  expect(nodesOf({ ...coded, replicas: ['http://x:7/'], replica_ids: ['node-x'] })).toEqual([
    { url: 'http://x:7', id: 'node-x' },
    { url: 'http://a:1', id: 'node-a' },
  ]);
  const manifest = makeManifest([1, 1]);
  expect(entriesOf(manifest).map(({ chunk_id }) => chunk_id)).toEqual(['v-init', 'v-chunk-000', 'v-chunk-001']);
  expect(entriesOf({ ...manifest, init: null }).length).toBe(2);
});
