//! Whether this node may vote.
//!
//! A disk that went back in time, or a copy of one, does not know it: its votes of the time between are gone, and
//! voting again under its name could undo what was decided. The metadata service knows how far its log once reached.
//! So a node that is to register votes only after it was accepted there, with the log it had when it was opened; once
//! it was refused it abstains, until it is accepted. That the service cannot be reached changes nothing.

use std::sync::atomic::{AtomicU8, Ordering};

use vstack_chunkpaxos::{Reply, Request};

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    /// Registered by this process, or one that runs without a metadata service.
    Votes = 0,
    /// Not heard yet.
    Waits = 1,
    /// Refused.
    Abstains = 2,
}

/// The standing of a running node.
#[derive(Debug)]
pub(crate) struct CurrentStanding(AtomicU8);

/// What a message to an acceptor comes to by the standing alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The acceptor answers.
    Ask,
    /// No reply at all: try again.
    Later,
    /// This one.
    Say(Reply),
}

impl CurrentStanding {
    pub(crate) const fn new(standing: Standing) -> Self {
        Self(AtomicU8::new(standing as u8))
    }

    pub(crate) fn get(&self) -> Standing {
        match self.0.load(Ordering::Acquire) {
            0 => Standing::Votes,
            1 => Standing::Waits,
            _ => Standing::Abstains,
        }
    }

    pub(crate) fn set(&self, standing: Standing) {
        self.0.store(standing as u8, Ordering::Release);
    }

    /// What comes of `request`. A decision is others' knowledge and always welcome.
    pub(crate) fn verdict(&self, request: &Request) -> Verdict {
        match (self.get(), request) {
            (Standing::Votes, _) | (_, Request::Decided { .. }) | (Standing::Abstains, Request::Read) => Verdict::Ask,
            (Standing::Waits, _) => Verdict::Later,
            (Standing::Abstains, _) => Verdict::Say(Reply::Damaged),
        }
    }

    /// The acceptor's answer as this node may give it: who abstains says so.
    pub(crate) fn shown(&self, reply: Reply) -> Reply {
        match reply {
            Reply::State {
                promised,
                accepted,
                decided,
                damaged,
                holds,
            } => Reply::State {
                promised,
                accepted,
                decided,
                damaged: damaged || self.get() == Standing::Abstains,
                holds,
            },
            reply => reply,
        }
    }
}
