//! What is due is looked up beside the writer, which deletes a few at a time: who writes does not wait for a collection.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{sync::Arc, time::Duration};

use support::{
    gated::{Gate, Gated},
    *,
};
use vstack_engine::{Engine, MemDisk, Op, Outcome, PutMode};
use vstack_types::SystemClock;

/// Items of one operation.
const DUE_MAX: u64 = 64;

#[test]
fn one_operation_deletes_a_few() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    for n in 0..700 {
        one(&mut store, put(&format!("c{n}"), &item(n, 10))).unwrap();
    }
    one(&mut store, put_vote("voted", &item(1, 10))).unwrap();
    let (mut deleted, mut looks) = (0, 0);
    let mut more = true;
    while more {
        looks += 1;
        for due in store.reader().due(DAY, DAY, at(2 * DAY.as_secs()).wall) {
            // What comes meanwhile stays.
            let outcome = one_at(&mut store, Op::Collect { due }, at(2 * DAY.as_secs()));
            let Ok(Outcome::Collected(collected)) = outcome else {
                panic!("{outcome:?}")
            };
            assert!(collected.items <= DUE_MAX, "{collected:?}");
            deleted += collected.items;
            more = collected.more;
        }
    }
    assert_eq!((deleted, looks), (700, 2));
    assert_eq!(store.reader().stats().chunk_count, 1);
}

#[test]
fn what_is_put_again_or_voted_for_meanwhile_stays() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 100);
    for name in ["again", "voted", "left"] {
        one(&mut store, put(name, &a)).unwrap();
    }
    let late = at(2 * DAY.as_secs());
    let due = store.reader().due(DAY, DAY, late.wall);
    one_at(&mut store, put("again", &a), late).unwrap();
    one_at(&mut store, put_vote("voted", &a), late).unwrap();
    for due in due {
        one_at(&mut store, Op::Collect { due }, late).unwrap();
    }
    assert_eq!(served(&store.reader(), "again").as_deref(), Some(&a.bytes()[..]));
    assert_eq!(served(&store.reader(), "voted").as_deref(), Some(&a.bytes()[..]));
    assert_eq!(served(&store.reader(), "left"), None);
}

#[tokio::test]
async fn who_writes_does_not_wait_for_what_a_collection_reads() {
    let disk = Gated::default();
    let engine = Arc::new(Engine::open(disk.clone(), options(), Arc::new(SystemClock::start())).unwrap());
    engine.put(id("staged"), item(1, 10), PutMode::Plain).await.unwrap();
    disk.reads.set(Gate::Shut);
    let collects = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.collect(Duration::ZERO, Duration::ZERO).await }
    });
    let reads = disk.reads.clone();
    tokio::task::spawn_blocking(move || reads.is_waited_at()).await.unwrap();
    let put = engine.put(id("new"), item(2, 10), PutMode::Plain);
    let put = tokio::time::timeout(Duration::from_secs(10), put).await;
    disk.reads.set(Gate::Open);
    assert!(
        put.is_ok_and(|put| put.is_ok()),
        "it waits for the reads of a collection"
    );
    collects.await.unwrap().unwrap();
    engine.close().await;
}
