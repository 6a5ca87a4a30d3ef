//! What is deleted gives its space back: at once where it was, and by emptying superblocks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use support::*;
use vstack_engine::{
    Compacted, Disk, DiskFile, Engine, Fault, FileDisk, MemDisk, Op, Outcome, Reader, Store, StoreOptions, Waste, Which,
};
use vstack_types::SystemClock;

/// Writes again what is wanted of a superblock.
fn move_all(store: &mut Store<MemDisk>, number: u32) {
    let reader = store.reader();
    for offset in reader.wanted_records(number).unwrap() {
        let moves = reader.read_for_move(number, offset).unwrap().into_iter().collect();
        one(store, Op::Move { moves }).unwrap();
    }
}

/// The same, and empties it.
fn empty(store: &mut Store<MemDisk>, number: u32) -> bool {
    move_all(store, number);
    one(store, Op::Empty { superblock: number }) == Ok(Outcome::Emptied(true))
}

fn names(reader: &Reader<MemDisk>) -> Vec<String> {
    let items = reader.list_items(0, 1000, None).unwrap().entries;
    let mut names: Vec<_> = items.iter().map(|listed| listed.id.to_string()).collect();
    names.sort();
    names
}

#[test]
fn bytes_that_are_gone_are_a_hole_when_nobody_reads_them_any_more() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1, 100_000), item(2, 100_000));
    one(&mut store, put("a", &a)).unwrap();
    one(&mut store, put("b", &b)).unwrap();
    let reader = store.reader();
    let used = disk.usage().unwrap().used_bytes;
    let reads = reader.find(&id("a"), Which::Public).unwrap();
    assert!(reader.read(&reads, None, at(2).monotonic).is_ok());
    one(&mut store, Op::DeleteStaged { id: id("a") }).unwrap();
    let early = reader.reclaim().unwrap();
    assert_eq!((early.bytes, early.waiting), (0, 1), "somebody reads it");
    assert_eq!(reader.read(&reads, None, at(2).monotonic).unwrap(), *a.bytes());
    drop(reads);
    let reclaimed = reader.reclaim().unwrap();
    assert_eq!((reclaimed.bytes, reclaimed.waiting), (24 * 4096, 0));
    assert_eq!(disk.usage().unwrap().used_bytes, used - 24 * 4096);
    assert_eq!(reader.reclaim().unwrap().bytes, 0);
    store = restarted(store, &disk);
    assert_eq!(names(&store.reader()), ["b"]);
    assert_eq!(served(&store.reader(), "b").unwrap(), *b.bytes());
}

#[test]
fn a_hole_that_cannot_be_made_now_keeps_no_other_from_being_made() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        one(&mut store, put(name, &item(n as u64, 66_000))).unwrap();
    }
    for name in ["a", "b", "c"] {
        one(&mut store, Op::DeleteStaged { id: id(name) }).unwrap();
    }
    store.mark(at(3)).unwrap();
    let reader = store.reader();
    let used = disk.usage().unwrap().used_bytes;
    let hole = 16 * 4096;
    disk.plan(disk.changes() + 2, Fault::Error);
    assert!(reader.reclaim().is_err(), "and it is said");
    assert_eq!(
        disk.usage().unwrap().used_bytes,
        used - 2 * hole,
        "before it and behind it"
    );
    let again = reader.reclaim().unwrap();
    assert_eq!((again.bytes, again.waiting), (hole, 0), "it is tried again");
    assert_eq!(disk.usage().unwrap().used_bytes, used - 3 * hole);
}

/// Without the record of a deletion nothing would tell that an older copy of the bytes is not to be found again.
#[test]
fn a_damaged_tombstone_keeps_its_superblock() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let fill = |store: &mut Store<MemDisk>, superblocks: usize| {
        while store.reader().superblock_numbers().len() < superblocks {
            let n = store.reader().log_seq();
            one(store, put_vote(&format!("fill{n}"), &item(n, 60_000))).unwrap();
        }
    };
    one(&mut store, put("x", &item(5, 30_000))).unwrap();
    fill(&mut store, 2);
    one(&mut store, Op::DeleteStaged { id: id("x") }).unwrap();
    fill(&mut store, 3);
    let file = "superblock_000001.vsb";
    let contents = disk.contents(file);
    let is_tombstone = |at: &usize| contents[*at..].starts_with(b"VSR1\x03");
    let tombstone = (8192..contents.len()).step_by(64).find(is_tombstone).unwrap();
    // While it runs: the index knows, and no look at the record is needed.
    disk.flip(file, tombstone + 40);
    assert!(store.reader().wanted_records(1).is_err(), "it is not emptied");
    assert!(store.reader().wanted_records(0).is_ok(), "others are");
    drop(store);
    let mut store = open(&disk);
    assert_eq!(served(&store.reader(), "x"), None, "what its batch says of it counts");
    // Once no older superblock holds the bytes, nothing depends on it.
    assert!(empty(&mut store, 0));
    assert!(store.reader().wanted_records(1).is_ok());
    assert!(empty(&mut store, 1));
    let store = open_again(store, &disk);
    assert_eq!(served(&store.reader(), "x"), None);
}

fn open_again(store: Store<MemDisk>, disk: &MemDisk) -> Store<MemDisk> {
    drop(store);
    open(disk)
}

#[test]
fn what_was_put_and_deleted_in_one_batch_is_left_until_the_next() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put("a", &item(1, 100_000))).unwrap();
    // The last batch is looked at again after a stop: its bytes have to be what they were.
    let both = vec![Op::DeleteStaged { id: id("a") }, put("b", &item(2, 100_000))];
    store.commit(both, at(2));
    one(&mut store, Op::DeleteStaged { id: id("b") }).unwrap();
    assert_eq!(store.reader().reclaim().unwrap().bytes, 2 * 24 * 4096);
    drop(store);
    disk.kill();
    let store = open(&disk);
    assert_eq!((store.report().torn_bytes, store.report().damage.len()), (0, 0));
    assert_eq!(names(&store.reader()), [""; 0]);
}

#[test]
fn an_emptied_superblock_leaves_its_head_and_nothing_is_lost() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let bytes = |n: u64| item(n, 20_000);
    for n in 0..30 {
        one(&mut store, put_vote(&format!("c{n}"), &bytes(n))).unwrap();
    }
    one(&mut store, put("gone", &item(99, 10))).unwrap();
    one(&mut store, Op::DeleteStaged { id: id("gone") }).unwrap();
    let registers = store.reader().list_registers(0, 1000, None).unwrap().entries.len();
    let before = names(&store.reader());
    assert!(store.reader().stats().superblocks > 2);
    // The first ones, in an order in which heads are joined both ways.
    for number in [1, 0] {
        assert!(empty(&mut store, number), "{number}");
        for start in 0..2 {
            assert_eq!(names(&store.reader()), before, "{number}, start {start}");
            for n in 0..30 {
                assert_eq!(
                    served(&store.reader(), &format!("c{n}")).unwrap(),
                    *bytes(n).bytes(),
                    "{n}"
                );
            }
            store = restarted(store, &disk);
        }
        assert_eq!(
            store.reader().list_registers(0, 1000, None).unwrap().entries.len(),
            registers
        );
    }
    let files: Vec<_> = disk
        .list()
        .unwrap()
        .into_iter()
        .filter(|name| name.ends_with(".vsb"))
        .collect();
    assert_eq!(files[0], "superblock_000001.vsb", "one head speaks for both: {files:?}");
    assert_eq!(disk.open(&files[0]).unwrap().size().unwrap(), 8192);
    assert!(!empty(&mut store, 1_000), "no such one");
}

#[test]
fn what_was_deleted_does_not_come_back_with_an_older_copy() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let bytes = item(5, 30_000);
    one(&mut store, put("x", &bytes)).unwrap();
    while store.reader().superblock_numbers().len() < 3 {
        let n = store.reader().log_seq();
        one(&mut store, put_vote(&format!("fill{n}"), &item(n, 60_000))).unwrap();
    }
    one(&mut store, Op::DeleteStaged { id: id("x") }).unwrap();
    while store.reader().superblock_numbers().len() < 4 {
        let n = store.reader().log_seq();
        one(&mut store, put_vote(&format!("fill{n}"), &item(n, 60_000))).unwrap();
    }
    // The one that says so goes first; the one with the bytes is still there.
    assert!(empty(&mut store, 2));
    store = restarted(store, &disk);
    assert_eq!(served(&store.reader(), "x"), None);
    // Put again, it is there again, whatever was said before.
    assert!(stored(one(&mut store, put("x", &bytes))));
    assert!(empty(&mut store, 0));
    store = restarted(store, &disk);
    assert_eq!(served(&store.reader(), "x").unwrap(), *bytes.bytes());
}

#[test]
fn the_superblock_that_is_written_to_is_left_alone() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put("a", &item(1, 100_000))).unwrap();
    assert_eq!(store.reader().wanted_records(0).unwrap(), [0; 0]);
    assert!(!empty(&mut store, 0));
    assert_eq!(store.reader().reclaim().unwrap().waiting, 0);
    assert_eq!(served(&store.reader(), "a").unwrap(), *item(1, 100_000).bytes());
}

#[test]
fn an_item_that_rotted_is_not_written_again() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let bytes = item(1, 20_000);
    one(&mut store, put_vote("a", &bytes)).unwrap();
    while store.reader().superblock_numbers().len() < 2 {
        let n = store.reader().log_seq();
        one(&mut store, put_vote(&format!("fill{n}"), &item(n, 60_000))).unwrap();
    }
    let contents = disk.contents("superblock_000000.vsb");
    let part = &bytes.bytes()[9_000..9_100];
    disk.flip(
        "superblock_000000.vsb",
        contents.windows(100).position(|window| window == part).unwrap(),
    );
    assert!(empty(&mut store, 0));
    for _ in 0..2 {
        assert_eq!(served(&store.reader(), "a"), None);
        assert!(store.reader().register(&id("a")).unwrap().damaged, "it abstains");
        store = restarted(store, &disk);
    }
}

/// Writes until there is a superblock behind `number`.
fn write_behind(store: &mut Store<MemDisk>, number: u32) {
    while store.reader().superblock_numbers().last() <= Some(&number) {
        let n = store.reader().log_seq();
        one(store, put_vote(&format!("fill{n}"), &item(n, 60_000))).unwrap();
    }
}

#[test]
fn what_went_as_damaged_does_not_come_back_with_a_copy_on_the_way() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let bytes = item(5, 20_000);
    one(&mut store, put("x", &bytes)).unwrap();
    let at = |store: &Store<MemDisk>| store.reader().find(&id("x"), Which::Public).unwrap().superblock();
    write_behind(&mut store, 0);
    assert!(empty(&mut store, 0));
    // Moved once more, and the process stopped before the superblock was emptied.
    let on_the_way = at(&store);
    write_behind(&mut store, on_the_way);
    move_all(&mut store, on_the_way);
    let there = at(&store);
    assert!(there > on_the_way);
    write_behind(&mut store, there);
    let file = format!("superblock_{there:06}.vsb");
    let contents = disk.contents(&file);
    let part = &bytes.bytes()[9_000..9_100];
    disk.flip(&file, contents.windows(100).position(|window| window == part).unwrap());
    let first = *store.reader().superblock_numbers().last().unwrap();
    assert!(empty(&mut store, there));
    let last = *store.reader().superblock_numbers().last().unwrap();
    write_behind(&mut store, last);
    // With them what says that it is gone.
    for number in first..=last {
        assert!(empty(&mut store, number), "{number}");
    }
    assert!(store.reader().superblock_numbers().contains(&on_the_way));
    assert!(served(&store.reader(), "x").is_none());
    store = restarted(store, &disk);
    assert!(served(&store.reader(), "x").is_none());
}

#[test]
fn times_outlive_a_move() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one_at(&mut store, put("old", &item(1, 5000)), at(10)).unwrap();
    while store.reader().superblock_numbers().len() < 2 {
        let n = store.reader().log_seq();
        one_at(&mut store, put_vote(&format!("fill{n}"), &item(n, 60_000)), at(20)).unwrap();
    }
    assert!(empty(&mut store, 0));
    store = restarted(store, &disk);
    let taken = |store: &mut Store<MemDisk>, seconds| {
        let ttl = std::time::Duration::from_secs(100);
        collect(store, DAY, ttl, at(seconds)).unwrap().items
    };
    assert_eq!(taken(&mut store, 109), 0);
    assert_eq!(taken(&mut store, 112), 1, "moved or not, its time is over");
}

#[test]
fn a_stop_at_any_moment_of_emptying_loses_nothing() {
    let mut cuts = 0;
    for at_change in 1.. {
        let disk = MemDisk::default();
        let mut store = open(&disk);
        for n in 0..12 {
            one(&mut store, put_vote(&format!("c{n}"), &item(n, 40_000))).unwrap();
        }
        one(&mut store, put("gone", &item(77, 40_000))).unwrap();
        one(&mut store, Op::DeleteStaged { id: id("gone") }).unwrap();
        disk.plan(disk.changes() + at_change, Fault::PowerCut);
        let reader = store.reader();
        let _ = reader.reclaim();
        for number in [1, 0] {
            for offset in reader.wanted_records(number).unwrap() {
                let moves = reader.read_for_move(number, offset).unwrap().into_iter().collect();
                let _ = one(&mut store, Op::Move { moves });
            }
            let _ = one(&mut store, Op::Empty { superblock: number });
            let _ = reader.write_checkpoint();
        }
        let ended = disk.planned() > 0;
        drop((store, reader));
        disk.crash(at_change);
        let store = open(&disk);
        assert!(store.report().damage.is_empty(), "{at_change}: {:?}", store.report());
        let mut expected: Vec<_> = (0..12).map(|n| format!("c{n}")).collect();
        expected.sort();
        assert_eq!(names(&store.reader()), expected, "{at_change}");
        for n in 0..12 {
            let here = served(&store.reader(), &format!("c{n}"));
            assert_eq!(here.unwrap(), *item(n, 40_000).bytes(), "{at_change}");
            assert!(
                store
                    .reader()
                    .register(&id(&format!("c{n}")))
                    .unwrap()
                    .accepted
                    .is_some()
            );
        }
        assert!(!store.reader().votes_lost());
        if ended {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 30, "{cuts}");
}

#[tokio::test]
async fn a_running_store_on_a_real_disk_empties_what_is_wasteful() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(dir.path()).unwrap();
    let mut options = options();
    options.superblock_bytes = 8 << 20;
    let engine = Engine::open(disk.clone(), options.clone(), Arc::new(SystemClock::start())).unwrap();
    for n in 0..40 {
        let op = put(&format!("c{n}"), &item(n, 500_000));
        engine.submit(op).await.unwrap();
    }
    for n in (0..40).filter(|n| n % 2 == 0) {
        engine.delete_staged(id(&format!("c{n}"))).await.unwrap();
    }
    let allocated = |engine: &Engine<FileDisk>| -> u64 {
        let space = engine.reader().space().unwrap();
        space
            .iter()
            .filter(|space| !space.is_tail)
            .map(|space| space.allocated)
            .sum()
    };
    let before = allocated(&engine);
    assert!(engine.reader().reclaim().unwrap().bytes > 9_000_000);
    let after = allocated(&engine);
    assert!(after * 10 < before * 7, "{before} -> {after}");
    assert_eq!(
        engine
            .reader()
            .most_wasteful(8 << 20, Waste::BESIDE, 0..u32::MAX)
            .unwrap(),
        None,
        "holes are enough"
    );
    // The rest of the first superblock goes, too.
    for n in (0..15).filter(|n| n % 2 == 1) {
        engine.delete_staged(id(&format!("c{n}"))).await.unwrap();
    }
    engine.reader().reclaim().unwrap();
    let number = engine
        .reader()
        .most_wasteful(1 << 16, Waste::percent(10), 0..u32::MAX)
        .unwrap()
        .unwrap();
    let mut told = 0;
    let done: Compacted = engine.compact(number, 1 << 40, |_| told += 1).await.unwrap();
    assert!(done.emptied && told > 0, "{done:?}");
    let left: Vec<u64> = (15..40).filter(|n| n % 2 == 1).collect();
    assert_eq!(engine.reader().stats().chunk_count, left.len() as u64);
    engine.close().await;
    drop(engine);
    let store = Store::open(disk, options, at(9)).unwrap();
    assert!(store.report().damage.is_empty(), "{:?}", store.report());
    for n in left {
        let here = served(&store.reader(), &format!("c{n}")).unwrap();
        assert_eq!(here, *item(n, 500_000).bytes());
    }
}

/// What is left of such a disk stays where it is: no superblock is begun so that another can be emptied.
#[test]
fn where_votes_are_lost_no_superblock_is_worth_emptying() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    while store.reader().superblock_numbers().len() < 2 {
        let n = store.reader().log_seq();
        one(&mut store, put_vote(&format!("fill{n}"), &item(n, 60_000))).unwrap();
    }
    drop(store);
    for copy in [0, 4096] {
        disk.flip("superblock_000001.vsb", copy + 20);
    }
    // One by one, more than half of what they take is waste.
    let small = |store: &mut Store<MemDisk>| {
        for n in 0..20 {
            assert!(stored(one(store, put(&format!("small{n}"), &item(n, 3000)))));
        }
        let reader = store.reader();
        let least = Waste::percent(10);
        (reader.votes_lost(), reader.is_tail_wasteful(256 << 10, least).unwrap())
    };
    assert_eq!(small(&mut open(&disk)), (true, false));
    assert_eq!(small(&mut open(&MemDisk::default())), (false, true));
}

/// On a nearly full disk, large items that stay are moved a few at a time, and give their pages back: what has to find
/// room at once is small records alone.
#[test]
fn a_superblock_of_large_items_is_worth_emptying_on_a_nearly_full_disk() {
    const SUPERBLOCK: u64 = 8 << 20;
    let disk = MemDisk::default();
    let options = StoreOptions {
        superblock_bytes: SUPERBLOCK,
        ..options()
    };
    let mut store = Store::open(disk.clone(), options, at(0)).unwrap();
    let mut staged = |name: String, len| one(&mut store, put(&name, &item(len as u64, len))).unwrap();
    (0..700).for_each(|n| drop(staged(format!("small{n}"), 3000)));
    (0..40).for_each(|n| drop(staged(format!("large{n}"), 70_000 + n)));
    // The next one is nearly full, too.
    (0..70).for_each(|n| drop(staged(format!("next{n}"), 90_000 + n)));
    assert_eq!(store.reader().superblock_numbers(), [0, 1]);
    // Together: one batch.
    let deletions = (0..700).map(|n| Op::DeleteStaged {
        id: id(&format!("small{n}")),
    });
    let deleted = store.commit(deletions.collect(), at(1));
    assert!(deleted.iter().all(Result::is_ok));
    assert_eq!(store.reader().superblock_numbers().last(), Some(&1), "no room was made");
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes + (64 << 10)));
    let space = store.reader().space().unwrap();
    assert!(space[1].size - space[1].end < space[0].live, "{space:?}");
    assert_eq!(
        store
            .reader()
            .most_wasteful(SUPERBLOCK, Waste::BESIDE, 0..u32::MAX)
            .unwrap(),
        Some(0),
        "{space:?}"
    );
}
