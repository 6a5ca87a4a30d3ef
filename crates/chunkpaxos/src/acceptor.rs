//! The acceptor: one register's state and how a message changes it.
//!
//! [`handle`] is a pure function. The engine owns the registers and calls it; what it returns in
//! [`Outcome::persist`] must be durable before the reply leaves the machine.

use vstack_types::{Digest, NodeRef, planted};

use crate::{
    message::{Reply, Request, Vote},
    placement::{Ballot, Placement},
};

/// An acceptor's state for one chunk. Kept as long as the disk, also when the chunk is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Register {
    /// Will accept nothing below this.
    pub promised: Option<Ballot>,
    /// What it accepted last.
    pub accepted: Option<Vote>,
    /// `accepted` is known to be decided.
    pub decided: bool,
    /// Something it vouched for is lost: it abstains until that is restored. Without a promise it is the votes
    /// themselves that are lost, see [`Register::votes_lost`].
    pub damaged: bool,
}

/// What a message does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// To be sent once `persist` is durable.
    pub reply: Reply,
    /// The register's new state, when it changed.
    pub persist: Option<Register>,
}

impl Register {
    /// The register of an acceptor that voted and no longer knows how. It never votes again under this name: a move
    /// has to name the disk in another life.
    pub const fn lost() -> Self {
        Self {
            promised: None,
            accepted: None,
            decided: false,
            damaged: true,
        }
    }

    /// Whether it forgot votes. Who lost bytes has promised something; who lost votes promises nothing any more, also
    /// after it was told of a decision.
    pub const fn votes_lost(&self) -> bool {
        self.damaged && self.promised.is_none()
    }

    /// The register when its node holds just what `holds` tells: damaged where something it vouched for is lost, and
    /// whole again once that is restored. Forgotten votes do not come back.
    #[must_use]
    pub fn examined(self, me: NodeRef, holds: impl Fn(Digest) -> bool) -> Self {
        let misses = self
            .accepted
            .as_ref()
            .is_some_and(|vote| !Self::holds_all(&vote.placement, me, &holds));
        Self {
            damaged: misses || self.votes_lost(),
            ..self
        }
    }

    /// Whether items of this chunk that no half of the decided placement assigns to `me` may be deleted, `digest`
    /// among them. Only a decision allows it: an undecided value may yet lose.
    pub fn may_delete(&self, me: NodeRef, digest: Digest) -> bool {
        (self.decided || planted!("bytes are deleted on an undecided value"))
            && self
                .accepted
                .as_ref()
                .is_some_and(|vote| !vote.placement.keeps(me, digest))
    }

    /// Whether every item that `placement.layout` assigns to `me` is present and verified, as `holds` tells.
    fn holds_all(placement: &Placement, me: NodeRef, holds: &impl Fn(Digest) -> bool) -> bool {
        placement.items_of(&placement.layout, me).into_iter().all(holds)
    }
}

/// What a sealed acceptor says, instead of what [`handle`] would. Sealing is durable and for ever: the disk leaves, and
/// a vote it gave now would leave with it. It still learns and still tells.
pub fn when_sealed(request: &Request) -> Option<Reply> {
    match request {
        Request::Put0 { .. } | Request::Prepare { .. } | Request::Accept { .. } => {
            if planted!("a sealed acceptor votes") {
                return None;
            }
            Some(Reply::Nack { promised: None })
        }
        Request::Decided { .. } | Request::Read => None,
    }
}

/// Handles `request`, sent to `me`, about the chunk whose state is `register`.
///
/// `holds` tells whether an item of this chunk, named by its digest, is durable here and verified.
pub fn handle(register: &Register, me: NodeRef, holds: impl Fn(Digest) -> bool, request: &Request) -> Outcome {
    match request {
        Request::Put0 { ballot, placement } => put0(register, me, &holds, *ballot, placement),
        Request::Prepare { ballot } => prepare(register, me, &holds, *ballot),
        Request::Accept { ballot, placement } => accept(register, me, &holds, *ballot, placement),
        Request::Decided { ballot, placement } => decided(register, me, &holds, *ballot, placement),
        Request::Read => Outcome::unchanged(Reply::State {
            promised: register.promised,
            accepted: register.accepted.clone(),
            decided: register.decided,
            damaged: register.damaged,
            holds: holds_accepted(register, me, &holds),
        }),
    }
}

impl Outcome {
    fn unchanged(reply: Reply) -> Self {
        Self { reply, persist: None }
    }

    fn changed(reply: Reply, register: Register) -> Self {
        Self {
            reply,
            persist: Some(register),
        }
    }
}

fn holds_accepted(register: &Register, me: NodeRef, holds: &impl Fn(Digest) -> bool) -> bool {
    register
        .accepted
        .as_ref()
        .is_some_and(|vote| Register::holds_all(&vote.placement, me, holds))
}

fn abstains(register: &Register) -> bool {
    register.damaged && !planted!("a damaged acceptor votes")
}

/// A vote of anybody whom the placement does not name could stand in for bytes that nobody has.
fn is_not_named(placement: &Placement, me: NodeRef) -> bool {
    !placement.names(me) && !planted!("acceptors that hold nothing vote")
}

fn missing_items(placement: &Placement, me: NodeRef, holds: &impl Fn(Digest) -> bool) -> Vec<Digest> {
    if planted!("a vote without the bytes") {
        return Vec::new();
    }
    placement
        .items_of(&placement.layout, me)
        .into_iter()
        .filter(|item| !holds(*item))
        .collect()
}

fn put0(
    register: &Register,
    me: NodeRef,
    holds: &impl Fn(Digest) -> bool,
    ballot: Ballot,
    placement: &Placement,
) -> Outcome {
    if abstains(register) {
        return Outcome::unchanged(Reply::Damaged);
    }
    if is_not_named(placement, me) {
        return Outcome::unchanged(Reply::WrongNode);
    }
    match &register.accepted {
        // Only the same vote in the same ballot: votes of different ballots for one value must never be counted
        // together, or a majority is made of ballots that were each outvoted.
        // The vote may be known from news of its decision alone, and who says that it stands vouches for its bytes.
        Some(vote) if vote.ballot == ballot && vote.placement == *placement => {
            let items = missing_items(placement, me, holds);
            if items.is_empty() {
                return Outcome::unchanged(Reply::Accepted { ballot });
            }
            Outcome::unchanged(Reply::NeedBytes { items })
        }
        Some(vote) if vote.placement == *placement && planted!("the owner is told yes in another ballot") => {
            Outcome::unchanged(Reply::Accepted { ballot })
        }
        None if register.promised.is_none() || planted!("the owner's vote ignores promises") => {
            let items = missing_items(placement, me, holds);
            if !items.is_empty() {
                return Outcome::unchanged(Reply::NeedBytes { items });
            }
            let vote = Vote {
                ballot,
                placement: placement.clone(),
            };
            Outcome::changed(
                Reply::Accepted { ballot },
                Register {
                    promised: Some(ballot),
                    accepted: Some(vote),
                    decided: false,
                    damaged: false,
                },
            )
        }
        _ => Outcome::unchanged(Reply::Nack {
            promised: register.promised,
        }),
    }
}

fn prepare(register: &Register, me: NodeRef, holds: &impl Fn(Digest) -> bool, ballot: Ballot) -> Outcome {
    let vouches = register.damaged && planted!("a damaged acceptor vouches for what it lost");
    if abstains(register) && !vouches {
        return Outcome::unchanged(Reply::Damaged);
    }
    if register.promised.is_some_and(|promised| ballot < promised) {
        return Outcome::unchanged(Reply::Nack {
            promised: register.promised,
        });
    }
    let hidden = planted!("a promise hides what was accepted");
    let reply = Reply::Promise {
        ballot,
        accepted: register.accepted.clone().filter(|_| !hidden),
        decided: register.decided,
        holds: vouches || holds_accepted(register, me, holds),
    };
    if register.promised == Some(ballot) || planted!("a promise is not persisted") {
        Outcome::unchanged(reply)
    } else {
        Outcome::changed(
            reply,
            Register {
                promised: Some(ballot),
                ..register.clone()
            },
        )
    }
}

fn accept(
    register: &Register,
    me: NodeRef,
    holds: &impl Fn(Digest) -> bool,
    ballot: Ballot,
    placement: &Placement,
) -> Outcome {
    if abstains(register) {
        return Outcome::unchanged(Reply::Damaged);
    }
    if register.promised.is_some_and(|promised| ballot < promised) && !planted!("an accept below the promise") {
        return Outcome::unchanged(Reply::Nack {
            promised: register.promised,
        });
    }
    if is_not_named(placement, me) {
        return Outcome::unchanged(Reply::WrongNode);
    }
    let items = missing_items(placement, me, holds);
    if !items.is_empty() {
        return Outcome::unchanged(Reply::NeedBytes { items });
    }
    let vote = Vote {
        ballot,
        placement: placement.clone(),
    };
    if register.promised == Some(ballot) && register.accepted.as_ref() == Some(&vote) {
        return Outcome::unchanged(Reply::Accepted { ballot });
    }
    Outcome::changed(
        Reply::Accepted { ballot },
        Register {
            promised: Some(ballot),
            accepted: Some(vote),
            decided: register.decided && planted!("a new vote inherits the old decision"),
            damaged: false,
        },
    )
}

fn decided(
    register: &Register,
    me: NodeRef,
    holds: &impl Fn(Digest) -> bool,
    ballot: Ballot,
    placement: &Placement,
) -> Outcome {
    let newer = register.accepted.as_ref().is_none_or(|vote| vote.ballot <= ballot);
    let known = register.decided && register.accepted.as_ref().is_some_and(|vote| vote.ballot == ballot);
    if !(newer || planted!("an older decision replaces a newer vote")) || known {
        return Outcome::unchanged(Reply::Noted);
    }
    if placement.layout.is_deleted() && planted!("a deletion leaves no tombstone") {
        return Outcome::changed(Reply::Noted, Register::default());
    }
    let promised = if register.votes_lost() && !planted!("a decision brings forgotten votes back") {
        // The mark of who forgot votes: what is learned now does not bring them back.
        None
    } else if planted!("a decision moves the promise back") {
        Some(ballot)
    } else {
        register.promised.max(Some(ballot))
    };
    let next = Register {
        promised,
        accepted: Some(Vote {
            ballot,
            placement: placement.clone(),
        }),
        decided: true,
        damaged: register.damaged,
    };
    // A decision that assigns this node nothing, or only what is here, ends its damage. One that assigns what is not
    // here makes none: it never vouched for that.
    let next = if register.damaged {
        next.examined(me, holds)
    } else {
        next
    };
    Outcome::changed(Reply::Noted, next)
}

#[cfg(test)]
mod tests;
