//! What became of the form of chunks in a history, read off what was decided about each: a move counts once it is settled,
//! whoever began it.

use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_types::Digest;

use crate::{struck::Kind, world::World};

/// Counts all of it, at the end of a history.
pub(crate) fn count(world: &World) {
    let (ledger, observer) = (world.ledger(), world.observer());
    for seen in observer.registers.values() {
        let moves = seen.chain.values().zip(seen.chain.values().skip(1));
        let kinds = moves.filter_map(|(joint, settled)| kind(joint, settled, |shard| ledger.is_forged(shard)));
        kinds.for_each(|kind| world.tally.strikes(kind));
    }
}

/// What `settled` ends, when that changed the form of a chunk, or put a shard right that was none of it.
fn kind(joint: &Placement, settled: &Placement, is_forged: impl Fn(Digest) -> bool) -> Option<Kind> {
    let is_end = settled.version == joint.version + 1 && settled.prev.is_none() && settled.layout == joint.layout;
    let from = joint.prev.as_ref().filter(|_| is_end && !joint.back)?;
    match (from, &settled.layout) {
        (Layout::Replicated { .. }, Layout::Coded { .. }) => Some(Kind::ChunkEncoded),
        (Layout::Coded { .. }, Layout::Replicated { .. }) => Some(Kind::ChunkDecoded),
        (Layout::Deleted { .. }, Layout::Coded { .. }) => Some(Kind::StoredAsShards),
        (Layout::Coded { shards: before, .. }, Layout::Coded { shards: after, .. }) => {
            let is_right_now = |(was, is): (&Shard, &Shard)| is_forged(was.sha256) && !is_forged(is.sha256);
            let any = before.iter().zip(after).any(is_right_now);
            any.then_some(Kind::ShardCorrected)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::{NodeRef, NodeUuid};

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn copies() -> Layout {
        Layout::Replicated {
            nodes: [1, 2, 3].map(node).to_vec(),
        }
    }

    /// With these bytes in the place of the last shard.
    fn shards(last: &[u8]) -> Layout {
        let shard = |(index, bytes): (u8, &[u8])| Shard {
            index,
            node: node(index),
            sha256: Digest::of(bytes),
        };
        Layout::Coded {
            data: 2,
            parity: 1,
            shards: (0..).zip([&b"a"[..], &b"b"[..], last]).map(shard).collect(),
        }
    }

    fn ended(from: Layout, to: Layout, back: bool) -> Option<Kind> {
        let joint = Placement {
            version: 2,
            size: 4,
            sha256: Digest::of(b"chunk"),
            layout: to,
            prev: Some(from),
            back,
        };
        let settled = Placement {
            version: 3,
            prev: None,
            back: false,
            ..joint.clone()
        };
        let count = |settled: &Placement| kind(&joint, settled, |sha256| sha256 == Digest::of(b"forged"));
        let gone = Placement {
            layout: Layout::Deleted {
                nodes: settled.layout.nodes(),
            },
            ..settled.clone()
        };
        assert_eq!(count(&gone), None, "a deletion ends no move");
        assert_eq!(count(&joint), None, "it goes on");
        count(&settled)
    }

    #[test]
    fn a_move_counts_as_what_it_came_to() {
        let right = || shards(b"c");
        assert_eq!(ended(copies(), right(), false), Some(Kind::ChunkEncoded));
        assert_eq!(ended(right(), copies(), false), Some(Kind::ChunkDecoded));
        assert_eq!(ended(right(), copies(), true), None, "it turned back");
        assert_eq!(ended(Layout::nothing(), right(), false), Some(Kind::StoredAsShards));
        assert_eq!(ended(shards(b"forged"), right(), false), Some(Kind::ShardCorrected));
        assert_eq!(ended(right(), shards(b"forged"), false), None);
        assert_eq!(ended(right(), right(), false), None, "only moved");
        assert_eq!(ended(copies(), copies(), false), None);
    }
}
