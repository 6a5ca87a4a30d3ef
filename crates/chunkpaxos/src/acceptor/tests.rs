//! The acceptor's table, line by line.

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
fn who_is_not_named_does_not_vote() {
    let elsewhere = Placement {
        layout: Layout::Replicated {
            nodes: vec![node(2), node(3)],
        },
        ..value(1)
    };
    let put = Request::Put0 {
        ballot: ballot(0, 9),
        placement: elsewhere.clone(),
    };
    assert_eq!(step(&mut Register::default(), true, put), Reply::WrongNode);
    let accept = Request::Accept {
        ballot: ballot(1, 1),
        placement: elsewhere.clone(),
    };
    assert_eq!(step(&mut Register::default(), true, accept), Reply::WrongNode);
    let leaving = Request::Accept {
        ballot: ballot(1, 1),
        placement: Placement {
            prev: Some(value(1).layout),
            version: 2,
            ..elsewhere
        },
    };
    assert_eq!(
        step(&mut Register::default(), false, leaving),
        Reply::Accepted { ballot: ballot(1, 1) },
        "the old half votes too, and needs no bytes of the new one"
    );
}

#[test]
fn forgotten_votes_do_not_come_back_with_a_decision() {
    let mut register = Register::lost();
    let news = Request::Decided {
        ballot: ballot(5, 1),
        placement: value(3),
    };
    assert_eq!(step(&mut register, true, news), Reply::Noted);
    assert!(register.decided && register.votes_lost());
    let prepare = Request::Prepare { ballot: ballot(9, 1) };
    assert_eq!(step(&mut register, true, prepare), Reply::Damaged);
    assert!(register.clone().examined(node(1), |_| true).votes_lost());
}

#[test]
fn restored_bytes_end_damage_and_so_does_a_decision_that_needs_none() {
    let voted = Register {
        promised: Some(ballot(1, 1)),
        accepted: Some(Vote {
            ballot: ballot(1, 1),
            placement: value(1),
        }),
        ..Register::default()
    };
    let damaged = voted.clone().examined(node(1), |_| false);
    assert!(damaged.damaged && !damaged.votes_lost());
    assert_eq!(damaged.clone().examined(node(1), |_| true), voted);
    let mut register = damaged;
    let gone = Placement {
        layout: Layout::Deleted { nodes: vec![node(1)] },
        version: 2,
        ..value(1)
    };
    let news = Request::Decided {
        ballot: ballot(2, 1),
        placement: gone,
    };
    step(&mut register, false, news);
    assert!(!register.damaged);
}

#[test]
fn a_sealed_acceptor_learns_and_tells_and_votes_no_more() {
    let votes = [
        Request::Put0 {
            ballot: ballot(0, 9),
            placement: value(1),
        },
        Request::Prepare { ballot: ballot(1, 1) },
        Request::Accept {
            ballot: ballot(1, 1),
            placement: value(1),
        },
    ];
    for request in votes {
        assert_eq!(when_sealed(&request), Some(Reply::Nack { promised: None }));
    }
    let news = Request::Decided {
        ballot: ballot(1, 1),
        placement: value(1),
    };
    assert_eq!((when_sealed(&news), when_sealed(&Request::Read)), (None, None));
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
