//! What the store's tests share: a clock that stands still, placements, and short names for operations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(unreachable_pub, missing_docs, reason = "a test's own module")]

pub mod gated;
pub mod sending;
pub mod small_file_system;

use std::time::Duration;

use vstack_chunkpaxos::{Ballot, Layout, Placement, Reply, Request};
use vstack_engine::{
    BufferPool, Collected, Disk, Item, ItemBuilder, MemDisk, Now, Op, Outcome, PutMode, PutOutcome, Reader, Store,
    StoreOptions, Which, WriteError,
};
use vstack_types::{ChunkId, Monotonic, NodeRef, NodeUuid, ProcessUuid, Timestamp};

pub const DAY: Duration = Duration::from_secs(86_400);

pub fn at(seconds: u64) -> Now {
    Now {
        monotonic: Monotonic::from_start(Duration::from_secs(seconds)),
        wall: Timestamp(1_000_000_000_000 + i64::try_from(seconds).unwrap() * 1000),
    }
}

pub fn options() -> StoreOptions {
    StoreOptions {
        superblock_bytes: 256 * 1024,
        new_uuid: NodeUuid::from_bytes([1; 16]),
        secret: [7; 32],
        reverify_after: DAY,
        blind: false,
        claims: false,
    }
}

pub fn open<D: Disk + Clone>(disk: &D) -> Store<D> {
    Store::open(disk.clone(), options(), at(0)).unwrap()
}

pub fn me() -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([1; 16]))
}

pub fn other() -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([2; 16]))
}

pub fn id(text: &str) -> ChunkId {
    text.parse().unwrap()
}

pub fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        proposer: ProcessUuid::from_bytes([9; 16]),
    }
}

pub fn placement(item: &Item, version: u64, nodes: &[NodeRef]) -> Placement {
    Placement {
        version,
        size: item.bytes().len() as u64,
        sha256: item.sha256(),
        layout: Layout::Replicated { nodes: nodes.to_vec() },
        prev: None,
        back: false,
    }
}

pub fn deleted(item: &Item, version: u64) -> Placement {
    Placement {
        layout: Layout::Deleted { nodes: vec![me()] },
        ..placement(item, version, &[me()])
    }
}

pub fn put(name: &str, item: &Item) -> Op {
    Op::Put {
        id: id(name),
        item: item.clone(),
        mode: PutMode::Plain,
    }
}

pub fn put_item(name: &str, item: &Item) -> Op {
    Op::Put {
        id: id(name),
        item: item.clone(),
        mode: PutMode::Item,
    }
}

pub fn put_vote(name: &str, item: &Item) -> Op {
    let mode = PutMode::Vote {
        ballot: ballot(0),
        placement: placement(item, 1, &[me(), other()]),
    };
    Op::Put {
        id: id(name),
        item: item.clone(),
        mode,
    }
}

pub fn paxos(name: &str, request: Request) -> Op {
    Op::Paxos { id: id(name), request }
}

pub fn prepare(name: &str, round: u64) -> Op {
    let ballot = ballot(round);
    paxos(name, Request::Prepare { ballot })
}

pub fn accept(name: &str, round: u64, placement: Placement) -> Op {
    let ballot = ballot(round);
    paxos(name, Request::Accept { ballot, placement })
}

/// Deletes what is due.
pub fn collect<D: Disk>(
    store: &mut Store<D>,
    grace: Duration,
    staging_ttl: Duration,
    now: Now,
) -> Result<Collected, WriteError> {
    let mut all = Collected::default();
    for due in store.reader().due(grace, staging_ttl, now.wall) {
        match one_at(store, Op::Collect { due }, now)? {
            Outcome::Collected(some) => {
                all.items += some.items;
                all.bytes += some.bytes;
                all.more = some.more;
            }
            other => panic!("{other:?}"),
        }
    }
    Ok(all)
}

/// What an acceptor answers.
pub fn replied(reply: Reply) -> Result<Outcome, WriteError> {
    Ok(Outcome::Reply(reply))
}

pub fn accepted(round: u64) -> Result<Outcome, WriteError> {
    let ballot = ballot(round);
    replied(Reply::Accepted { ballot })
}

/// It promises, and has what it vouched for.
pub fn promised_with_bytes(outcome: Result<Outcome, WriteError>) -> bool {
    matches!(outcome, Ok(Outcome::Reply(Reply::Promise { holds: true, .. })))
}

/// Nothing vouches for bytes that are not there.
pub fn needs(item: &Item) -> Result<Outcome, WriteError> {
    let items = vec![item.sha256()];
    replied(Reply::NeedBytes { items })
}

pub fn conflict() -> Result<Outcome, WriteError> {
    Ok(Outcome::Put(PutOutcome::Conflict))
}

pub fn already_there() -> Result<Outcome, WriteError> {
    Ok(Outcome::Put(PutOutcome::AlreadyThere { superblock: 0 }))
}

/// Opened anew, without any damage.
pub fn restarted(store: Store<MemDisk>, disk: &MemDisk) -> Store<MemDisk> {
    drop(store);
    let store = open(disk);
    assert!(store.report().damage.is_empty(), "{:?}", store.report());
    store
}

/// Commits one operation.
pub fn one<D: Disk>(store: &mut Store<D>, op: Op) -> Result<Outcome, WriteError> {
    one_at(store, op, at(1))
}

pub fn one_at<D: Disk>(store: &mut Store<D>, op: Op, now: Now) -> Result<Outcome, WriteError> {
    store.commit(vec![op], now).remove(0)
}

pub fn stored(outcome: Result<Outcome, WriteError>) -> bool {
    matches!(outcome, Ok(Outcome::Put(PutOutcome::Stored { .. })))
}

pub fn voted(reply: Reply, stored: bool) -> Result<Outcome, WriteError> {
    Ok(Outcome::Put(PutOutcome::Voted { reply, stored }))
}

/// What a GET of `name` would serve; none when it would not.
pub fn served<D: Disk>(reader: &Reader<D>, name: &str) -> Option<Vec<u8>> {
    let found = reader.find(&id(name), Which::Public).ok()?;
    reader.read(&found, None, at(2).monotonic).ok()
}

/// `len` bytes that differ by `seed`, in memory as a node receives them in.
pub fn item(seed: u64, len: usize) -> Item {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Vec<u8> = (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u8::try_from(state & 0xff).unwrap()
        })
        .collect();
    let mut builder = ItemBuilder::new(BufferPool::new(len, 1).try_take().unwrap());
    builder.push(&bytes).unwrap();
    builder.finish()
}
