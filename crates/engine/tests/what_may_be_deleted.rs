//! Only what no vote stands on, or a decision names no more, is ever deleted, and not before its time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use support::*;
use vstack_chunkpaxos::Request;
use vstack_engine::{Collected, DeleteOutcome, MemDisk, Op, Outcome, Store};

#[test]
fn only_what_nothing_keeps_is_collected() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1, 100), item(2, 50));
    let hour = Duration::from_secs(3600);
    let collect = |store: &mut Store<MemDisk>, seconds| match collect(store, hour, DAY, at(seconds)) {
        Ok(Collected { items, more: false, .. }) => items,
        other => panic!("{other:?}"),
    };
    one(&mut store, put("staged", &a)).unwrap();
    one(&mut store, put("prepared", &a)).unwrap();
    one(&mut store, prepare("prepared", 1)).unwrap();
    one(&mut store, put_vote("voted", &a)).unwrap();
    one(&mut store, put_item("voted", &b)).unwrap();
    one(&mut store, put_vote("gone", &a)).unwrap();
    one(&mut store, accept("gone", 1, deleted(&a, 2))).unwrap();
    assert_eq!(
        collect(&mut store, 3 * 3600),
        0,
        "a deletion that is not decided deletes nothing"
    );
    let decide = |placement, round| Request::Decided {
        ballot: ballot(round),
        placement,
    };
    one_at(&mut store, paxos("gone", decide(deleted(&a, 2), 1)), at(3 * 3600)).unwrap();
    one_at(
        &mut store,
        paxos("voted", decide(placement(&a, 1, &[me()]), 0)),
        at(3 * 3600),
    )
    .unwrap();
    assert_eq!(collect(&mut store, 3 * 3600 + 60), 0, "the grace time");
    assert_eq!(collect(&mut store, 5 * 3600), 2, "what the decisions name no more");
    assert!(!store.reader().has_item(&id("gone"), a.sha256()).unwrap());
    assert!(!store.reader().has_item(&id("voted"), b.sha256()).unwrap());
    assert_eq!(collect(&mut store, 23 * 3600), 0);
    assert_eq!(collect(&mut store, 25 * 3600), 2, "what no vote stands on");
    store = restarted(store, &disk);
    assert_eq!(served(&store.reader(), "voted").as_deref(), Some(&a.bytes()[..]));
    assert_eq!(store.reader().stats().chunk_count, 1);
    assert!(
        store
            .reader()
            .register(&id("gone"))
            .unwrap()
            .accepted
            .unwrap()
            .placement
            .layout
            .is_deleted(),
        "a tombstone stays"
    );
    assert_eq!(
        one(&mut store, put("gone", &a)),
        conflict(),
        "a deleted chunk takes no bytes"
    );
}

#[test]
fn bytes_put_again_are_kept_as_long_as_fresh_ones() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 100);
    let day = DAY.as_secs();
    let collected = |store: &mut Store<MemDisk>, seconds| {
        let collected = collect(store, Duration::ZERO, DAY, at(seconds));
        collected.unwrap().items
    };
    one_at(&mut store, put("again", &a), at(0)).unwrap();
    one_at(&mut store, put("once", &a), at(0)).unwrap();
    assert_eq!(one_at(&mut store, put("again", &a), at(day - 10)), already_there());
    let written = store.reader().log_seq();
    assert_eq!(one_at(&mut store, put("again", &a), at(day - 5)), already_there());
    assert_eq!(
        store.reader().log_seq(),
        written,
        "soon after each other once is enough"
    );
    assert_eq!(collected(&mut store, day + 10), 1);
    store = restarted(store, &disk);
    assert_eq!(collected(&mut store, day + 10), 0);
    assert_eq!(served(&store.reader(), "again").as_deref(), Some(&a.bytes()[..]));
    assert_eq!(collected(&mut store, 2 * day), 1);
}

#[test]
fn staged_bytes_can_be_deleted_and_placed_ones_not() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 100);
    let delete = |store: &mut Store<MemDisk>, name: &str| match one(store, Op::DeleteStaged { id: id(name) }) {
        Ok(Outcome::Deleted(outcome)) => outcome,
        other => panic!("{other:?}"),
    };
    one(&mut store, put("staged", &a)).unwrap();
    one(&mut store, put_vote("voted", &a)).unwrap();
    assert_eq!(delete(&mut store, "voted"), DeleteOutcome::Placed);
    assert_eq!(delete(&mut store, "staged"), DeleteOutcome::Deleted);
    assert_eq!(delete(&mut store, "staged"), DeleteOutcome::NotFound);
    store = restarted(store, &disk);
    assert_eq!(delete(&mut store, "staged"), DeleteOutcome::NotFound);
    assert!(
        stored(one(&mut store, put("staged", &item(2, 5)))),
        "the id is free again"
    );
}

#[test]
fn what_a_vote_stood_on_goes_in_its_time_alone() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1, 100), item(2, 50));
    let delete = |store: &mut Store<MemDisk>, name: &str| match one(store, Op::DeleteStaged { id: id(name) }) {
        Ok(Outcome::Deleted(outcome)) => outcome,
        other => panic!("{other:?}"),
    };
    // Decided to be deleted a moment ago.
    one(&mut store, put_vote("read", &a)).unwrap();
    let decide = |placement| Request::Decided {
        ballot: ballot(1),
        placement,
    };
    one(&mut store, paxos("read", decide(deleted(&a, 2)))).unwrap();
    assert_eq!(delete(&mut store, "read"), DeleteOutcome::Placed);
    assert!(store.reader().has_item(&id("read"), a.sha256()).unwrap());
    // The chunk left this node, and comes back: the bytes are here, the vote is under way.
    let elsewhere = placement(&b, 3, &[other()]);
    one(&mut store, put_vote("back", &a)).unwrap();
    one(&mut store, paxos("back", decide(elsewhere))).unwrap();
    one(&mut store, put_item("back", &b)).unwrap();
    assert_eq!(delete(&mut store, "back"), DeleteOutcome::Placed);
    assert!(store.reader().has_item(&id("back"), b.sha256()).unwrap());
}
