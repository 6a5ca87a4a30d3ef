//! Space is taken ahead of the log, given back while it rests, and taken again; the log goes on in a new superblock when it
//! is told to. A disk that was filled meanwhile is a full disk like any other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use support::*;
use vstack_engine::{
    Allocation, DeleteOutcome, Disk, Engine, Fault, FileDisk, MemDisk, Op, Outcome, Store, StoreOptions,
    SuperblockSpace, WriteError,
};
use vstack_types::SystemClock;

const RECORDS_AT: u64 = 8192;

/// Of which a part is kept for a full disk.
fn of_32_mib() -> StoreOptions {
    StoreOptions {
        superblock_bytes: 32 << 20,
        ..options()
    }
}

fn used<D: Disk>(disk: &D) -> u64 {
    disk.usage().unwrap().used_bytes
}

/// Others take every byte that is left.
fn fill(disk: &MemDisk) {
    disk.set_capacity(Some(used(disk)));
}

fn tail(store: &Store<MemDisk>) -> SuperblockSpace {
    let all = store.reader().space().unwrap();
    all.into_iter().rfind(|space| space.is_tail).unwrap()
}

fn rested(store: &mut Store<MemDisk>) -> u64 {
    match one(store, Op::Rest) {
        Ok(Outcome::Rested(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

fn turned(store: &mut Store<MemDisk>) -> Result<u32, WriteError> {
    match one(store, Op::Turn)? {
        Outcome::Turned(number) => Ok(number),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_rests_takes_what_it_has_and_takes_more_when_it_goes_on() {
    let disk = MemDisk::default();
    let mut store = Store::open(disk.clone(), of_32_mib(), at(0)).unwrap();
    let (a, b) = (item(1, 100_000), item(2, 100_000));
    one(&mut store, put_vote("a", &a)).unwrap();
    let (before, working) = (used(&disk), tail(&store));
    assert!(working.ahead > 1 << 20, "{working:?}");
    assert_eq!(working.written(), working.end, "what is ahead is not written to");
    assert_eq!(rested(&mut store), working.ahead);
    let resting = tail(&store);
    assert_eq!(used(&disk), before - working.ahead);
    assert_eq!(
        (resting.allocated, resting.ahead, resting.size),
        (resting.end, 0, 32 << 20)
    );
    assert_eq!(rested(&mut store), 0, "there is nothing more");
    assert_eq!(served(&store.reader(), "a").unwrap(), *a.bytes());
    one(&mut store, put_vote("b", &b)).unwrap();
    let working = tail(&store);
    assert!(
        working.ahead > 1 << 20 && working.written() == working.end,
        "{working:?}"
    );
    assert!(rested(&mut store) > 0);
    for seed in 0..8 {
        drop(store);
        disk.crash(seed);
        store = Store::open(disk.clone(), of_32_mib(), at(seed)).unwrap();
        assert!(store.report().damage.is_empty(), "{:?}", store.report());
        for (name, bytes) in [("a", &a), ("b", &b)] {
            assert_eq!(served(&store.reader(), name).unwrap(), *bytes.bytes(), "{name}");
            assert!(promised_with_bytes(one(&mut store, prepare(name, seed + 1))), "{name}");
        }
        rested(&mut store);
    }
}

/// What is taken with a new superblock is ahead of the log, too, before anything is written to it.
#[test]
fn a_new_superblock_has_nothing_but_its_heads() {
    // More than is taken at once.
    let options = StoreOptions {
        superblock_bytes: 20 << 20,
        ..options()
    };
    let mut store = Store::open(MemDisk::default(), options, at(0)).unwrap();
    for number in 0..2 {
        let new = tail(&store);
        assert_eq!(
            (new.number, new.end, new.written()),
            (number, RECORDS_AT, RECORDS_AT),
            "{new:?}"
        );
        assert!(new.ahead > 1 << 20, "{new:?}");
        one(&mut store, put(&format!("c{number}"), &item(1, 100_000))).unwrap();
        assert_eq!(tail(&store).written(), tail(&store).end);
        assert_eq!(turned(&mut store), Ok(number + 1));
    }
    let new = tail(&store);
    assert_eq!(rested(&mut store), new.ahead);
    assert_eq!((tail(&store).allocated, tail(&store).ahead), (RECORDS_AT, 0));
}

fn delete(store: &mut Store<MemDisk>, name: &str) -> Result<Outcome, WriteError> {
    one(store, Op::DeleteStaged { id: id(name) })
}

/// Some filesystems refuse to be asked for space that is there where there is no room for as much again: a superblock that
/// was made of what is kept for a full disk is written to without asking, after a start too.
#[test]
fn on_a_full_disk_space_that_is_there_is_not_asked_for_again() {
    let disk = MemDisk::default();
    disk.set_allocation(Allocation::Anew);
    let mut store = Store::open(disk.clone(), of_32_mib(), at(0)).unwrap();
    let a = item(1, 100_000);
    for name in ["a", "b", "c", "d"] {
        one(&mut store, put(name, &a)).unwrap();
    }
    assert!(rested(&mut store) > 0);
    fill(&disk);
    assert_eq!(one(&mut store, put("e", &a)), Err(WriteError::DiskFull));
    assert_eq!(delete(&mut store, "a"), Ok(Outcome::Deleted(DeleteOutcome::Deleted)));
    let made = tail(&store);
    assert_eq!(
        (made.number, made.written()),
        (1, made.end),
        "what is kept for that: {made:?}"
    );
    assert_eq!(delete(&mut store, "b"), Ok(Outcome::Deleted(DeleteOutcome::Deleted)));
    drop(store);
    let mut store = Store::open(disk.clone(), of_32_mib(), at(2)).unwrap();
    assert_eq!(store.reader().superblock_numbers(), [0, 1]);
    fill(&disk);
    assert_eq!(delete(&mut store, "c"), Ok(Outcome::Deleted(DeleteOutcome::Deleted)));
    assert_eq!(store.reader().superblock_numbers(), [0, 1], "it is the same one");
    assert_eq!(tail(&store).written(), tail(&store).end);
    store = restarted_as(store, &disk);
    for gone in ["a", "b", "c", "e"] {
        assert_eq!(served(&store.reader(), gone), None, "{gone}");
    }
    assert_eq!(served(&store.reader(), "d").unwrap(), *a.bytes());
}

fn restarted_as(store: Store<MemDisk>, disk: &MemDisk) -> Store<MemDisk> {
    drop(store);
    let store = Store::open(disk.clone(), of_32_mib(), at(3)).unwrap();
    assert!(store.report().damage.is_empty(), "{:?}", store.report());
    store
}

/// Some filesystems take what there is before they say that it is not enough.
#[test]
fn a_step_that_does_not_fit_leaves_others_what_there_is() {
    let disk = MemDisk::default();
    disk.set_allocation(Allocation::AsFarAsItGoes);
    let mut store = open(&disk);
    let (a, b) = (item(1, 3000), item(2, 20_000));
    one(&mut store, put("a", &a)).unwrap();
    assert!(rested(&mut store) > 0);
    disk.set_capacity(Some(used(&disk) + (64 << 10)));
    let before = tail(&store);
    assert!(stored(one(&mut store, put("b", &b))));
    let after = tail(&store);
    assert_eq!(
        (after.allocated, after.ahead),
        (after.end, 0),
        "{before:?} -> {after:?}"
    );
    // Neither what the log was to go on with, nor the superblock behind it.
    disk.set_capacity(Some(used(&disk) + (8 << 10)));
    let full = used(&disk);
    assert_eq!(one(&mut store, put("c", &b)), Err(WriteError::DiskFull));
    assert_eq!((used(&disk), tail(&store).allocated), (full, after.allocated));
    disk.set_capacity(None);
    store = restarted(store, &disk);
    assert!(stored(one(&mut store, put("c", &b))));
    for (name, bytes) in [("a", &a), ("b", &b), ("c", &b)] {
        assert_eq!(served(&store.reader(), name).unwrap(), *bytes.bytes(), "{name}");
    }
}

/// The superblock that is made on a nearly full disk takes no more than it is given.
#[test]
fn a_smaller_superblock_takes_nothing_behind_its_end() {
    let disk = MemDisk::default();
    disk.set_allocation(Allocation::AsFarAsItGoes);
    let mut store = open(&disk);
    one(&mut store, put("a", &item(1, 3000))).unwrap();
    disk.set_capacity(Some(used(&disk) + (200 << 10)));
    assert_eq!(turned(&mut store), Ok(1));
    let small = tail(&store);
    assert_eq!((small.size, small.allocated), (128 << 10, 128 << 10), "{small:?}");
    assert_eq!(small.written(), RECORDS_AT);
}

#[tokio::test]
async fn on_a_real_file_system_too() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(directory.path()).unwrap();
    let engine = Engine::open(disk, of_32_mib(), Arc::new(SystemClock::start())).unwrap();
    let allocated = || engine.reader().space().unwrap()[0].allocated;
    let a = item(1, 100_000);
    engine.submit(put("a", &a)).await.unwrap();
    let before = allocated();
    if before < 1 << 20 {
        eprintln!("SKIPPED: the filesystem here gives no space ahead");
        return;
    }
    assert!(engine.rest().await.unwrap() > 1 << 20);
    assert!(allocated() < 200_000, "{before} -> {}", allocated());
    engine.submit(put("b", &a)).await.unwrap();
    assert!(allocated() > 1 << 20);
    assert_eq!(served(engine.reader(), "a").unwrap(), *a.bytes());
    engine.close().await;
}

/// What was given back is others' by now: bytes are refused, one by one, and what brings none goes to what is kept for that.
#[test]
fn what_others_took_meanwhile_is_not_there_any_more() {
    let disk = MemDisk::default();
    let mut store = Store::open(disk.clone(), of_32_mib(), at(0)).unwrap();
    let (a, b) = (item(1, 100_000), item(2, 100_000));
    one(&mut store, put_vote("a", &a)).unwrap();
    one(&mut store, put("b", &b)).unwrap();
    assert!(rested(&mut store) > 0);
    fill(&disk);
    let ops = vec![
        prepare("x", 1),
        put("c", &b),
        Op::DeleteStaged { id: id("b") },
        put("d", &a),
    ];
    let results = store.commit(ops, at(2));
    assert!(matches!(results[0], Ok(Outcome::Reply(_))), "{results:?}");
    assert_eq!(results[1], Err(WriteError::DiskFull));
    assert_eq!(results[2], Ok(Outcome::Deleted(DeleteOutcome::Deleted)));
    assert_eq!(results[3], Err(WriteError::DiskFull));
    assert_eq!(store.reader().superblock_numbers(), [0, 1], "what is kept for that");
    assert_eq!(rested(&mut store), 0, "and stays");
    drop(store);
    disk.crash(3);
    fill(&disk);
    let mut store = Store::open(disk.clone(), of_32_mib(), at(3)).unwrap();
    assert!(store.report().damage.is_empty(), "{:?}", store.report());
    assert_eq!(served(&store.reader(), "a").unwrap(), *a.bytes());
    assert_eq!(store.reader().register(&id("x")).unwrap().promised, Some(ballot(1)));
    for gone in ["b", "c", "d"] {
        assert_eq!(served(&store.reader(), gone), None, "{gone}");
    }
    disk.set_capacity(None);
    assert!(stored(one(&mut store, put("c", &b))), "there is room again");
    assert_eq!(served(&store.reader(), "c").unwrap(), *b.bytes());
}

/// Small superblocks keep nothing for a full disk: there everything is refused, and nothing that was answered is lost.
#[test]
fn where_nothing_is_kept_everything_is_refused_and_nothing_lost() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 3000);
    one(&mut store, put_vote("a", &a)).unwrap();
    assert!(rested(&mut store) > 0);
    fill(&disk);
    let refused = store.commit(vec![prepare("a", 1), put("b", &a), Op::Turn], at(2));
    assert_eq!(refused, vec![Err(WriteError::DiskFull); 3]);
    assert!(!store.is_failed());
    assert_eq!(store.mark(at(2)), Err(WriteError::DiskFull));
    drop(store);
    disk.crash(1);
    let mut store = open(&disk);
    assert_eq!(served(&store.reader(), "a").unwrap(), *a.bytes());
    disk.set_capacity(None);
    assert!(promised_with_bytes(one(&mut store, prepare("a", 1))));
}

#[test]
fn a_turn_leaves_everything_and_all_but_a_new_superblock_can_be_emptied() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    assert_eq!(turned(&mut store), Ok(0), "nothing was written to it");
    let (a, b) = (item(1, 3000), item(2, 3000));
    let results = store.commit(
        vec![put_vote("a", &a), Op::Turn, put("b", &b), Op::Turn, Op::Turn],
        at(1),
    );
    assert!(
        voted_or_stored(&results[0]) && voted_or_stored(&results[2]),
        "{results:?}"
    );
    let numbers: Vec<_> = [&results[1], &results[3], &results[4]].into_iter().cloned().collect();
    assert_eq!(numbers, [1, 2, 2].map(|number| Ok(Outcome::Turned(number))));
    assert_eq!(tail(&store).end, RECORDS_AT);
    for seed in 0..8 {
        drop(store);
        disk.crash(seed);
        store = open(&disk);
        assert!(store.report().damage.is_empty(), "{:?}", store.report());
        assert_eq!(store.reader().superblock_numbers(), [0, 1, 2]);
        assert_eq!(served(&store.reader(), "a").unwrap(), *a.bytes());
        assert_eq!(served(&store.reader(), "b").unwrap(), *b.bytes());
    }
    let reader = store.reader();
    for number in [0, 1] {
        for offset in reader.wanted_records(number).unwrap() {
            let moves = reader.read_for_move(number, offset).unwrap().into_iter().collect();
            one(&mut store, Op::Move { moves }).unwrap();
        }
        assert_eq!(
            one(&mut store, Op::Empty { superblock: number }),
            Ok(Outcome::Emptied(true))
        );
    }
    drop(reader);
    store = restarted(store, &disk);
    assert_eq!(store.reader().superblock_numbers(), [2]);
    assert_eq!(served(&store.reader(), "a").unwrap(), *a.bytes());
    assert_eq!(served(&store.reader(), "b").unwrap(), *b.bytes());
    assert!(promised_with_bytes(one(&mut store, prepare("a", 1))));
}

fn voted_or_stored(result: &Result<Outcome, WriteError>) -> bool {
    matches!(result, Ok(Outcome::Put(_)))
}

/// Where there is no room for another superblock the log goes on where it was.
#[test]
fn a_turn_that_finds_no_room_changes_nothing() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 3000);
    one(&mut store, put("a", &a)).unwrap();
    fill(&disk);
    assert_eq!(turned(&mut store), Err(WriteError::DiskFull));
    assert_eq!(
        disk.list()
            .unwrap()
            .iter()
            .filter(|name| name.starts_with("superblock"))
            .count(),
        1
    );
    let promised = one(&mut store, prepare("x", 1));
    assert!(
        matches!(promised, Ok(Outcome::Reply(_))),
        "the space ahead is there: {promised:?}"
    );
    store = restarted(store, &disk);
    assert_eq!(served(&store.reader(), "a").unwrap(), *a.bytes());
    disk.set_capacity(None);
    assert_eq!(turned(&mut store), Ok(1));
}

/// What a batch that found no room leaves is cut off, and the space behind it with that: nobody counts on it.
#[test]
fn what_is_cut_off_a_full_disk_is_not_ahead_any_more() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 3000);
    one(&mut store, put("a", &a)).unwrap();
    assert!(tail(&store).ahead > 0);
    disk.plan(disk.changes() + 1, Fault::Full);
    assert_eq!(one(&mut store, put("b", &a)), Err(WriteError::DiskFull));
    assert_eq!(disk.planned(), 0);
    let cut = tail(&store);
    assert_eq!((cut.ahead, cut.allocated), (0, cut.end), "{cut:?}");
    assert!(stored(one(&mut store, put("b", &a))));
    assert_eq!(tail(&store).written(), tail(&store).end);
}
