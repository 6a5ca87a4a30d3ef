//! Sealing is durable and for ever: no vote after it, while decisions are learnt and bytes served.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_chunkpaxos::{Reply, Request};
use vstack_engine::{Fault, MemDisk, Op, Outcome, Store, WriteError};

fn refused() -> Reply {
    Reply::Nack { promised: None }
}

fn votes_no_more(store: &mut Store<MemDisk>, context: &str) {
    let a = item(1, 500);
    assert!(store.reader().is_sealed(), "{context}");
    assert_eq!(one(store, put_vote("new", &a)), voted(refused(), false), "{context}");
    assert_eq!(
        one(store, put_vote("voted", &a)),
        voted(refused(), false),
        "{context}: not even again"
    );
    let accept = Request::Accept {
        ballot: ballot(9),
        placement: placement(&a, 2, &[me(), other()]),
    };
    for request in [Request::Prepare { ballot: ballot(9) }, accept] {
        assert_eq!(
            one(store, paxos("voted", request)),
            Ok(Outcome::Reply(refused())),
            "{context}"
        );
    }
    let state = one(store, paxos("voted", Request::Read)).unwrap();
    assert!(
        matches!(state, Outcome::Reply(Reply::State { damaged: false, .. })),
        "{context}: {state:?}"
    );
    assert_eq!(
        served(&store.reader(), "voted").as_deref(),
        Some(&a.bytes()[..]),
        "{context}"
    );
}

#[test]
fn it_learns_and_serves_and_a_restart_changes_nothing() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 500);
    let vote = placement(&a, 1, &[me(), other()]);
    let results = store.commit(
        vec![put_vote("voted", &a), Op::Seal, put_vote("late", &a), Op::Seal],
        at(1),
    );
    assert_eq!(results[0], voted(Reply::Accepted { ballot: ballot(0) }, true));
    assert_eq!((&results[1], &results[3]), (&Ok(Outcome::Sealed), &Ok(Outcome::Sealed)));
    assert_eq!(results[2], voted(refused(), false), "in the same batch already");
    votes_no_more(&mut store, "sealed");
    one(
        &mut store,
        Op::Decided {
            decisions: vec![(id("voted"), ballot(0), vote)],
        },
    )
    .unwrap();
    for power in [false, true] {
        drop(store);
        if power {
            disk.crash(3);
        }
        store = open(&disk);
        votes_no_more(&mut store, "opened again");
        assert!(store.reader().register(&id("voted")).unwrap().decided);
    }
    assert!(stored(one(&mut store, put("plain", &a))), "bytes are taken");
}

#[test]
fn a_seal_that_was_answered_outlives_every_power_cut_and_one_that_was_not_ends_writing() {
    for cut in 1..=8 {
        for (fault, seed) in [Fault::PowerCut, Fault::Error]
            .into_iter()
            .flat_map(|fault| (0..20).map(move |seed| (fault, seed)))
        {
            let context = format!("{fault:?} at {cut}, seed {seed}");
            let disk = MemDisk::default();
            let mut store = open(&disk);
            let a = item(1, 500);
            one(&mut store, put_vote("voted", &a)).unwrap();
            disk.plan(disk.changes() + cut, fault);
            let results = store.commit(vec![put_vote("with", &a), Op::Seal], at(2));
            let sealed = results[1] == Ok(Outcome::Sealed);
            if !sealed {
                assert_eq!(
                    one(&mut store, put_item("more", &a)),
                    Err(WriteError::Closed),
                    "{context}"
                );
            }
            drop(store);
            disk.crash(seed);
            let mut store = open(&disk);
            assert!(!sealed || store.reader().is_sealed(), "{context}");
            // The vote before the seal is there exactly when it was answered, or might have been.
            let kept = store.reader().register(&id("with")).unwrap().accepted.is_some();
            assert!(results[0].is_err() || kept, "{context}");
            if store.reader().is_sealed() {
                votes_no_more(&mut store, &context);
            }
        }
    }
}
