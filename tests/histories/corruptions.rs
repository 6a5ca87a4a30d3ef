//! What must not pass: recorded histories with one thing changed that cannot have happened.
//!
//! Every change below makes a lie of a true history whatever else is in it; the reason stands beside each.

use std::collections::BTreeMap;

use vstack_chunkpaxos::{Change, Layout, Placement, Refusal};
use vstack_linear::{Answer, Call, History, Operation};
use vstack_types::NodeRef;

use crate::{judging::verdict, recorder::Record};

type Calls = Vec<Call<Operation, Answer>>;

/// Makes a lie of a history, where it can.
type Corruption = fn(&Calls) -> Option<Calls>;

const ALL: [(&str, Corruption); 8] = [
    ("two reads exchanged", exchange_two_reads),
    ("a decided change forgotten", forget_a_change),
    ("a read after the end of an older placement", read_of_an_older_placement),
    ("nothing at the end", nothing_at_the_end),
    ("the deletion undone", undo_the_deletion),
    ("a second winner", second_winner),
    ("a version skipped", skip_a_version),
    ("a split brain", split_brain),
];

/// By kind: how many were tried. Panics when one passes.
pub fn all_are_rejected(record: &Record) -> BTreeMap<&'static str, usize> {
    let mut tried = BTreeMap::new();
    for (name, corrupt) in ALL {
        let Some(calls) = corrupt(&record.history.calls().to_vec()) else {
            continue;
        };
        let history = History::new(calls).expect("times that can be");
        let verdict = verdict(&record.initial, &history);
        assert!(verdict.is_violated(), "{name}: {verdict:?}\n{:#?}", history.calls());
        *tried.entry(name).or_default() += 1;
    }
    tried
}

/// What an answer says was placed.
fn told(call: &Call<Operation, Answer>) -> Option<&Placement> {
    match &call.answered.as_ref()?.1 {
        Answer::Decided(placement) => Some(placement),
        Answer::Refused(Refusal::Taken(found) | Refusal::Joint(found) | Refusal::Version(found)) => Some(found),
        _ => None,
    }
}

fn reads(calls: &Calls) -> Vec<usize> {
    let is_read = |call: &Call<Operation, Answer>| {
        matches!(
            &call.operation,
            Operation::Wish {
                change: Change::Read,
                ..
            }
        ) && told(call).is_some()
    };
    (0..calls.len()).filter(|index| is_read(&calls[*index])).collect()
}

fn precedes(first: &Call<Operation, Answer>, second: &Call<Operation, Answer>) -> bool {
    first
        .answered
        .as_ref()
        .is_some_and(|(until, _)| *until < second.invoked)
}

/// Versions only rise, so the later of two reads, one after the other, cannot have seen the lower one.
fn exchange_two_reads(calls: &Calls) -> Option<Calls> {
    let reads = reads(calls);
    let version = |index: usize| told(&calls[index]).map(|placement| placement.version);
    let pairs = reads
        .iter()
        .flat_map(|first| reads.iter().map(move |second| (*first, *second)));
    let mut apart =
        pairs.filter(|(first, second)| precedes(&calls[*first], &calls[*second]) && version(*first) < version(*second));
    let (first, second) = apart.next()?;
    let mut calls = calls.clone();
    let answers = [second, first].map(|index| calls[index].answered.clone().map(|(_, answer)| answer));
    for (index, answer) in [first, second].into_iter().zip(answers) {
        let until = calls[index].answered.take().map(|(until, _)| until);
        calls[index].answered = until.zip(answer);
    }
    Some(calls)
}

/// The last placement came from nowhere, when everybody who made it never called.
fn forget_a_change(calls: &Calls) -> Option<Calls> {
    let last = newest(calls)?.clone();
    let makes = |call: &Call<Operation, Answer>| match &call.operation {
        Operation::Wish { change, .. } => !matches!(change, Change::Read) && told(call) == Some(&last),
        Operation::OwnersPut { placement } | Operation::Attempt { placement, .. } => *placement == last,
    };
    let left: Calls = calls.iter().filter(|call| !makes(call)).cloned().collect();
    // Somebody has to have seen it.
    left.iter().any(|call| told(call) == Some(&last)).then_some(left)
}

fn newest(calls: &Calls) -> Option<&Placement> {
    calls.iter().filter_map(told).max_by_key(|placement| placement.version)
}

fn oldest(calls: &Calls) -> Option<&Placement> {
    calls.iter().filter_map(told).min_by_key(|placement| placement.version)
}

fn late_read(calls: &Calls, answer: Answer) -> Calls {
    let ends = calls
        .iter()
        .filter_map(|call| call.answered.as_ref().map(|(until, _)| *until));
    let end = ends.max().unwrap_or_default() + std::time::Duration::from_millis(1);
    let mut calls = calls.clone();
    calls.push(Call {
        process: u32::MAX,
        operation: Operation::Wish {
            change: Change::Read,
            expected: None,
        },
        invoked: end,
        answered: Some((end, answer)),
    });
    calls
}

/// A stale read, after everything.
fn read_of_an_older_placement(calls: &Calls) -> Option<Calls> {
    let (oldest, newest) = (oldest(calls)?, newest(calls)?);
    (oldest.version < newest.version).then(|| late_read(calls, Answer::Decided(oldest.clone())))
}

/// A register that was written to does not become empty.
fn nothing_at_the_end(calls: &Calls) -> Option<Calls> {
    newest(calls).map(|_| late_read(calls, Answer::Nothing))
}

/// Nothing follows a deletion.
fn undo_the_deletion(calls: &Calls) -> Option<Calls> {
    let newest = newest(calls).filter(|placement| placement.layout.is_deleted())?;
    let back = Placement {
        version: newest.version + 1,
        layout: Layout::Replicated {
            nodes: newest.layout.nodes(),
        },
        ..newest.clone()
    };
    Some(late_read(calls, Answer::Decided(back)))
}

/// A creator who was told that another was first was told instead that it won itself.
fn second_winner(calls: &Calls) -> Option<Calls> {
    let at = calls.iter().position(|call| {
        matches!(
            &call.operation,
            Operation::Wish {
                change: Change::Create { .. },
                ..
            }
        ) && matches!(&call.answered, Some((_, Answer::Refused(Refusal::Taken(_)))))
    })?;
    let Operation::Wish {
        change: Change::Create { size, sha256 },
        ..
    } = calls[at].operation
    else {
        return None;
    };
    let mut winner = told(&calls[at])?.clone();
    winner.size = size;
    winner.sha256 = sha256;
    let mut calls = calls.clone();
    let (until, _) = calls[at].answered.take()?;
    calls[at].answered = Some((until, Answer::Decided(winner)));
    Some(calls)
}

/// The last change made a version more than it did, and whoever saw it saw that.
fn skip_a_version(calls: &Calls) -> Option<Calls> {
    let last = newest(calls)?.clone();
    let mut calls = calls.clone();
    for call in &mut calls {
        if let Some((_, Answer::Decided(placement))) = &mut call.answered
            && *placement == last
        {
            placement.version += 1;
        }
    }
    Some(calls)
}

/// Two moves begin from the same placement: one more caller was told that its own was version 2 or what the first
/// joint one was.
fn split_brain(calls: &Calls) -> Option<Calls> {
    let moved = calls.iter().find(|call| {
        matches!(
            &call.operation,
            Operation::Wish {
                change: Change::Move { .. },
                ..
            }
        ) && matches!(&call.answered, Some((_, Answer::Decided(joint))) if joint.prev.is_some())
    })?;
    let joint = told(moved)?;
    let mut nodes: Vec<NodeRef> = joint.layout.nodes();
    nodes.rotate_left(1);
    nodes.pop();
    let to = Layout::Replicated { nodes };
    let other = Placement {
        layout: to.clone(),
        ..joint.clone()
    };
    // Where the first one's time was, and longer.
    let (until, _) = moved.answered.clone()?;
    let rival = Call {
        process: u32::MAX,
        operation: Operation::Wish {
            change: Change::Move { to },
            expected: Some(joint.version - 1),
        },
        invoked: moved.invoked,
        answered: Some((until, Answer::Decided(other))),
    };
    let mut calls = calls.clone();
    calls.push(rival);
    Some(calls)
}
