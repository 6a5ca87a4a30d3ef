//! Items that are written again so that their superblock can be emptied stand one behind the other, and not each from a
//! page on; they are read, scrubbed and recovered like any other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use support::*;
use vstack_engine::{Disk, Engine, Item, MemDisk, Missing, Outcome, Scrubbed, Store, StoreOptions, Which};
use vstack_types::SystemClock;

const SUPERBLOCK: u64 = 2 << 20;
const ITEMS: u64 = 12;
const MOVED: &str = "superblock_000001.vsb";
const CHECKPOINT: &str = "checkpoint";
/// What is so large begins at a page when it comes.
const LARGE: usize = 66_000;

fn of_2_mib() -> StoreOptions {
    StoreOptions {
        superblock_bytes: SUPERBLOCK,
        ..options()
    }
}

fn name(n: u64) -> String {
    format!("c{n}")
}

fn bytes(n: u64) -> Item {
    item(n + 1, LARGE + usize::try_from(n).unwrap() * 100)
}

fn engine(disk: &MemDisk) -> Engine<MemDisk> {
    Engine::open(disk.clone(), of_2_mib(), Arc::new(SystemClock::start())).unwrap()
}

/// All items were moved to a second superblock, and the first is empty; gives what each took of them.
async fn moved(engine: &Engine<MemDisk>) -> [u64; 2] {
    for n in 0..ITEMS {
        engine.submit(put_vote(&name(n), &bytes(n))).await.unwrap();
    }
    let end = || engine.reader().space().unwrap().last().unwrap().end;
    let before = end();
    assert_eq!(engine.turn().await.unwrap(), 1);
    let done = engine.compact(0, u64::MAX, |_| {}).await.unwrap();
    assert!(done.emptied && done.moved == ITEMS, "{done:?}");
    [before, end()]
}

fn all_is_served(store: &Store<MemDisk>, when: &str) {
    assert!(store.report().damage.is_empty(), "{when}: {:?}", store.report());
    for n in 0..ITEMS {
        let here = served(&store.reader(), &name(n));
        assert_eq!(here.as_deref(), Some(&bytes(n).bytes()[..]), "{when}: {}", name(n));
    }
}

async fn scrub(engine: &Engine<MemDisk>) -> Scrubbed {
    engine.scrub(1, u64::MAX, |_| {}).await.unwrap()
}

/// Where `bytes` stand in the second superblock.
fn find(disk: &MemDisk, bytes: &[u8]) -> usize {
    let contents = disk.contents(MOVED);
    contents
        .windows(bytes.len())
        .position(|window| window == bytes)
        .unwrap()
}

#[tokio::test]
async fn it_takes_less_and_is_served_and_scrubbed_where_it_is() {
    let disk = MemDisk::default();
    let engine = engine(&disk);
    let [before, after] = moved(&engine).await;
    assert!(after + ITEMS * 4096 < before, "{before} -> {after}");
    let off_a_page = (0..ITEMS)
        .filter(|n| !find(&disk, &bytes(*n).bytes()[..64]).is_multiple_of(4096))
        .count();
    assert!(off_a_page > 8, "{off_a_page} of {ITEMS} begin within a page");
    for n in 0..ITEMS {
        assert_eq!(
            served(engine.reader(), &name(n)).as_deref(),
            Some(&bytes(n).bytes()[..])
        );
        assert!(
            promised_with_bytes(Ok(engine.submit(prepare(&name(n), 1)).await.unwrap())),
            "{}",
            name(n)
        );
    }
    let found = scrub(&engine).await;
    assert_eq!(
        (found.items, found.damaged.len(), found.stretches),
        (ITEMS, 0, 0),
        "{found:?}"
    );
    engine.close().await;
}

#[tokio::test]
async fn the_scrub_finds_the_one_that_rots() {
    for (n, at) in [(3, 0), (5, 40_000), (7, LARGE + 699)] {
        let disk = MemDisk::default();
        let engine = engine(&disk);
        moved(&engine).await;
        let rots = bytes(n);
        disk.flip(MOVED, find(&disk, &rots.bytes()[..64]) + at);
        let found = scrub(&engine).await;
        assert_eq!(found.damaged, [(id(&name(n)), rots.sha256())], "byte {at}");
        assert_eq!(found.items, ITEMS);
        assert_eq!(
            engine.reader().find(&id(&name(n)), Which::Public).unwrap_err(),
            Missing::Corrupt
        );
        engine.close().await;
    }
}

#[tokio::test]
async fn it_survives_a_power_cut_and_starts_from_a_checkpoint_and_from_the_log() {
    for seed in 0..8 {
        let disk = MemDisk::default();
        let running = engine(&disk);
        moved(&running).await;
        if seed % 2 == 0 {
            assert!(running.reader().write_checkpoint().unwrap().is_some());
        }
        // The power goes while it runs.
        disk.crash(seed);
        drop(running);
        let store = Store::open(disk.clone(), of_2_mib(), at(3)).unwrap();
        assert_eq!(
            store.report().checkpoint.is_some(),
            seed % 2 == 0,
            "{:?}",
            store.report()
        );
        all_is_served(&store, "after the power cut");
        store.reader().write_checkpoint().unwrap();
        drop(store);
        let store = Store::open(disk.clone(), of_2_mib(), at(4)).unwrap();
        assert!(store.report().checkpoint.is_some());
        all_is_served(&store, "from a checkpoint");
        drop(store);
        disk.remove(CHECKPOINT).unwrap();
        disk.sync_dir().unwrap();
        let mut store = Store::open(disk.clone(), of_2_mib(), at(5)).unwrap();
        assert!(store.report().checkpoint.is_none());
        all_is_served(&store, "from the log");
        let promised = one(&mut store, prepare(&name(0), 9));
        assert!(matches!(&promised, Ok(Outcome::Reply(_))) && promised_with_bytes(promised));
    }
}
