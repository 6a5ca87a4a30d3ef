//! Histories of a chunk's register of which a reader can tell at sight whether they can be: the checker says the same.
//!
//! Times are small numbers; a call written `(2, 5)` was asked at 2 and answered at 5, one written `(2, None)` was never
//! answered.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use vstack_chunkpaxos::{Change, Layout, Placement, Refusal};
use vstack_linear::{Answer, Call, ChunkRegister, History, Operation, Verdict, authored, check};
use vstack_types::{Digest, Monotonic, NodeRef, NodeUuid};

fn nodes(numbers: &[u8]) -> Vec<NodeRef> {
    let node = |number: &u8| NodeRef::first(NodeUuid::from_bytes([*number; 16]));
    numbers.iter().map(node).collect()
}

fn on(numbers: &[u8]) -> Layout {
    Layout::Replicated { nodes: nodes(numbers) }
}

fn first(content: u8) -> Placement {
    Placement {
        version: 1,
        size: 1,
        sha256: Digest::of(&[content]),
        layout: on(&[1, 2, 3]),
        prev: None,
        back: false,
    }
}

/// Version 2 of `first(content)`.
fn moving(content: u8, to: &[u8]) -> Placement {
    Placement {
        version: 2,
        layout: on(to),
        prev: Some(on(&[1, 2, 3])),
        ..first(content)
    }
}

/// Version 3, after [`moving`].
fn moved(content: u8, to: &[u8]) -> Placement {
    Placement {
        version: 3,
        layout: on(to),
        ..first(content)
    }
}

fn deleted(from: &Placement) -> Placement {
    Placement {
        version: from.version + 1,
        layout: Layout::Deleted {
            nodes: from.layout.nodes(),
        },
        prev: None,
        ..from.clone()
    }
}

fn never() -> Placement {
    Placement {
        size: 0,
        sha256: Digest::of(b""),
        layout: Layout::Deleted {
            nodes: nodes(&[1, 2, 3]),
        },
        ..first(0)
    }
}

fn create(content: u8) -> Change {
    Change::Create {
        size: 1,
        sha256: Digest::of(&[content]),
    }
}

fn move_to(to: &[u8]) -> Change {
    Change::Move { to: on(to) }
}

fn at(tick: u64) -> Monotonic {
    Monotonic::from_start(Duration::from_secs(tick))
}

type Recorded = Call<Operation, Answer>;

fn wish(change: Change, asked: u64, until: u64, answer: Answer) -> Recorded {
    let expected = None;
    call(Operation::Wish { change, expected }, asked, Some((until, answer)))
}

fn expecting(version: u64, change: Change, asked: u64, until: u64, answer: Answer) -> Recorded {
    let expected = Some(version);
    call(Operation::Wish { change, expected }, asked, Some((until, answer)))
}

fn read(asked: u64, until: u64, placement: &Placement) -> Recorded {
    wish(Change::Read, asked, until, Answer::Decided(placement.clone()))
}

fn read_nothing(asked: u64, until: u64) -> Recorded {
    wish(Change::Read, asked, until, Answer::Nothing)
}

fn attempt(change: Change, placement: &Placement, asked: u64) -> Recorded {
    assert!(authored(&change, placement), "the attempt could be one of that wish");
    let placement = placement.clone();
    call(Operation::Attempt { change, placement }, asked, None)
}

fn put(placement: &Placement, asked: u64, answered: Option<(u64, Answer)>) -> Recorded {
    let placement = placement.clone();
    call(Operation::OwnersPut { placement }, asked, answered)
}

fn call(operation: Operation, asked: u64, answered: Option<(u64, Answer)>) -> Recorded {
    Call {
        process: 0,
        operation,
        invoked: at(asked),
        answered: answered.map(|(until, answer)| (at(until), answer)),
    }
}

fn verdict(calls: Vec<Recorded>) -> Verdict<Option<Placement>> {
    let register = ChunkRegister {
        initial: nodes(&[1, 2, 3]),
    };
    check(&register, &History::new(calls).unwrap(), 1_000_000)
}

#[track_caller]
fn good(calls: Vec<Recorded>) {
    let verdict = verdict(calls);
    assert!(verdict.is_linearizable(), "{verdict:?}");
}

#[track_caller]
fn bad(calls: Vec<Recorded>) {
    let verdict = verdict(calls);
    assert!(verdict.is_violated(), "{verdict:?}");
}

fn ok(placement: &Placement) -> Answer {
    Answer::Decided(placement.clone())
}

fn taken(placement: &Placement) -> Answer {
    Answer::Refused(Refusal::Taken(Box::new(placement.clone())))
}

fn joint(placement: &Placement) -> Answer {
    Answer::Refused(Refusal::Joint(Box::new(placement.clone())))
}

fn other_version(placement: &Placement) -> Answer {
    Answer::Refused(Refusal::Version(Box::new(placement.clone())))
}

#[test]
fn nothing_happened() {
    good(vec![]);
    good(vec![read_nothing(1, 2), read_nothing(2, 3)]);
}

#[test]
fn a_whole_life_one_call_after_the_other() {
    let gone = deleted(&moved(7, &[1, 2, 4]));
    good(vec![
        read_nothing(1, 2),
        put(&first(7), 3, Some((4, ok(&first(7))))),
        read(5, 6, &first(7)),
        expecting(1, move_to(&[1, 2, 4]), 7, 8, ok(&moving(7, &[1, 2, 4]))),
        wish(Change::Delete, 9, 10, joint(&moving(7, &[1, 2, 4]))),
        wish(Change::Settle, 11, 12, Answer::Refused(Refusal::NotEnough)),
        wish(Change::Settle, 13, 14, ok(&moved(7, &[1, 2, 4]))),
        wish(Change::TurnBack, 15, 16, Answer::Refused(Refusal::Settled)),
        expecting(1, Change::Delete, 17, 18, other_version(&moved(7, &[1, 2, 4]))),
        expecting(3, Change::Delete, 19, 20, ok(&gone)),
        wish(create(7), 21, 22, Answer::Refused(Refusal::Deleted)),
        wish(Change::Delete, 23, 24, ok(&gone)),
        read(25, 26, &gone),
    ]);
}

#[test]
fn a_race_has_one_winner_and_the_loser_learns_who() {
    let race = |second: Answer| {
        vec![
            wish(create(1), 1, 10, ok(&first(1))),
            wish(create(2), 2, 9, second),
            read(11, 12, &first(1)),
        ]
    };
    good(race(taken(&first(1))));
    bad(race(ok(&first(2))));
    bad(race(taken(&first(2))));
}

#[test]
fn two_winners_of_a_race_even_if_nobody_reads() {
    bad(vec![
        wish(create(1), 1, 10, ok(&first(1))),
        wish(Change::Abort, 2, 9, ok(&never())),
    ]);
}

#[test]
fn the_same_content_is_no_race() {
    good(vec![
        wish(create(1), 1, 10, ok(&first(1))),
        wish(create(1), 2, 9, ok(&first(1))),
    ]);
}

#[test]
fn a_read_beside_a_change_may_see_either() {
    for seen in [first(1), deleted(&first(1))] {
        good(vec![
            wish(create(1), 1, 2, ok(&first(1))),
            wish(Change::Delete, 3, 10, ok(&deleted(&first(1)))),
            read(4, 9, &seen),
        ]);
    }
}

#[test]
fn a_stale_read() {
    bad(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        wish(Change::Delete, 3, 4, ok(&deleted(&first(1)))),
        read(5, 6, &first(1)),
    ]);
    bad(vec![wish(create(1), 1, 2, ok(&first(1))), read_nothing(3, 4)]);
}

#[test]
fn reads_go_back() {
    // Both beside the deletion: either alone can be, in this order they cannot.
    bad(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        wish(Change::Delete, 3, 10, ok(&deleted(&first(1)))),
        read(4, 5, &deleted(&first(1))),
        read(6, 7, &first(1)),
    ]);
}

#[test]
fn a_read_of_what_nobody_wished() {
    bad(vec![read(1, 2, &first(1))]);
    bad(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        read(3, 4, &moving(1, &[1, 2, 4])),
    ]);
}

#[test]
fn a_read_of_the_future() {
    bad(vec![read(1, 2, &first(1)), wish(create(1), 3, 4, ok(&first(1)))]);
}

#[test]
fn a_lost_update() {
    // Both moves were told that they made version 2.
    bad(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        wish(move_to(&[1, 2, 4]), 3, 10, ok(&moving(1, &[1, 2, 4]))),
        wish(move_to(&[1, 2, 5]), 4, 9, ok(&moving(1, &[1, 2, 5]))),
    ]);
    good(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        wish(move_to(&[1, 2, 4]), 3, 10, ok(&moving(1, &[1, 2, 4]))),
        wish(move_to(&[1, 2, 5]), 4, 9, joint(&moving(1, &[1, 2, 4]))),
    ]);
}

#[test]
fn a_split_brain() {
    // One side settles the move, the other, which did not see it, deletes.
    bad(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        wish(move_to(&[3, 4, 5]), 3, 4, ok(&moving(1, &[3, 4, 5]))),
        wish(Change::Settle, 5, 20, ok(&moved(1, &[3, 4, 5]))),
        wish(Change::Delete, 6, 19, ok(&deleted(&first(1)))),
    ]);
}

#[test]
fn something_follows_a_deletion() {
    bad(vec![
        wish(Change::Abort, 1, 2, ok(&never())),
        put(&first(1), 0, Some((9, ok(&first(1))))),
        read(10, 11, &first(1)),
    ]);
    bad(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        wish(Change::Delete, 3, 4, ok(&deleted(&first(1)))),
        wish(create(1), 5, 6, ok(&first(1))),
    ]);
}

#[test]
fn a_version_is_skipped() {
    let skipped = Placement {
        version: 3,
        ..deleted(&first(1))
    };
    bad(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        wish(Change::Delete, 3, 4, ok(&skipped)),
    ]);
}

#[test]
fn a_joint_is_cancelled_in_one_step() {
    let back = Placement {
        version: 3,
        prev: Some(on(&[1, 2, 4])),
        back: true,
        ..first(1)
    };
    let begun = || {
        vec![
            wish(create(1), 1, 2, ok(&first(1))),
            wish(move_to(&[1, 2, 4]), 3, 4, ok(&moving(1, &[1, 2, 4]))),
        ]
    };
    let then = |placement: &Placement| {
        let mut calls = begun();
        calls.push(wish(Change::TurnBack, 5, 6, ok(placement)));
        calls
    };
    good(then(&back));
    bad(then(&Placement {
        prev: None,
        back: false,
        ..back
    }));
}

#[test]
fn an_unknown_outcome_may_show_at_any_time_or_never() {
    let lost = || wish(create(1), 1, 2, ok(&first(1)));
    let gone = deleted(&first(1));
    good(vec![lost(), attempt(Change::Delete, &gone, 3), read(10, 11, &first(1))]);
    good(vec![lost(), attempt(Change::Delete, &gone, 3), read(10, 11, &gone)]);
    good(vec![
        lost(),
        attempt(Change::Delete, &gone, 3),
        read(10, 11, &first(1)),
        read(20, 21, &gone),
    ]);
    // But not before it was asked, and not twice.
    bad(vec![lost(), read(3, 4, &gone), attempt(Change::Delete, &gone, 5)]);
    bad(vec![
        lost(),
        attempt(Change::Delete, &gone, 3),
        read(10, 11, &gone),
        read(20, 21, &first(1)),
    ]);
}

#[test]
fn an_attempt_explains_its_own_value_and_no_other() {
    bad(vec![attempt(create(1), &first(1), 1), read(10, 11, &first(2))]);
    // A deletion meant for version 1 does not become one of version 3.
    bad(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        attempt(Change::Delete, &deleted(&first(1)), 3),
        wish(move_to(&[1, 2, 4]), 5, 6, ok(&moving(1, &[1, 2, 4]))),
        wish(Change::Settle, 7, 8, ok(&moved(1, &[1, 2, 4]))),
        read(9, 10, &deleted(&moved(1, &[1, 2, 4]))),
    ]);
}

#[test]
fn a_refused_call_may_have_had_an_effect_by_an_earlier_attempt() {
    // Overtaken, completed by somebody else, then found by its own proposer as somebody else's.
    let there = moving(1, &[1, 2, 4]);
    let history = |attempted: bool| {
        let mut calls = vec![
            wish(create(1), 1, 2, ok(&first(1))),
            expecting(1, move_to(&[1, 2, 4]), 3, 10, other_version(&there)),
            read(5, 6, &there),
        ];
        calls.extend(attempted.then(|| attempt(move_to(&[1, 2, 4]), &there, 4)));
        calls
    };
    good(history(true));
    bad(history(false));
}

#[test]
fn an_effect_after_a_definite_failure() {
    // No node took the vote and none will; later the value is there.
    bad(vec![put(&first(1), 1, Some((2, Answer::Shut))), read(3, 4, &first(1))]);
    good(vec![put(&first(1), 1, None), read_nothing(2, 3), read(4, 5, &first(1))]);
    // The refusal names what was there; version 1 cannot become another one afterwards.
    bad(vec![
        wish(create(2), 1, 2, ok(&first(2))),
        wish(create(1), 3, 4, taken(&first(2))),
        attempt(create(1), &first(1), 3),
        read(5, 6, &first(1)),
    ]);
}

#[test]
fn an_owner_whose_value_a_rival_completed() {
    good(vec![
        put(&first(1), 1, Some((10, ok(&first(1))))),
        wish(Change::Abort, 2, 9, taken(&first(1))),
    ]);
    bad(vec![
        put(&first(1), 1, Some((10, ok(&first(1))))),
        wish(Change::Abort, 2, 9, ok(&never())),
    ]);
}

#[test]
fn refusals_that_cannot_be() {
    let settled = || wish(create(1), 1, 2, ok(&first(1)));
    bad(vec![settled(), wish(Change::Delete, 3, 4, joint(&first(1)))]);
    bad(vec![
        settled(),
        wish(Change::Settle, 3, 4, Answer::Refused(Refusal::NotEnough)),
    ]);
    bad(vec![
        settled(),
        wish(move_to(&[1]), 3, 4, Answer::Refused(Refusal::Nothing)),
    ]);
    bad(vec![
        settled(),
        wish(Change::Abort, 3, 4, Answer::Refused(Refusal::Deleted)),
    ]);
    bad(vec![
        settled(),
        expecting(1, Change::Delete, 3, 4, other_version(&first(1))),
    ]);
    bad(vec![
        settled(),
        expecting(2, Change::Delete, 3, 4, ok(&deleted(&first(1)))),
    ]);
    bad(vec![settled(), wish(create(1), 3, 4, taken(&first(1)))]);
}

#[test]
fn an_answer_before_its_question_is_no_history() {
    assert!(History::new(vec![read_nothing(2, 1)]).is_err());
}

#[test]
fn what_cannot_be_searched_is_not_judged() {
    let register = ChunkRegister {
        initial: nodes(&[1, 2, 3]),
    };
    let calls = (0..8).map(|_| read_nothing(1, 9)).collect();
    let verdict = check(&register, &History::new(calls).unwrap(), 3);
    assert!(matches!(verdict, Verdict::GivenUp { .. }), "{verdict:?}");
}

#[test]
fn the_verdict_names_the_call_that_has_no_place() {
    let verdict = verdict(vec![
        wish(create(1), 1, 2, ok(&first(1))),
        read(3, 4, &first(2)),
        read(5, 6, &first(1)),
    ]);
    let Verdict::Violated { longest, stuck } = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!((longest.len(), stuck), (1, 1));
    assert_eq!(longest[0].state, Some(first(1)));
}
