//! Who reads slowly keeps the space of the superblock it reads in from being taken back, and of no other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use support::*;
use tokio::time::{sleep, timeout};
use vstack_engine::{Engine, MemDisk, Op, Runs, Which};
use vstack_types::SystemClock;

/// Two superblocks are full, `a` is in the first and `b` in the second; a third one is begun.
const ITEMS: [(&str, u64); 5] = [("a", 1), ("a2", 2), ("b", 3), ("b2", 4), ("c", 5)];

/// For what ends by itself.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn holes_are_made_beside_a_slow_reader_of_another_superblock() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    for (name, n) in ITEMS {
        one(&mut store, put(name, &item(n, 100_000))).unwrap();
    }
    let reader = store.reader();
    let slow = reader.find(&id("a"), Which::Public).unwrap();
    assert_ne!(
        slow.superblock(),
        reader.find(&id("b"), Which::Public).unwrap().superblock()
    );
    for name in ["a", "a2", "b"] {
        one(&mut store, Op::DeleteStaged { id: id(name) }).unwrap();
    }
    let reclaimed = reader.reclaim().unwrap();
    assert_eq!((reclaimed.bytes, reclaimed.waiting), (24 * 4096, 2));
    assert_eq!(
        reader.read(&slow, None, at(2).monotonic).unwrap(),
        *item(1, 100_000).bytes()
    );
    drop(slow);
    let reclaimed = reader.reclaim().unwrap();
    assert_eq!((reclaimed.bytes, reclaimed.waiting), (2 * 24 * 4096, 0));
}

#[tokio::test]
async fn another_superblock_is_emptied_beside_a_slow_reader() {
    let runs = Runs::AsATask(Arc::new(|| Duration::ZERO));
    let engine = Engine::open_as(MemDisk::default(), options(), Arc::new(SystemClock::start()), runs).unwrap();
    for (name, n) in ITEMS {
        engine.submit(put(name, &item(n, 100_000))).await.unwrap();
    }
    let find = |name: &str| engine.reader().find(&id(name), Which::Public).unwrap();
    let slow = find("a");
    let (its, another) = (slow.superblock(), find("b").superblock());
    assert_ne!(its, another);
    let emptied = timeout(PATIENCE, engine.compact(another, u64::MAX, |_| {})).await;
    assert!(emptied.is_ok_and(|emptied| emptied.unwrap().emptied));
    // Its own is written again, and then waits for it.
    let moved = AtomicU64::new(0);
    {
        let mut emptying = pin!(engine.compact(its, u64::MAX, |so_far| moved.store(so_far.moved, Ordering::Relaxed)));
        let all_is_moved = async {
            while moved.load(Ordering::Relaxed) < 2 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let until_moved = async {
            tokio::select! {
                emptied = &mut emptying => panic!("it did not wait: {emptied:?}"),
                () = all_is_moved => {}
            }
        };
        timeout(PATIENCE, until_moved)
            .await
            .expect("what is kept is written again");
        let emptied = timeout(Duration::from_millis(300), &mut emptying).await;
        assert!(emptied.is_err(), "it did not wait: {emptied:?}");
        assert_eq!(moved.load(Ordering::Relaxed), 2);
    }
    assert_eq!(engine.read(&slow, None).await.unwrap(), *item(1, 100_000).bytes());
    drop(slow);
    assert!(engine.compact(its, u64::MAX, |_| {}).await.unwrap().emptied);
    for (name, n) in ITEMS {
        assert_eq!(
            engine.read(&find(name), None).await.unwrap(),
            *item(n, 100_000).bytes(),
            "{name}"
        );
    }
    engine.close().await;
}
