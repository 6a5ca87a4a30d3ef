//! Memory of the index, by its own count, when it holds many chunks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_engine::{MemDisk, Store, StoreOptions};

/// So many that the room which every part of the index has from the first cell on hardly counts.
const CHUNKS: u64 = 200_000;
const BYTES_PER_CHUNK_MAX: u64 = 64;

/// Operations committed at once.
const BATCH: u64 = 1000;

fn index_bytes_per_chunk(store: &Store<MemDisk>) -> u64 {
    let stats = store.reader().stats();
    assert_eq!((stats.chunk_count, stats.register_count), (CHUNKS, CHUNKS));
    stats.index_bytes.div_ceil(CHUNKS)
}

#[test]
fn a_voted_chunk_takes_at_most_64_bytes_as_it_comes_by_a_checkpoint_and_by_a_scan() {
    let disk = MemDisk::default();
    let options = StoreOptions {
        superblock_bytes: 64 * 1024 * 1024,
        ..options()
    };
    let open = || Store::open(disk.clone(), options.clone(), at(0)).unwrap();
    let mut store = open();
    for batch in 0..CHUNKS / BATCH {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let ops = numbers.map(|number| put_vote(&format!("c{number}"), &item(number + 1, 16)));
        let results = store.commit(ops.collect(), at(1));
        assert!(results.iter().all(Result::is_ok));
    }
    let mut told = vec![("as it comes", index_bytes_per_chunk(&store))];
    drop(store);
    store = open();
    assert_eq!(store.report().checkpoint, None);
    told.push(("by a scan", index_bytes_per_chunk(&store)));
    store.reader().write_checkpoint().unwrap().unwrap();
    drop(store);
    store = open();
    assert!(store.report().checkpoint.is_some(), "{:?}", store.report());
    told.push(("by a checkpoint", index_bytes_per_chunk(&store)));
    println!("bytes of index for a voted chunk: {told:?}");
    for (how, bytes) in told {
        assert!(bytes <= BYTES_PER_CHUNK_MAX, "{how}: {bytes}");
    }
}
