//! A film as it was counted, for tests of several modules.

use vstack_api::holdings::{HeldItem, HeldRegister, Holdings, Wanted, tag_of};
use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{ChunkId, Digest, FingerprintKey, NodeRef, NodeUuid, VideoId};
use vstack_upkeep::census::{Census, Part};

/// Whose chunks they are.
pub(super) const VIDEO: VideoId = VideoId::from_bytes([3; 16]);

const KEY: FingerprintKey = FingerprintKey::from_bytes([1; 16]);

pub(super) fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

/// A copy on each of three nodes.
pub(super) fn copies() -> Layout {
    Layout::Replicated {
        nodes: [1, 2, 3].map(node).to_vec(),
    }
}

/// Where a chunk is, of which this is the digest.
pub(super) fn placed(sha256: Digest, layout: Layout) -> Placement {
    Placement {
        version: 1,
        size: 300_000,
        sha256,
        layout,
        prev: None,
        back: false,
    }
}

/// What node `n` holds of these chunks: of each what is placed there, if it is one of those that have it.
fn held(placements: &[(Placement, &[u8])], n: u8) -> Holdings {
    let mut held = Holdings::default();
    for (sequence, (placement, there)) in (0..).zip(placements) {
        let fingerprint = KEY.of(&ChunkId::of_video(VIDEO, sequence));
        if !placement.names(node(n)) {
            continue;
        }
        let brief = placement.brief();
        held.registers.push(HeldRegister { fingerprint, brief });
        let items = placement.items_of(&placement.layout, node(n));
        let items = items.into_iter().filter(|_| there.contains(&n));
        held.items.extend(items.map(|item| HeldItem {
            fingerprint,
            tag: tag_of(item),
            damaged: false,
            wanted: Wanted::Placed,
        }));
    }
    held.sort();
    held
}

/// A film with these chunks, one after the other, as the first so many nodes told of it. Of each those are named that have
/// their part.
pub(super) fn counted(placements: &[(Placement, &[u8])], nodes: u8) -> Census {
    let mut census = Census::default();
    for (sequence, (placement, _)) in (0..).zip(placements) {
        let id = ChunkId::of_video(VIDEO, sequence);
        census.learn(VIDEO, Part::Chunk(sequence), &id, placement, 0);
    }
    for n in 1..=nodes {
        census.count(node(n), &held(placements, n), KEY, 0);
    }
    census
}
