//! A data directory that is looked at stays as it is, and what a start would find is found: torn tails, damaged heads,
//! records, bytes and checkpoints.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;

use support::*;
use vstack_engine::{
    CheckpointSeen, Damage, Depth, Disk as _, FORMAT_VERSION, Look, LookError, MemDisk, OpenError, Verified,
};

const FIRST: &str = "superblock_000000.vsb";
const PAGE: usize = 4096;
const SUPERBLOCK_BYTES: u64 = 1 << 18;

fn copy_of(disk: &MemDisk) -> MemDisk {
    let copy = MemDisk::default();
    for name in disk.list().unwrap() {
        copy.plant(&name, &disk.contents(&name));
    }
    copy
}

fn files(disk: &MemDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), disk.contents(&name)))
        .collect()
}

fn look(disk: &MemDisk, depth: Depth) -> Look<MemDisk> {
    Look::at(disk.clone(), depth, SUPERBLOCK_BYTES).unwrap()
}

fn verified(look: &Look<MemDisk>) -> Verified {
    look.verify(|_| ControlFlow::Continue(())).unwrap()
}

/// Chunks, votes, a deletion, and the mark of the end.
fn small_log() -> MemDisk {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put_vote("rides", &item(1, 700))).unwrap();
    store.commit(vec![prepare("only-vote", 5), put("staged", &item(2, 900))], at(1));
    one(&mut store, put("large", &item(3, 100_000))).unwrap();
    store.mark(at(2)).unwrap();
    disk
}

#[test]
fn nothing_is_changed_and_everything_seen() {
    let disk = small_log();
    let before = files(&disk);
    for depth in [Depth::LikeAStart, Depth::Everything] {
        let look = look(&disk, depth);
        assert!(look.report().damage.is_empty(), "{:?}", look.report());
        assert_eq!(look.identity().node, me());
        let stats = look.reader().stats();
        assert_eq!((stats.chunk_count, stats.chunk_bytes), (3, 101_600));
        assert_eq!(look.checkpoint(), &CheckpointSeen::Absent);
        let verified = verified(&look);
        assert_eq!((verified.items, verified.bytes, verified.mendable), (3, 101_600, 0));
        assert!(verified.damaged.is_empty() && look.quarantined().unwrap() == 0);
        assert_eq!(files(&disk), before, "{depth:?}");
    }
    let ended = look(&disk, Depth::Everything)
        .verify(|_| ControlFlow::Break(()))
        .unwrap();
    assert!(ended.ended_early && ended.items == 1);
    // Who looks keeps a node out, and the other way round.
    let looking = look(&disk, Depth::LikeAStart);
    assert!(matches!(
        vstack_engine::Store::open(disk.clone(), options(), at(3)),
        Err(OpenError::Locked)
    ));
    drop(looking);
    let _store = open(&disk);
    let refused = Look::at(disk.clone(), Depth::LikeAStart, SUPERBLOCK_BYTES)
        .err()
        .unwrap();
    assert!(matches!(refused, LookError::Open(OpenError::Locked)));
    let empty = Look::at(MemDisk::default(), Depth::LikeAStart, SUPERBLOCK_BYTES)
        .err()
        .unwrap();
    assert!(matches!(empty, LookError::NoDisk));
    assert_eq!(FORMAT_VERSION, 1);
}

#[test]
fn a_torn_tail_is_told_and_stays() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    one(&mut store, put("kept", &item(1, 700))).unwrap();
    one(&mut store, put("torn", &item(2, 900))).unwrap();
    drop(store);
    let mut contents = disk.contents(FIRST);
    let end = contents.iter().rposition(|byte| *byte != 0).unwrap();
    contents[end - PAGE / 2..].fill(0);
    disk.plant(FIRST, &contents);
    let before = files(&disk);
    let look = look(&disk, Depth::Everything);
    assert!(look.report().torn_bytes > 0 && look.report().damage.is_empty());
    assert_eq!(verified(&look).items, 1);
    assert_eq!(files(&disk), before);
    drop(look);
    assert!(open(&disk).report().torn_bytes > 0, "it was there to be cut");
}

/// Every byte that says something is covered by something that is compared.
#[test]
fn every_flipped_byte_is_found() {
    let disk = small_log();
    let contents = disk.contents(FIRST);
    for at in (0..contents.len()).filter(|at| contents[*at] != 0 && (*at % 97 == 0 || *at < 13_000)) {
        let copy = copy_of(&disk);
        copy.flip(FIRST, at);
        let before = files(&copy);
        let look = look(&copy, Depth::Everything);
        let verified = verified(&look);
        let report = look.report();
        let found = !report.damage.is_empty()
            || report.torn_bytes > 0
            || !verified.damaged.is_empty()
            || verified.mendable + verified.lists > 0;
        assert!(found, "byte {at}: {report:?}, {verified:?}");
        assert!(files(&copy) == before, "byte {at}");
    }
}

#[test]
fn behind_a_checkpoint_everything_is_read_all_the_same() {
    let disk = small_log();
    let mut store = open(&disk);
    one(&mut store, put("more", &item(4, 500))).unwrap();
    let log_seq = store.reader().write_checkpoint().unwrap().unwrap();
    drop(store);
    assert_eq!(
        look(&disk, Depth::LikeAStart).checkpoint(),
        &CheckpointSeen::UpTo(log_seq)
    );
    let payload = item(1, 700);
    let found = |bytes: &[u8]| bytes == &payload.bytes()[100..164];
    let at = disk.contents(FIRST).windows(64).position(found).unwrap();
    disk.flip(FIRST, at);
    let looked = look(&disk, Depth::Everything);
    assert_eq!(looked.checkpoint(), &CheckpointSeen::UpTo(log_seq));
    assert_eq!(verified(&looked).damaged, [(id("rides"), payload.sha256())]);
    drop(looked);
    disk.flip("checkpoint", 200);
    let looked = look(&disk, Depth::Everything);
    assert!(matches!(looked.checkpoint(), CheckpointSeen::Refused(_)));
    drop(looked);
    // A superblock that is gone.
    let copy = copy_of(&disk);
    copy.plant(FIRST, &[0; 4 * PAGE]);
    let before = files(&copy);
    let looked = Look::at(copy.clone(), Depth::Everything, SUPERBLOCK_BYTES).unwrap();
    let lost = |damage: &Damage| matches!(damage, Damage::Superblock { number: 0 });
    assert!(looked.report().damage.iter().any(lost) && looked.reader().votes_lost());
    assert_eq!(files(&copy), before);
}
