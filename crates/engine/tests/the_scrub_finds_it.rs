//! What has rotted is found by reading everything again, before anybody asks for it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use support::*;
use vstack_chunkpaxos::Reply;
use vstack_engine::{Disk as _, Engine, Fault, MemDisk, Missing, Op, Outcome, Scrubbed, Which};
use vstack_types::SystemClock;

const FILE: &str = "superblock_000000.vsb";

fn engine(disk: &MemDisk) -> Engine<MemDisk> {
    Engine::open(disk.clone(), options(), Arc::new(SystemClock::start())).unwrap()
}

async fn scrub(engine: &Engine<MemDisk>) -> Scrubbed {
    let mut all = Scrubbed::default();
    for number in engine.reader().superblock_numbers() {
        all.add(engine.scrub(number, 1 << 40, |_| {}).await.unwrap());
    }
    all
}

/// Where `bytes` stand in a file.
fn find(disk: &MemDisk, bytes: &[u8]) -> usize {
    let contents = disk.contents(FILE);
    contents
        .windows(bytes.len())
        .position(|window| window == bytes)
        .unwrap()
}

#[tokio::test]
async fn a_flipped_bit_of_an_item_is_quarantined() {
    let disk = MemDisk::default();
    let engine = engine(&disk);
    let (a, b) = (item(1, 70_000), item(2, 3_000));
    engine.submit(put_vote("a", &a)).await.unwrap();
    engine.submit(put_vote("b", &b)).await.unwrap();
    let clean = scrub(&engine).await;
    assert_eq!((clean.items, clean.bytes, clean.damaged.len()), (2, 73_000, 0));
    disk.flip(FILE, find(&disk, &a.bytes()[5000..5100]));
    let found = scrub(&engine).await;
    assert_eq!(found.damaged, [(id("a"), a.sha256())]);
    assert_eq!(
        engine.reader().find(&id("a"), Which::Public).unwrap_err(),
        Missing::Corrupt
    );
    assert_eq!(engine.submit(prepare("a", 3)).await, Ok(Outcome::Reply(Reply::Damaged)));
    assert_eq!(scrub(&engine).await.damaged, [], "it is known");
    // A good copy ends it.
    engine.submit(put_item("a", &a)).await.unwrap();
    assert_eq!(scrub(&engine).await.damaged, []);
    assert_eq!(served(engine.reader(), "a").unwrap(), *a.bytes());
    engine.close().await;
}

#[tokio::test]
async fn a_vote_of_which_one_copy_is_damaged_is_written_again() {
    let disk = MemDisk::default();
    let running = engine(&disk);
    let a = item(1, 300);
    for name in ["a", "b", "c"] {
        running.submit(put_vote(name, &a)).await.unwrap();
    }
    running.submit(prepare("a", 5)).await.unwrap();
    running.submit(prepare("b", 6)).await.unwrap();
    // A promise's own record, and the commit record of another.
    let contents = disk.contents(FILE);
    let heads: Vec<usize> = (8192..contents.len())
        .step_by(64)
        .filter(|at| contents[*at..].starts_with(b"VSR1"))
        .collect();
    let of_kind = |kind: u8| {
        heads
            .iter()
            .copied()
            .filter(|at| contents[at + 4] == kind)
            .collect::<Vec<_>>()
    };
    let (votes, commits) = (of_kind(2), of_kind(5));
    disk.flip(FILE, votes[0] + 60);
    disk.flip(FILE, *commits.iter().find(|at| **at > votes[1]).unwrap() + 130);
    let found = scrub(&running).await;
    assert_eq!((found.mended, found.unnamed), (2, 0), "{found:?}");
    assert_eq!(scrub(&running).await.mended, 0, "both stand twice again");
    running.close().await;
    drop(running);
    let again = engine(&disk);
    assert!(!again.reader().votes_lost(), "{:?}", again.report());
    for (name, round) in [("a", 5), ("b", 6)] {
        assert_eq!(
            again.reader().register(&id(name)).unwrap().promised,
            Some(ballot(round))
        );
    }
    again.close().await;
}

#[tokio::test]
async fn an_item_whose_record_is_gone_is_found_by_the_commit_record() {
    let disk = MemDisk::default();
    let running = engine(&disk);
    let (a, b) = (item(1, 300), item(2, 400));
    running.submit(put_vote("a", &a)).await.unwrap();
    running.submit(put("b", &b)).await.unwrap();
    running.submit(put("c", &item(3, 400))).await.unwrap();
    disk.flip(FILE, 8192 + 56);
    let found = scrub(&running).await;
    assert_eq!((found.mended, found.stretches), (1, 1), "{found:?}");
    assert_eq!(
        running.reader().find(&id("a"), Which::Public).unwrap_err(),
        Missing::Corrupt
    );
    assert!(running.reader().register(&id("a")).unwrap().damaged, "it abstains");
    assert_eq!(served(running.reader(), "b").unwrap(), *b.bytes());
    running.submit(Op::DeleteStaged { id: id("b") }).await.unwrap();
    running.close().await;
}

/// A superblock that nothing was written to: the disk was nearly full when it was made, and what came next needed a larger
/// one.
#[tokio::test]
async fn a_superblock_without_any_record_lacks_none() {
    let (first, large) = (item(9, 220_000), item(8, 150_000));
    let begun = |refused: u64| {
        let disk = MemDisk::default();
        let mut store = open(&disk);
        one(&mut store, put("a", &first)).unwrap();
        let used = disk.usage().unwrap().used_bytes;
        disk.set_capacity(Some(used + (160 << 10)));
        disk.plan(disk.changes() + refused, Fault::Full);
        let result = one(&mut store, put("b", &item(2, 30_000)));
        disk.forget_faults();
        disk.set_capacity(None);
        one(&mut store, put("c", &large)).unwrap();
        let space = store.reader().space().unwrap();
        (result.is_err() && space.len() == 3 && space[1].end == 8192).then_some(disk)
    };
    let disk = (1..20).find_map(begun).unwrap();
    let engine = engine(&disk);
    let found = scrub(&engine).await;
    assert_eq!((found.items, found.stretches), (2, 0), "{found:?}");
    engine.close().await;
}
