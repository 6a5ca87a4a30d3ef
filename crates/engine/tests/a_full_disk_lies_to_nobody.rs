//! A disk that finds no space, also for a mark: what is refused is refused, and the next operation is answered
//! for itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_chunkpaxos::Register;
use vstack_engine::{Fault, Item, MemDisk, Store, WriteError};

/// Changes of the disk that a refused batch or mark takes: the write, the cut, the space again, the sync.
const REFUSED_CHANGES: u64 = 4;

/// And that the batch behind it takes before its write.
const SPACE_AHEAD: u64 = 1;

fn holding(first: &Item) -> (MemDisk, Store<MemDisk>) {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put("first", first)).unwrap();
    (disk, store)
}

#[test]
fn a_mark_that_finds_no_space_does_not_excuse_the_batch_behind_it() {
    for no_room in [Fault::Full, Fault::OverQuota] {
        let a = item(1, 1000);
        let (disk, mut store) = holding(&a);
        disk.plan(disk.changes() + 1, no_room);
        disk.plan(disk.changes() + 1 + REFUSED_CHANGES + SPACE_AHEAD, no_room);
        assert_eq!(store.mark(at(2)), Err(WriteError::DiskFull));
        let ops = vec![put_vote("x", &a), prepare("y", 1), put("z", &a)];
        assert_eq!(store.commit(ops, at(3)), vec![Err(WriteError::DiskFull); 3]);
        assert_eq!(store.reader().register(&id("x")).unwrap(), Register::default());
        assert_eq!(served(&store.reader(), "x"), None);
        assert!(!store.is_failed());
    }
}

#[test]
fn a_mark_that_finds_no_space_spoils_nothing_of_the_batch_behind_it() {
    for no_room in [Fault::Full, Fault::OverQuota] {
        let a = item(1, 1000);
        let (disk, mut store) = holding(&a);
        disk.plan(disk.changes() + 1, no_room);
        assert_eq!(store.mark(at(2)), Err(WriteError::DiskFull));
        let results = store.commit(vec![put("x", &a), put("y", &a)], at(3));
        assert!(results.into_iter().all(stored));
        drop(store);
        disk.crash(0);
        let store = open(&disk);
        assert_eq!(served(&store.reader(), "x").as_deref(), Some(&a.bytes()[..]));
    }
}

#[test]
fn at_opening_too() {
    let disk = MemDisk::default();
    disk.set_sparse(true);
    let mut store = open(&disk);
    let a = item(1, 1000);
    one(&mut store, put("first", &a)).unwrap();
    drop(store);
    let used = vstack_engine::Disk::usage(&disk).unwrap().used_bytes;
    disk.set_capacity(Some(used));
    let mut store = open(&disk);
    let vote = || prepare("y", 1);
    assert_eq!(one(&mut store, vote()), Err(WriteError::DiskFull));
    assert_eq!(store.reader().register(&id("y")).unwrap(), Register::default());
    disk.set_capacity(None);
    assert!(one(&mut store, vote()).is_ok(), "space came back");
}
