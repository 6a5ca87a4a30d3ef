//! Phase 2: one value in one ballot, the bytes that voters lack, and who is told of the outcome.

use std::collections::{BTreeMap, BTreeSet};

use vstack_types::{Digest, NodeRef, planted};

use super::{Phase, Proposer, decides};
use crate::{
    message::{Request, Vote},
    placement::{Ballot, Layout, Placement},
    proposal::{Action, Outcome},
};

impl Proposer {
    /// An [`Action::Copy`] to `to` succeeded (`true`) or failed.
    pub fn on_copied(&mut self, to: NodeRef, ballot: Ballot, copied: bool) -> Vec<Action> {
        if ballot != self.ballot() {
            return Vec::new();
        }
        let request_ballot = self.ballot();
        let Phase::Accept { placement, copies, .. } = &mut self.phase else {
            return Vec::new();
        };
        let Some(missing) = copies.get_mut(&to) else {
            return Vec::new();
        };
        if !copied {
            copies.remove(&to);
            return self.without(to);
        }
        *missing -= 1;
        if *missing > 0 {
            return Vec::new();
        }
        let request = Request::Accept {
            ballot: request_ballot,
            placement: placement.clone(),
        };
        vec![Action::Send { to, request }]
    }

    pub(super) fn tell(to: Vec<NodeRef>, ballot: Ballot, placement: &Placement) -> Vec<Action> {
        let request = Request::Decided {
            ballot,
            placement: placement.clone(),
        };
        to.into_iter()
            .map(|to| Action::Tell {
                to,
                request: request.clone(),
            })
            .collect()
    }

    pub(super) fn propose(&mut self, placement: Placement, wished: bool) -> Vec<Action> {
        let ballot = self.ballot();
        let nodes: BTreeSet<NodeRef> = placement.nodes().into_iter().collect();
        let request = Request::Accept {
            ballot,
            placement: placement.clone(),
        };
        self.phase = Phase::Accept {
            placement,
            wished,
            copies: BTreeMap::new(),
            pending: nodes.clone(),
            accepted: BTreeSet::new(),
        };
        nodes
            .into_iter()
            .map(|to| Action::Send {
                to,
                request: request.clone(),
            })
            .collect()
    }

    pub(super) fn on_accepted(&mut self, from: NodeRef) -> Vec<Action> {
        let Phase::Accept { pending, accepted, .. } = &mut self.phase else {
            return Vec::new();
        };
        pending.remove(&from);
        accepted.insert(from);
        self.advance_accept()
    }

    pub(super) fn on_need(&mut self, from: NodeRef, items: &[Digest]) -> Vec<Action> {
        let Phase::Accept { placement, copies, .. } = &mut self.phase else {
            return Vec::new();
        };
        // Asked twice: the copy did not help, and a third answer would be the same.
        if copies.contains_key(&from) || items.is_empty() {
            return self.without(from);
        }
        copies.insert(from, items.len());
        // Who lacks a shard may have the chunk, and who lacks the chunk shards of it: it helps to make its own.
        let coded = |layout: &Layout| matches!(layout, Layout::Coded { .. });
        let is_coded = coded(&placement.layout) || placement.prev.as_ref().is_some_and(coded);
        let helps_itself = is_coded && !planted!("nobody makes shards of its own copy");
        let mut holders = placement.nodes();
        holders.retain(|node| *node != from || helps_itself);
        items
            .iter()
            .map(|item| Action::Copy {
                to: from,
                item: *item,
                size: placement.item_size(*item),
                from: holders.clone(),
            })
            .collect()
    }

    pub(super) fn advance_accept(&mut self) -> Vec<Action> {
        let ballot = self.ballot();
        let Phase::Accept {
            placement,
            wished,
            pending,
            accepted,
            copies,
        } = &self.phase
        else {
            return Vec::new();
        };
        if !decides(placement, |node| accepted.contains(&node)) {
            let hopeless = !decides(placement, |node| accepted.contains(&node) || pending.contains(&node));
            return if hopeless { self.give_up() } else { Vec::new() };
        }
        let (placement, wished, mut accepted) = (placement.clone(), *wished, accepted.clone());
        if planted!("who was sent its bytes counts as a holder") {
            accepted.extend(
                copies
                    .iter()
                    .filter(|(_, missing)| **missing == 0)
                    .map(|(node, _)| *node),
            );
        }
        let mut told = placement.nodes();
        for node in self.known.iter().flat_map(Placement::nodes) {
            if !told.contains(&node) {
                told.push(node);
            }
        }
        let mut actions = Self::tell(told, ballot, &placement);
        self.known = Some(placement.clone());
        self.completed_by = accepted;
        if wished {
            actions.extend(self.finish(Outcome::Decided(Vote { ballot, placement })));
        } else {
            actions.extend(self.retry());
        }
        actions
    }
}
