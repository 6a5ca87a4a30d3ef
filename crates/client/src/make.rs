//! What `POST /paxos/{id}/make` says: has a node gather a chunk from where it is, and store items made of it.

use serde::{Deserialize, Serialize};
use vstack_types::Digest;

use crate::node::Holder;

/// A chunk, where it can be had, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Make {
    /// Of the chunk.
    pub sha256: Digest,
    /// Bytes of the chunk.
    pub size: u64,
    /// Who may have all of it, to be tried in this order, before shards.
    pub whole: Vec<Holder>,
    /// Where shards of it are.
    pub shards: Option<ShardsAt>,
    /// Made in this order. With nothing wanted, whether the chunk can be had at all is found out.
    pub want: Vec<Want>,
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
