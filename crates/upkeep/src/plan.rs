//! What is to be done next about a chunk.
//!
//! Everything that changes where bytes or votes are is a move, decided like every other placement; only putting bytes
//! back where they belong, and telling what was decided, need no decision. One thing at a time for each chunk: what
//! follows is seen when the result was learned.

mod job;
mod outlook;
#[cfg(test)]
mod tests;

use std::num::NonZeroU8;

use vstack_placement::{Candidate, Liveness};
use vstack_types::{NodeRef, planted};

pub use self::outlook::Outlook;
use crate::standing::{Reach, Standing};

/// What is to be done about a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Its register lost the majority of its acceptors for good: what is left of it is copied to a new chunk.
    Salvage,
    /// Somebody's register says something else: read it with a majority, and tell everybody what is decided.
    Read {
        /// Those.
        differing: Vec<NodeRef>,
    },
    /// A node gets an item again that it lost, or that is damaged there.
    Restore {
        /// Who.
        node: NodeRef,
        /// Which item of the row.
        tag: u32,
    },
    /// A move is under way, and its new nodes have their part: end it there.
    Settle,
    /// A move is under way, and some of its new nodes do not come: give it up.
    TurnBack,
    /// Its nodes are to be others.
    Move {
        /// Those. Of shards, that of each by its index.
        to: Vec<NodeRef>,
    },
    /// Some of its shards are none of this chunk: those are made anew, and so are those whose nodes are to be others.
    Correct {
        /// The node of each shard, by its index.
        to: Vec<NodeRef>,
    },
    /// Its copies are to become shards.
    Encode {
        /// Shards that are needed to read it. The others are parity.
        data: NonZeroU8,
        /// The node of each, by its index.
        to: Vec<NodeRef>,
    },
    /// Its shards are to become copies.
    Decode {
        /// The nodes of those.
        to: Vec<NodeRef>,
    },
}

/// A job, and how much it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// How the chunk stands: the worst first.
    pub standing: Standing,
    /// What is to be done.
    pub job: Job,
}

/// Why nothing is being done about a chunk that is not as it should be, where somebody has to do something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stuck {
    /// Nothing can be decided about it, or it cannot be read: these would have to come back, or be said to be lost.
    Awaits(Vec<NodeRef>),
    /// No other node can take a copy.
    NowhereToGo,
}

/// What is known of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// The nodes there are.
    pub nodes: &'a [Candidate],
    /// Those that are not waited for any more, registered or not.
    pub gone: &'a [NodeRef],
    /// Those of them that do not come back.
    pub lost: &'a [NodeRef],
    /// Copies wanted of what is stored as copies.
    pub copies: usize,
}

impl Cluster<'_> {
    fn reach(&self, node: NodeRef) -> Reach {
        let candidate = self.nodes.iter().find(|candidate| candidate.node == node);
        let up = |candidate: &Candidate| candidate.liveness != Liveness::Down && candidate.trusted;
        if self.lost.contains(&node) && !planted!("who is lost for good is waited for") {
            Reach::Lost
        } else if self.gone.contains(&node) {
            Reach::Gone
        } else if candidate.is_some_and(up) {
            Reach::Up
        } else if planted!("who is silent counts as lost for good") {
            Reach::Lost
        } else {
            Reach::Silent
        }
    }
}
