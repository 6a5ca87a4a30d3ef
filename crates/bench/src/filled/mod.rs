//! A data directory with many chunks, made by the engine itself without anybody waiting for a disk: each chunk with the
//! owner's vote and the news of its decision, as a cluster leaves them.
//!
//! Heads, votes and commit records are real and stand where they would stand between real chunks. Payloads are zeros, and
//! are left out of the files as holes: a directory of terabytes takes some kilobytes a chunk.

mod sparse_disk;

use std::{path::Path, sync::LazyLock};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use vstack_chunkpaxos::{Ballot, Layout, Placement, Reply};
use vstack_engine::{Item, Now, Op, Outcome, PutMode, PutOutcome, Store, StoreOptions};
use vstack_types::{
    ChunkId, Clock as _, Digest, NodeRef, NodeUuid, ProcessUuid, SystemClock, VideoId, limits::CHUNK_BYTES_MAX,
};

use sparse_disk::SparseDisk;

/// Chunks of a video: a bit over half an hour at 1.68 Mbit/s.
const CHUNKS_OF_A_VIDEO: u32 = 200;
/// Chunks of a batch: as many as arrive side by side at a busy node.
const BATCH_CHUNKS: usize = 16;
/// Decisions of a batch: they come together, when a few seconds of them are due.
const DECISIONS: usize = 64;
/// What a chunk may take of the disk here. More means that payloads are written, which no disk has room for.
const DISK_BYTES_PER_CHUNK_MAX: u64 = 64 * 1024;
const PAGE_BYTES: usize = 4096;

/// Zeros that begin at a page, as payloads of a node do.
fn payload() -> Bytes {
    let memory = vec![0_u8; CHUNK_BYTES_MAX + PAGE_BYTES];
    let start = memory.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
    Bytes::from(memory).slice(start..start + CHUNK_BYTES_MAX)
}

/// A data directory that was filled, as a node leaves it that was not stopped in order: the next start reads everything.
pub struct Filled(Store<SparseDisk>);

impl Filled {
    /// Writes the index down, as a node does that is stopped in order: the next start reads next to nothing.
    ///
    /// # Errors
    /// Of the disk, and when it is not written down.
    pub fn write_checkpoint(&self) -> anyhow::Result<()> {
        let written = self.0.reader().write_checkpoint()?;
        ensure!(written.is_some(), "the index was not written down");
        Ok(())
    }
}

/// Fills `data`, which is not there yet, with `chunks` chunks of 2 MiB. Blocks, for a minute where they are a million.
///
/// # Errors
/// Of the disk, and when it is stopped.
pub fn fill(data: &Path, chunks: u32, stop: &CancellationToken) -> anyhow::Result<Filled> {
    let other = || NodeRef::first(NodeUuid::random());
    let others = [other(), other()];
    let mut video = VideoId::generate();
    fill_with(data, ProcessUuid::random(), stop, |me| {
        let nodes: Vec<NodeRef> = [me].into_iter().chain(others).collect();
        (0..chunks).map(move |number| {
            let sequence = number % CHUNKS_OF_A_VIDEO;
            if sequence == 0 {
                video = VideoId::generate();
            }
            (ChunkId::of_video(video, sequence), placed_on(nodes.clone()))
        })
    })
}

/// The placement of a chunk of this kind on `nodes`.
pub fn placed_on(nodes: Vec<NodeRef>) -> Placement {
    static SHA256: LazyLock<Digest> = LazyLock::new(|| Digest::of(&vec![0; CHUNK_BYTES_MAX]));
    Placement {
        version: 1,
        size: CHUNK_BYTES_MAX as u64,
        sha256: *SHA256,
        layout: Layout::Replicated { nodes },
        prev: None,
        back: false,
    }
}

/// Fills `data`, which may hold something, with the chunks that `chunks` gives for its node, all of one
/// owner.
///
/// # Errors
/// Of the disk, and when it is stopped.
pub fn fill_with<C: Iterator<Item = (ChunkId, Placement)>>(
    data: &Path,
    owner: ProcessUuid,
    stop: &CancellationToken,
    chunks: impl FnOnce(NodeRef) -> C,
) -> anyhow::Result<Filled> {
    let payload = payload();
    let disk = SparseDisk::new(data, &payload)?;
    let clock = SystemClock::start();
    let now = || Now {
        monotonic: clock.monotonic(),
        wall: clock.wall(),
    };
    let mut store = Store::open(disk.clone(), StoreOptions::new(), now()).context("no store")?;
    let (item, ballot) = (Item::new(payload), Ballot::zero(owner));
    let mut chunks = chunks(store.me());
    let mut done = 0;
    loop {
        ensure!(!stop.is_cancelled(), "stopped");
        let some: Vec<(ChunkId, Placement)> = chunks.by_ref().take(DECISIONS).collect();
        if some.is_empty() {
            break;
        }
        for batch in some.chunks(BATCH_CHUNKS) {
            let put = |(id, placement): &(ChunkId, Placement)| Op::Put {
                id: id.clone(),
                item: item.clone(),
                mode: PutMode::Vote {
                    ballot,
                    placement: placement.clone(),
                },
            };
            for outcome in store.commit(batch.iter().map(put).collect(), now()) {
                match outcome? {
                    Outcome::Put(PutOutcome::Voted {
                        reply: Reply::Accepted { .. },
                        ..
                    }) => {}
                    other => bail!("a PUT with a vote was answered by {other:?}"),
                }
            }
        }
        done += some.len() as u64;
        let decisions = some.into_iter().map(|(id, placement)| (id, ballot, placement));
        let decided = Op::Decided {
            decisions: decisions.collect(),
        };
        for outcome in store.commit(vec![decided], now()) {
            ensure!(outcome? == Outcome::Noted, "a decision was not noted");
        }
        let used = disk.written_bytes();
        ensure!(
            used <= done.max(1000) * DISK_BYTES_PER_CHUNK_MAX,
            "{used} bytes were written for {done} chunks: payloads are no longer left out"
        );
    }
    store.mark(now())?;
    Ok(Filled(store))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use vstack_engine::FileDisk;

    use super::*;
    use crate::page_cache::files_below;

    /// As a node opens it.
    fn open(data: &Path) -> Store<FileDisk> {
        let now = Now {
            monotonic: vstack_types::Monotonic::default(),
            wall: vstack_types::Timestamp(0),
        };
        Store::open(FileDisk::new(data).unwrap(), StoreOptions::new(), now).unwrap()
    }

    #[test]
    fn a_store_finds_every_chunk_and_vote_in_little_space() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fill(&data, 700, &CancellationToken::new()).unwrap();
        let (mut length, mut space) = (0, 0);
        for file in files_below(&data).unwrap() {
            let metadata = file.metadata().unwrap();
            length += metadata.len();
            space += metadata.blocks() * 512;
        }
        assert!(length > 1 << 30 && space < 32 << 20, "{length} bytes in {space}");
        let store = open(&data);
        let stats = store.reader().stats();
        assert_eq!((stats.chunk_count, stats.register_count), (700, 700));
        assert!(store.report().damage.is_empty(), "{:?}", store.report());
    }

    #[test]
    fn what_was_written_down_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let filled = fill(&data, 300, &CancellationToken::new()).unwrap();
        filled.write_checkpoint().unwrap();
        drop(filled);
        let store = open(&data);
        let (stats, report) = (store.reader().stats(), store.report());
        assert_eq!((stats.chunk_count, stats.register_count), (300, 300));
        assert!(
            report.checkpoint.is_some() && report.records < 10 && report.damage.is_empty(),
            "{report:?}"
        );
    }

    #[test]
    fn it_can_be_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(fill(&directory.path().join("data"), 10, &stop).is_err());
    }
}
