//! Directories of every format version there ever was are opened, and hold what they held.
//!
//! `fixtures/v1` was written by the first vstack whose format was frozen, by [`used`]; `fixtures/v1-adopted` by a later
//! one of the same format, by [`adopted`]: what the first does not have. `fixtures/v1-briefs` is [`used`] with a
//! checkpoint of version 2 and `fixtures/v1-videos` with one of version 3; those of the others have version 1. A checkpoint
//! of an earlier version only says how far the log was synced. None is ever written again: a test that fails here says that old data can no longer be read. A new version of the format gets directories of its own, named in
//! [`Fixture`] and written with
//! `VSTACK_WRITE_FIXTURE=v2 cargo test -p vstack-engine --test every_format_is_opened_for_ever -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use support::*;
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_engine::{
    Adoption, BufferPool, Disk, FileDisk, Item, ItemBuilder, MemDisk, Op, OpenError, Outcome, Store, StoreOptions,
    Which,
};
use vstack_types::{ChunkId, Digest, NodeRef, NodeUuid, VideoId};

const SUPERBLOCK_BYTES: u64 = 64 * 1024;
/// Of the one with a record of more than 64 KiB.
const LARGE_SUPERBLOCK_BYTES: u64 = 256 * 1024;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A directory that is kept.
struct Fixture {
    name: &'static str,
    superblock_bytes: u64,
    /// A start goes on from its checkpoint.
    resumes: bool,
    /// Writes what is in it, with this vstack.
    write: fn() -> MemDisk,
    describe: fn(&Store<MemDisk>) -> String,
}

/// What was written when the format was frozen.
const V1: Fixture = Fixture {
    name: "v1",
    superblock_bytes: SUPERBLOCK_BYTES,
    resumes: false,
    write: used,
    describe: described,
};

/// A name given up, and the one after it sealed, with a claim and a scrub under way; a joint placement; a large record.
const V1_ADOPTED: Fixture = Fixture {
    name: "v1-adopted",
    superblock_bytes: LARGE_SUPERBLOCK_BYTES,
    resumes: false,
    write: adopted,
    describe: described_with_names,
};

/// The first one again, with what its registers come to in the checkpoint.
const V1_BRIEFS: Fixture = Fixture {
    name: "v1-briefs",
    ..V1
};

/// And again, with a checkpoint by which chunks of a video are found.
const V1_VIDEOS: Fixture = Fixture {
    name: "v1-videos",
    resumes: true,
    write: with_a_film,
    ..V1
};

const ALL: [Fixture; 4] = [V1, V1_ADOPTED, V1_BRIEFS, V1_VIDEOS];

fn opened<D: Disk + Clone>(disk: &D, superblock_bytes: u64) -> Store<D> {
    let options = StoreOptions {
        superblock_bytes,
        ..options()
    };
    Store::open(disk.clone(), options, at(0)).unwrap()
}

impl Fixture {
    /// Its files, and what it says of them.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(fixtures().join(self.name)).unwrap();
        let read = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        };
        let files = entries.map(|entry| read(entry.unwrap()));
        files.filter(|(name, _)| name != "expected.txt").collect()
    }

    fn expected(&self) -> String {
        fs::read_to_string(fixtures().join(self.name).join("expected.txt")).unwrap()
    }

    /// As a disk in memory.
    fn in_memory(&self) -> MemDisk {
        let disk = MemDisk::default();
        for (name, bytes) in self.files() {
            disk.plant(&name, &bytes);
        }
        disk
    }

    /// As files of a directory.
    fn in_files(&self) -> (tempfile::TempDir, FileDisk) {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in self.files() {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        let disk = FileDisk::new(directory.path()).unwrap();
        (directory, disk)
    }

    fn check<D: Disk + Clone, K>(&self, make: impl Fn() -> (K, D), describe: fn(&Store<D>) -> String) {
        let (version, expected) = (self.name, self.expected());
        let (_kept, disk) = make();
        let store = opened(&disk, self.superblock_bytes);
        assert_eq!(store.report().damage, [], "{version}");
        let resumes = store.report().checkpoint.is_some();
        assert_eq!(resumes, self.resumes, "{version}: {:?}", store.report());
        assert_eq!(describe(&store), expected, "{version}, as it is");
        drop(store);
        let (_kept, disk) = make();
        disk.remove("checkpoint").unwrap();
        let mut store = opened(&disk, self.superblock_bytes);
        assert_eq!(store.report().damage, [], "{version}");
        assert_eq!(describe(&store), expected, "{version}, by reading everything");
        // And it goes on.
        assert!(stored(one(&mut store, put("new", &item(99, 10)))));
        drop(store);
        assert!(served(&opened(&disk, self.superblock_bytes).reader(), "new").is_some());
    }
}

/// Everything that a directory holds, in words that do not depend on how it is kept.
fn described<D: Disk>(store: &Store<D>) -> String {
    let reader = store.reader();
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

/// The same, with its names, its claim, and how far it was scrubbed.
fn described_with_names<D: Disk>(store: &Store<D>) -> String {
    let reader = store.reader();
    let mut text = described(store);
    writeln!(text, "me {}", store.me()).unwrap();
    for retired in &store.report().retired {
        writeln!(text, "retired {retired}").unwrap();
    }
    writeln!(text, "sealed {}", reader.is_sealed()).unwrap();
    writeln!(text, "claim {:?}", reader.claim()).unwrap();
    let numbers = reader.superblock_numbers();
    writeln!(text, "to be scrubbed {:?}", reader.scrub_position().due(&numbers)).unwrap();
    text
}

/// One of everything: items large and small, with and without votes, shards, decisions, promises, deletions, touches, a
/// damaged item, an emptied superblock, a checkpoint, and a log behind it.
fn used() -> MemDisk {
    let disk = MemDisk::default();
    let mut store = opened(&disk, SUPERBLOCK_BYTES);
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

/// The same, and chunks of a video, the last of them behind the checkpoint.
fn with_a_film() -> MemDisk {
    let disk = used();
    let mut store = opened(&disk, SUPERBLOCK_BYTES);
    let chunk = |n| ChunkId::of_video(VideoId::from_bytes([0x5a; 16]), n);
    for n in 0..4 {
        one(&mut store, put_vote(chunk(n).as_str(), &item(60, 2_000))).unwrap();
    }
    store.reader().write_checkpoint().unwrap().unwrap();
    one(&mut store, put_vote(chunk(4).as_str(), &item(60, 2_000))).unwrap();
    disk
}

/// `len` bytes that repeat soon, so that the fixture takes little room where it is kept.
fn repeating(len: usize) -> Item {
    let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
    let mut builder = ItemBuilder::new(BufferPool::new(len, 1).try_take().unwrap());
    builder.push(&bytes).unwrap();
    builder.finish()
}

/// A disk that gave up its name, with a record of more than 64 KiB under the old one, and a joint placement, a turned
/// one and votes under the new one; sealed, with a claim, a scrub half done and a checkpoint with a log behind it.
fn adopted() -> MemDisk {
    let disk = MemDisk::default();
    let mut store = opened(&disk, LARGE_SUPERBLOCK_BYTES);
    let (large, small) = (repeating(100_000), item(60, 700));
    one(&mut store, put_vote("large", &large)).unwrap();
    one(&mut store, put_vote("small", &small)).unwrap();
    one(&mut store, put("staged", &item(61, 300))).unwrap();
    store.mark(at(10)).unwrap();
    drop(store);
    let adoption = Adoption::look(disk.clone(), LARGE_SUPERBLOCK_BYTES, at(20).wall).unwrap();
    let new = adoption.adopt(NodeUuid::from_bytes([8; 16])).unwrap();

    let mut store = opened(&disk, LARGE_SUPERBLOCK_BYTES);
    let me = NodeRef::first(new);
    let replicated = |nodes: &[NodeRef]| Layout::Replicated { nodes: nodes.to_vec() };
    let joint = Placement {
        prev: Some(replicated(&[other()])),
        ..placement(&large, 2, &[me])
    };
    one(&mut store, accept("large", 4, joint.clone())).unwrap();
    let turned = Placement {
        version: 3,
        back: true,
        ..joint
    };
    one(&mut store, put_item("small", &small)).unwrap();
    let turned = Placement {
        size: small.bytes().len() as u64,
        sha256: small.sha256(),
        ..turned
    };
    one(&mut store, accept("small", 5, turned)).unwrap();
    one(&mut store, prepare("promised", 6)).unwrap();
    store.reader().set_claim(Some(store.reader().log_seq())).unwrap();
    let mut position = store.reader().scrub_position();
    position.begin(&store.reader().superblock_numbers());
    position.passed(0, true);
    store.reader().keep_scrub_position(&position).unwrap();
    store.mark(at(30)).unwrap();
    store.reader().write_checkpoint().unwrap().unwrap();
    one(&mut store, put_item("behind", &item(62, 700))).unwrap();
    one(&mut store, Op::Seal).unwrap();
    store.mark(at(40)).unwrap();
    disk
}

#[test]
fn version_1() {
    V1.check(|| ((), V1.in_memory()), described);
    V1_ADOPTED.check(|| ((), V1_ADOPTED.in_memory()), described_with_names);
}

#[test]
fn version_1_in_files() {
    V1.check(|| V1.in_files(), described);
    V1_ADOPTED.check(|| V1_ADOPTED.in_files(), described_with_names);
}

/// What an earlier checkpoint still says is how far the log was synced.
#[test]
fn a_log_that_ends_before_a_checkpoint_of_an_earlier_version_is_none_that_was_torn() {
    let disk = V1.in_memory();
    assert!(!opened(&disk, SUPERBLOCK_BYTES).reader().votes_lost());
    let disk = V1.in_memory();
    // Its position: behind version, block head, disk and key.
    let checkpoint = disk.contents("checkpoint");
    let ends_in = u32::from_le_bytes(checkpoint[56..60].try_into().unwrap());
    let name = |number: u32| format!("superblock_{number:06}.vsb");
    let mut bytes = disk.contents(&name(ends_in));
    bytes[8192..].fill(0);
    disk.plant(&name(ends_in), &bytes);
    for behind in (ends_in + 1..)
        .map(name)
        .take_while(|name| disk.list().unwrap().contains(name))
    {
        disk.remove(&behind).unwrap();
    }
    let with_checkpoint = opened(&disk, SUPERBLOCK_BYTES);
    assert!(with_checkpoint.reader().votes_lost());
}

#[test]
fn what_is_written_now_is_what_was_written_then() {
    for fixture in ALL {
        let now = opened(&(fixture.write)(), fixture.superblock_bytes);
        assert_eq!((fixture.describe)(&now), fixture.expected(), "{}", fixture.name);
    }
}

#[test]
fn a_version_that_is_not_known_is_refused_by_its_number() {
    let disk = V1.in_memory();
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
    let options = StoreOptions {
        superblock_bytes: SUPERBLOCK_BYTES,
        ..options()
    };
    let refused = Store::open(disk.clone(), options, at(0)).err().unwrap();
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
    let name = std::env::var("VSTACK_WRITE_FIXTURE").unwrap();
    let fixture = ALL.into_iter().find(|fixture| fixture.name == name).unwrap();
    let directory = fixtures().join(fixture.name);
    assert!(!directory.join("identity").exists(), "a fixture is never written again");
    fs::create_dir_all(&directory).unwrap();
    let disk = (fixture.write)();
    for name in disk.list().unwrap() {
        fs::write(directory.join(&name), disk.contents(&name)).unwrap();
    }
    let expected = (fixture.describe)(&opened(&disk, fixture.superblock_bytes));
    fs::write(directory.join("expected.txt"), expected).unwrap();
}
