//! What `POST /paxos/{id}/make` says: has a node gather a chunk from where it is, and store items made of it.

use serde::{Deserialize, Serialize};
use vstack_chunkpaxos::{Placement, Shard};
use vstack_types::{Digest, NodeRef};

use crate::{node::Holder, propose::NodeUrls};

/// A chunk, where it can be had, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Make {
    /// Of the chunk.
    pub sha256: Digest,
    /// Bytes of the chunk.
    pub size: u64,
    /// Who may have all of it, to be tried in this order, before shards: itself first where it is named. Where only shards
    /// are named, it is made of those.
    pub whole: Vec<Holder>,
    /// Where shards of it are.
    pub shards: Option<ShardsAt>,
    /// Made in this order. With nothing wanted, whether the chunk can be had at all is found out.
    pub want: Vec<Want>,
}

impl Make {
    /// Has `to` make an item that a placement assigns to it of what else the placement says there is. None where the chunk is
    /// in copies alone, and nothing is to be made.
    pub fn of(placement: &Placement, urls: &NodeUrls, to: NodeRef, item: Digest) -> Option<Self> {
        let sources = placement.sources();
        let set = sources.shards?;
        let located = |shard: &Shard| {
            Some(ShardAt {
                index: shard.index,
                sha256: shard.sha256,
                at: urls.holder(shard.node)?,
            })
        };
        let others = set.of.iter().filter(|shard| (shard.node, shard.sha256) != (to, item));
        let want = placement
            .shard_at(to, item)
            .map_or(Want::Chunk, |(data, parity, index)| Want::Shard { data, parity, index });
        let whole = sources
            .whole
            .into_iter()
            .filter(|node| want != Want::Chunk || *node != to);
        Some(Self {
            sha256: placement.sha256,
            size: placement.size,
            whole: whole.filter_map(|node| urls.holder(node)).collect(),
            shards: Some(ShardsAt {
                data: set.data,
                parity: set.parity,
                of: others.filter_map(located).collect(),
            }),
            want: vec![want],
        })
    }
}

/// Where the shards of a chunk are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardsAt {
    /// Shards that are needed.
    pub data: u8,
    /// Shards beyond those.
    pub parity: u8,
    /// To be tried in this order.
    pub of: Vec<ShardAt>,
}

/// A shard, and who should have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardAt {
    /// Its place in the code.
    pub index: u8,
    /// Of its own bytes.
    pub sha256: Digest,
    /// Where.
    pub at: Holder,
}

/// An item to be made of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// All of it.
    Chunk,
    /// A shard.
    Shard {
        /// Data shards of its code.
        data: u8,
        /// Parity shards of its code.
        parity: u8,
        /// Its place in the code.
        index: u8,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Digests of what was made and is stored now, in the order in which it was wanted.
    pub items: Vec<Digest>,
}
