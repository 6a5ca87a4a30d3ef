//! A disk that is to register claims the log that it was opened with, whatever goes wrong while it is opened.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_engine::{Fault, MemDisk, Store, StoreOptions};

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
    for fault in [Fault::PowerCut, Fault::Error, Fault::Full] {
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
