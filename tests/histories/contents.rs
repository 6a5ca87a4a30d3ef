//! The bytes that registers place, made from the register's name, whole and as shards.

use bytes::Bytes;
use vstack_chunkpaxos::Layout;
use vstack_types::{ChunkId, Digest, NodeRef};

/// Contents that a register's first version may get: callers that want different ones are rivals.
pub const CONTENTS: u8 = 3;

/// The bytes that a register may hold.
pub fn content(chunk: &ChunkId, which: u8) -> Bytes {
    let line = format!("{chunk} content {which}\n");
    Bytes::from(line.repeat(40))
}

/// The content of that digest, if one of the chunk's contents has it.
pub fn with_digest(chunk: &ChunkId, sha256: Digest) -> Option<Bytes> {
    let mut contents = (0..CONTENTS).map(|which| content(chunk, which));
    contents.find(|bytes| Digest::of(bytes) == sha256)
}

/// Two halves and their exclusive or: any two give the chunk. Contents have an
/// even length.
pub fn shards(bytes: &Bytes) -> Vec<Bytes> {
    let (first, second) = (bytes.slice(..bytes.len() / 2), bytes.slice(bytes.len() / 2..));
    let parity: Vec<u8> = first.iter().zip(&second).map(|(a, b)| a ^ b).collect();
    vec![first, second, parity.into()]
}

/// What each node of `layout` has to hold.
pub fn items(layout: &Layout, bytes: &Bytes) -> Vec<(NodeRef, Bytes)> {
    match layout {
        Layout::Coded { shards: placed, .. } => {
            let parts = placed.iter().zip(shards(bytes));
            parts.map(|(shard, bytes)| (shard.node, bytes)).collect()
        }
        Layout::Replicated { nodes } => nodes.iter().map(|node| (*node, bytes.clone())).collect(),
        Layout::Deleted { .. } => Vec::new(),
    }
}

/// Items of `layout` that the whole chunk can be made from.
pub fn items_needed(layout: &Layout) -> usize {
    match layout {
        Layout::Coded { data, .. } => usize::from(*data),
        Layout::Replicated { .. } | Layout::Deleted { .. } => 1,
    }
}
