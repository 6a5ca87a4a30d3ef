//! A register's history of hundreds of calls, some ten at a time and some never answered, is judged by a search that stays
//! small: how long that takes is for the machine to say, how many configurations it is not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use vstack_chunkpaxos::{Change, Layout, Placement};
use vstack_linear::{Answer, Call, ChunkRegister, History, Operation, Specification as _, check};
use vstack_types::{Digest, Monotonic, NodeRef, NodeUuid};

/// The hardest of these histories takes between 400,000 and 450,000; a search that tried orders as they come would need
/// more of them than there is time for.
const CONFIGURATIONS_MAX: usize = 500_000;

fn nodes(numbers: &[u8]) -> Vec<NodeRef> {
    let node = |number: &u8| NodeRef::first(NodeUuid::from_bytes([*number; 16]));
    numbers.iter().map(node).collect()
}

fn at(ms: u64) -> Monotonic {
    Monotonic::from_start(Duration::from_millis(ms))
}

fn random_change(rng: &mut StdRng) -> Change {
    let sets: [&[u8]; 3] = [&[1, 2, 3], &[2, 3, 4], &[3, 4, 5]];
    match rng.random_range(0..4) {
        0 => Change::Read,
        1 => Change::Settle,
        2 => Change::TurnBack,
        _ => Change::Move {
            to: Layout::Replicated {
                nodes: nodes(sets.choose(rng).unwrap()),
            },
        },
    }
}

/// What really happened, one call a moment; then every caller remembers a longer time than it took. One call in twenty
/// is never answered.
fn recorded(register: &ChunkRegister, length: u64, slack: u64, seed: u64) -> Vec<Call<Operation, Answer>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut state: Option<Placement> = None;
    let mut calls = Vec::new();
    for moment in 0..length {
        let change = match moment {
            0 => Change::Create {
                size: 1,
                sha256: Digest::of(b"x"),
            },
            _ => random_change(&mut rng),
        };
        let expected = None;
        let operation = Operation::Wish { change, expected };
        let made = register.after(&state, &operation, None).pop().flatten();
        let found = || {
            let answer = Answer::Decided(state.clone()?);
            (!register.after(&state, &operation, Some(&answer)).is_empty()).then_some(answer)
        };
        let Some(answer) = made.clone().map(Answer::Decided).or_else(found) else {
            // Refused: not part of this history.
            continue;
        };
        let answered = rng.random_bool(0.95) || moment == 0;
        let spread = |rng: &mut StdRng| rng.random_range(0..slack);
        calls.push(Call {
            process: 0,
            operation,
            invoked: at((slack + moment * 10).saturating_sub(spread(&mut rng))),
            answered: answered.then(|| (at(slack + moment * 10 + spread(&mut rng)), answer)),
        });
        state = made.or(state);
    }
    calls
}

#[test]
fn good_and_bad_ones() {
    let register = ChunkRegister {
        initial: nodes(&[1, 2, 3]),
    };
    let (mut judged, mut calls_all) = (0, 0);
    for seed in 0..10 {
        // Some ten calls at a time.
        let calls = recorded(&register, 800, 100, seed);
        calls_all += calls.len();
        let verdict = check(&register, &History::new(calls.clone()).unwrap(), CONFIGURATIONS_MAX);
        assert!(verdict.is_linearizable(), "seed {seed}: {verdict:?}");
        // The same with one read that is an age too late.
        let mut late = calls;
        let end = late.iter().map(|call| call.invoked).max().unwrap() + Duration::from_secs(1);
        let early = late.iter().position(|call| call.answered.is_some()).unwrap();
        let (_, answer) = late[early].answered.clone().unwrap();
        late.push(Call {
            process: 1,
            operation: Operation::Wish {
                change: Change::Read,
                expected: None,
            },
            invoked: end,
            answered: Some((end, answer)),
        });
        let verdict = check(&register, &History::new(late).unwrap(), CONFIGURATIONS_MAX);
        assert!(verdict.is_violated(), "seed {seed}: {verdict:?}");
        judged += 2;
    }
    println!(
        "{judged} histories, {calls_all} calls in the good ones, at most {CONFIGURATIONS_MAX} configurations each"
    );
}
