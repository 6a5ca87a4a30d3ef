//! The proposer of the classic path: prepare, choose, accept, tell.
//!
//! A state machine: it is told what happened and answers with [`Action`]s. It holds no clock; whoever drives it
//! decides when a node has been silent too long ([`Proposer::on_silence`]) and waits before [`Proposer::retry`].
//! Round 0, the owner's path, has no state to speak of and is not here: see [`Placement::quorum`].

mod promises;
mod votes;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{Rng, RngExt as _};
use vstack_types::{NodeRef, ProcessUuid, planted};

use crate::{
    message::{Reply, Stage, Vote},
    placement::{Ballot, Placement},
    proposal::{Action, Change, Outcome},
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
    pub(crate) spares: bool,
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
            spares: false,
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

    /// Completes no deletion, and tells nobody of one: for who knows that the chunk is wanted. What may have been decided
    /// is left for those who do not.
    #[must_use]
    pub const fn sparing(mut self) -> Self {
        self.spares = true;
        self
    }

    /// The ballot of the attempt under way; replies and silences are about this one or are stale.
    pub const fn ballot(&self) -> Ballot {
        Ballot {
            round: self.round,
            proposer: self.process,
        }
    }

    /// The value it asks votes for, while it does.
    pub const fn proposed(&self) -> Option<&Placement> {
        match &self.phase {
            Phase::Accept { placement, .. } => Some(placement),
            Phase::Prepare { .. } | Phase::Waiting | Phase::Done => None,
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
}
