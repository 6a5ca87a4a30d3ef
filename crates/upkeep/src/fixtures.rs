//! Names and layouts that tests of several modules share.

use vstack_chunkpaxos::{Layout, Shard};
use vstack_types::{Digest, NodeRef, NodeUuid, VideoId};

pub(crate) fn video(n: u8) -> VideoId {
    VideoId::from_bytes([n; 16])
}

pub(crate) fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

/// A copy on each of three nodes.
pub(crate) fn copies() -> Layout {
    Layout::Replicated {
        nodes: [1, 2, 3].map(node).to_vec(),
    }
}

/// A shard on each of five nodes, of which any three give the chunk.
pub(crate) fn shards() -> Layout {
    let shard = |index: u8| Shard {
        index,
        node: node(index + 1),
        sha256: Digest::of(&[index]),
    };
    Layout::Coded {
        data: 3,
        parity: 2,
        shards: (0..5).map(shard).collect(),
    }
}
