//! A start from a checkpoint comes to what a start without one comes to, and a checkpoint that is of no use is not used.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_chunkpaxos::{Reply, Request};
use vstack_engine::{
    Damage, DeleteOutcome, Disk, MemDisk, Missing, Op, OpenReport, Outcome, Reader, Store, StoreOptions, Which,
};
use vstack_types::{NodeUuid, limits::DISK_PERCENT_FULL};

const CHECKPOINT: &str = "checkpoint";

/// Forty chunks over some superblocks: voted on, decided, moved away, deleted, staged.
fn filled(disk: &MemDisk) -> Store<MemDisk> {
    let mut store = open(disk);
    for n in 0..40 {
        let bytes = item(n, 500 + usize::try_from(n).unwrap() * 700);
        let name = format!("c{n}");
        let op = if n % 4 == 0 {
            put(&name, &bytes)
        } else {
            put_vote(&name, &bytes)
        };
        one(&mut store, op).unwrap();
        if n % 4 == 1 {
            let placement = placement(&bytes, 1, &[me(), other()]);
            let decided = vec![(id(&name), ballot(0), placement)];
            one(&mut store, Op::Decided { decisions: decided }).unwrap();
        }
        if n % 8 == 0 {
            one(&mut store, Op::DeleteStaged { id: id(&name) }).unwrap();
        }
    }
    store
}

/// Everything that can be seen of a store.
fn seen(reader: &Reader<MemDisk>) -> Vec<String> {
    let items = reader.list_items(0, 1000, None).unwrap().entries;
    let registers = reader.list_registers(0, 1000, None).unwrap().entries;
    let bytes = items.iter().map(|listed| {
        let found = reader.find(&listed.id, Which::Exact(listed.sha256)).unwrap();
        let bytes = reader.read(&found, None, at(9).monotonic).unwrap();
        format!("{listed:?} {} {}", bytes.len(), found.superblock())
    });
    let stats = reader.stats();
    bytes
        .chain(registers.iter().map(|listed| format!("{listed:?}")))
        .chain([format!(
            "{} {} {}",
            stats.chunk_count, stats.chunk_bytes, stats.register_count
        )])
        .collect()
}

fn opened(disk: &MemDisk) -> (Vec<String>, OpenReport) {
    let store = open(disk);
    (seen(&store.reader()), store.report().clone())
}

/// Without its checkpoint.
fn scanned(disk: &MemDisk) -> Vec<String> {
    let copy = MemDisk::default();
    for name in disk.list().unwrap().iter().filter(|name| *name != CHECKPOINT) {
        copy.plant(name, &disk.contents(name));
    }
    opened(&copy).0
}

#[test]
fn it_says_what_reading_everything_says() {
    let disk = MemDisk::default();
    let mut store = filled(&disk);
    let before = seen(&store.reader());
    assert_eq!(
        store.reader().write_checkpoint().unwrap(),
        Some(store.reader().log_seq())
    );
    assert_eq!(store.reader().write_checkpoint().unwrap(), None, "nothing is new");
    assert_eq!(store.reader().since_checkpoint(), 0);
    drop(store);
    disk.crash(1);
    let (after, report) = opened(&disk);
    assert_eq!(after, before);
    assert_eq!(report.damage, []);
    assert!(report.checkpoint.is_some() && report.records < 5, "{report:?}");
    // What comes behind it is read, over a superblock's end.
    store = open(&disk);
    for n in 0..10 {
        one(&mut store, put_vote(&format!("d{n}"), &item(100 + n, 60_000))).unwrap();
    }
    one(&mut store, accept("c1", 7, placement(&item(1, 1200), 2, &[me()]))).unwrap();
    one(&mut store, Op::DeleteStaged { id: id("c4") }).unwrap();
    let before = seen(&store.reader());
    drop(store);
    let (after, report) = opened(&disk);
    assert_eq!(after, before);
    assert_eq!(scanned(&disk), before);
    assert!(report.superblocks > 1 && report.checkpoint.is_some(), "{report:?}");
}

#[test]
fn one_that_is_damaged_cut_or_of_another_log_is_not_used() {
    let disk = MemDisk::default();
    let store = filled(&disk);
    let before = seen(&store.reader());
    store.reader().write_checkpoint().unwrap();
    drop(store);
    let whole = disk.contents(CHECKPOINT);
    let refused = |bytes: &[u8], why: &str| {
        let copy = MemDisk::default();
        for name in disk.list().unwrap() {
            copy.plant(&name, &disk.contents(&name));
        }
        copy.plant(CHECKPOINT, bytes);
        let (after, report) = opened(&copy);
        assert_eq!(after, before, "{why}");
        assert!(
            report.checkpoint.is_none() && report.damage.is_empty(),
            "{why}: {report:?}"
        );
        assert!(
            report.checkpoint_refused.is_some_and(|said| said.contains(why)),
            "{why}"
        );
    };
    for at in (0..whole.len()).step_by(97) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let why = if (8..12).contains(&at) { "format" } else { "damaged" };
        refused(&flipped, why);
    }
    for len in [0, 5, 11, 100, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..len], "damaged");
    }
    refused(&[&whole[..], b"x"].concat(), "damaged");
    let mut newer = whole.clone();
    newer[8] += 1;
    refused(&newer, "format");
    // Of another disk.
    let other = MemDisk::default();
    let options = StoreOptions {
        new_uuid: NodeUuid::from_bytes([8; 16]),
        ..options()
    };
    let store = Store::open(other.clone(), options, at(0)).unwrap();
    store.reader().write_checkpoint().unwrap();
    drop(store);
    refused(&other.contents(CHECKPOINT), "another disk");
}

#[test]
fn one_that_is_ahead_of_the_log_is_not_used() {
    let disk = MemDisk::default();
    let mut store = filled(&disk);
    store.mark(at(2)).unwrap();
    let older: Vec<(String, Vec<u8>)> = disk
        .list()
        .unwrap()
        .into_iter()
        .map(|name| (name.clone(), disk.contents(&name)))
        .collect();
    let before = seen(&store.reader());
    one(&mut store, put_vote("later", &item(77, 900))).unwrap();
    store.reader().write_checkpoint().unwrap();
    drop(store);
    let copy = MemDisk::default();
    older.iter().for_each(|(name, bytes)| copy.plant(name, bytes));
    copy.plant(CHECKPOINT, &disk.contents(CHECKPOINT));
    let (after, report) = opened(&copy);
    assert_eq!(after, before);
    assert!(report.checkpoint_refused.is_some(), "{report:?}");
}

/// Cut to a length, or zeros from there on, as no stop leaves it.
fn ends_early(len: usize, zeros: bool) -> MemDisk {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    for n in 0..6 {
        one(&mut store, put_vote(&format!("c{n}"), &item(n, 900))).unwrap();
    }
    store.reader().write_checkpoint().unwrap();
    drop(store);
    let copy = MemDisk::default();
    for name in disk.list().unwrap() {
        let mut bytes = disk.contents(&name);
        if name == "superblock_000000.vsb" {
            let whole = bytes.len();
            bytes.truncate(len);
            if zeros {
                bytes.resize(whole, 0);
            }
        }
        copy.plant(&name, &bytes);
    }
    copy
}

#[test]
fn a_log_that_ends_before_its_checkpoint_has_lost_votes() {
    // Batches have two pages each; the last one ends at 57344 bytes.
    for len in [8192, 20_000, 40_960, 45_100, 49_152, 50_000, 53_000] {
        for zeros in [false, true] {
            let context = format!("{len}, zeros {zeros}");
            let disk = ends_early(len, zeros);
            for start in 0..3 {
                let mut store = open(&disk);
                let report = store.report().clone();
                let told = report
                    .damage
                    .iter()
                    .any(|damage| matches!(damage, Damage::Votes { .. }));
                assert!(
                    told && store.reader().votes_lost(),
                    "{context}, start {start}: {report:?}"
                );
                assert_eq!(one(&mut store, prepare("c5", 1)), replied(Reply::Damaged), "{context}");
            }
        }
    }
}

/// The superblock in which a checkpoint ends is gone, and with it whatever came behind the checkpoint.
#[test]
fn a_superblock_that_a_checkpoint_ends_in_is_missed() {
    let disk = MemDisk::default();
    let store = filled(&disk);
    store.reader().write_checkpoint().unwrap();
    let last = *store.reader().superblock_numbers().last().unwrap();
    drop(store);
    let name = format!("superblock_{last:06}.vsb");
    disk.remove(&name).unwrap();
    for start in 0..3 {
        let mut store = open(&disk);
        let damage = &store.report().damage;
        assert!(
            damage.contains(&Damage::Superblock { number: last }),
            "start {start}: {damage:?}"
        );
        assert!(store.reader().votes_lost(), "start {start}");
        assert_eq!(one(&mut store, prepare("c5", 9)), replied(Reply::Damaged));
        drop(store);
        disk.crash(start);
    }
}

/// What is damaged before the end of a checkpoint is damage and no torn batch: its second copy tells what it was.
#[test]
fn a_last_batch_that_a_checkpoint_speaks_for_is_not_cut() {
    let whole = ends_early(usize::MAX, false);
    // The last batch's record, its bytes, its commit record.
    for offset in [49_152 + 40, 49_152 + 700, 53_248 + 40] {
        let disk = MemDisk::default();
        for name in whole.list().unwrap() {
            disk.plant(&name, &whole.contents(&name));
        }
        disk.flip("superblock_000000.vsb", offset);
        let store = open(&disk);
        let report = store.report();
        assert_eq!(report.torn_bytes, 0, "{offset}");
        assert!(!store.reader().votes_lost(), "{offset}: {report:?}");
        let here = served(&store.reader(), "c5");
        assert_eq!(here.is_some(), offset > 53_248, "{offset}");
        if here.is_none() {
            assert_eq!(
                store.reader().find(&id("c5"), Which::Public).map(|_| ()),
                Err(Missing::Corrupt),
                "{offset}"
            );
        }
    }
}

#[test]
fn a_superblock_that_is_lost_is_found_missing_in_spite_of_it() {
    let disk = MemDisk::default();
    let store = filled(&disk);
    assert!(store.reader().stats().superblocks > 2);
    store.reader().write_checkpoint().unwrap();
    drop(store);
    disk.remove("superblock_000001.vsb").unwrap();
    for start in 0..2 {
        let store = open(&disk);
        assert!(store.reader().votes_lost(), "start {start}");
        let lost = Damage::Superblock { number: 1 };
        assert!(store.report().damage.contains(&lost), "{:?}", store.report());
        assert_eq!(
            store.reader().write_checkpoint().unwrap(),
            None,
            "what is lost is found again"
        );
    }
}

#[test]
fn damage_before_it_is_found_by_who_comes_upon_it() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1, 700), item(2, 900));
    one(&mut store, put_vote("a", &a)).unwrap();
    one(&mut store, put_vote("b", &b)).unwrap();
    one(&mut store, put_vote("c", &item(3, 100))).unwrap();
    store.mark(at(2)).unwrap();
    store.reader().write_checkpoint().unwrap();
    drop(store);
    // The first record is at 8192: its magic.
    disk.flip("superblock_000000.vsb", 8192);
    let mut store = open(&disk);
    assert!(store.report().checkpoint.is_some() && store.report().damage.is_empty());
    assert_eq!(served(&store.reader(), "a"), None, "its record is gone");
    assert_eq!(served(&store.reader(), "b").unwrap(), *b.bytes());
    // The vote is in the commit record, too; the bytes it vouches for are not.
    let register = store.reader().register(&id("a")).unwrap();
    assert_eq!(register.accepted.unwrap().placement.sha256, a.sha256());
    assert_eq!(one(&mut store, prepare("a", 9)), Ok(Outcome::Reply(Reply::Damaged)));
    // Brought again, it is whole.
    assert!(stored(one(&mut store, put_item("a", &a))));
    assert!(promised_with_bytes(one(&mut store, prepare("a", 9))));
    drop(store);
    let store = open(&disk);
    assert_eq!(served(&store.reader(), "a").unwrap(), *a.bytes());
    assert!(!store.reader().votes_lost());
}

#[test]
fn a_register_of_which_nothing_is_left_abstains() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put_vote("a", &item(1, 700))).unwrap();
    one(&mut store, put_vote("b", &item(2, 700))).unwrap();
    store.mark(at(2)).unwrap();
    store.reader().write_checkpoint().unwrap();
    drop(store);
    // Its record, and its batch's commit record at the next page.
    disk.flip("superblock_000000.vsb", 8192);
    disk.flip("superblock_000000.vsb", 12_288);
    let mut store = open(&disk);
    assert!(store.report().checkpoint.is_some());
    assert!(store.reader().register(&id("a")).unwrap().votes_lost());
    for request in [
        Request::Prepare { ballot: ballot(9) },
        Request::Accept {
            ballot: ballot(9),
            placement: placement(&item(3, 5), 2, &[me()]),
        },
    ] {
        assert_eq!(one(&mut store, paxos("a", request)), Ok(Outcome::Reply(Reply::Damaged)));
    }
    assert!(
        promised_with_bytes(one(&mut store, prepare("b", 9))),
        "the others vote on"
    );
}

#[test]
fn bytes_stay_when_the_vote_on_them_is_lost_behind_it() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let bytes = item(1, 700);
    one(&mut store, put("a", &bytes)).unwrap();
    assert_eq!(
        one(&mut store, accept("a", 2, placement(&bytes, 1, &[me()]))),
        accepted(2)
    );
    store.mark(at(2)).unwrap();
    store.reader().write_checkpoint().unwrap();
    drop(store);
    // The vote's record and its batch's commit record: the third and the fourth page of records.
    disk.flip("superblock_000000.vsb", 16_384);
    disk.flip("superblock_000000.vsb", 20_480);
    let mut store = open(&disk);
    assert!(store.report().checkpoint.is_some());
    assert!(store.reader().register(&id("a")).unwrap().votes_lost());
    let refused = one(&mut store, Op::DeleteStaged { id: id("a") });
    assert_eq!(refused, Ok(Outcome::Deleted(DeleteOutcome::Placed)));
    collect(&mut store, DAY, DAY, at(30 * DAY.as_secs())).unwrap();
    assert_eq!(served(&store.reader(), "a").unwrap(), *bytes.bytes());
}

#[test]
fn where_there_is_no_room_for_it_the_one_before_stays() {
    let disk = MemDisk::default();
    let mut store = filled(&disk);
    store.reader().write_checkpoint().unwrap();
    let first = disk.contents(CHECKPOINT);
    one(&mut store, put_vote("more", &item(55, 10))).unwrap();
    let used = disk.usage().unwrap().used_bytes;
    disk.set_capacity(Some(used + 4096));
    assert!(store.reader().write_checkpoint().is_err());
    assert_eq!(disk.contents(CHECKPOINT), first);
    assert!(
        !disk.list().unwrap().contains(&"checkpoint.new".to_owned()),
        "it gives its room back"
    );
    assert!(disk.usage().unwrap().percent() > DISK_PERCENT_FULL);
    disk.set_capacity(None);
    let before = seen(&store.reader());
    drop(store);
    assert_eq!(opened(&disk).0, before);
    assert!(open(&disk).reader().write_checkpoint().unwrap().is_some());
}

/// Zeros over a record, and over all of its batch, in the middle of a superblock: what the checkpoint knew of is damaged.
#[test]
fn what_is_under_a_hole_is_damaged_and_not_absent() {
    let whole = ends_early(usize::MAX, false);
    for hole in [16_384..20_480, 16_384..24_576] {
        let disk = MemDisk::default();
        for name in whole.list().unwrap() {
            let mut bytes = whole.contents(&name);
            if name == "superblock_000000.vsb" {
                bytes[hole.clone()].fill(0);
            }
            disk.plant(&name, &bytes);
        }
        let store = open(&disk);
        assert!(store.report().checkpoint.is_some());
        let reader = store.reader();
        let found = reader.find(&id("c1"), Which::Public);
        let served = found.map(|found| reader.read(&found, None, at(3).monotonic).is_ok());
        assert!(
            matches!(served, Err(Missing::Corrupt) | Ok(false)),
            "{hole:?}: {served:?}"
        );
    }
}
