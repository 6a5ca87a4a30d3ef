//! The acceptor: one register's state and how a message changes it.
//!
//! [`handle`] is a pure function. The engine owns the registers and calls it; what it returns in
//! [`Outcome::persist`] must be durable before the reply leaves the machine.

use vstack_types::{Digest, NodeRef};

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
    /// Something it vouched for is lost: it abstains until that is restored.
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
    /// Whether items of this chunk that no half of the decided placement assigns to `me` may be deleted, `digest`
    /// among them. Only a decision allows it: an undecided value may yet lose.
    pub fn may_delete(&self, me: NodeRef, digest: Digest) -> bool {
        self.decided
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

/// Handles `request`, sent to `me`, about the chunk whose state is `register`.
///
/// `holds` tells whether an item of this chunk, named by its digest, is durable here and verified.
pub fn handle(register: &Register, me: NodeRef, holds: impl Fn(Digest) -> bool, request: &Request) -> Outcome {
    match request {
        Request::Put0 { ballot, placement } => put0(register, me, &holds, *ballot, placement),
        Request::Prepare { ballot } => prepare(register, me, &holds, *ballot),
        Request::Accept { ballot, placement } => accept(register, me, &holds, *ballot, placement),
        Request::Decided { ballot, placement } => decided(register, *ballot, placement),
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

fn missing_items(placement: &Placement, me: NodeRef, holds: &impl Fn(Digest) -> bool) -> Vec<Digest> {
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
    if register.damaged {
        return Outcome::unchanged(Reply::Damaged);
    }
    match &register.accepted {
        // Only the same vote in the same ballot: votes of different ballots for one value must never be counted
        // together, or a majority is made of ballots that were each outvoted.
        Some(vote) if vote.ballot == ballot && vote.placement == *placement => {
            Outcome::unchanged(Reply::Accepted { ballot })
        }
        None if register.promised.is_none() => {
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
    if register.damaged {
        return Outcome::unchanged(Reply::Damaged);
    }
    if register.promised.is_some_and(|promised| ballot < promised) {
        return Outcome::unchanged(Reply::Nack {
            promised: register.promised,
        });
    }
    let reply = Reply::Promise {
        ballot,
        accepted: register.accepted.clone(),
        decided: register.decided,
        holds: holds_accepted(register, me, holds),
    };
    if register.promised == Some(ballot) {
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
    if register.damaged {
        return Outcome::unchanged(Reply::Damaged);
    }
    if register.promised.is_some_and(|promised| ballot < promised) {
        return Outcome::unchanged(Reply::Nack {
            promised: register.promised,
        });
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
            decided: false,
            damaged: false,
        },
    )
}

fn decided(register: &Register, ballot: Ballot, placement: &Placement) -> Outcome {
    let newer = register.accepted.as_ref().is_none_or(|vote| vote.ballot <= ballot);
    let known = register.decided && register.accepted.as_ref().is_some_and(|vote| vote.ballot == ballot);
    if !newer || known {
        return Outcome::unchanged(Reply::Noted);
    }
    Outcome::changed(
        Reply::Noted,
        Register {
            promised: register.promised.max(Some(ballot)),
            accepted: Some(Vote {
                ballot,
                placement: placement.clone(),
            }),
            decided: true,
            damaged: register.damaged,
        },
    )
}

#[cfg(test)]
mod tests {
    use vstack_types::{NodeUuid, ProcessUuid};

    use super::*;
    use crate::placement::Layout;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn ballot(round: u64, proposer: u8) -> Ballot {
        Ballot {
            round,
            proposer: ProcessUuid::from_bytes([proposer; 16]),
        }
    }

    fn value(content: u8) -> Placement {
        Placement {
            version: 1,
            size: 1,
            sha256: Digest::of(&[content]),
            layout: Layout::Replicated {
                nodes: vec![node(1), node(2), node(3)],
            },
            prev: None,
            back: false,
        }
    }

    fn step(register: &mut Register, holds: bool, request: Request) -> Reply {
        let outcome = handle(register, node(1), |_| holds, &request);
        if let Some(next) = outcome.persist {
            *register = next;
        }
        outcome.reply
    }

    #[test]
    fn the_owners_put_is_a_vote_and_may_be_repeated() {
        let mut register = Register::default();
        let put = Request::Put0 {
            ballot: ballot(0, 9),
            placement: value(1),
        };
        assert_eq!(
            step(&mut register, true, put.clone()),
            Reply::Accepted { ballot: ballot(0, 9) }
        );
        assert_eq!(step(&mut register, true, put), Reply::Accepted { ballot: ballot(0, 9) });
        let other = Request::Put0 {
            ballot: ballot(0, 8),
            placement: value(1),
        };
        assert_eq!(
            step(&mut register, true, other),
            Reply::Nack {
                promised: Some(ballot(0, 9))
            }
        );
    }

    #[test]
    fn the_same_value_in_another_ballot_is_not_the_owners_vote() {
        let mut register = Register::default();
        let accept = Request::Accept {
            ballot: ballot(2, 7),
            placement: value(1),
        };
        assert_eq!(
            step(&mut register, true, accept),
            Reply::Accepted { ballot: ballot(2, 7) }
        );
        let put = Request::Put0 {
            ballot: ballot(0, 9),
            placement: value(1),
        };
        assert_eq!(
            step(&mut register, true, put),
            Reply::Nack {
                promised: Some(ballot(2, 7))
            }
        );
    }

    #[test]
    fn a_promise_shuts_out_the_owner_and_everything_below() {
        let mut register = Register::default();
        step(&mut register, false, Request::Prepare { ballot: ballot(3, 1) });
        let put = Request::Put0 {
            ballot: ballot(0, 9),
            placement: value(1),
        };
        assert_eq!(
            step(&mut register, true, put),
            Reply::Nack {
                promised: Some(ballot(3, 1))
            }
        );
        let low = Request::Accept {
            ballot: ballot(2, 9),
            placement: value(1),
        };
        assert_eq!(
            step(&mut register, true, low),
            Reply::Nack {
                promised: Some(ballot(3, 1))
            }
        );
        let below = Request::Prepare { ballot: ballot(3, 0) };
        assert_eq!(
            step(&mut register, true, below),
            Reply::Nack {
                promised: Some(ballot(3, 1))
            }
        );
    }

    #[test]
    fn nobody_votes_for_bytes_that_are_not_there() {
        let mut register = Register::default();
        let need = Reply::NeedBytes {
            items: vec![Digest::of(&[1])],
        };
        let accept = Request::Accept {
            ballot: ballot(1, 1),
            placement: value(1),
        };
        assert_eq!(step(&mut register, false, accept), need);
        assert_eq!(
            step(
                &mut register,
                false,
                Request::Put0 {
                    ballot: ballot(0, 9),
                    placement: value(1)
                }
            ),
            need
        );
        assert_eq!(register, Register::default());
    }

    #[test]
    fn a_decision_is_not_a_vote_and_never_goes_back() {
        let mut register = Register::default();
        step(
            &mut register,
            true,
            Request::Accept {
                ballot: ballot(4, 1),
                placement: value(1),
            },
        );
        assert_eq!(
            step(
                &mut register,
                false,
                Request::Decided {
                    ballot: ballot(3, 1),
                    placement: value(2)
                }
            ),
            Reply::Noted
        );
        assert!(!register.decided);
        step(
            &mut register,
            false,
            Request::Decided {
                ballot: ballot(5, 1),
                placement: value(3),
            },
        );
        assert!(register.decided);
        assert_eq!(register.promised, Some(ballot(5, 1)));
        // A decided register still answers the next proposer, and a new vote is undecided until told otherwise.
        step(
            &mut register,
            true,
            Request::Accept {
                ballot: ballot(6, 1),
                placement: value(3),
            },
        );
        assert!(!register.decided);
    }

    #[test]
    fn a_damaged_acceptor_abstains() {
        let mut register = Register {
            damaged: true,
            ..Register::default()
        };
        for request in [
            Request::Put0 {
                ballot: ballot(0, 9),
                placement: value(1),
            },
            Request::Prepare { ballot: ballot(1, 1) },
            Request::Accept {
                ballot: ballot(1, 1),
                placement: value(1),
            },
        ] {
            assert_eq!(step(&mut register, true, request), Reply::Damaged);
        }
    }

    #[test]
    fn bytes_go_only_when_a_decision_names_them_no_more() {
        let digest = Digest::of(&[1]);
        let deleted = Placement {
            layout: Layout::Deleted { nodes: vec![node(1)] },
            version: 2,
            ..value(1)
        };
        let mut register = Register::default();
        assert!(!register.may_delete(node(1), digest));
        step(
            &mut register,
            true,
            Request::Accept {
                ballot: ballot(1, 1),
                placement: deleted.clone(),
            },
        );
        assert!(
            !register.may_delete(node(1), digest),
            "an undecided deletion deletes nothing"
        );
        step(
            &mut register,
            true,
            Request::Decided {
                ballot: ballot(1, 1),
                placement: deleted,
            },
        );
        assert!(register.may_delete(node(1), digest));
    }
}
