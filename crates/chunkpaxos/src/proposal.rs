//! What a proposer is asked for, what it asks of its driver, and how it ends.

use vstack_types::{Digest, NodeRef};

use crate::{
    message::{Request, Vote},
    placement::{Layout, LayoutError, Placement},
};

/// What a proposer wishes for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// Learn what is decided, completing what may have been.
    Read,
    /// Place bytes that were staged: version 1 on the initial nodes.
    Create {
        /// Bytes of the chunk.
        size: u64,
        /// Of the chunk.
        sha256: Digest,
    },
    /// Make sure nothing is ever placed, if nothing was.
    Abort,
    /// Take the chunk out, whatever is placed.
    Delete,
    /// Begin to move it; the result is joint.
    Move {
        /// Where to.
        to: Layout,
    },
    /// End a move: only the new layout counts from then on.
    Settle,
    /// Decide what is placed once more, in a newer ballot: for who takes no news as old as its decision.
    Renew,
    /// Give a move up; the result is joint with the halves swapped, to be settled.
    TurnBack,
}

/// Why a wish is not granted. Of these only [`Self::NotEnough`] may change with another try, once more nodes answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such placement to change.
    #[error("nothing is placed under this id")]
    Nothing,
    /// It is gone for ever.
    #[error("the chunk was deleted; a new upload needs a new id")]
    Deleted,
    /// Its deletion was decided, or only begun, and is not completed by one who spares ([`crate::Proposer::sparing`]).
    #[error("its deletion was begun, or decided")]
    Spared,
    /// Something else was decided first.
    #[error("another placement was decided")]
    Taken(Box<Placement>),
    /// A move is under way: settle it or turn it back first.
    #[error("a move is under way")]
    Joint(Box<Placement>),
    /// No move is under way.
    #[error("no move is under way")]
    Settled,
    /// Nothing can be moved there.
    #[error("it cannot be moved there")]
    Layout(#[source] LayoutError),
    /// Too few nodes of the new layout hold their part.
    #[error("too few nodes hold their part of the new layout")]
    NotEnough,
    /// Somebody changed it since the caller looked.
    #[error("the placement has version {}, not the expected one", .0.version)]
    Version(Box<Placement>),
}

/// How a proposal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This placement is decided, as wished.
    Decided(Vote),
    /// Nothing is decided and nothing can have been: only for [`Change::Read`].
    Nothing,
    /// Not as wished; what is known of the register is in the refusal.
    Refused(Refusal),
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send; give the reply to [`crate::Proposer::on_reply`], or its absence to [`crate::Proposer::on_silence`]
    /// with what was asked for ([`Request::stage`]).
    Send {
        /// To whom.
        to: NodeRef,
        /// What.
        request: Request,
    },
    /// Bring this item to a node that needs it before it can vote, from any of the holders; then
    /// [`crate::Proposer::on_copied`].
    Copy {
        /// Who needs it.
        to: NodeRef,
        /// Of the item.
        item: Digest,
        /// Bytes of the item.
        size: u64,
        /// Who should have it.
        from: Vec<NodeRef>,
    },
    /// Send, and forget: the loss of this message is harmless.
    Tell {
        /// To whom.
        to: NodeRef,
        /// A [`Request::Decided`].
        request: Request,
    },
    /// This attempt cannot succeed: wait for [`crate::backoff`], then [`crate::Proposer::retry`].
    Backoff {
        /// Attempts so far, from 1.
        attempt: u32,
    },
    /// It is over.
    Finish(Outcome),
}
