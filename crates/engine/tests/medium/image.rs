//! A disk with everything that a log can hold, what it holds, and where on the medium that is. The bytes are read here by
//! the tables of `docs/disk-format.md` and not by the engine's own code.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use vstack_chunkpaxos::Register;
use vstack_engine::{Disk as _, MemDisk, Op, OpenReport, Outcome, Reader, Store, Which};
use vstack_types::{ChunkId, Digest};

use crate::support::*;

pub const PAGE: usize = 4096;
const RECORDS_AT: usize = 8192;
const CHECKPOINT: &str = "checkpoint";

/// Of a file system, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Where a fault is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The head of a superblock.
    Head,
    /// Fixed part, id and register of a record.
    Header,
    /// Bytes of an item.
    Payload,
    /// The record that ends a batch, and its list.
    Commit,
    /// The checkpoint.
    Checkpoint,
}

/// A stretch of a file that says something.
#[derive(Debug, Clone)]
pub struct Piece {
    pub place: Place,
    pub file: String,
    pub from: usize,
    pub to: usize,
    /// Nothing depends on it: bytes of an item that is gone, or was written again since.
    pub is_dead: bool,
}

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    pub items: BTreeMap<(ChunkId, Digest), Vec<u8>>,
    pub registers: BTreeMap<ChunkId, Register>,
    pub log_seq: u64,
}

pub struct Image {
    pub files: Files,
    pub pieces: Vec<Piece>,
    pub truth: Truth,
}

impl Image {
    /// The same for the same `seed`.
    pub fn new(seed: u64) -> Self {
        let files = build(seed);
        let truth = truth_of(&files, true);
        assert_eq!(truth, truth_of(&files, false), "a checkpoint changes nothing");
        let pieces = pieces_of(&files, &truth);
        Self { files, pieces, truth }
    }
}

fn random_op(rng: &mut StdRng, number: u64) -> Vec<Op> {
    let name = format!("c{number}");
    let sizes = [1, 60, 500, 3000, 5000, 12_000, 70_000];
    let item = item(number + 1, sizes[rng.random_range(0..sizes.len())]);
    match number % 6 {
        0 => vec![put(&name, &item)],
        1 => vec![put_item(&name, &item)],
        2 => vec![put_vote(&name, &item)],
        3 => vec![put_vote(&name, &item), prepare(&name, 3)],
        4 => vec![prepare(&name, 2)],
        _ => {
            let decided = (id(&name), ballot(0), placement(&item, 1, &[me(), other()]));
            let decisions = vec![decided];
            vec![put_vote(&name, &item), Op::Decided { decisions }]
        }
    }
}

fn work(store: &mut Store<MemDisk>, rng: &mut StdRng, numbers: std::ops::Range<u64>) {
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        let batch = rng.random_range(1..7);
        let ops = numbers.by_ref().take(batch).flat_map(|number| random_op(rng, number));
        let results = store.commit(ops.collect(), at(1));
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}

/// Takes back every third of what was put plainly.
fn delete(store: &mut Store<MemDisk>, numbers: std::ops::Range<u64>) {
    for number in numbers.filter(|number| number % 18 == 0) {
        let op = Op::DeleteStaged {
            id: id(&format!("c{number}")),
        };
        one(store, op).unwrap();
    }
}

fn empty(store: &mut Store<MemDisk>, number: u32) {
    let reader = store.reader();
    for offset in reader.wanted_records(number).unwrap() {
        let moves = reader.read_for_move(number, offset).unwrap().into_iter().collect();
        one(store, Op::Move { moves }).unwrap();
    }
    let emptied = one(store, Op::Empty { superblock: number });
    assert_eq!(emptied, Ok(Outcome::Emptied(true)));
}

fn build(seed: u64) -> Files {
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = MemDisk::default();
    let mut store = open(&disk);
    work(&mut store, &mut rng, 0..150);
    delete(&mut store, 0..150);
    empty(&mut store, 1);
    store.mark(at(2)).unwrap();
    (0..2).for_each(|_| {
        store.reader().reclaim().unwrap();
    });
    store.reader().write_checkpoint().unwrap().unwrap();
    work(&mut store, &mut rng, 150..200);
    delete(&mut store, 150..200);
    store.mark(at(3)).unwrap();
    drop(store);
    let names = disk.list().unwrap().into_iter();
    names.map(|name| (name.clone(), disk.contents(&name))).collect()
}

/// A disk in memory that holds `files`.
pub fn in_memory(files: &Files) -> MemDisk {
    let disk = MemDisk::default();
    files.iter().for_each(|(name, bytes)| disk.plant(name, bytes));
    disk
}

/// Without its checkpoint.
pub fn without_checkpoint(files: &Files) -> Files {
    let mut files = files.clone();
    files.remove(CHECKPOINT);
    files
}

fn truth_of(files: &Files, with_checkpoint: bool) -> Truth {
    let files = if with_checkpoint {
        files.clone()
    } else {
        without_checkpoint(files)
    };
    let store = open(&in_memory(&files));
    let report = store.report();
    let OpenReport {
        damage,
        checkpoint_refused: None,
        ..
    } = report
    else {
        panic!("the checkpoint is refused: {report:?}")
    };
    assert_eq!(report.checkpoint.is_some(), with_checkpoint);
    assert!(damage.is_empty(), "{damage:?}");
    let reader = store.reader();
    Truth {
        items: items_of(&reader),
        registers: registers_of(&reader),
        log_seq: report.log_seq,
    }
}

fn items_of(reader: &Reader<MemDisk>) -> BTreeMap<(ChunkId, Digest), Vec<u8>> {
    let listed = reader.list_items(0, usize::MAX, None).unwrap().entries;
    let bytes = |id: &ChunkId, sha256| {
        let found = reader.find(id, Which::Exact(sha256)).unwrap();
        reader.read(&found, None, at(4).monotonic).unwrap()
    };
    let item = |listed: vstack_engine::ListedItem| {
        let bytes = bytes(&listed.id, listed.sha256);
        ((listed.id, listed.sha256), bytes)
    };
    listed.into_iter().map(item).collect()
}

fn registers_of(reader: &Reader<MemDisk>) -> BTreeMap<ChunkId, Register> {
    let listed = reader.list_registers(0, usize::MAX, None).unwrap().entries;
    listed.into_iter().map(|listed| (listed.id, listed.register)).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let four = bytes[at..at + 4].try_into().unwrap();
    usize::try_from(u32::from_le_bytes(four)).unwrap()
}

/// A record as its fixed part describes it.
struct Seen {
    file: String,
    at: usize,
    kind: u16,
    lsn: u64,
    key: (String, [u8; 32]),
    head_len: usize,
    payload: (usize, usize),
    len: usize,
}

fn read(file: &str, bytes: &[u8], at: usize) -> Option<Seen> {
    if !bytes[at..].starts_with(b"VSR1") {
        return None;
    }
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let id_len = usize::from(u16_at(at + 6));
    let id = &bytes[at + 128..at + 128 + id_len];
    let payload_at = at + u32_at(bytes, at + 20);
    Some(Seen {
        file: file.to_owned(),
        at,
        kind: u16_at(at + 4),
        lsn: u64::from_le_bytes(bytes[at + 24..at + 32].try_into().unwrap()),
        key: (
            String::from_utf8(id.to_vec()).unwrap(),
            bytes[at + 56..at + 88].try_into().unwrap(),
        ),
        head_len: 128 + id_len + u32_at(bytes, at + 8),
        payload: (payload_at, payload_at + u32_at(bytes, at + 12)),
        len: u32_at(bytes, at + 16),
    })
}

fn records(files: &Files) -> Vec<Seen> {
    let mut records = Vec::new();
    for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("superblock")) {
        let mut at = RECORDS_AT;
        while at + 128 <= bytes.len() {
            let Some(seen) = read(name, bytes, at) else {
                at += 64;
                continue;
            };
            at += seen.len.max(64);
            records.push(seen);
        }
    }
    records
}

fn pieces_of(files: &Files, truth: &Truth) -> Vec<Piece> {
    const ITEM: u16 = 1;
    const COMMIT: u16 = 5;
    const HEAD_LEN: usize = 72;
    let records = records(files);
    let mut last: BTreeMap<&(String, [u8; 32]), u64> = BTreeMap::new();
    for seen in records.iter().filter(|seen| seen.kind == ITEM) {
        let lsn = last.entry(&seen.key).or_default();
        *lsn = seen.lsn.max(*lsn);
    }
    let held: BTreeSet<(String, [u8; 32])> = truth
        .items
        .keys()
        .map(|(id, sha256)| (id.to_string(), *sha256.as_bytes()))
        .collect();
    let last_lsn = records.iter().map(|seen| seen.lsn).max();
    let mut pieces = Vec::new();
    let mut piece = |place, file: &str, from, to, is_dead| {
        let file = file.to_owned();
        pieces.push(Piece {
            place,
            file,
            from,
            to,
            is_dead,
        });
    };
    for (name, bytes) in files {
        if name == CHECKPOINT {
            piece(Place::Checkpoint, name, 0, bytes.len(), false);
        } else if name.starts_with("superblock") {
            (0..2).for_each(|copy| piece(Place::Head, name, copy * PAGE, copy * PAGE + HEAD_LEN, false));
        }
    }
    for seen in &records {
        let (from, to) = seen.payload;
        if seen.kind == COMMIT {
            // The closing mark says again what its superblock's end says.
            let is_last = Some(seen.lsn) == last_lsn;
            piece(Place::Commit, &seen.file, seen.at, seen.at + seen.head_len, is_last);
            if from < to {
                piece(Place::Commit, &seen.file, from, to, is_last);
            }
            continue;
        }
        piece(Place::Header, &seen.file, seen.at, seen.at + seen.head_len, false);
        if seen.kind == ITEM && from < to {
            let is_dead = !held.contains(&seen.key) || last[&seen.key] != seen.lsn;
            piece(Place::Payload, &seen.file, from, to, is_dead);
        }
    }
    pieces
}
