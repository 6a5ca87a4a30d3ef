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

/// The owner's PUT.
fn put(proposer: u8, placement: Placement) -> Request {
    Request::Put0 {
        ballot: ballot(0, proposer),
        placement,
    }
}

fn prepare(round: u64, proposer: u8) -> Request {
    Request::Prepare {
        ballot: ballot(round, proposer),
    }
}

fn accept(round: u64, proposer: u8, placement: Placement) -> Request {
    Request::Accept {
        ballot: ballot(round, proposer),
        placement,
    }
}

fn decided_in(round: u64, placement: Placement) -> Request {
    Request::Decided {
        ballot: ballot(round, 1),
        placement,
    }
}

fn accepted(round: u64, proposer: u8) -> Reply {
    Reply::Accepted {
        ballot: ballot(round, proposer),
    }
}

/// A higher ballot was promised.
fn nack(round: u64, proposer: u8) -> Reply {
    Reply::Nack {
        promised: Some(ballot(round, proposer)),
    }
}

/// What follows `value(1)` when it is taken out.
fn deletion() -> Placement {
    Placement {
        layout: Layout::Deleted { nodes: vec![node(1)] },
        version: 2,
        ..value(1)
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
    for _ in 0..2 {
        assert_eq!(step(&mut register, true, put(9, value(1))), accepted(0, 9));
    }
    assert_eq!(step(&mut register, true, put(8, value(1))), nack(0, 9));
}

#[test]
fn the_same_value_in_another_ballot_is_not_the_owners_vote() {
    let mut register = Register::default();
    assert_eq!(step(&mut register, true, accept(2, 7, value(1))), accepted(2, 7));
    assert_eq!(step(&mut register, true, put(9, value(1))), nack(2, 7));
}

#[test]
fn a_promise_shuts_out_the_owner_and_everything_below() {
    let mut register = Register::default();
    step(&mut register, false, prepare(3, 1));
    for below in [put(9, value(1)), accept(2, 9, value(1)), prepare(3, 0)] {
        assert_eq!(step(&mut register, true, below), nack(3, 1));
    }
}

#[test]
fn nobody_votes_for_bytes_that_are_not_there() {
    let mut register = Register::default();
    let need = Reply::NeedBytes {
        items: vec![Digest::of(&[1])],
    };
    assert_eq!(step(&mut register, false, accept(1, 1, value(1))), need);
    assert_eq!(step(&mut register, false, put(9, value(1))), need);
    assert_eq!(register, Register::default());
}

#[test]
fn a_decision_is_not_a_vote_and_never_goes_back() {
    let mut register = Register::default();
    step(&mut register, true, accept(4, 1, value(1)));
    assert_eq!(step(&mut register, false, decided_in(3, value(2))), Reply::Noted);
    assert!(!register.decided);
    step(&mut register, false, decided_in(5, value(3)));
    assert!(register.decided);
    assert_eq!(register.promised, Some(ballot(5, 1)));
    // A decided register still answers the next proposer, and a new vote is undecided until told otherwise.
    step(&mut register, true, accept(6, 1, value(3)));
    assert!(!register.decided);
}

#[test]
fn a_damaged_acceptor_abstains() {
    let mut register = Register {
        damaged: true,
        ..Register::default()
    };
    for request in [put(9, value(1)), prepare(1, 1), accept(1, 1, value(1))] {
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
    for request in [put(9, elsewhere.clone()), accept(1, 1, elsewhere.clone())] {
        assert_eq!(step(&mut Register::default(), true, request), Reply::WrongNode);
    }
    let leaving = Placement {
        prev: Some(value(1).layout),
        version: 2,
        ..elsewhere
    };
    assert_eq!(
        step(&mut Register::default(), false, accept(1, 1, leaving)),
        accepted(1, 1),
        "the old half votes too, and needs no bytes of the new one"
    );
}

#[test]
fn forgotten_votes_do_not_come_back_with_a_decision() {
    let mut register = Register::lost();
    let news = decided_in(5, value(3));
    assert_eq!(step(&mut register, true, news), Reply::Noted);
    assert!(register.decided && register.votes_lost());
    assert_eq!(step(&mut register, true, prepare(9, 1)), Reply::Damaged);
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
    step(&mut register, false, decided_in(2, deletion()));
    assert!(!register.damaged);
}

#[test]
fn a_sealed_acceptor_learns_and_tells_and_votes_no_more() {
    let votes = [put(9, value(1)), prepare(1, 1), accept(1, 1, value(1))];
    for request in votes {
        assert_eq!(when_sealed(&request), Some(Reply::Nack { promised: None }));
    }
    let news = decided_in(1, value(1));
    assert_eq!((when_sealed(&news), when_sealed(&Request::Read)), (None, None));
}

#[test]
fn bytes_go_only_when_a_decision_names_them_no_more() {
    let digest = Digest::of(&[1]);
    let mut register = Register::default();
    assert!(!register.may_delete(node(1), digest));
    step(&mut register, true, accept(1, 1, deletion()));
    assert!(
        !register.may_delete(node(1), digest),
        "an undecided deletion deletes nothing"
    );
    step(&mut register, true, decided_in(1, deletion()));
    assert!(register.may_delete(node(1), digest));
}
