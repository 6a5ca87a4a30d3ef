//! A disk of which others took the last byte: what is there is read, and deleting gives room again, after a start too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;

use support::{small_file_system::SmallFileSystem, *};
use vstack_engine::{DeleteOutcome, Disk, Fault, FileDisk, MemDisk, Op, Outcome, Store, StoreOptions, WriteError};

/// Items that fill a superblock, but for four deletions.
const ITEMS: u64 = 303;

fn of_32_mib(claims: bool) -> StoreOptions {
    StoreOptions {
        superblock_bytes: 32 << 20,
        claims,
        ..options()
    }
}

fn filled<D: Disk>(disk: D) {
    let mut store = Store::open(disk, of_32_mib(false), at(0)).unwrap();
    for n in 0..ITEMS {
        one(&mut store, put(&format!("c{n}"), &item(n, 100_000))).unwrap();
    }
    assert_eq!(store.reader().stats().superblocks, 1);
}

/// Opens it while there is no room for anything.
fn gets_out_of_it<D: Disk + Clone>(disk: &D, claims: bool) {
    let mut store = Store::open(disk.clone(), of_32_mib(claims), at(1)).unwrap();
    assert!(store.reader().is_claim_durable());
    assert_eq!(
        one(&mut store, put("more", &item(1, 100_000))),
        Err(WriteError::DiskFull)
    );
    for n in 0..20 {
        let deleted = one(
            &mut store,
            Op::DeleteStaged {
                id: id(&format!("c{n}")),
            },
        );
        assert_eq!(deleted, Ok(Outcome::Deleted(DeleteOutcome::Deleted)), "c{n}");
    }
    assert_eq!(
        one(&mut store, put("more", &item(1, 100_000))),
        Err(WriteError::DiskFull)
    );
    let before = disk.usage().unwrap().used_bytes;
    let bytes = store.reader().reclaim().unwrap().bytes;
    assert!(bytes >= 19 * 24 * 4096, "{bytes}");
    let after = disk.usage().unwrap().used_bytes;
    assert!(after < before, "{before} -> {after}");
    assert!(disk.list().unwrap().contains(&"reserve".to_owned()), "it is kept again");
    for n in 20..ITEMS {
        let deleted = one(
            &mut store,
            Op::DeleteStaged {
                id: id(&format!("c{n}")),
            },
        );
        assert_eq!(deleted, Ok(Outcome::Deleted(DeleteOutcome::Deleted)), "c{n}");
        if n % 20 == 0 {
            store.reader().reclaim().unwrap();
        }
    }
    drop(store);
    let mut store = Store::open(disk.clone(), of_32_mib(claims), at(2)).unwrap();
    assert!(store.report().damage.is_empty());
    assert_eq!(store.reader().stats().chunk_count, 0);
    assert!(one(&mut store, Op::Empty { superblock: 0 }).is_ok());
}

#[test]
fn deleting_gives_room_again_after_a_start() {
    for claims in [false, true] {
        let disk = MemDisk::default();
        filled(disk.clone());
        disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
        gets_out_of_it(&disk, claims);
    }
}

#[test]
fn on_a_real_file_system_too() {
    for claims in [false, true] {
        let Some(small) = SmallFileSystem::new(64 << 20) else {
            eprintln!("SKIPPED: no loop device with ext4 can be mounted here");
            return;
        };
        let disk = FileDisk::new(small.path().join("node")).unwrap();
        filled(disk.clone());
        let mut ballast = std::fs::File::create(small.path().join("ballast")).unwrap();
        for block in [1 << 20, 4096, 1] {
            while ballast
                .write_all(&vec![1; block])
                .and_then(|()| ballast.sync_data())
                .is_ok()
            {}
        }
        gets_out_of_it(&disk, claims);
    }
}

fn delete(store: &mut Store<MemDisk>, n: u64) -> Result<Outcome, WriteError> {
    one(
        store,
        Op::DeleteStaged {
            id: id(&format!("c{n}")),
        },
    )
}

/// Votes go on, and leave as much room as deletions need.
#[test]
fn votes_leave_room_for_deletions() {
    let disk = MemDisk::default();
    filled(disk.clone());
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
    let mut store = Store::open(disk.clone(), of_32_mib(false), at(1)).unwrap();
    let voted = (0..200)
        .take_while(|n| one(&mut store, prepare(&format!("v{n}"), 1)).is_ok())
        .count();
    assert!((5..100).contains(&voted), "{voted}");
    for n in 0..10 {
        assert!(delete(&mut store, n).is_ok(), "c{n}");
    }
    assert_eq!(one(&mut store, prepare("vote", 1)), Err(WriteError::DiskFull));
    store.reader().reclaim().unwrap();
}

/// A node is accepted by its cluster also when its disk is full: what it had to claim is written over.
#[test]
fn a_claim_is_given_up_on_a_full_disk() {
    let disk = MemDisk::default();
    filled(disk.clone());
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
    let store = Store::open(disk.clone(), of_32_mib(true), at(1)).unwrap();
    // Others take every byte that was left over.
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
    assert!(store.reader().claim().is_some());
    store.reader().set_claim(None).unwrap();
    store.reader().set_claim(Some(7)).unwrap();
    drop(store);
    let store = Store::open(disk, of_32_mib(true), at(2)).unwrap();
    assert_eq!(store.reader().claim(), Some(7));
}

/// Where even the room that is kept is used up, what is made when there is room again is a superblock like others.
#[test]
fn a_superblock_that_could_not_be_made_of_it_is_one_like_others_later() {
    let disk = MemDisk::default();
    filled(disk.clone());
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
    let mut store = Store::open(disk.clone(), of_32_mib(false), at(1)).unwrap();
    let mut n = 0;
    while delete(&mut store, n).is_ok() {
        n += 1;
    }
    assert!(n > 20, "{n}");
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes + (34 << 20)));
    for n in 0..100 {
        assert!(
            one(&mut store, put(&format!("d{n}"), &item(n, 100_000))).is_ok(),
            "d{n}"
        );
    }
    assert!(disk.usage().unwrap().used_bytes < 100 << 20);
}

/// Where the power is cut while the reserve becomes a superblock, nothing is lost, and the next start gets as far.
#[test]
fn a_power_cut_while_the_reserve_is_used_loses_nothing() {
    for cut in 1.. {
        let disk = MemDisk::default();
        filled(disk.clone());
        disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
        let mut store = Store::open(disk.clone(), of_32_mib(false), at(1)).unwrap();
        for n in 0..3 {
            one(
                &mut store,
                Op::DeleteStaged {
                    id: id(&format!("c{n}")),
                },
            )
            .unwrap();
        }
        disk.plan(disk.changes() + cut, Fault::PowerCut);
        let deleted: Vec<_> = (3..8)
            .map(|n| {
                one(
                    &mut store,
                    Op::DeleteStaged {
                        id: id(&format!("c{n}")),
                    },
                )
                .is_ok()
            })
            .collect();
        let over = disk.planned() > 0;
        drop(store);
        disk.crash(cut);
        let mut store = Store::open(disk.clone(), of_32_mib(false), at(2)).unwrap();
        assert!(store.report().damage.is_empty(), "{cut}: {:?}", store.report());
        for (n, deleted) in (3..8).zip(deleted) {
            let name = format!("c{n}");
            let here = served(&store.reader(), &name);
            assert!(here.is_none() || !deleted, "{cut}: {name}");
            one(&mut store, Op::DeleteStaged { id: id(&name) }).unwrap();
        }
        assert!(served(&store.reader(), "c9").is_some());
        if over {
            assert!(cut > 5, "{cut}");
            break;
        }
    }
}

/// Where the last superblock is lost, too, a new one is made of what was kept, and everything before it is served.
#[test]
fn a_lost_end_on_a_full_disk_keeps_nobody_from_reading() {
    let disk = MemDisk::default();
    let mut store = Store::open(disk.clone(), of_32_mib(false), at(0)).unwrap();
    for n in 0..ITEMS + 2 {
        one(&mut store, put_vote(&format!("c{n}"), &item(n, 100_000))).unwrap();
    }
    assert_eq!(store.reader().superblock_numbers(), [0, 1]);
    drop(store);
    disk.flip("superblock_000001.vsb", 20);
    disk.flip("superblock_000001.vsb", 4096 + 20);
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
    let store = Store::open(disk.clone(), of_32_mib(false), at(1)).unwrap();
    assert!(store.reader().votes_lost());
    assert_eq!(
        served(&store.reader(), "c7").as_deref(),
        Some(&item(7, 100_000).bytes()[..])
    );
}
