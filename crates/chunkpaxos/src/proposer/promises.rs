//! Phase 1: who promised what, and what is to be proposed on it.

use std::collections::{BTreeMap, BTreeSet};

use vstack_types::{NodeRef, planted};

use super::{Phase, Promise, Proposer, decides};
use crate::{
    choose::{self, Next},
    message::{Request, Vote},
    placement::Placement,
    proposal::{Action, Change, Outcome, Refusal},
};

/// Who vouches that it holds what the layout of `current` places there: by its promise, or because it is one of
/// `completed_by`, who accepted it in a ballot of this proposer.
fn vouching(
    current: &Placement,
    promises: &BTreeMap<NodeRef, Promise>,
    completed_by: &BTreeSet<NodeRef>,
) -> BTreeSet<NodeRef> {
    let promised = |node: &NodeRef| {
        promises.get(node).is_some_and(|promise| {
            (promise.holds || planted!("who was told of a joint counts as a holder"))
                && promise.accepted.as_ref().is_some_and(|vote| vote.placement == *current)
        })
    };
    let mut nodes: BTreeSet<_> = current.layout.nodes().into_iter().collect();
    nodes.retain(|node| promised(node) || completed_by.contains(node));
    nodes
}

impl Proposer {
    pub(super) fn prepare_messages(&self, to: BTreeSet<NodeRef>) -> Vec<Action> {
        let ballot = self.ballot();
        to.into_iter()
            .map(|to| Action::Send {
                to,
                request: Request::Prepare { ballot },
            })
            .collect()
    }

    pub(super) fn on_promise(&mut self, from: NodeRef, promise: Promise) -> Vec<Action> {
        let Phase::Prepare {
            pending,
            promises,
            asked,
        } = &mut self.phase
        else {
            return Vec::new();
        };
        if !asked.contains(&from) {
            return Vec::new();
        }
        pending.remove(&from);
        promises.insert(from, promise);
        self.advance_prepare()
    }

    /// Ends phase 1 if it can be ended, widens it if it must be widened, gives up if nobody is left to answer.
    pub(super) fn advance_prepare(&mut self) -> Vec<Action> {
        let Phase::Prepare {
            asked,
            pending,
            promises,
        } = &mut self.phase
        else {
            return Vec::new();
        };
        let highest = promises
            .values()
            .filter_map(|promise| promise.accepted.as_ref())
            .max_by_key(|vote| vote.ballot)
            .cloned();
        let highest = if planted!("the value of the lowest ballot is chosen") {
            let found = promises.values().filter_map(|promise| promise.accepted.as_ref());
            found.min_by_key(|vote| vote.ballot).cloned()
        } else {
            highest
        };
        let Some(highest) = highest else {
            // Something was decided and none of those who answered knows it: they are not the ones to build on.
            if self.known.is_some() {
                return if pending.is_empty() { self.give_up() } else { Vec::new() };
            }
            let promised = self.initial.iter().filter(|node| promises.contains_key(node)).count();
            if promised > self.initial.len() / 2 {
                let next = choose::on_empty(&self.change, &self.initial);
                return self.take(next, None);
            }
            return if pending.is_empty() { self.give_up() } else { Vec::new() };
        };
        // The value found may name acceptors nobody asked yet: its quorum is what phase 1 has to reach.
        let more: BTreeSet<_> = highest
            .placement
            .nodes()
            .into_iter()
            .filter(|node| !asked.contains(node))
            .collect();
        let halved = planted!("phase 1 asks one half of a joint");
        if halved {
            let half = Placement {
                prev: None,
                layout: highest
                    .placement
                    .prev
                    .clone()
                    .unwrap_or_else(|| highest.placement.layout.clone()),
                ..highest.placement.clone()
            };
            if half.quorum(|node| promises.contains_key(&node)) {
                return self.conclude_prepare(highest);
            }
        }
        if !more.is_empty() {
            asked.extend(&more);
            pending.extend(&more);
            return self.prepare_messages(more);
        }
        if !highest.placement.quorum(|node| promises.contains_key(&node)) {
            return if pending.is_empty() { self.give_up() } else { Vec::new() };
        }
        self.conclude_prepare(highest)
    }

    /// Phase 1 holds a quorum of `highest`, the value of the highest ballot found.
    fn conclude_prepare(&mut self, highest: Vote) -> Vec<Action> {
        let Phase::Prepare { pending, promises, .. } = &self.phase else {
            return Vec::new();
        };
        let current = &highest.placement;
        if self.spares && current.layout.is_deleted() {
            return self.finish(Outcome::Refused(Refusal::Spared));
        }
        let said_so = promises
            .values()
            .any(|promise| promise.decided && promise.accepted.as_ref().is_some_and(|vote| vote.placement == *current));
        let counted = decides(current, |node| {
            promises
                .get(&node)
                .is_some_and(|promise| promise.accepted.as_ref() == Some(&highest))
        });
        let is_known = said_so || counted || self.known.as_ref() == Some(current);
        let expected = self.expected.is_none_or(|version| version == current.version);
        if !is_known
            && expected
            && let Some(next) = choose::on_undecided(&self.change, current)
        {
            return self.take(next, Some(highest));
        }
        if planted!("what was known is completed over what is found")
            && let Some(known) = self.known.clone().filter(|known| known != current)
        {
            return self.propose(known, false);
        }
        if matches!(self.change, Change::Read) && planted!("a reader reports what is not known to be decided") {
            return self.take(Next::Already(current.clone()), Some(highest));
        }
        let careless = planted!("a move is built on an undecided value")
            || planted!("acceptors change without a joint, on what is undecided");
        if !(is_known || careless) {
            let unchanged = highest.placement;
            return self.propose(unchanged, false);
        }
        // Whoever this one names has to hear of its successor, also who is not named by that.
        let completed_it =
            self.known.as_ref() == Some(current) || planted!("who completed a value counts as a holder of the next");
        let completed_by = if completed_it {
            self.completed_by.clone()
        } else {
            BTreeSet::new()
        };
        let vouching = vouching(current, promises, &completed_by);
        let next = if expected || matches!(self.change, Change::Read) {
            choose::on_known(&self.change, current, &vouching)
        } else {
            Next::Refuse(Refusal::Version(Box::new(current.clone())))
        };
        // More answers may yet vouch for the new layout.
        if next == Next::Refuse(Refusal::NotEnough) && !pending.is_empty() {
            return Vec::new();
        }
        self.known = Some(current.clone());
        self.completed_by = completed_by;
        self.take(next, Some(highest))
    }

    fn take(&mut self, next: Next, highest: Option<Vote>) -> Vec<Action> {
        match next {
            Next::Propose(placement) => self.propose(placement, true),
            Next::Nothing => self.finish(Outcome::Nothing),
            Next::Refuse(refusal) => self.finish(Outcome::Refused(refusal)),
            Next::Already(placement) => {
                let ballot = highest.map_or_else(|| self.ballot(), |vote| vote.ballot);
                let mut actions = Self::tell(placement.nodes(), ballot, &placement);
                actions.extend(self.finish(Outcome::Decided(Vote { ballot, placement })));
                actions
            }
        }
    }
}
