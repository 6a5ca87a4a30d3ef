//! A disk that is to register claims the log that it was opened with, whatever goes wrong while it is opened.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use support::*;
use vstack_engine::{Disk as _, Engine, EngineError, Fault, MemDisk, PutMode, Store, StoreOptions, Which, WriteError};
use vstack_types::SystemClock;

fn claiming() -> StoreOptions {
    StoreOptions {
        claims: true,
        ..options()
    }
}

/// A log of some records, and the number it ends with.
fn used() -> (MemDisk, u64) {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put("a", &item(1, 100))).unwrap();
    one(&mut store, put_vote("b", &item(2, 50))).unwrap();
    let log_seq = store.reader().log_seq();
    drop(store);
    (disk, log_seq)
}

#[test]
fn starts_that_fail_do_not_raise_what_is_claimed() {
    for fault in [Fault::PowerCut, Fault::Error, Fault::Full, Fault::OverQuota] {
        for change in 1..=16 {
            let (disk, log_seq) = used();
            // Wherever a start goes wrong, and however often, the next one finds the log as it was, or its claim.
            for start in 0..5 {
                disk.plan(disk.changes() + change, fault);
                drop(Store::open(disk.clone(), claiming(), at(0)));
                disk.crash(start);
            }
            let store = Store::open(disk.clone(), claiming(), at(0)).unwrap();
            let context = format!("{fault:?} at change {change}");
            assert_eq!(store.reader().claim(), Some(log_seq), "{context}");
            assert!(store.reader().log_seq() > log_seq, "the log goes on: {context}");
        }
    }
}

#[test]
fn who_registers_nowhere_claims_nothing() {
    let (disk, _) = used();
    assert_eq!(open(&disk).reader().claim(), None);
}

#[tokio::test]
async fn on_a_full_disk_the_claim_waits_for_room_and_the_log_for_the_claim() {
    let (disk, log_seq) = used();
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
    let start = || Engine::open(disk.clone(), claiming(), Arc::new(SystemClock::start())).unwrap();
    let put = async |engine: &Engine<MemDisk>| engine.put(id("c"), item(3, 10), PutMode::Plain).await;
    for start_number in 0..3 {
        let engine = start();
        let reader = engine.reader();
        assert_eq!(reader.claim(), Some(log_seq), "start {start_number}");
        assert!(!reader.is_claim_durable());
        assert!(served(reader, "a").is_some(), "what is stored is read");
        let full = Err(EngineError::Write(WriteError::DiskFull));
        assert_eq!(put(&engine).await, full, "there would be room in the superblock");
        assert!(engine.set_claim(Some(log_seq)).await.is_err());
        assert_eq!(reader.log_seq(), log_seq);
        engine.close().await;
    }
    let engine = start();
    disk.set_capacity(None);
    assert!(put(&engine).await.is_err(), "room alone is not enough");
    engine.set_claim(Some(log_seq)).await.unwrap();
    assert!(engine.reader().is_claim_durable());
    put(&engine).await.unwrap();
    assert!(engine.reader().find(&id("c"), Which::Public).is_ok());
    engine.close().await;
    drop(engine);
    disk.crash(0);
    let store = Store::open(disk, claiming(), at(0)).unwrap();
    assert_eq!(store.reader().claim(), Some(log_seq));
    assert!(store.reader().log_seq() > log_seq);
}

#[tokio::test]
async fn losses_that_had_no_room_are_written_down_before_any_vote() {
    let (disk, _) = used();
    let log_seq = open(&disk).reader().log_seq();
    let named = |name: &String| name.ends_with(".vsb");
    let name = disk.list().unwrap().into_iter().find(named).unwrap();
    let bytes = item(2, 50);
    let kept = disk.contents(&name);
    let payload = kept.windows(50).position(|window| window == &bytes.bytes()[..]);
    // In the head of the record: what is known of it is what the commit record repeats.
    let head = kept[..payload.unwrap()].iter().rposition(|byte| *byte != 0);
    disk.flip(&name, head.unwrap());
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
    let engine = Engine::open(disk.clone(), claiming(), Arc::new(SystemClock::start())).unwrap();
    disk.set_capacity(None);
    engine.set_claim(Some(log_seq)).await.unwrap();
    let damaged = || engine.reader().register(&id("b")).unwrap().damaged;
    assert!(!damaged(), "nothing was written yet");
    engine.put(id("c"), item(3, 10), PutMode::Plain).await.unwrap();
    assert!(damaged());
    engine.close().await;
}
