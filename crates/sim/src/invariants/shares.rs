//! Nodes hold their shares, and chunks are in as many zones as they can be: of equal disks, and once everything is at rest.
//!
//! What is looked for is a copy that would be better on the emptiest other node. That follows from
//! what the planner promises, with some room, and says nothing of how it gets there.

use std::collections::{BTreeMap, BTreeSet};

use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{ChunkId, NodeRef};

use super::census::assigned;
use crate::calls::short;

/// Who has more or less than his share by one of so many parts of the mean is left alone.
const SLACK: u64 = 10;

/// A node that takes part.
#[derive(Debug)]
struct Holder {
    zone: String,
    bytes: u64,
}

/// The nodes that take part, and what is placed on them.
#[derive(Debug)]
pub(crate) struct Shares(BTreeMap<NodeRef, Holder>);

impl Shares {
    /// Of the nodes that have these zones.
    pub(crate) fn of<'a>(zones: BTreeMap<NodeRef, String>, placements: impl Iterator<Item = &'a Placement>) -> Self {
        let empty = |(node, zone)| (node, Holder { zone, bytes: 0 });
        let mut holders: BTreeMap<NodeRef, Holder> = zones.into_iter().map(empty).collect();
        for placement in placements {
            for (node, items) in assigned(placement) {
                let bytes = items.iter().map(|item| placement.item_size(*item)).sum::<u64>();
                if let Some(holder) = holders.get_mut(&node) {
                    holder.bytes += bytes;
                }
            }
        }
        Self(holders)
    }

    /// Zones that there are.
    pub(crate) fn zones(&self) -> usize {
        let zones = self.0.values().map(|holder| &holder.zone);
        zones.collect::<BTreeSet<_>>().len()
    }

    fn zones_of(&self, nodes: &[NodeRef]) -> usize {
        let holders = nodes.iter().filter_map(|node| self.0.get(node));
        holders.map(|holder| &holder.zone).collect::<BTreeSet<_>>().len()
    }

    /// Whether `chunk` is in as many zones as it can be, and its copies best stay where they are.
    ///
    /// # Errors
    /// What would be better.
    pub(crate) fn check(&self, chunk: &ChunkId, placement: &Placement) -> Result<(), String> {
        let Layout::Replicated { nodes: members } = &placement.layout else {
            return Ok(());
        };
        let (zones, could) = (self.zones_of(members), self.zones().min(members.len()));
        if zones < could {
            return Err(format!(
                "{}: it is in {zones} zones, and could be in {could}",
                short(chunk)
            ));
        }
        self.is_where_room_is(chunk, members, placement.size)
    }

    /// Whether each node with a copy of so many bytes, and the emptiest that could have it in its place, are as near to each
    /// other as this copy can bring them, or near enough.
    fn is_where_room_is(&self, chunk: &ChunkId, members: &[NodeRef], size: u64) -> Result<(), String> {
        let all: u64 = self.0.values().map(|holder| holder.bytes).sum();
        let mean = all / (self.0.len().max(1) as u64);
        let slack = mean / SLACK;
        for from in members {
            self.is_best_there(chunk, members, *from, (size, mean, slack))?;
        }
        Ok(())
    }

    fn is_best_there(
        &self,
        chunk: &ChunkId,
        members: &[NodeRef],
        from: NodeRef,
        (size, mean, slack): (u64, u64, u64),
    ) -> Result<(), String> {
        let Some(most) = self.0.get(&from).map(|holder| holder.bytes) else {
            return Ok(());
        };
        let may_take = |into: NodeRef| {
            let moved = members.iter().map(|node| if *node == from { into } else { *node });
            let moved: Vec<NodeRef> = moved.collect();
            !members.contains(&into) && self.zones_of(&moved) >= self.zones_of(members)
        };
        let others = self.0.iter().filter(|(node, _)| may_take(**node));
        let Some((least, into)) = others.map(|(node, holder)| (holder.bytes, *node)).min() else {
            return Ok(());
        };
        let is_off = most > mean + slack || least + slack < mean;
        if is_off && most > least + size {
            return Err(format!(
                "{}: {from} holds {most} bytes and {into} {least}, and this copy has {size}",
                short(chunk)
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::{Digest, NodeUuid, VideoId};

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn placed(number: u32, on: &[u8]) -> (ChunkId, Placement) {
        let placement = Placement {
            version: 1,
            size: 100,
            sha256: Digest::of(&number.to_le_bytes()),
            layout: Layout::Replicated {
                nodes: on.iter().map(|n| node(*n)).collect(),
            },
            prev: None,
            back: false,
        };
        (ChunkId::of_video(VideoId::from_bytes([9; 16]), number), placement)
    }

    /// Whether all of these chunks are where they should be, on nodes from 1 on that are in these zones.
    fn is_well(zones: &[&str], chunks: &[&[u8]]) -> bool {
        let zones = (1..).zip(zones).map(|(n, zone)| (node(n), (*zone).to_owned()));
        let placed: Vec<_> = (0..).zip(chunks).map(|(number, on)| placed(number, on)).collect();
        let shares = Shares::of(zones.collect(), placed.iter().map(|(_, placement)| placement));
        placed
            .iter()
            .all(|(chunk, placement)| shares.check(chunk, placement).is_ok())
    }

    #[test]
    fn a_copy_that_would_be_better_elsewhere_is_found() {
        let nowhere = ["", "", ""];
        assert!(is_well(&nowhere, &[]));
        assert!(is_well(&nowhere, &[&[1, 2, 3]]));
        assert!(
            is_well(&nowhere, &[&[1, 2]]),
            "one copy more or less is as near as can be"
        );
        assert!(!is_well(&nowhere, &[&[1, 2], &[1, 2]]));
        assert!(is_well(&nowhere, &[&[1, 2], &[2, 3], &[3, 1]]));
        let zoned = ["a", "a", "b"];
        assert!(!is_well(&zoned, &[&[1, 2]]));
        assert!(is_well(&zoned, &[&[1, 3]]));
        let twice = ["a", "a", "b", "b"];
        assert!(
            !is_well(&twice, &[&[1, 3], &[1, 3]]),
            "one goes to the other node of its zone"
        );
        assert!(is_well(&twice, &[&[1, 3], &[2, 4]]));
        assert!(
            is_well(&["a", "b", "b"], &[&[1, 2], &[1, 3]]),
            "the only one of its zone has a copy of each"
        );
    }
}
