//! Ids that share a fingerprint are never mixed up. Such ids cannot be found by trying, so tests have a key under which
//! all ids have the same one.

use std::time::Duration;

use vstack_chunkpaxos::{Ballot, Layout, Placement, Request};
use vstack_types::{ChunkId, Digest, Monotonic, NodeUuid, ProcessUuid, Timestamp};

use super::Key;
use crate::{
    BufferPool, DeleteOutcome, Disk, Item, ItemBuilder, MemDisk, Missing, Now, Op, Outcome, PutMode, Store,
    StoreOptions, Which,
};

/// Of stores whose index has [`KEY`].
pub(crate) const SECRET: [u8; 32] = *b"all ids have the one fingerprint";
/// Under which every id has [`FINGERPRINT`].
pub(crate) const KEY: Key = *b"one for all ids.";
pub(crate) const FINGERPRINT: u64 = 0x1234_5678_9abc_def0;

const NOW: Now = Now {
    monotonic: Monotonic::from_start(Duration::from_secs(1)),
    wall: Timestamp(1_000_000_000_000),
};
/// Large enough that its pages are given back where they are.
const LARGE: usize = 70_000;

fn id(text: &str) -> ChunkId {
    text.parse().unwrap()
}

fn item(fill: u8) -> Item {
    let mut builder = ItemBuilder::new(BufferPool::new(LARGE, 1).try_take().unwrap());
    builder.push(&vec![fill; LARGE]).unwrap();
    builder.finish()
}

fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        proposer: ProcessUuid::from_bytes([9; 16]),
    }
}

fn open(disk: &MemDisk) -> Store<MemDisk> {
    let options = StoreOptions {
        superblock_bytes: 1 << 20,
        new_uuid: NodeUuid::from_bytes([1; 16]),
        secret: SECRET,
        ..StoreOptions::new()
    };
    let store = Store::open(disk.clone(), options, NOW).unwrap();
    assert_eq!(store.report().damage, []);
    store
}

fn one(store: &mut Store<MemDisk>, op: Op) -> Outcome {
    store.commit(vec![op], NOW).remove(0).unwrap()
}

fn put(store: &mut Store<MemDisk>, name: &str, item: &Item, mode: PutMode) {
    let (id, item) = (id(name), item.clone());
    assert!(matches!(one(store, Op::Put { id, item, mode }), Outcome::Put(_)));
}

fn voted(store: &Store<MemDisk>, item: &Item) -> PutMode {
    let placement = Placement {
        version: 1,
        size: item.bytes().len() as u64,
        sha256: item.sha256(),
        layout: Layout::Replicated {
            nodes: vec![store.me()],
        },
        prev: None,
        back: false,
    };
    PutMode::Vote {
        ballot: ballot(0),
        placement,
    }
}

/// What there has to be under an id: its bytes, and the round its register promised, where it has one.
type Expected<'a> = (&'a str, Option<&'a Item>, Option<u64>);

fn check(store: &Store<MemDisk>, expected: &[Expected<'_>], when: &str) {
    let reader = store.reader();
    // Twice: as the disk has it, and as it was kept.
    for (name, item, promised) in expected.iter().chain(expected) {
        let found = reader.find(&id(name), Which::Public);
        if let Some(item) = item {
            let read = reader.read(&found.unwrap(), None, NOW.monotonic).unwrap();
            assert!(read == item.bytes()[..], "{when}: {name} is what it was");
        } else {
            assert_eq!(found.err(), Some(Missing::NotFound), "{when}: {name} is gone");
        }
        let register = reader.register(&id(name)).unwrap();
        assert_eq!(
            register.promised.map(|ballot| ballot.round),
            *promised,
            "{when}: {name}"
        );
        assert!(!register.votes_lost(), "{when}: {name}");
        let accepted = register.accepted.map(|vote| vote.placement.sha256);
        let theirs = promised.and(*item).map(Item::sha256);
        assert_eq!(accepted, theirs, "{when}: {name}");
    }
    let there = expected.iter().filter(|(_, item, _)| item.is_some()).count();
    assert_eq!(reader.stats().chunk_count, there as u64, "{when}");
}

/// The same after a start from the checkpoint, and after one by reading everything.
fn check_over_restarts(
    mut store: Store<MemDisk>,
    disk: &MemDisk,
    expected: &[Expected<'_>],
    when: &str,
) -> Store<MemDisk> {
    check(&store, expected, when);
    store.mark(NOW).unwrap();
    store.reader().write_checkpoint().unwrap().unwrap();
    drop(store);
    let store = open(disk);
    assert!(store.report().checkpoint.is_some(), "{when}: {:?}", store.report());
    check(&store, expected, &format!("{when}, from a checkpoint"));
    drop(store);
    disk.remove("checkpoint").unwrap();
    let store = open(disk);
    check(&store, expected, &format!("{when}, by reading everything"));
    store
}

fn never_mixed_up(items: &[Item; 3]) {
    let [a, b, c] = items;
    let disk = MemDisk::default();
    let mut store = open(&disk);
    for (name, item) in [("a", a), ("b", b)] {
        let mode = voted(&store, item);
        put(&mut store, name, item, mode);
    }
    put(&mut store, "c", c, PutMode::Plain);
    let all: [Expected<'_>; 4] = [
        ("a", Some(a), Some(0)),
        ("b", Some(b), Some(0)),
        ("c", Some(c), None),
        ("none", None, None),
    ];
    let mut store = check_over_restarts(store, &disk, &all, "stored");

    let request = Request::Prepare { ballot: ballot(7) };
    one(&mut store, Op::Paxos { id: id("b"), request });
    let gone = one(&mut store, Op::DeleteStaged { id: id("c") });
    assert_eq!(gone, Outcome::Deleted(DeleteOutcome::Deleted));
    let (b_promised, c_gone) = (("b", Some(b), Some(7)), ("c", None, None));
    let left = [all[0], b_promised, c_gone];
    let mut store = check_over_restarts(store, &disk, &left, "promised and deleted");
    // What is given back is the deleted one's.
    store.mark(NOW).unwrap();
    store.reader().reclaim().unwrap();
    let mut store = check_over_restarts(store, &disk, &left, "given back");

    put(&mut store, "c", c, PutMode::Plain);
    let all = [all[0], b_promised, all[2]];
    let mut store = check_over_restarts(store, &disk, &all, "put again");
    let next = store.reader().space().unwrap().len();
    for n in 0.. {
        put(&mut store, &format!("more-{n}"), &item(100), PutMode::Plain);
        one(
            &mut store,
            Op::DeleteStaged {
                id: id(&format!("more-{n}")),
            },
        );
        if store.reader().space().unwrap().len() > next {
            break;
        }
    }
    for offset in store.reader().wanted_records(0).unwrap() {
        let moves = store.reader().read_for_move(0, offset).unwrap().into_iter().collect();
        one(&mut store, Op::Move { moves });
    }
    assert_eq!(one(&mut store, Op::Empty { superblock: 0 }), Outcome::Emptied(true));
    check_over_restarts(store, &disk, &all, "moved");
}

#[test]
fn ids_with_one_fingerprint_are_never_mixed_up() {
    never_mixed_up(&[item(1), item(2), item(3)]);
}

#[test]
fn nor_are_they_when_their_bytes_are_the_same() {
    never_mixed_up(&[item(1), item(1), item(1)]);
}

/// A damaged record takes the bytes and the vote of its own chunk alone.
#[test]
fn damage_of_one_is_not_damage_of_the_other() {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let (a, b) = (item(1), item(2));
    for (name, item) in [("a", &a), ("b", &b)] {
        let mode = voted(&store, item);
        put(&mut store, name, item, mode);
    }
    store.mark(NOW).unwrap();
    drop(store);
    let file = "superblock_000000.vsb";
    let contents = disk.contents(file);
    let of_a = contents.windows(256).position(|here| here == [1; 256]).unwrap();
    disk.flip(file, of_a + 5000);
    let store = open(&disk);
    let reader = store.reader();
    let read = |name: &str, sha256: Digest| {
        let found = reader.find(&id(name), Which::Exact(sha256)).unwrap();
        reader.read(&found, None, NOW.monotonic).ok()
    };
    assert_eq!(read("a", a.sha256()), None);
    assert!(read("b", b.sha256()).unwrap() == b.bytes()[..]);
    assert_eq!(reader.find(&id("a"), Which::Public).err(), Some(Missing::Corrupt));
    assert!(reader.find(&id("b"), Which::Public).is_ok());
    assert_eq!(
        reader.find(&id("b"), Which::Exact(a.sha256())).err(),
        Some(Missing::NotFound)
    );
}
