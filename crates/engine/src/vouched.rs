//! What a vote vouches for is read back before the writer comes to the vote: the disk may take its time for two
//! megabytes, and everybody else who writes would wait for them.
//!
//! It is the writer that decides, by what is known of the items then. What is read here and found well it need not read
//! again; what is found to be otherwise it finds out itself.

use vstack_chunkpaxos::{Placement, Register, Request};
use vstack_types::{ChunkId, Digest, Monotonic, NodeRef};

use crate::{disk::Disk, index::Entry, reader::Reader};

/// Items that a message to an acceptor is about: of each it has to be known whether it is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vouched {
    pub items: Vec<Digest>,
    /// That their bytes were sound when they came does not do: the disk has to give them back. A promise or a vote about a
    /// joint lets old copies go.
    pub anew: bool,
}

impl Vouched {
    /// Of `request` to `me`, whose register is as given.
    pub(crate) fn of(register: &Register, request: &Request, me: NodeRef) -> Self {
        let (proposed, is_vote) = match request {
            Request::Accept { placement, .. } => (Some(placement), true),
            Request::Put0 { placement, .. } => (Some(placement), false),
            Request::Prepare { .. } => (None, true),
            Request::Decided { .. } | Request::Read => (None, false),
        };
        let accepted = register.accepted.as_ref().map(|vote| &vote.placement);
        let placements = || accepted.into_iter().chain(proposed);
        let is_joint = placements().any(|placement: &Placement| placement.prev.is_some());
        let mut items = Vec::new();
        for sha256 in placements().flat_map(|placement| placement.items_of(&placement.layout, me)) {
            if !items.contains(&sha256) {
                items.push(sha256);
            }
        }
        Self {
            items,
            anew: is_vote && is_joint,
        }
    }
}

impl<D: Disk> Reader<D> {
    /// Whether all that `request` vouches for is known without a look at the disk.
    pub(crate) fn vouches_at_hand(&self, id: &ChunkId, request: &Request, now: Monotonic) -> bool {
        let entry = self.0.index.at_hand(id);
        entry.is_some_and(|entry| self.unread(&entry, request, now).is_empty())
    }

    /// Reads what it vouches for and is not known to be well; what cannot be read is left to the writer.
    pub(crate) fn read_back_for(&self, id: &ChunkId, request: &Request, now: Monotonic) {
        // What is found is not taken away while it is read.
        let _pin = self.0.lookers.pin();
        let Ok(entry) = self.0.entry(id) else { return };
        for sha256 in self.unread(&entry, request, now) {
            if let Some(item) = entry.item(sha256) {
                let _what_comes_out_is_noted = self.0.verify(id, item, now);
            }
        }
    }

    fn unread(&self, entry: &Entry, request: &Request, now: Monotonic) -> Vec<Digest> {
        let shared = &self.0;
        let Vouched { mut items, anew } = Vouched::of(&entry.register(), request, shared.me);
        items.retain(|sha256| {
            let item = entry.item(*sha256).filter(|item| !item.is_corrupt());
            item.is_some_and(|item| match anew {
                true => !shared.is_fresh(item, item.state, now),
                false => !(item.state.is_verified() && shared.is_within_its_file(item)),
            })
        });
        items
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::{Ballot, Layout, Vote};
    use vstack_types::{NodeUuid, ProcessUuid};

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    #[test]
    fn a_vote_vouches_for_what_it_assigns_and_a_message_that_is_none_for_what_is_here() {
        let ballot = Ballot {
            round: 1,
            proposer: ProcessUuid::from_bytes([9; 16]),
        };
        let sha256 = Digest::of(b"bytes");
        let copies = |nodes: &[u8]| Layout::Replicated {
            nodes: nodes.iter().copied().map(node).collect(),
        };
        let placed = |layout: Layout, prev: Option<Layout>| Placement {
            version: 1,
            size: 5,
            sha256,
            layout,
            prev,
            back: false,
        };
        let of = |accepted: Option<Placement>, request: &Request| {
            let register = Register {
                accepted: accepted.map(|placement| Vote { ballot, placement }),
                ..Register::default()
            };
            let Vouched { items, anew } = Vouched::of(&register, request, node(1));
            (items.len(), anew)
        };
        let (prepare, read) = (Request::Prepare { ballot }, Request::Read);
        let accept = |placement| Request::Accept { ballot, placement };
        let here = placed(copies(&[1, 2]), None);
        let joint = placed(copies(&[1, 3]), Some(copies(&[1, 2])));
        let goes = placed(copies(&[2, 3]), Some(copies(&[1, 2])));
        assert_eq!(of(None, &prepare), (0, false));
        assert_eq!(of(Some(here.clone()), &prepare), (1, false));
        assert_eq!(of(Some(here.clone()), &accept(joint.clone())), (1, true));
        assert_eq!(of(Some(joint.clone()), &prepare), (1, true));
        assert_eq!(of(Some(joint), &read), (1, false));
        assert_eq!(of(None, &accept(goes)), (0, true));
    }
}
