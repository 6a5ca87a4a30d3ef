/**
 * Where a chunk can be had, as the manifest says: whole from replicas, in shards, or, while it changes its form, both.
 */
import type { Fragments, Manifest, ManifestChunk, ManifestInit } from '../api/types';
import type { Expected } from './transfer';

/** A shard at a node. */
export interface ShardPlace extends Expected {
  /** Place in the code, from 0. */
  index: number;
  node: string;
}

/** How a chunk is kept as shards. */
export interface Coded {
  /** So many shards with different indexes give the chunk; those with the first indexes without decoding. */
  dataShards: number;
  parityShards: number;
  /** Of each shard. */
  shardBytes: number;
  /** One may be at two nodes; and of one index there may be two, while one that is wrong is being replaced. */
  shards: readonly ShardPlace[];
}

export interface Places {
  /** URLs of the nodes that hold all of it. */
  replicas: readonly string[];
  coded: Coded | null;
}

/** A chunk or an init segment, and who has it. */
export interface Located extends Expected {
  /** Another, once a newer manifest says so. */
  places: Places;
}

/** A node of a manifest. */
export interface NamedNode {
  url: string;
  id: string;
}

/** What a manifest says of a chunk or of the init segment, which is never kept as shards. */
type Entry = ManifestInit & Pick<ManifestChunk, 'fragments'>;

const bare = (url: string) => url.replace(/\/+$/, '');

/** The manifest's `sha256:<hex>`, without the name. */
const digestOf = (checksum: string) => checksum.replace(/^sha256:/, '').toLowerCase();

function codedOf({ data_shards, parity_shards, size_bytes, shards }: Fragments): Coded {
  return {
    dataShards: data_shards,
    parityShards: parity_shards,
    shardBytes: size_bytes,
    shards: shards.map((shard) => ({
      id: shard.fragment_id,
      sizeBytes: size_bytes,
      sha256: digestOf(shard.checksum),
      index: shard.fragment_index,
      node: bare(shard.node_url),
    })),
  };
}

export function located(entry: Entry): Located {
  return {
    id: entry.chunk_id,
    sizeBytes: entry.size_bytes,
    sha256: digestOf(entry.checksum),
    places: {
      replicas: entry.replicas.map(bare),
      coded: entry.fragments ? codedOf(entry.fragments) : null,
    },
  };
}

/** Every node that holds the chunk or a shard of it. */
export function nodesOf(entry: Entry): NamedNode[] {
  const whole = entry.replicas.map((url, at) => ({ url: bare(url), id: entry.replica_ids[at] ?? url }));
  const parts = entry.fragments?.shards ?? [];
  return [...whole, ...parts.map((shard) => ({ url: bare(shard.node_url), id: shard.node_id }))];
}

/** Everything a manifest names, the init segment first. */
export function entriesOf({ init, chunks }: Manifest): Entry[] {
  return init ? [init, ...chunks] : chunks;
}
