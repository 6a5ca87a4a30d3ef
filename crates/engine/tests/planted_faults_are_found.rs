//! Every fault planted in the engine is found by its name: by the campaign within 500 histories, or by a scene.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod campaign;
mod scenes;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use campaign::history;
use scenes::Scene;
use vstack_types::planted::Planted;

const HISTORIES_MAX: u64 = 500;

const FAULTS: [&str; 38] = [
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
    "pieces are sent unverified",
    "a rotten item is moved as a whole one",
    "what still counts is emptied",
    "a deletion is not kept when its superblock is emptied",
    "a superblock is cut before its heads say so",
    "both heads are replaced at once",
    "a checkpoint hides a superblock that is gone",
    "a checkpoint points into an emptied superblock",
    "rest gives back space that holds records",
    "what was given back counts as taken",
    "space ahead of the log counts as written",
    "a turn loses what came before it in its batch",
    "a moved item is looked for at a page",
    "the scrub takes a packed item for its whole page",
];

/// Faults that take a reader, a scrub or another disk.
const IN_SCENES: [(&str, Scene); 3] = [
    (
        "a hole is made before readers are done",
        scenes::a_reader_outlives_a_deletion,
    ),
    (
        "the scrub leaves out what was verified",
        scenes::a_scrub_finds_what_rotted_after_it_was_read,
    ),
    (
        "a checkpoint of another log is used",
        scenes::a_checkpoint_of_another_disk_is_left_alone,
    ),
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

#[test]
fn each_in_its_scene() {
    for (fault, scene) in IN_SCENES {
        let played = || catch_unwind(scene).unwrap_or_else(|_| Err("a panic".to_owned()));
        assert_eq!(played(), Ok(()), "nothing is planted, before {fault}");
        let _planted = Planted::plant(Some(fault));
        let wrong = played().expect_err(fault);
        println!("{fault}: {wrong}");
    }
}
