//! On small random histories the search says what trying every order says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use vstack_linear::{Call, History, Specification, check};
use vstack_types::Monotonic;

/// A number that can be read, written and exchanged: small enough that most random histories are close calls.
struct Cell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Read,
    Write(u8),
    Exchange { from: u8, to: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Value(u8),
    Done,
    Not,
}

impl Specification for Cell {
    type State = u8;
    type Operation = Ask;
    type Answer = Said;

    fn initial(&self) -> u8 {
        0
    }

    fn after(&self, state: &u8, operation: &Ask, answer: Option<&Said>) -> Vec<u8> {
        let (right, next) = match operation {
            Ask::Read => (Said::Value(*state), *state),
            Ask::Write(value) => (Said::Done, *value),
            Ask::Exchange { from, to } if from == state => (Said::Done, *to),
            Ask::Exchange { .. } => (Said::Not, *state),
        };
        let possible = answer.is_none_or(|answer| *answer == right);
        possible.then_some(next).into_iter().collect()
    }
}

type Recorded = Call<Ask, Said>;

fn precedes(first: &Recorded, second: &Recorded) -> bool {
    first.answered.is_some_and(|(at, _)| at < second.invoked)
}

/// By definition: some order of all answered calls and some of the others, in which no call comes before one that
/// precedes it, explains every answer.
fn some_order_explains(calls: &[Recorded], placed: &mut Vec<usize>, state: u8) -> bool {
    let left: Vec<usize> = (0..calls.len()).filter(|call| !placed.contains(call)).collect();
    if left.iter().all(|call| calls[*call].answered.is_none()) {
        return true;
    }
    for call in &left {
        // A call left out for good has no answer and precedes nothing.
        if left.iter().any(|other| precedes(&calls[*other], &calls[*call])) {
            continue;
        }
        let answer = calls[*call].answered.map(|(_, answer)| answer);
        for next in Cell.after(&state, &calls[*call].operation, answer.as_ref()) {
            placed.push(*call);
            if some_order_explains(calls, placed, next) {
                return true;
            }
            placed.pop();
        }
    }
    false
}

fn random_history(rng: &mut StdRng) -> Vec<Recorded> {
    let calls = rng.random_range(1..=6);
    let value = |rng: &mut StdRng| rng.random_range(0..3u8);
    (0..calls)
        .map(|process| {
            let (operation, answer) = match rng.random_range(0..5) {
                0 | 1 => (Ask::Read, Said::Value(value(rng))),
                2 => (Ask::Write(value(rng)), Said::Done),
                kind => {
                    let (from, to) = (value(rng), value(rng));
                    (
                        Ask::Exchange { from, to },
                        if kind == 3 { Said::Done } else { Said::Not },
                    )
                }
            };
            let invoked = rng.random_range(0..12);
            let at = |tick| Monotonic::from_start(Duration::from_secs(tick));
            let answered = rng
                .random_bool(0.6)
                .then(|| (at(invoked + rng.random_range(0..6)), answer));
            Call {
                process,
                operation,
                invoked: at(invoked),
                answered,
            }
        })
        .collect()
}

#[test]
fn on_every_small_random_history() {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..40_000 {
        let calls = random_history(&mut rng);
        let expected = some_order_explains(&calls, &mut Vec::new(), Cell.initial());
        let verdict = check(&Cell, &History::new(calls.clone()).unwrap(), 1_000_000);
        assert_eq!(verdict.is_linearizable(), expected, "{calls:?}: {verdict:?}");
        assert_eq!(verdict.is_violated(), !expected, "{calls:?}: {verdict:?}");
        *(if expected { &mut good } else { &mut bad }) += 1;
    }
    assert!(
        good > 5_000 && bad > 5_000,
        "{good} good, {bad} bad: too one-sided to show anything"
    );
    println!("{good} good and {bad} bad histories, all judged as by trying every order");
}

/// The order given as a reason is one: it keeps to the times and every answer is right.
#[test]
fn the_order_found_is_one() {
    let mut rng = StdRng::seed_from_u64(2);
    let mut orders = 0;
    for _ in 0..20_000 {
        let calls = random_history(&mut rng);
        let verdict = check(&Cell, &History::new(calls.clone()).unwrap(), 1_000_000);
        let vstack_linear::Verdict::Linearizable(order) = verdict else {
            continue;
        };
        orders += 1;
        let mut state = Cell.initial();
        for (place, step) in order.iter().enumerate() {
            let call = &calls[step.call];
            assert!(
                order[place + 1..]
                    .iter()
                    .all(|later| !precedes(&calls[later.call], call))
            );
            let answer = call.answered.map(|(_, answer)| answer);
            assert!(
                Cell.after(&state, &call.operation, answer.as_ref())
                    .contains(&step.state)
            );
            state = step.state;
        }
        let answered = calls.iter().filter(|call| call.answered.is_some()).count();
        let placed = order.iter().filter(|step| calls[step.call].answered.is_some()).count();
        assert_eq!(answered, placed);
    }
    assert!(orders > 2_000, "{orders}");
}
