//! The proposer of the classic path: prepare, choose, accept, tell.
//!
//! A state machine: it is told what happened and answers with [`Action`]s. It holds no clock; whoever drives it
//! decides when a node has been silent too long ([`Proposer::on_silence`]) and waits before [`Proposer::retry`].
//! Round 0, the owner's path, has no state to speak of and is not here: see [`Placement::quorum`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{Rng, RngExt as _};
use vstack_types::{Digest, NodeRef, ProcessUuid, planted};

use crate::{
    choose::{self, Next},
    message::{Reply, Request, Stage, Vote},
    placement::{Ballot, Layout, Placement},
    proposal::{Action, Change, Outcome, Refusal},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Promise {
    pub(crate) accepted: Option<Vote>,
    pub(crate) decided: bool,
    pub(crate) holds: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Waiting,
    Prepare {
        asked: BTreeSet<NodeRef>,
        pending: BTreeSet<NodeRef>,
        promises: BTreeMap<NodeRef, Promise>,
    },
    Accept {
        placement: Placement,
        wished: bool,
        copies: BTreeMap<NodeRef, usize>,
        pending: BTreeSet<NodeRef>,
        accepted: BTreeSet<NodeRef>,
    },
    Done,
}

/// One wish about one register. It compares and hashes as the whole of its state, so that a model can hold many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proposer {
    pub(crate) process: ProcessUuid,
    pub(crate) initial: Vec<NodeRef>,
    pub(crate) change: Change,
    pub(crate) expected: Option<u64>,
    /// Rounds up to this one were seen or used.
    pub(crate) round: u64,
    pub(crate) attempt: u32,
    /// Decided, as this proposer saw itself or was told by one who did.
    pub(crate) known: Option<Placement>,
    /// Who accepted `known` when this proposer completed it.
    pub(crate) completed_by: BTreeSet<NodeRef>,
    pub(crate) phase: Phase,
}

/// Whether the votes of these in one ballot decide `placement`.
fn decides(placement: &Placement, voters: impl Fn(NodeRef) -> bool) -> bool {
    if planted!("phase 2 demands every vote") {
        return placement.nodes().into_iter().all(voters);
    }
    placement.quorum(voters)
}

/// Random, growing with the attempts: duelling proposers part ways.
pub fn backoff(attempt: u32, rng: &mut impl Rng) -> Duration {
    const FIRST_MS: u64 = 20;
    const LAST_MS: u64 = 2_000;
    let ceiling = FIRST_MS.saturating_mul(1 << attempt.min(16)).min(LAST_MS);
    Duration::from_millis(rng.random_range(FIRST_MS / 2..=ceiling))
}

impl Proposer {
    /// A proposer for a register whose version-1 nodes are `initial`.
    ///
    /// `process` must be new: never used by another proposer, not even one of the same process, because both would
    /// use the same ballots and a ballot may carry one value only.
    pub fn new(process: ProcessUuid, initial: Vec<NodeRef>, change: Change) -> Self {
        let process = if planted!("a proposer takes a UUID that was used before") {
            ProcessUuid::from_bytes([1; 16])
        } else {
            process
        };
        Self {
            process,
            initial,
            change,
            expected: None,
            round: 0,
            attempt: 0,
            known: None,
            completed_by: BTreeSet::new(),
            phase: Phase::Waiting,
        }
    }

    /// A placement already seen decided: saves a round, and finds acceptors that left `initial` long ago.
    #[must_use]
    pub fn knowing(mut self, decided: Placement) -> Self {
        self.known = Some(decided);
        self
    }

    /// Refuses unless the placement found has this version.
    #[must_use]
    pub const fn expecting(mut self, version: u64) -> Self {
        self.expected = Some(version);
        self
    }

    /// The ballot of the attempt under way; replies and silences are about this one or are stale.
    pub const fn ballot(&self) -> Ballot {
        Ballot {
            round: self.round,
            proposer: self.process,
        }
    }

    /// Attempts so far, the one under way included. Each has a ballot of its own.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Nodes whose answer this attempt still waits for, in a fixed order.
    pub fn waits_for(&self) -> Vec<NodeRef> {
        match &self.phase {
            Phase::Prepare { pending, .. } | Phase::Accept { pending, .. } => pending.iter().copied().collect(),
            Phase::Waiting | Phase::Done => Vec::new(),
        }
    }

    /// What it asks of them.
    pub const fn stage(&self) -> Option<Stage> {
        match self.phase {
            Phase::Prepare { .. } => Some(Stage::Prepare),
            Phase::Accept { .. } => Some(Stage::Accept),
            Phase::Waiting | Phase::Done => None,
        }
    }

    /// Begins the first attempt, or the next one after [`Action::Backoff`].
    pub fn retry(&mut self) -> Vec<Action> {
        if self.attempt == 0 || !planted!("a retry keeps its round") {
            self.round += 1;
        }
        self.attempt += 1;
        let mut ask: BTreeSet<NodeRef> = self.initial.iter().copied().collect();
        if let Some(known) = &self.known {
            ask = known.nodes().into_iter().collect();
        }
        self.phase = Phase::Prepare {
            asked: ask.clone(),
            pending: ask.clone(),
            promises: BTreeMap::new(),
        };
        self.prepare_messages(ask)
    }

    /// `from` answered the request of `ballot`.
    pub fn on_reply(&mut self, from: NodeRef, ballot: Ballot, reply: Reply) -> Vec<Action> {
        if ballot != self.ballot() {
            return Vec::new();
        }
        match reply {
            Reply::Nack {
                promised: Some(promised),
            } => {
                self.round = self.round.max(promised.round);
                self.give_up()
            }
            // One that votes no more does not speak for the others: giving up for it would be giving up for ever.
            Reply::Nack { promised: None } if planted!("a sealed acceptor ends the attempt") => self.give_up(),
            Reply::Nack { promised: None } => self.without(from),
            Reply::Promise {
                accepted,
                decided,
                holds,
                ..
            } => self.on_promise(
                from,
                Promise {
                    accepted,
                    decided,
                    holds,
                },
            ),
            Reply::Accepted { .. } => self.on_accepted(from),
            Reply::NeedBytes { items } => self.on_need(from, &items),
            // Whichever request it answers: who abstains gives neither promise nor vote.
            Reply::Damaged | Reply::WrongNode | Reply::Noted | Reply::State { .. } => self.without(from),
        }
    }

    /// `from` did not answer in time when it was asked for `stage` of `ballot`, or its answer was none. Who gave no
    /// promise may vote all the same.
    pub fn on_silence(&mut self, from: NodeRef, ballot: Ballot, stage: Stage) -> Vec<Action> {
        if ballot != self.ballot() || self.stage() != Some(stage) {
            return Vec::new();
        }
        self.without(from)
    }

    /// Goes on without `from`, as far as this attempt is concerned.
    fn without(&mut self, from: NodeRef) -> Vec<Action> {
        match &mut self.phase {
            Phase::Prepare { pending, .. } => {
                pending.remove(&from);
                self.advance_prepare()
            }
            Phase::Accept { pending, .. } => {
                pending.remove(&from);
                self.advance_accept()
            }
            Phase::Waiting | Phase::Done => Vec::new(),
        }
    }

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

    fn prepare_messages(&self, to: BTreeSet<NodeRef>) -> Vec<Action> {
        let ballot = self.ballot();
        to.into_iter()
            .map(|to| Action::Send {
                to,
                request: Request::Prepare { ballot },
            })
            .collect()
    }

    fn give_up(&mut self) -> Vec<Action> {
        if matches!(self.phase, Phase::Waiting | Phase::Done) {
            return Vec::new();
        }
        self.phase = Phase::Waiting;
        vec![Action::Backoff { attempt: self.attempt }]
    }

    fn finish(&mut self, outcome: Outcome) -> Vec<Action> {
        self.phase = Phase::Done;
        vec![Action::Finish(outcome)]
    }

    fn on_promise(&mut self, from: NodeRef, promise: Promise) -> Vec<Action> {
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
    fn advance_prepare(&mut self) -> Vec<Action> {
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
        let vouching: BTreeSet<NodeRef> = current
            .layout
            .nodes()
            .into_iter()
            .filter(|node| {
                let promised = promises.get(node).is_some_and(|promise| {
                    (promise.holds || planted!("who was told of a joint counts as a holder"))
                        && promise.accepted.as_ref().is_some_and(|vote| vote.placement == *current)
                });
                promised || completed_by.contains(node)
            })
            .collect();
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

    fn tell(to: Vec<NodeRef>, ballot: Ballot, placement: &Placement) -> Vec<Action> {
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

    fn propose(&mut self, placement: Placement, wished: bool) -> Vec<Action> {
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

    fn on_accepted(&mut self, from: NodeRef) -> Vec<Action> {
        let Phase::Accept { pending, accepted, .. } = &mut self.phase else {
            return Vec::new();
        };
        pending.remove(&from);
        accepted.insert(from);
        self.advance_accept()
    }

    fn on_need(&mut self, from: NodeRef, items: &[Digest]) -> Vec<Action> {
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

    fn advance_accept(&mut self) -> Vec<Action> {
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
