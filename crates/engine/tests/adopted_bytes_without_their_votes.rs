//! A disk that gave up its name keeps its bytes and none of its votes, whatever was wrong with it, and wherever the
//! power goes while it does so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use support::*;
use vstack_chunkpaxos::{Register, Reply};
use vstack_engine::{
    AdoptError, Adoption, Collected, Disk, Fault, FileDisk, Finding, MemDisk, Missing, Now, Op, OpenError, Outcome,
    Reason, Store, StoreOptions, Which,
};
use vstack_types::{NodeRef, NodeUuid};

const SUPERBLOCK_BYTES: u64 = 256 * 1024;

fn new_name() -> NodeUuid {
    NodeUuid::from_bytes([8; 16])
}

fn look<D: Disk + Clone>(disk: &D, now: Now) -> Result<Adoption<D>, AdoptError> {
    Adoption::look(disk.clone(), SUPERBLOCK_BYTES, now.wall)
}

fn adopt<D: Disk + Clone>(disk: &D, now: Now) -> Finding {
    let adoption = look(disk, now).unwrap();
    let finding = adoption.finding().clone();
    assert_eq!(adoption.adopt(new_name()).unwrap(), new_name());
    finding
}

/// A disk over two superblocks with a vote that rides on its bytes, a vote alone, staged bytes, a decision and a claim.
fn used<D: Disk + Clone>(disk: &D) {
    let mut store = open(disk);
    let ops = vec![
        put_vote("voted", &item(1, 5000)),
        put("staged", &item(2, 700)),
        prepare("promised", 7),
        put_item("large", &item(3, 200_000)),
        put_vote("decided", &item(4, 90_000)),
        Op::Decided {
            decisions: vec![(
                id("decided"),
                ballot(0),
                placement(&item(4, 90_000), 1, &[me(), other()]),
            )],
        },
    ];
    for result in store.commit(ops, at(1)) {
        result.unwrap();
    }
    store.reader().set_claim(Some(3)).unwrap();
    store.mark(at(2)).unwrap();
}

const BYTES: [(&str, u64, usize); 4] = [
    ("voted", 1, 5000),
    ("staged", 2, 700),
    ("large", 3, 200_000),
    ("decided", 4, 90_000),
];

/// Whether the disk is the new one: all bytes, no vote, and it takes part again.
fn is_adopted<D: Disk + Clone>(disk: &D, context: &str) {
    let mut store = open(disk);
    let reader = store.reader();
    assert_eq!(store.me(), NodeRef::first(new_name()), "{context}");
    assert_eq!(store.report().retired, [me().uuid], "{context}");
    assert!(!reader.votes_lost(), "{context}");
    assert_eq!(reader.claim(), None, "{context}: what the old disk claimed");
    assert!(
        reader.list_registers(0, 10, None).unwrap().entries.is_empty(),
        "{context}"
    );
    for (name, seed, len) in BYTES {
        assert_eq!(
            reader.register(&id(name)).unwrap(),
            Register::default(),
            "{context}: {name}"
        );
        assert_eq!(
            served(&reader, name),
            Some(item(seed, len).bytes().to_vec()),
            "{context}: {name}"
        );
    }
    let me = NodeRef::first(new_name());
    let prepare = prepare("voted", 1);
    let promised = Reply::Promise {
        ballot: ballot(1),
        accepted: None,
        decided: false,
        holds: false,
    };
    assert_eq!(one(&mut store, prepare), Ok(Outcome::Reply(promised)), "{context}");
    let accept = accept("voted", 1, placement(&item(1, 5000), 2, &[me, other()]));
    assert_eq!(
        one(&mut store, accept),
        accepted(1),
        "{context}: the bytes are here already"
    );
}

/// Whether it is the old disk still, with every vote.
fn is_as_before(disk: &MemDisk, context: &str) {
    let store = open(disk);
    let reader = store.reader();
    assert_eq!(store.me(), me(), "{context}");
    assert!(reader.register(&id("voted")).unwrap().accepted.is_some(), "{context}");
    assert_eq!(
        reader.register(&id("promised")).unwrap().promised,
        Some(ballot(7)),
        "{context}"
    );
    assert!(reader.register(&id("decided")).unwrap().decided, "{context}");
    assert_eq!(reader.claim(), Some(3), "{context}");
}

#[test]
fn bytes_are_kept_and_votes_are_not() {
    let disk = MemDisk::default();
    used(&disk);
    let finding = adopt(&disk, at(50));
    assert_eq!((finding.uuid, finding.reason), (me().uuid, Reason::NotAccepted));
    assert_eq!((finding.items, finding.registers), (4, 3));
    assert_eq!(finding.item_bytes, 295_700);
    is_adopted(&disk, "once");
    is_adopted_and_used(&disk);
}

/// What the new disk voted it keeps, and its log goes on behind the old one.
fn is_adopted_and_used(disk: &MemDisk) {
    let store = open(disk);
    let register = store.reader().register(&id("voted")).unwrap();
    assert_eq!(register.accepted.as_ref().unwrap().ballot, ballot(1));
    let lsns: Vec<u64> = store
        .reader()
        .list_items(0, 10, None)
        .unwrap()
        .entries
        .iter()
        .map(|listed| listed.lsn)
        .collect();
    let vote = store.reader().list_registers(0, 10, None).unwrap().entries[0].lsn;
    assert!(lsns.iter().all(|lsn| *lsn < vote));
}

#[test]
fn a_real_directory_is_adopted_too() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(dir.path()).unwrap();
    used(&disk);
    adopt(&disk, at(50));
    is_adopted(&disk, "on files");
}

#[test]
fn wherever_the_power_goes_it_is_the_old_disk_or_the_new_one() {
    let whole = MemDisk::default();
    used(&whole);
    let before = whole.changes();
    adopt(&whole, at(50));
    let changes = whole.changes() - before;
    assert!(changes >= 8, "{changes}");
    let (mut old, mut new) = (0, 0);
    for cut in 1..=changes {
        for seed in 0..24 {
            let context = format!("cut at {cut} of {changes}, seed {seed}");
            let disk = MemDisk::default();
            used(&disk);
            disk.plan(disk.changes() + cut, Fault::PowerCut);
            let done = look(&disk, at(50)).and_then(|found| found.adopt(new_name()));
            assert!(done.is_err(), "{context}");
            disk.crash(seed);
            let copy = MemDisk::default();
            for name in disk.list().unwrap() {
                copy.plant(&name, &disk.contents(&name));
            }
            if open(&copy).me() == me() {
                is_as_before(&copy, &context);
                old += 1;
            } else {
                new += 1;
            }
            // Asked again, it comes to the same; and again, to nothing.
            for _ in 0..2 {
                adopt(&disk, at(60));
            }
            is_adopted(&disk, &context);
        }
    }
    assert!(old > 20 && new > 20, "{old} old, {new} new");
}

#[test]
fn a_disk_that_was_adopted_and_used_can_be_adopted_again() {
    let disk = MemDisk::default();
    used(&disk);
    adopt(&disk, at(50));
    is_adopted(&disk, "first");
    let third = NodeUuid::from_bytes([9; 16]);
    assert_eq!(look(&disk, at(70)).unwrap().adopt(third).unwrap(), third);
    let store = open(&disk);
    assert_eq!(store.report().retired, [me().uuid, new_name()]);
    assert!(store.reader().list_registers(0, 10, None).unwrap().entries.is_empty());
    for (name, seed, len) in BYTES {
        assert_eq!(
            served(&store.reader(), name),
            Some(item(seed, len).bytes().to_vec()),
            "{name}"
        );
    }
}

#[test]
fn adopted_bytes_have_their_whole_staging_time() {
    let disk = MemDisk::default();
    used(&disk);
    let hour = 3600;
    adopt(&disk, at(30 * hour));
    for adoption in 0..2 {
        let mut store = open(&disk);
        let since = 30 * hour * (adoption + 1);
        let early = collect(&mut store, Duration::ZERO, DAY, at(since + 23 * hour));
        assert_eq!(early, Ok(Collected::default()), "adoption {adoption}");
        if adoption == 1 {
            let late = collect(&mut store, Duration::ZERO, DAY, at(since + 25 * hour)).unwrap();
            assert_eq!(late.items, 4, "{late:?}");
            assert_eq!(
                store.reader().find(&id("voted"), Which::Public).unwrap_err(),
                Missing::NotFound
            );
        }
        drop(store);
        if adoption == 0 {
            let third = NodeUuid::from_bytes([9; 16]);
            look(&disk, at(60 * hour)).unwrap().adopt(third).unwrap();
        }
    }
}

#[test]
fn what_is_wrong_is_told() {
    type Harm = fn(&MemDisk);
    let table: [(Reason, Harm); 6] = [
        (Reason::NotAccepted, |_| {}),
        (Reason::NothingSeen, |disk| open(disk).reader().set_claim(None).unwrap()),
        (Reason::IdentityMissing, |disk| disk.remove("identity").unwrap()),
        (Reason::IdentityDamaged, |disk| disk.flip("identity", 30)),
        (Reason::VotesLost, |disk| {
            let mut bytes = disk.contents("superblock_000000.vsb");
            bytes[8192..].fill(0);
            disk.plant("superblock_000000.vsb", &bytes);
        }),
        (Reason::SuperblocksMissing, |disk| {
            disk.remove("superblock_000000.vsb").unwrap();
            disk.remove("superblock_000001.vsb").unwrap();
        }),
    ];
    for (reason, harm) in table {
        let disk = MemDisk::default();
        used(&disk);
        harm(&disk);
        assert_eq!(adopt(&disk, at(50)).reason, reason);
        let store = open(&disk);
        assert!(!store.reader().votes_lost(), "{reason:?}");
        assert!(
            store.reader().list_registers(0, 10, None).unwrap().entries.is_empty(),
            "{reason:?}"
        );
        let kept = match reason {
            Reason::SuperblocksMissing => 0,
            Reason::VotesLost => 1,
            _ => 4,
        };
        assert_eq!(
            store.reader().list_items(0, 10, None).unwrap().entries.len(),
            kept,
            "{reason:?}"
        );
    }
}

#[test]
fn several_names_are_told_by_the_heads_of_their_superblocks() {
    let disk = MemDisk::default();
    used(&disk);
    adopt(&disk, at(50));
    is_adopted(&disk, "before");
    disk.remove("identity").unwrap();
    assert!(matches!(
        Store::open(disk.clone(), options(), at(60)),
        Err(OpenError::IdentityMissing)
    ));
    let third = NodeUuid::from_bytes([9; 16]);
    look(&disk, at(70)).unwrap().adopt(third).unwrap();
    let store = open(&disk);
    assert_eq!(store.report().retired, [me().uuid, new_name()]);
    assert!(store.report().damage.is_empty(), "{:?}", store.report());
    assert_eq!(store.reader().list_items(0, 10, None).unwrap().entries.len(), 4);
}

#[test]
fn there_has_to_be_something_to_adopt_and_nobody_who_uses_it() {
    let disk = MemDisk::default();
    assert!(matches!(look(&disk, at(1)), Err(AdoptError::NoDisk)));
    used(&disk);
    let store = open(&disk);
    assert!(matches!(look(&disk, at(1)), Err(AdoptError::Open(OpenError::Locked))));
    drop(store);
    let found = look(&disk, at(1)).unwrap();
    assert!(matches!(
        Store::open(disk.clone(), options(), at(1)),
        Err(OpenError::Locked)
    ));
    drop(found);
    is_as_before(&disk, "only looked at");
}

#[test]
fn superblocks_of_a_name_given_up_may_be_lost_without_a_vote() {
    let disk = MemDisk::default();
    used(&disk);
    adopt(&disk, at(50));
    is_adopted(&disk, "before");
    disk.remove("superblock_000000.vsb").unwrap();
    let mut store = open(&disk);
    assert!(!store.report().damage.is_empty());
    assert!(!store.reader().votes_lost());
    // What vouched for bytes that were there abstains until they are back.
    let register = store.reader().register(&id("voted")).unwrap();
    assert!(register.damaged && register.accepted.is_some());
    one(&mut store, put_item("voted", &item(1, 5000))).unwrap();
    assert!(!store.reader().register(&id("voted")).unwrap().damaged);
}

#[test]
fn a_superblock_under_another_name_than_its_own_is_refused() {
    let disk = MemDisk::default();
    used(&disk);
    let old_first = disk.contents("superblock_000000.vsb");
    adopt(&disk, at(50));
    is_adopted(&disk, "before");
    // A superblock of the old name where one of the new name has to be.
    disk.plant("superblock_000003.vsb", &old_first);
    let opened = Store::open(
        disk,
        StoreOptions {
            superblock_bytes: SUPERBLOCK_BYTES,
            ..options()
        },
        at(60),
    );
    assert!(matches!(opened, Err(OpenError::Foreign { number: 3, .. })));
}
