//! What acceptors and proposers say to each other. `docs/wire.md` binds these to HTTP.

use vstack_types::Digest;

use crate::placement::{Ballot, Placement};

/// To an acceptor, about one register.
///
/// The acceptor it is meant for and the chunk it is about travel beside it, so that one message can be sent to many.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// The owner's first accept. The bytes travel with it and are durable and verified before it is handled.
    Put0 {
        /// `(0, owner)`.
        ballot: Ballot,
        /// Version 1, naming the receiver.
        placement: Placement,
    },
    /// Phase 1.
    Prepare {
        /// Above every ballot its proposer has seen.
        ballot: Ballot,
    },
    /// Phase 2.
    Accept {
        /// The one prepared.
        ballot: Ballot,
        /// The only value ever sent in this ballot.
        placement: Placement,
    },
    /// News, from one who knows: `placement` was decided in `ballot`.
    Decided {
        /// In which every member of a quorum accepted it.
        ballot: Ballot,
        /// The decided value.
        placement: Placement,
    },
    /// What the acceptor's state is. Changes nothing and promises nothing.
    Read,
}

/// What a ballot asks of an acceptor. Its silence about the one says nothing of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A promise.
    Prepare,
    /// A vote.
    Accept,
}

impl Request {
    /// What it asks for, if anything.
    pub const fn stage(&self) -> Option<Stage> {
        match self {
            Self::Prepare { .. } => Some(Stage::Prepare),
            Self::Put0 { .. } | Self::Accept { .. } => Some(Stage::Accept),
            Self::Decided { .. } | Self::Read => None,
        }
    }
}

/// A value an acceptor accepted, and in which ballot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vote {
    /// In which it was accepted.
    pub ballot: Ballot,
    /// What was accepted.
    pub placement: Placement,
}

/// From an acceptor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Voted in this ballot; durable.
    Accepted {
        /// The ballot of the request.
        ballot: Ballot,
    },
    /// Will accept nothing below this ballot; durable.
    Promise {
        /// The ballot of the request.
        ballot: Ballot,
        /// What it accepted last.
        accepted: Option<Vote>,
        /// It knows that to be decided.
        decided: bool,
        /// It has, verified, everything that the accepted layout assigns to it.
        holds: bool,
    },
    /// No: something newer is promised.
    Nack {
        /// The ballot to go above; none from an acceptor that is sealed and votes no more.
        promised: Option<Ballot>,
    },
    /// It would vote, but these items of its own are absent or unverified.
    NeedBytes {
        /// Digests of the items to bring.
        items: Vec<Digest>,
    },
    /// It lost bytes or votes that it vouched for, and abstains until they are restored.
    Damaged,
    /// The request was meant for another disk or another life of this one.
    WrongNode,
    /// A decision was noted.
    Noted,
    /// The answer to [`Request::Read`].
    State {
        /// Highest ballot promised.
        promised: Option<Ballot>,
        /// What it accepted last.
        accepted: Option<Vote>,
        /// It knows that to be decided.
        decided: bool,
        /// It abstains.
        damaged: bool,
        /// As in [`Reply::Promise`].
        holds: bool,
    },
}
