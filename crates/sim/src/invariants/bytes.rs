//! Bytes that the current decision names are never deleted from a node that vouched for them.

use vstack_chunkpaxos::Placement;
use vstack_types::{ChunkId, Digest, NodeRef};

use super::register::Seen;
use crate::disks::READABLE;
use crate::{calls::short, hosts::RunningNode};

/// Whether `node` vouched for `item` since it was last free to let it go.
pub(super) fn vouched(seen: &Seen, node: NodeRef, item: Digest) -> bool {
    let keeps = |placement: &&Placement| placement.keeps(node, item);
    let mut unbroken = seen.chain.values().rev().take_while(keeps);
    unbroken.any(|placement| placement.items_of(&placement.layout, node).contains(&item) && seen.voted(node, placement))
}

/// Whether `node` has what the last decision of `chunk` assigns to it, as far as it vouched for it.
pub(crate) fn check(chunk: &ChunkId, seen: &Seen, node: &RunningNode) -> Result<(), String> {
    let Some(current) = seen.current() else {
        return Ok(());
    };
    for layout in std::iter::once(&current.layout).chain(&current.prev) {
        for item in current.items_of(layout, node.me) {
            if vouched(seen, node.me, item) && !node.reader.has_item(chunk, item).expect(READABLE) {
                return Err(format!(
                    "{}: {} vouched for item {item} of {current:?} and does not have it",
                    short(chunk),
                    node.me
                ));
            }
        }
    }
    Ok(())
}
