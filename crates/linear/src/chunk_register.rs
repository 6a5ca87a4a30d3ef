//! A `ChunkPaxos` register as its users see it: one placement at a time, and what each wish does to it.
//!
//! Written from `docs/chunk-paxos.md`, not from the proposer: it is what the proposer is held against. Votes, ballots
//! and messages do not exist here.
//!
//! **Which answers are definite.** `Decided(p)`: p was the placement at some moment of the call, put there by this call
//! or found. `Nothing`: nothing was placed. A refusal tells what was there, and with `Taken`, `Joint` and `Version`
//! exactly what. Neither tells whether an *earlier attempt* of the same call had an effect: a proposer that was
//! overtaken leaves its value behind at a minority, somebody may complete it later, even after the refusal. So every
//! value a call proposed and was not answered with is a call of its own without an answer: [`Operation::Attempt`]. A
//! call that was given up leaves its attempts and nothing else.

use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Refusal};
use vstack_types::{Digest, NodeRef};

use crate::specification::Specification;

/// A register whose version-1 nodes are these.
#[derive(Debug, Clone)]
pub struct ChunkRegister {
    /// In the order of the group.
    pub initial: Vec<NodeRef>,
}

/// What is asked of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A proposal of the classic path.
    Wish {
        /// What is wished for.
        change: Change,
        /// Only if the placement has this version.
        expected: Option<u64>,
    },
    /// The owner's PUT to all initial nodes, in round 0.
    OwnersPut {
        /// Version 1.
        placement: Placement,
    },
    /// A value that was sent to acceptors and with which its proposer was not answered.
    Attempt {
        /// The wish it came from.
        change: Change,
        /// The value.
        placement: Placement,
    },
}

/// What a register said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This is placed, as wished.
    Decided(Placement),
    /// Nothing is placed.
    Nothing,
    /// Not as wished.
    Refused(Refusal),
    /// No node took the owner's vote, and none will.
    Shut,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Decided(vote) => Self::Decided(vote.placement),
            Outcome::Nothing => Self::Nothing,
            Outcome::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl Specification for ChunkRegister {
    type State = Option<Placement>;
    type Operation = Operation;
    type Answer = Answer;

    fn initial(&self) -> Self::State {
        None
    }

    fn after(&self, state: &Self::State, operation: &Operation, answer: Option<&Answer>) -> Vec<Self::State> {
        let possible = match operation {
            Operation::Wish { change, expected } => self.after_wish(state, change, *expected, answer),
            Operation::OwnersPut { placement } => self.after_put(state, placement, answer),
            Operation::Attempt { change, placement } => {
                let made = answer.is_none() && self.result(state, change).as_ref() == Some(placement);
                made.then(|| Some(placement.clone()))
            }
        };
        possible.into_iter().collect()
    }
}

impl ChunkRegister {
    fn after_wish(
        &self,
        state: &Option<Placement>,
        change: &Change,
        expected: Option<u64>,
        answer: Option<&Answer>,
    ) -> Option<Option<Placement>> {
        let version = state.as_ref().map(|current| current.version);
        let expected_found = expected.is_none() || expected == version || matches!(change, Change::Read);
        match answer {
            None if expected_found => self.result(state, change).map(Some),
            Some(Answer::Decided(placed)) if expected_found => {
                let found = state.as_ref() == Some(placed) && grants(placed, change);
                let made = || self.result(state, change).as_ref() == Some(placed);
                (found || made()).then(|| Some(placed.clone()))
            }
            Some(Answer::Nothing) => (state.is_none() && matches!(change, Change::Read)).then_some(None),
            Some(Answer::Refused(refusal)) => {
                let right = match (state, refusal) {
                    (Some(current), Refusal::Version(found)) => !expected_found && **found == *current,
                    _ => expected_found && refuses(state.as_ref(), change, refusal),
                };
                right.then(|| state.clone())
            }
            None | Some(Answer::Decided(_) | Answer::Shut) => None,
        }
    }

    fn after_put(
        &self,
        state: &Option<Placement>,
        put: &Placement,
        answer: Option<&Answer>,
    ) -> Option<Option<Placement>> {
        let placed = || Some(put.clone());
        match (state, answer) {
            (None, None | Some(Answer::Decided(_))) => (*put == self.first(put)).then(placed),
            // A rival may have completed it before the owner had its majority.
            (Some(current), Some(Answer::Decided(_))) => (current == put).then(placed),
            (_, Some(Answer::Shut)) => Some(state.clone()),
            (Some(_), None) | (_, Some(Answer::Nothing | Answer::Refused(_))) => None,
        }
    }

    /// Version 1 with the content of `of`.
    fn first(&self, of: &Placement) -> Placement {
        self.replicated(of.size, of.sha256)
    }

    fn replicated(&self, size: u64, sha256: Digest) -> Placement {
        Placement {
            version: 1,
            size,
            sha256,
            layout: Layout::Replicated {
                nodes: self.initial.clone(),
            },
            prev: None,
            back: false,
        }
    }

    fn never(&self) -> Placement {
        let nodes = self.initial.clone();
        Placement {
            layout: Layout::Deleted { nodes },
            ..self.replicated(0, Digest::of(b""))
        }
    }

    /// The placement that `change` makes of `state`, if it makes one.
    fn result(&self, state: &Option<Placement>, change: &Change) -> Option<Placement> {
        let Some(current) = state else {
            return match change {
                Change::Create { size, sha256 } => Some(self.replicated(*size, *sha256)),
                Change::Abort | Change::Delete => Some(self.never()),
                Change::Read | Change::Move { .. } | Change::Settle | Change::Renew | Change::TurnBack => None,
            };
        };
        if current.layout.is_deleted() {
            return None;
        }
        let next = |layout: Layout, prev: Option<Layout>, back: bool| Placement {
            version: current.version + 1,
            layout,
            prev,
            back,
            ..current.clone()
        };
        let layout = || current.layout.clone();
        match (change, current.prev.clone()) {
            (Change::Delete, None) => {
                let nodes = current.layout.nodes();
                Some(next(Layout::Deleted { nodes }, None, false))
            }
            (Change::Move { to }, None) if *to != current.layout => Some(next(to.clone(), Some(layout()), false)),
            (Change::Settle, Some(_)) => Some(next(layout(), None, false)),
            (Change::TurnBack, Some(prev)) if !current.back => Some(next(prev, Some(layout()), true)),
            _ => None,
        }
    }
}

/// Whether `current` is what `change` wishes for, so that nothing has to be done.
fn grants(current: &Placement, change: &Change) -> bool {
    let settled = current.prev.is_none();
    match change {
        Change::Read => true,
        Change::Abort | Change::Delete => current.layout.is_deleted(),
        _ if current.layout.is_deleted() => false,
        Change::Create { size, sha256 } => *size == current.size && *sha256 == current.sha256,
        Change::Settle => settled,
        Change::Renew => true,
        Change::Move { to } => settled && *to == current.layout,
        Change::TurnBack => false,
    }
}

/// Whether `change` may be refused so when `state` is placed.
fn refuses(state: Option<&Placement>, change: &Change, refusal: &Refusal) -> bool {
    let Some(current) = state else {
        let changes = matches!(
            change,
            Change::Move { .. } | Change::Settle | Change::Renew | Change::TurnBack
        );
        return changes && *refusal == Refusal::Nothing;
    };
    if grants(current, change) {
        return false;
    }
    if current.layout.is_deleted() {
        return *refusal == Refusal::Deleted;
    }
    match refusal {
        Refusal::Taken(found) => **found == *current && matches!(change, Change::Create { .. } | Change::Abort),
        Refusal::Joint(found) => {
            let wished = match change {
                Change::Delete | Change::Move { .. } => true,
                Change::TurnBack => current.back,
                _ => false,
            };
            **found == *current && current.prev.is_some() && wished
        }
        Refusal::Settled => current.prev.is_none() && matches!(change, Change::TurnBack),
        // Which nodes vouched is not to be seen from outside.
        Refusal::NotEnough => current.prev.is_some() && !current.back && matches!(change, Change::Settle),
        Refusal::Layout(error) => match change {
            Change::Move { to } if current.prev.is_none() => to.is_deleted() || to.check() == Err(*error),
            _ => false,
        },
        Refusal::Nothing | Refusal::Deleted | Refusal::Spared | Refusal::Version(_) => false,
    }
}

/// Whether a proposer with the wish `change` can have made `placement` itself, rather than found it and completed it
/// for somebody else.
pub fn authored(change: &Change, placement: &Placement) -> bool {
    let deleted = placement.layout.is_deleted();
    let first = placement.version == 1;
    match change {
        Change::Read | Change::Renew => false,
        Change::Create { size, sha256 } => first && !deleted && *size == placement.size && *sha256 == placement.sha256,
        Change::Abort => first && deleted,
        Change::Delete => deleted,
        Change::Move { to } => !first && placement.prev.is_some() && !placement.back && placement.layout == *to,
        Change::Settle => !first && placement.prev.is_none() && !deleted,
        Change::TurnBack => placement.back,
    }
}
