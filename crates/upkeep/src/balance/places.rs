//! Where the items of one chunk are, and how it stands the loss of zones once one of them is elsewhere.

use std::cmp::Ordering;

use vstack_placement::losses_survived;
use vstack_types::NodeRef;

use crate::standing::Form;

/// A zone, by its number.
pub(super) type Zone = usize;

/// Where an item of a chunk is, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: NodeRef,
    /// None of a node that is not known any more.
    pub(super) zone: Option<Zone>,
}

/// Where the items of a chunk are, each by itself.
pub(super) struct Places {
    pub(super) items: Vec<Place>,
    pub(super) form: Form,
}

impl Places {
    /// Items of it on a disk, whichever of its lives.
    pub(super) fn on(&self, node: NodeRef) -> usize {
        self.items.iter().filter(|place| place.node.uuid == node.uuid).count()
    }

    pub(super) fn in_zone(&self, zone: Option<Zone>) -> usize {
        self.items.iter().filter(|place| place.zone == zone).count()
    }

    /// Whether it may be moved, and the move be ended: shards cannot be settled where the loss of one node is too much.
    pub(super) fn may_be_left(&self) -> bool {
        let nodes = || self.items.iter().map(|place| place.node).collect::<Vec<NodeRef>>();
        self.form == Form::Replicated || losses_survived(&nodes(), self.form.needed()) > 0
    }

    /// Whether `taker` has fewer items than `giver`, so that with one more it has no more than that had, and no fewer losses
    /// of nodes are survived. Of copies no node has two.
    pub(super) fn has_fewer(&self, taker: Place, giver: Place) -> bool {
        self.on(taker.node) < self.on(giver.node)
    }

    /// How the chunk stands the loss of zones once `taker` has one of the items of `giver`, beside how it does now: better is
    /// greater.
    ///
    /// Copies stand it better in more zones. Shards do when the zone with more of them gives one to a zone with fewer, and
    /// has no fewer than that after: so the fullest zones, however many, never have more together, and as many losses of
    /// zones are survived. Nor are there more zones of which one is too much to lose: 4+2 shards that are four and two are
    /// not made three and three.
    pub(super) fn of_zones(&self, giver: Place, taker: Place) -> Ordering {
        if giver.zone == taker.zone {
            return Ordering::Equal;
        }
        let (more, fewer) = (self.in_zone(giver.zone), self.in_zone(taker.zone));
        match self.form {
            Form::Replicated => {
                let (is_won, is_given_up) = (fewer == 0, giver.zone.is_some() && more == 1);
                is_won.cmp(&is_given_up)
            }
            Form::Coded { .. } => {
                if fewer >= more {
                    return Ordering::Less;
                }
                let spare = self.items.len().saturating_sub(self.form.needed());
                let too_much = |zones: [usize; 2]| zones.iter().filter(|shards| **shards > spare).count();
                if too_much([more - 1, fewer + 1]) > too_much([more, fewer]) {
                    return Ordering::Less;
                }
                more.cmp(&(fewer + 1))
            }
        }
    }

    /// The nodes of all items, with `taker` in the place of `giver`, of whose items only the first goes.
    pub(super) fn exchanged(&self, giver: Place, taker: Place) -> Vec<NodeRef> {
        let mut nodes: Vec<NodeRef> = self.items.iter().map(|place| place.node).collect();
        if let Some(first) = nodes.iter_mut().find(|node| **node == giver.node) {
            *first = taker.node;
        }
        nodes
    }
}
