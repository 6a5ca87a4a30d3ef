//! Every fault planted in the engine is found by the campaign, by its name, within 500 histories.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod campaign;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use campaign::history;
use vstack_types::planted::Planted;

const HISTORIES_MAX: u64 = 500;

const FAULTS: [&str; 24] = [
    "answered before the sync",
    "a write error is swallowed",
    "a full disk leaves half a batch",
    "the mark is ahead of the sync",
    "the second copy of a vote is not written",
    "the directory is not synced",
    "damage below the mark is cut",
    "a torn batch counts",
    "a commit record is not checked",
    "the last batch is not made durable again",
    "lost votes go unnoticed",
    "a quarantine is forgotten",
    "a deletion is forgotten",
    "retired votes come back",
    "bytes are served unverified",
    "bytes count as verified after a restart",
    "votes without bytes",
    "collecting forgets the other half of a move",
    "placed bytes are collected as staged ones",
    "log sequence numbers are used again",
    "a restart breaks the seal",
    "lost bytes are vouched for",
    "an adopted disk keeps its name",
    "bytes are deleted on an undecided value",
];

/// The history that finds `fault`, and what it says.
fn found(fault: &'static str) -> Option<(u64, String)> {
    let _planted = Planted::plant(Some(fault));
    (0..HISTORIES_MAX).find_map(|seed| match catch_unwind(AssertUnwindSafe(|| history(seed))) {
        Ok(Ok(_)) => None,
        Ok(Err(wrong)) => Some((seed, wrong)),
        Err(_) => Some((seed, "a panic".to_owned())),
    })
}

#[test]
fn each_within_500_histories() {
    let mut missed = Vec::new();
    for fault in FAULTS {
        match found(fault) {
            Some((seed, wrong)) => println!(
                "{fault}: found by history {seed}: {}",
                wrong.chars().take(150).collect::<String>()
            ),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    let _planted = Planted::plant(None);
    for seed in 0..HISTORIES_MAX {
        history(seed).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}
