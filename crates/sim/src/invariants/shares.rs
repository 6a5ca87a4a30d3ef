//! Nodes hold their shares, and chunks are in as many zones as they can be: of equal disks, and once everything is at rest.
//!
//! What is looked for is a copy or a shard that would be better on the emptiest other node. That follows from
//! what the planner promises, with some room, and says nothing of how it gets there. Of shards no node has more than there
//! are nodes for, so where there are as many nodes each has one of its own; and no zone has two more than another.
//!
//! Shards may lie anyhow where no node can be done without: a move to there could not be ended.

use std::collections::{BTreeMap, BTreeSet};

use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{ChunkId, NodeRef};

use super::census::{assigned, even, survives};
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

    /// Whether `chunk` is in as many zones as it can be, and its copies, or its shards, best stay where they are.
    ///
    /// # Errors
    /// What would be better.
    pub(crate) fn check(&self, chunk: &ChunkId, placement: &Placement) -> Result<(), String> {
        match &placement.layout {
            Layout::Replicated { nodes } => self.check_copies(chunk, nodes, placement.size),
            Layout::Coded { data, shards, .. } => {
                let places = shards.iter().map(|shard| shard.node).collect();
                let shards = Shards {
                    places,
                    data: usize::from(*data),
                };
                self.check_shards(chunk, &shards, placement.size)
            }
            Layout::Deleted { .. } => Ok(()),
        }
    }

    fn check_copies(&self, chunk: &ChunkId, members: &[NodeRef], size: u64) -> Result<(), String> {
        let (zones, could) = (self.zones_of(members), self.zones().min(members.len()));
        if zones < could {
            return Err(format!(
                "{}: it is in {zones} zones, and could be in {could}",
                short(chunk)
            ));
        }
        for from in members {
            let may_take = |into: NodeRef| {
                let moved = members.iter().map(|node| if node == from { into } else { *node });
                let moved: Vec<NodeRef> = moved.collect();
                !members.contains(&into) && self.zones_of(&moved) >= self.zones_of(members)
            };
            self.is_where_room_is(chunk, *from, size, may_take)?;
        }
        Ok(())
    }

    fn check_shards(&self, chunk: &ChunkId, shards: &Shards, size: u64) -> Result<(), String> {
        let best = survives(shards.data, &even(shards.places.len(), self.0.len()));
        if best.is_none_or(|survived| survived == 0) {
            return Ok(());
        }
        let most = shards.places.len().div_ceil(self.0.len().max(1));
        let held: BTreeMap<NodeRef, usize> = shards.places.iter().map(|node| (*node, shards.on(*node))).collect();
        if let Some((node, on)) = held.iter().find(|(_, on)| **on > most) {
            return Err(format!(
                "{}: {node} has {on} of its shards, and none has to have more than {most}",
                short(chunk)
            ));
        }
        let of_nodes: Vec<usize> = held.values().copied().collect();
        if survives(shards.data, &of_nodes) < best {
            return Err(format!(
                "{}: {of_nodes:?} of its shards are on its nodes, and it could survive {best:?}",
                short(chunk)
            ));
        }
        for from in held.keys() {
            // With one more it has no more than the other had.
            let has_fewer = |into: NodeRef| shards.on(into) < shards.on(*from);
            let mut others = self.0.keys().filter(|into| has_fewer(**into));
            if let Some(into) = others.find(|into| self.is_in_a_better_zone(shards, *from, **into)) {
                return Err(format!(
                    "{}: a shard would be better on {into} than on {from}, for the sake of zones",
                    short(chunk)
                ));
            }
            let may_take = |into: NodeRef| has_fewer(into) && self.is_in_no_worse_zone(shards, *from, into);
            let bytes = size.div_ceil(shards.data.max(1) as u64);
            self.is_where_room_is(chunk, *from, bytes, may_take)?;
        }
        Ok(())
    }

    fn zone(&self, node: NodeRef) -> Option<&str> {
        self.0.get(&node).map(|holder| holder.zone.as_str())
    }

    fn in_zone_of(&self, shards: &Shards, node: NodeRef) -> usize {
        let zones = shards.places.iter().map(|place| self.zone(*place));
        zones.filter(|zone| *zone == self.zone(node)).count()
    }

    /// Whether a shard would leave a zone for one with so many fewer that neither has as many after as that one had.
    fn is_in_a_better_zone(&self, shards: &Shards, from: NodeRef, into: NodeRef) -> bool {
        let (more, fewer) = (self.in_zone_of(shards, from), self.in_zone_of(shards, into));
        self.is_in_no_worse_zone(shards, from, into) && fewer + 1 < more
    }

    /// Whether a shard stays in its zone, or leaves it for one with fewer; and there are no more zones after that none can
    /// do without.
    fn is_in_no_worse_zone(&self, shards: &Shards, from: NodeRef, into: NodeRef) -> bool {
        if self.zone(from) == self.zone(into) {
            return true;
        }
        let (more, fewer) = (self.in_zone_of(shards, from), self.in_zone_of(shards, into));
        let spare = shards.places.len().saturating_sub(shards.data);
        let needed = |zones: [usize; 2]| zones.into_iter().filter(|shards| *shards > spare).count();
        fewer < more && needed([more - 1, fewer + 1]) <= needed([more, fewer])
    }

    /// Whether `from`, which has an item of so many bytes, and the emptiest that could have it in its place are as near to
    /// each other as this item can bring them, or near enough.
    fn is_where_room_is(
        &self,
        chunk: &ChunkId,
        from: NodeRef,
        size: u64,
        may_take: impl Fn(NodeRef) -> bool,
    ) -> Result<(), String> {
        let all: u64 = self.0.values().map(|holder| holder.bytes).sum();
        let mean = all / (self.0.len().max(1) as u64);
        let slack = mean / SLACK;
        let Some(most) = self.0.get(&from).map(|holder| holder.bytes) else {
            return Ok(());
        };
        let others = self.0.iter().filter(|(node, _)| may_take(**node));
        let Some((least, into)) = others.map(|(node, holder)| (holder.bytes, *node)).min() else {
            return Ok(());
        };
        let is_off = most > mean + slack || least + slack < mean;
        if is_off && most > least + size {
            return Err(format!(
                "{}: {from} holds {most} bytes and {into} {least}, and what it has of this is {size}",
                short(chunk)
            ));
        }
        Ok(())
    }
}

/// Where the shards of a chunk are, each by itself, and how many of them give it.
struct Shards {
    places: Vec<NodeRef>,
    data: usize,
}

impl Shards {
    fn on(&self, node: NodeRef) -> usize {
        self.places.iter().filter(|place| **place == node).count()
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Shard;
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

    /// A chunk of which so many shards are needed, with a shard on each of these.
    fn coded(number: u32, data: u8, on: &[u8]) -> (ChunkId, Placement) {
        let (chunk, placement) = placed(number, on);
        let shard = |(index, n): (u8, &u8)| Shard {
            index,
            node: node(*n),
            sha256: Digest::of(&[index]),
        };
        let shards: Vec<Shard> = (0..).zip(on).map(shard).collect();
        let layout = Layout::Coded {
            data,
            parity: u8::try_from(shards.len()).unwrap() - data,
            shards,
        };
        (chunk, Placement { layout, ..placement })
    }

    /// Whether the shards of one chunk, of which so many are needed, are where they should be, on nodes in these zones.
    fn are_well(zones: &[&str], data: u8, on: &[u8]) -> Result<(), String> {
        let zones = (1..).zip(zones).map(|(n, zone)| (node(n), (*zone).to_owned()));
        let (chunk, placement) = coded(0, data, on);
        Shares::of(zones.collect(), std::iter::once(&placement)).check(&chunk, &placement)
    }

    #[test]
    fn shards_are_on_nodes_of_their_own_where_there_are_as_many() {
        let nowhere = |nodes: usize| vec![""; nodes];
        assert_eq!(are_well(&nowhere(5), 3, &[1, 2, 3, 4, 5]), Ok(()));
        assert!(are_well(&nowhere(5), 3, &[1, 1, 2, 3, 4]).is_err());
        assert_eq!(are_well(&nowhere(3), 3, &[1, 1, 2, 2, 3]), Ok(()));
        assert!(are_well(&nowhere(3), 3, &[1, 1, 1, 2, 3]).is_err());
        assert_eq!(
            are_well(&nowhere(2), 3, &[1, 1, 1, 1, 2]),
            Ok(()),
            "nothing could be ended there"
        );
        assert!(
            are_well(&nowhere(5), 3, &[1, 1, 2, 2, 3, 3]).is_err(),
            "two losses could be survived"
        );
    }

    #[test]
    fn shards_are_as_even_over_zones_as_can_be() {
        let six = ["a", "a", "a", "a", "b", "c"];
        assert!(are_well(&six, 3, &[1, 2, 3, 4, 5]).is_err());
        assert_eq!(
            are_well(&six, 3, &[1, 2, 3, 5, 6]),
            Ok(()),
            "two of three are all there are"
        );
        let twice = ["a", "a", "a", "b", "b", "b"];
        assert_eq!(are_well(&twice, 3, &[1, 2, 3, 4, 5]), Ok(()));
        // Of 4+2 shards the loss of one zone takes two, and of three and three either takes too many.
        let halves = ["a", "a", "a", "a", "b", "b", "b"];
        assert_eq!(are_well(&halves, 4, &[1, 2, 3, 4, 5, 6]), Ok(()));
    }

    #[test]
    fn a_shard_that_would_be_better_elsewhere_is_found() {
        let zones = (1..=6).map(|n| (node(n), String::new())).collect();
        let all = [coded(0, 3, &[1, 2, 3, 4, 5]), coded(1, 3, &[1, 2, 3, 4, 5])];
        let shares = Shares::of(zones, all.iter().map(|(_, placement)| placement));
        let (chunk, placement) = &all[0];
        assert!(
            shares.check(chunk, placement).is_err(),
            "one of them goes to the sixth node"
        );
    }
}
