//! Directories of every format version there ever was are opened, and hold what they held.
//!
//! `fixtures/v1` was written by the first vstack whose format was frozen. It is never written again: a test that fails
//! here says that old data can no longer be read. A new version of the format gets a directory of its own, written with
//! `VSTACK_WRITE_FIXTURE=v2 cargo test -p vstack-engine --test every_format_is_opened_for_ever -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use support::*;
use vstack_chunkpaxos::{Layout, Shard};
use vstack_engine::{Disk, MemDisk, Op, OpenError, Outcome, Reader, Store, StoreOptions, Which};
use vstack_types::Digest;

const SUPERBLOCK_BYTES: u64 = 64 * 1024;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn small() -> StoreOptions {
    StoreOptions {
        superblock_bytes: SUPERBLOCK_BYTES,
        ..options()
    }
}

fn opened(disk: &MemDisk) -> Store<MemDisk> {
    Store::open(disk.clone(), small(), at(0)).unwrap()
}

/// The directory of a version, as a disk.
fn directory(version: &str) -> MemDisk {
    let disk = MemDisk::default();
    for entry in fs::read_dir(fixtures().join(version)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name != "expected.txt" {
            disk.plant(&name, &fs::read(entry.path()).unwrap());
        }
    }
    disk
}

/// Everything that a directory holds, in words that do not depend on how it is kept.
fn described(reader: &Reader<MemDisk>) -> String {
    let mut text = String::new();
    let mut items = reader.list_items(0, 1000, None).unwrap().entries;
    items.sort_by_key(|listed| (listed.id.to_string(), listed.sha256));
    for listed in items {
        let found = reader.find(&listed.id, Which::Exact(listed.sha256)).unwrap();
        let bytes = reader.read(&found, None, at(2).monotonic).unwrap();
        assert_eq!(Digest::of(&bytes), listed.sha256);
        writeln!(
            text,
            "item {} {} {} placed {}",
            listed.id, listed.size, listed.sha256, listed.placed
        )
        .unwrap();
    }
    let mut registers = reader.list_registers(0, 1000, None).unwrap().entries;
    registers.sort_by_key(|listed| listed.id.to_string());
    for listed in registers {
        let encoded: String = listed.register.encode().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        writeln!(text, "register {} {encoded}", listed.id).unwrap();
    }
    text
}

/// One of everything: items large and small, with and without votes, shards, decisions, promises, deletions, touches, a
/// damaged item, an emptied superblock, a checkpoint, and a log behind it.
fn written() -> MemDisk {
    let disk = MemDisk::default();
    let mut store = opened(&disk);
    for n in 0..6 {
        one(&mut store, put_vote(&format!("voted-{n}"), &item(n, 9_000))).unwrap();
        one(&mut store, put(&format!("staged-{n}"), &item(10 + n, 300))).unwrap();
    }
    let decided = vec![(
        id("voted-0"),
        ballot(0),
        placement(&item(0, 9_000), 1, &[me(), other()]),
    )];
    one(&mut store, Op::Decided { decisions: decided }).unwrap();
    one(&mut store, prepare("voted-1", 7)).unwrap();
    one(&mut store, accept("voted-2", 4, deleted(&item(2, 9_000), 2))).unwrap();
    one(&mut store, Op::DeleteStaged { id: id("staged-0") }).unwrap();
    one_at(&mut store, put("staged-1", &item(11, 300)), at(60)).unwrap();
    let shard = item(50, 4_000);
    one(&mut store, put_item("coded", &shard)).unwrap();
    let coded = Layout::Coded {
        data: 1,
        parity: 1,
        shards: [me(), other()]
            .iter()
            .zip([shard.sha256(), Digest::of(b"another")])
            .zip(0_u8..)
            .map(|((node, sha256), index)| Shard {
                index,
                node: *node,
                sha256,
            })
            .collect(),
    };
    let mut moved = placement(&item(51, 4_000), 2, &[me()]);
    moved.layout = coded;
    one(&mut store, accept("coded", 3, moved)).unwrap();
    let found = store.reader().find(&id("staged-2"), Which::Public).unwrap();
    let (of, sha256, lsn) = (id("staged-2"), found.sha256(), found.lsn());
    one(&mut store, Op::Quarantine { id: of, sha256, lsn }).unwrap();
    drop(found);
    for offset in store.reader().wanted_records(0).unwrap() {
        let moves = store.reader().read_for_move(0, offset).unwrap().into_iter().collect();
        one(&mut store, Op::Move { moves }).unwrap();
    }
    assert_eq!(one(&mut store, Op::Empty { superblock: 0 }), Ok(Outcome::Emptied(true)));
    store.reader().write_checkpoint().unwrap().unwrap();
    one(&mut store, put_vote("behind", &item(70, 700))).unwrap();
    store.mark(at(90)).unwrap();
    disk
}

fn check(version: &str) {
    let expected = fs::read_to_string(fixtures().join(version).join("expected.txt")).unwrap();
    let disk = directory(version);
    let store = opened(&disk);
    assert_eq!(store.report().damage, [], "{version}");
    assert!(store.report().checkpoint.is_some(), "{version}: {:?}", store.report());
    assert_eq!(described(&store.reader()), expected, "{version}, from its checkpoint");
    drop(store);
    let disk = directory(version);
    disk.remove("checkpoint").unwrap();
    let mut store = opened(&disk);
    assert_eq!(store.report().damage, [], "{version}");
    assert_eq!(described(&store.reader()), expected, "{version}, by reading everything");
    // And it goes on.
    assert!(stored(one(&mut store, put("new", &item(99, 10)))));
    drop(store);
    assert!(served(&opened(&disk).reader(), "new").is_some());
}

#[test]
fn version_1() {
    check("v1");
}

#[test]
fn what_is_written_now_is_what_was_written_then() {
    let now = described(&opened(&written()).reader());
    assert_eq!(now, fs::read_to_string(fixtures().join("v1/expected.txt")).unwrap());
}

#[test]
fn a_version_that_is_not_known_is_refused_by_its_number() {
    let disk = directory("v1");
    let name = disk
        .list()
        .unwrap()
        .into_iter()
        .find(|name| name.ends_with("1.vsb"))
        .unwrap();
    let mut bytes = disk.contents(&name);
    for head in [0, 4096] {
        bytes[head + 8] = 2;
        let crc = crc_of(&bytes[head..head + 68]);
        bytes[head + 68..head + 72].copy_from_slice(&crc.to_le_bytes());
    }
    disk.plant(&name, &bytes);
    disk.remove("checkpoint").unwrap();
    let refused = Store::open(disk.clone(), small(), at(0)).err().unwrap();
    assert!(matches!(refused, OpenError::Newer { version: 2, .. }), "{refused}");
    assert!(
        refused.to_string().contains("format 2") && refused.to_string().contains("up to 1"),
        "{refused}"
    );
    assert_eq!(disk.contents(&name), bytes, "and left as it is");
}

/// CRC-32C, bit by bit: written anew, so that it does not share a mistake.
fn crc_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
#[ignore = "writes a fixture: for a new version of the format alone"]
fn write_a_fixture() {
    let version = std::env::var("VSTACK_WRITE_FIXTURE").unwrap();
    let directory = fixtures().join(&version);
    assert!(!directory.join("identity").exists(), "a fixture is never written again");
    fs::create_dir_all(&directory).unwrap();
    let disk = written();
    for name in disk.list().unwrap() {
        fs::write(directory.join(&name), disk.contents(&name)).unwrap();
    }
    let expected = described(&opened(&disk).reader());
    fs::write(directory.join("expected.txt"), expected).unwrap();
}
