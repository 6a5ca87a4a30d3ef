//! Items read piece by piece: verified before the first of them, followed when they move, never other bytes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use support::{id, item, options};
use vstack_engine::{
    Buffer, BufferPool, Disk, Engine, FileDisk, Found, Item, MemDisk, Missing, Pieces, PutMode, ReadError, Which,
};
use vstack_types::SystemClock;

const SIZE: u32 = 50_000;
const PIECE: usize = 8192;

fn open<D: Disk>(disk: D) -> Engine<D> {
    Engine::open(disk, options(), Arc::new(SystemClock::start())).unwrap()
}

async fn stored<D: Disk>(engine: &Engine<D>, bytes: &Item) -> Found {
    let put = engine.put(id("c"), bytes.clone(), PutMode::Plain);
    put.await.unwrap();
    engine.reader().find(&id("c"), Which::Public).unwrap()
}

async fn buffer() -> Buffer {
    BufferPool::new(PIECE, 1).take().await
}

/// All that is left of an item from `at` on.
async fn rest<D: Disk>(pieces: &mut Pieces<D>, mut buffer: Buffer, mut at: u64) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while at < u64::from(SIZE) {
        let end = (at + PIECE as u64).min(SIZE.into());
        buffer = pieces.read(buffer, at..end).await?;
        all.extend_from_slice(buffer.bytes());
        at = end;
    }
    Ok(all)
}

async fn comes_whole<D: Disk>(disk: D) {
    let engine = open(disk);
    let bytes = item(1, SIZE as usize);
    let found = stored(&engine, &bytes).await;
    for part in [0..1, 0..8192, 8191..8193, 49_999..50_000] {
        let (mut pieces, first) = engine.read_pieces(&found, part.clone(), buffer().await).await.unwrap();
        let expected = usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap();
        assert_eq!(first.bytes(), &bytes.bytes()[expected], "{part:?}");
        assert_eq!(rest(&mut pieces, first, 0).await.unwrap(), *bytes.bytes());
    }
    let stats = engine.reader().stats();
    assert_eq!(stats.pieces_cached + stats.pieces_waited, 4 * (1 + 7));
    for part in [0..1, 5..SIZE.into(), 0..SIZE.into()] {
        if let Some((pieces, lent)) = engine.cached_pieces(&found, part.clone()).unwrap() {
            let expected = usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap();
            assert_eq!(&lent[..], &bytes.bytes()[expected], "{part:?}");
            assert_eq!(pieces.cached(3..7).unwrap().unwrap(), bytes.bytes()[3..7]);
        }
    }
    assert!(matches!(
        engine.cached_pieces(&found, 49_999..50_001),
        Err(ReadError::Io(_))
    ));
    for outside in [49_999..50_001, 0..8193] {
        let refused = engine.read_pieces(&found, outside, buffer().await).await;
        assert!(matches!(refused, Err(ReadError::Io(_))));
    }
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_piece_is_the_items_own() {
    comes_whole(MemDisk::default()).await;
    let dir = tempfile::tempdir().unwrap();
    comes_whole(FileDisk::new(dir.path()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lent_that_was_not_verified_or_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(FileDisk::new(dir.path()).unwrap());
    let bytes = item(1, SIZE as usize);
    let found = stored(&engine, &bytes).await;
    let path = dir.path().join("superblock_000000.vsb");
    // It is in the page cache, and not hashed since it was written.
    let contents = std::fs::read(&path).unwrap();
    assert!(engine.cached_pieces(&found, 0..100).unwrap().is_none());
    drop(engine.read_pieces(&found, 0..100, buffer().await).await.unwrap());
    let lends = engine.cached_pieces(&found, 0..100).unwrap();
    let (pieces, _) = lends.expect("a file of a real filesystem is lent from the page cache");
    let at = contents
        .windows(100)
        .position(|window| *window == bytes.bytes()[..100])
        .unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", at as u64 + 40_000).unwrap();
    // The scrub finds it; whoever reads on is given no more of it.
    let scrubbed = engine.scrub(0, u64::MAX, |_| {}).await.unwrap();
    assert_eq!(scrubbed.damaged, [(id("c"), bytes.sha256())]);
    assert!(matches!(pieces.cached(0..100), Err(ReadError::Corrupt)));
    assert!(matches!(engine.cached_pieces(&found, 0..100), Err(ReadError::Corrupt)));
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lent_keeps_its_space() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(FileDisk::new(dir.path()).unwrap());
    let bytes = item(1, SIZE_OF_HOLES);
    let found = stored(&engine, &bytes).await;
    let (pieces, _) = engine.read_pieces(&found, 0..8192, buffer().await).await.unwrap();
    let lent = pieces.cached(0..SIZE_OF_HOLES as u64).unwrap().unwrap();
    drop((pieces, found));
    engine.delete_staged(id("c")).await.unwrap();
    assert_eq!(engine.reader().reclaim().unwrap().bytes, 0);
    assert!(lent == *bytes.bytes());
    drop(lent);
    assert!(engine.reader().reclaim().unwrap().bytes > 0);
    engine.close().await;
}

/// An item of its own pages.
const SIZE_OF_HOLES: usize = 100_000;

#[tokio::test(flavor = "multi_thread")]
async fn no_piece_of_a_damaged_item_is_given() {
    let disk = MemDisk::default();
    let engine = open(disk.clone());
    let bytes = item(1, SIZE as usize);
    let found = stored(&engine, &bytes).await;
    let name = "superblock_000000.vsb";
    let tail = &bytes.bytes()[49_000..];
    let contents = disk.contents(name);
    let at = contents.windows(tail.len()).position(|window| window == tail).unwrap();
    disk.flip(name, at);
    // The flipped byte is in none of the pieces asked for.
    let refused = engine.read_pieces(&found, 0..100, buffer().await).await;
    assert!(matches!(refused, Err(ReadError::Corrupt)));
    assert_eq!(
        engine.reader().find(&id("c"), Which::Public).unwrap_err(),
        Missing::Corrupt
    );
    assert_eq!(engine.reader().stats().quarantined, 1, "and it is written down");
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_deleted_is_read_to_its_end_and_its_space_waits_for_that() {
    let engine = open(MemDisk::default());
    let bytes = item(1, SIZE_OF_HOLES);
    let found = stored(&engine, &bytes).await;
    let (mut pieces, first) = engine.read_pieces(&found, 0..8192, buffer().await).await.unwrap();
    drop(found);
    engine.delete_staged(id("c")).await.unwrap();
    let early = engine.reader().reclaim().unwrap();
    assert_eq!((early.bytes, early.waiting), (0, 1));
    assert_eq!(
        pieces.read(first, 8192..16_384).await.unwrap().bytes(),
        &bytes.bytes()[8192..16_384]
    );
    drop(pieces);
    assert!(engine.reader().reclaim().unwrap().bytes > 0);
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_is_hashed_where_it_is_now() {
    let disk = MemDisk::default();
    let engine = open(disk.clone());
    let bytes = item(1, SIZE as usize);
    let found = stored(&engine, &bytes).await;
    drop(engine.read_pieces(&found, 0..1, buffer().await).await.unwrap());
    let mut n = 0;
    while engine.reader().superblock_numbers().len() < 2 {
        n += 1;
        let put = engine.put(id(&format!("n{n}")), item(100 + n, SIZE as usize), PutMode::Plain);
        put.await.unwrap();
    }
    drop(found);
    assert!(engine.compact(0, u64::MAX, |_| {}).await.unwrap().emptied);
    let tail = &bytes.bytes()[49_000..];
    let flipped = engine.reader().superblock_numbers().into_iter().any(|number| {
        let name = format!("superblock_{number:06}.vsb");
        let contents = disk.contents(&name);
        let at = contents.windows(tail.len()).position(|window| window == tail);
        at.is_some_and(|at| {
            disk.flip(&name, at);
            true
        })
    });
    assert!(flipped, "it was moved");
    let found = engine.reader().find(&id("c"), Which::Public).unwrap();
    let refused = engine.read_pieces(&found, 0..100, buffer().await).await;
    assert!(matches!(refused, Err(ReadError::Corrupt)));
    engine.close().await;
}

#[tokio::test]
async fn what_is_cut_off_under_its_reader_ends_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(FileDisk::new(dir.path()).unwrap());
    let found = stored(&engine, &item(1, SIZE as usize)).await;
    drop(engine.read_pieces(&found, 0..1, buffer().await).await.unwrap());
    let (mut pieces, first) = engine.read_pieces(&found, 0..8192, buffer().await).await.unwrap();
    let path = dir.path().join("superblock_000000.vsb");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(8192 + 20_000).unwrap();
    assert!(pieces.cached(0..8192).unwrap().is_none(), "nothing is lent of it");
    assert!(engine.cached_pieces(&found, 0..8192).unwrap().is_none());
    assert!(
        matches!(rest(&mut pieces, first, 8192).await, Err(ReadError::Io(_))),
        "it is not read on"
    );
    // As long as before, and hashed anew: what was cut off is zeros.
    file.set_len(256 * 1024).unwrap();
    let refused = engine.read_pieces(&found, 0..8192, buffer().await).await;
    assert!(matches!(refused, Err(ReadError::Corrupt)), "it ends in zeros");
}
