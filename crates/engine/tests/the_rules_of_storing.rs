//! Conflicts, votes, restoring, collecting: what each operation answers, and that a restart changes nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_chunkpaxos::{Layout, Placement, Register, Reply, Request, Shard};
use vstack_engine::{DeleteOutcome, Disk as _, MemDisk, Missing, Op, Outcome, PutMode, Store, Which, WriteError};
use vstack_types::{Digest, limits::CHUNK_BYTES_MAX};

#[test]
fn a_plain_put_never_changes_what_an_id_stands_for() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1, 1000), item(2, 1000));
    for _ in 0..2 {
        one(&mut store, put("staged", &a)).unwrap();
        assert_eq!(one(&mut store, put("staged", &a)), already_there());
        assert_eq!(one(&mut store, put("staged", &b)), conflict());
        one(&mut store, put_vote("voted", &a)).unwrap();
        assert_eq!(one(&mut store, put("voted", &a)), already_there());
        assert_eq!(one(&mut store, put("voted", &b)), conflict());
        assert_eq!(served(&store.reader(), "staged").as_deref(), Some(&a.bytes()[..]));
        store = restarted(store, &disk);
    }
    // PutBytes never conflicts, and then only the register or the reader can choose.
    assert!(stored(one(&mut store, put_item("staged", &b))));
    assert_eq!(
        store.reader().find(&id("staged"), Which::Public).unwrap_err(),
        Missing::Ambiguous
    );
    let chosen = store.reader().find(&id("staged"), Which::Exact(b.sha256())).unwrap();
    assert_eq!(store.reader().read(&chosen, None, at(3).monotonic).unwrap(), *b.bytes());
    assert_eq!(one(&mut store, put("staged", &item(3, 5))), conflict());
}

#[test]
fn a_damaged_item_keeps_its_name_for_its_own_bytes() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1, 1000), item(2, 1000));
    one(&mut store, put("staged", &a)).unwrap();
    let found = store.reader().find(&id("staged"), Which::Public).unwrap();
    let damaged = Op::Quarantine {
        id: id("staged"),
        sha256: a.sha256(),
        lsn: found.lsn(),
    };
    one(&mut store, damaged).unwrap();
    for _ in 0..2 {
        assert_eq!(one(&mut store, put("staged", &b)), conflict());
        store = open_again(store, &disk);
    }
    assert!(stored(one(&mut store, put("staged", &a))));
    assert_eq!(served(&store.reader(), "staged").as_deref(), Some(&a.bytes()[..]));
    assert_eq!(one(&mut store, put("staged", &b)), conflict());
    // Nor does a damaged one keep the others from being there.
    assert!(stored(one(&mut store, put_item("staged", &b))));
    let found = store.reader().find(&id("staged"), Which::Exact(b.sha256())).unwrap();
    let damaged = Op::Quarantine {
        id: id("staged"),
        sha256: b.sha256(),
        lsn: found.lsn(),
    };
    one(&mut store, damaged).unwrap();
    assert_eq!(one(&mut store, put("staged", &a)), already_there());
}

fn open_again(store: Store<MemDisk>, disk: &MemDisk) -> Store<MemDisk> {
    drop(store);
    open(disk)
}

#[test]
fn a_vote_known_from_news_of_its_decision_still_takes_its_bytes() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 1000);
    // The decision by the others overtakes the owner's own request.
    let news = Request::Decided {
        ballot: ballot(0),
        placement: placement(&a, 1, &[me(), other()]),
    };
    one(&mut store, paxos("late", news)).unwrap();
    assert_eq!(served(&store.reader(), "late"), None);
    let accepted = Reply::Accepted { ballot: ballot(0) };
    assert_eq!(one(&mut store, put_vote("late", &a)), voted(accepted.clone(), true));
    for _ in 0..2 {
        assert_eq!(served(&store.reader(), "late").as_deref(), Some(&a.bytes()[..]));
        assert_eq!(one(&mut store, put_vote("late", &a)), voted(accepted.clone(), false));
        store = restarted(store, &disk);
    }
}

#[test]
fn a_first_version_of_several_shards_gathers_them_put_by_put() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let shards = [item(1, 500), item(2, 500), item(3, 500)];
    let of = |index: usize, node| Shard {
        index: u8::try_from(index).unwrap(),
        node,
        sha256: shards[index].sha256(),
    };
    let placement = Placement {
        size: 1000,
        layout: Layout::Coded {
            data: 2,
            parity: 1,
            shards: vec![of(0, me()), of(1, other()), of(2, me())],
        },
        ..placement(&item(9, 1000), 1, &[me(), other()])
    };
    let put = |index: usize| Op::Put {
        id: id("c"),
        item: shards[index].clone(),
        mode: PutMode::Vote {
            ballot: ballot(0),
            placement: placement.clone(),
        },
    };
    let need = |index: usize| Reply::NeedBytes {
        items: vec![shards[index].sha256()],
    };
    assert_eq!(one(&mut store, put(0)), voted(need(2), true));
    store = restarted(store, &disk);
    assert_eq!(one(&mut store, put(0)), voted(need(2), false));
    assert_eq!(store.reader().register(&id("c")).unwrap(), Register::default());
    let accepted = Reply::Accepted { ballot: ballot(0) };
    assert_eq!(one(&mut store, put(2)), voted(accepted.clone(), true));
    store = restarted(store, &disk);
    assert_eq!(one(&mut store, put(0)), voted(accepted, false));
    // Known from the news alone, the vote does not stand for shards that never came.
    let news = Request::Decided {
        ballot: ballot(0),
        placement: placement.clone(),
    };
    one(&mut store, paxos("d", news)).unwrap();
    let late = |index: usize| match put(index) {
        Op::Put { item, mode, .. } => Op::Put {
            id: id("d"),
            item,
            mode,
        },
        other => other,
    };
    assert_eq!(one(&mut store, late(0)), voted(need(2), true));
    assert_eq!(
        one(&mut store, late(2)),
        voted(Reply::Accepted { ballot: ballot(0) }, true)
    );
}

#[test]
fn operations_of_one_batch_see_each_other() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1, 10), item(2, 10));
    let prepare = prepare("x", 3);
    let results = store.commit(
        vec![put("s", &a), put("s", &b), put("s", &a), prepare, put_vote("x", &a)],
        at(1),
    );
    assert!(stored(results[0].clone()));
    assert_eq!(results[1], conflict());
    assert_eq!(results[2], already_there());
    assert!(matches!(&results[3], Ok(Outcome::Reply(Reply::Promise { .. }))));
    assert_eq!(
        results[4],
        voted(
            Reply::Nack {
                promised: Some(ballot(3))
            },
            false
        )
    );
    assert!(
        !store.reader().has_item(&id("x"), a.sha256()).unwrap(),
        "a refused vote stores nothing"
    );
    assert_eq!(store.reader().stats().batches, 1);
}

#[test]
fn a_vote_rides_on_its_bytes_and_outlives_a_restart() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 70_000);
    let accepted = Reply::Accepted { ballot: ballot(0) };
    assert_eq!(one(&mut store, put_vote("c", &a)), voted(accepted.clone(), true));
    let register = store.reader().register(&id("c")).unwrap();
    assert_eq!(
        register.accepted.as_ref().unwrap().placement,
        placement(&a, 1, &[me(), other()])
    );
    store = restarted(store, &disk);
    assert_eq!(store.reader().register(&id("c")).unwrap(), register);
    assert_eq!(
        one(&mut store, put_vote("c", &a)),
        voted(accepted, false),
        "the same vote again"
    );
    assert_eq!(
        one(&mut store, put_vote("c", &item(2, 9))),
        voted(
            Reply::Nack {
                promised: Some(ballot(0))
            },
            false
        )
    );
    assert_eq!(served(&store.reader(), "c").as_deref(), Some(&a.bytes()[..]));
}

#[test]
fn a_vote_needs_the_bytes_it_names_and_a_voter_it_names() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1, 10), item(2, 10));
    let vote = |nodes: &[_]| accept("c", 1, placement(&a, 1, nodes));
    let need = Reply::NeedBytes {
        items: vec![a.sha256()],
    };
    assert_eq!(one(&mut store, vote(&[me()])), replied(need.clone()));
    assert_eq!(one(&mut store, vote(&[other()])), replied(Reply::WrongNode));
    let mode = PutMode::Vote {
        ballot: ballot(0),
        placement: placement(&a, 1, &[me()]),
    };
    let wrong_bytes = Op::Put {
        id: id("c"),
        item: b,
        mode,
    };
    assert_eq!(one(&mut store, wrong_bytes), voted(need, false));
    assert_eq!(store.reader().register(&id("c")).unwrap(), Register::default());
    one(&mut store, put_item("c", &a)).unwrap();
    store = restarted(store, &disk);
    // Not read since the start, so it is verified before it is vouched for.
    assert_eq!(
        one(&mut store, vote(&[me()])),
        Ok(Outcome::Reply(Reply::Accepted { ballot: ballot(1) }))
    );
}

#[test]
fn decisions_of_many_registers_are_one_sync() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 10);
    let names: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    store.commit(names.iter().map(|name| put_vote(name, &a)).collect(), at(1));
    let syncs = store.reader().stats().syncs;
    let decisions = names
        .iter()
        .map(|name| (id(name), ballot(0), placement(&a, 1, &[me(), other()])))
        .collect();
    assert_eq!(one(&mut store, Op::Decided { decisions }), Ok(Outcome::Noted));
    assert_eq!(store.reader().stats().syncs, syncs + 1);
    store = restarted(store, &disk);
    assert!(
        names
            .iter()
            .all(|name| store.reader().register(&id(name)).unwrap().decided)
    );
}

#[test]
fn superblocks_rotate_and_all_are_read_back() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let items: Vec<_> = (0..40)
        .map(|n| item(n, 20_000 + usize::try_from(n).unwrap() * 100))
        .collect();
    let ops = items
        .iter()
        .enumerate()
        .map(|(n, item)| put_vote(&format!("v-{n:02}"), item))
        .collect();
    for result in store.commit(ops, at(1)) {
        assert_eq!(result, voted(Reply::Accepted { ballot: ballot(0) }, true));
    }
    assert!(store.reader().stats().superblocks >= 4);
    let too_large = one(&mut store, put("big", &item(1, 300_000)));
    assert_eq!(too_large, Err(WriteError::TooLarge { len: 300_000 }));
    let before = store.reader().log_seq();
    store = restarted(store, &disk);
    assert!(store.reader().log_seq() > before);
    for (n, item) in items.iter().enumerate() {
        assert_eq!(
            served(&store.reader(), &format!("v-{n:02}")).as_deref(),
            Some(&item.bytes()[..]),
            "{n}"
        );
    }
}

#[test]
fn the_largest_chunk_fits_a_superblock_of_the_default_size() {
    let mut options = options();
    options.superblock_bytes = 8 << 20;
    let disk = MemDisk::default();
    let mut store = Store::open(disk, options, at(0)).unwrap();
    assert!(stored(one(&mut store, put("c", &item(1, CHUNK_BYTES_MAX)))));
}

#[test]
fn lists_are_in_log_order_and_pages_join() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 10);
    for name in ["b-2", "a-1", "b-1", "c", "b"] {
        one(&mut store, put_vote(name, &a)).unwrap();
    }
    one(&mut store, prepare("b-2", 4)).unwrap();
    store = restarted(store, &disk);
    let reader = store.reader();
    let names = |limit: usize, prefix: Option<&str>| {
        let (mut cursor, mut names) = (0, Vec::new());
        loop {
            let page = reader
                .list_items(cursor, limit, prefix.map(id).as_ref())
                .unwrap()
                .entries;
            let Some(last) = page.last() else { return names };
            cursor = last.lsn;
            assert!(
                page.iter()
                    .all(|listed| listed.placed && listed.sha256 == a.sha256() && listed.size == 10)
            );
            names.extend(page.iter().map(|listed| listed.id.to_string()));
        }
    };
    assert_eq!(names(100, None), ["b-2", "a-1", "b-1", "c", "b"]);
    assert_eq!(names(2, None), names(100, None));
    assert_eq!(names(1, Some("b-")), ["b-2", "b-1"]);
    assert_eq!(names(10, Some("b")), ["b-2", "b-1", "b"]);
    let registers = |prefix: Option<&str>| {
        let page = reader.list_registers(0, 10, prefix.map(id).as_ref()).unwrap().entries;
        page.into_iter().map(|listed| listed.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        registers(None),
        ["a-1", "b-1", "c", "b", "b-2"],
        "a register that changed moves to the end"
    );
    assert_eq!(registers(Some("b-")), ["b-1", "b-2"]);
}

#[test]
fn a_disk_past_its_share_takes_votes_and_deletions_but_no_bytes() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 100);
    one(&mut store, put("staged", &a)).unwrap();
    disk.set_capacity(Some(268 * 1024));
    let later = at(10);
    assert_eq!(one_at(&mut store, put("more", &a), later), Err(WriteError::DiskFull));
    assert_eq!(
        one_at(&mut store, put_vote("more", &a), later),
        Err(WriteError::DiskFull)
    );
    assert!(one_at(&mut store, prepare("r", 1), later).is_ok());
    let deleted = one_at(&mut store, Op::DeleteStaged { id: id("staged") }, later);
    assert_eq!(deleted, Ok(Outcome::Deleted(DeleteOutcome::Deleted)));
    disk.set_capacity(None);
    assert!(stored(one_at(&mut store, put("more", &a), at(20))), "space came back");
}

#[test]
fn a_write_that_finds_no_space_is_refused_and_the_next_one_goes() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let a = item(1, 1000);
    one(&mut store, put("first", &a)).unwrap();
    disk.plan(disk.changes() + 1, vstack_engine::Fault::Full);
    assert_eq!(
        store.commit(vec![put("x", &a), put_vote("y", &a)], at(2)),
        vec![Err(WriteError::DiskFull); 2]
    );
    assert_eq!(served(&store.reader(), "x"), None);
    assert_eq!(store.reader().register(&id("y")).unwrap(), Register::default());
    assert!(!store.is_failed());
    assert!(stored(one(&mut store, put("z", &a))));
    store = restarted(store, &disk);
    assert_eq!(served(&store.reader(), "first").as_deref(), Some(&a.bytes()[..]));
    assert_eq!(served(&store.reader(), "z").as_deref(), Some(&a.bytes()[..]));
    assert_eq!(served(&store.reader(), "x"), None);
}

#[test]
fn a_failed_write_or_sync_ends_writing_until_the_store_is_opened_again() {
    for step in 1..=2 {
        let disk = MemDisk::default();
        let mut store = open(&disk);
        let a = item(1, 1000);
        one(&mut store, put("first", &a)).unwrap();
        disk.plan(disk.changes() + step, vstack_engine::Fault::Error);
        assert!(
            matches!(one(&mut store, put("x", &a)), Err(WriteError::Failed { .. })),
            "step {step}"
        );
        assert_eq!(one(&mut store, put("y", &a)), Err(WriteError::Closed));
        assert_eq!(one(&mut store, prepare("y", 1)), Err(WriteError::Closed));
        assert_eq!(
            served(&store.reader(), "first").as_deref(),
            Some(&a.bytes()[..]),
            "reads go on"
        );
        assert_eq!(served(&store.reader(), "x"), None);
        drop(store);
        // The process starts again on the same machine; then power goes. What the second life vouched for stays.
        let mut store = open(&disk);
        one(&mut store, put("second", &a)).unwrap();
        let kept = served(&store.reader(), "x");
        drop(store);
        disk.crash(step);
        let store = open(&disk);
        assert!(store.report().damage.is_empty());
        assert_eq!(
            served(&store.reader(), "x"),
            kept,
            "what was served from the cache is on the medium too"
        );
        assert_eq!(served(&store.reader(), "second").as_deref(), Some(&a.bytes()[..]));
    }
}

#[test]
fn a_store_answers_reads_of_what_is_not_there() {
    let store = open(&MemDisk::default());
    assert_eq!(
        store.reader().find(&id("nothing"), Which::Public).unwrap_err(),
        Missing::NotFound
    );
    assert_eq!(
        store.reader().find(&id("nothing-frag-1"), Which::Public).unwrap_err(),
        Missing::NotFound
    );
    assert!(!store.reader().has_item(&id("nothing"), Digest::of(b"")).unwrap());
}

/// Nobody is told that something is stored which a look at the directory kept from being written.
#[test]
fn what_comes_before_a_look_that_fails_is_refused_with_it() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put("kept", &item(1, 500))).unwrap();
    disk.remove("identity").unwrap();
    let ops = vec![
        put_vote("a", &item(2, 900)),
        prepare("b", 3),
        Op::Attend,
        prepare("c", 3),
    ];
    let results = store.commit(ops, at(1));
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert!(store.is_failed());
    assert!(served(&store.reader(), "a").is_none());
}
