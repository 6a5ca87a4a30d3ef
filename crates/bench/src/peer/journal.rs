//! A peer's durable memory: the storage engine's log, written with group commit as a storage node writes it.
//!
//! One thread owns the store. It takes every job that waits, commits all their operations as one batch with one sync, and
//! answers all. Unlike [`vstack_engine::Engine`] a job may have several operations, which are never divided between two
//! batches unless a superblock ends: a Raft entry and its bytes cost one sync together.

use std::{path::PathBuf, sync::Arc, thread};

use tokio::sync::{mpsc, oneshot};
use vstack_engine::{
    FileDisk, Found, Item, Now, Op, OpenError, Outcome, PutMode, PutOutcome, ReadError, Reader, Store, StoreOptions,
    Which, WriteError,
};
use vstack_types::{ChunkId, Clock, SystemClock};

/// Most bytes in a batch, and most jobs, as in the engine: eight of the largest chunks.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Most jobs that wait.
const QUEUE_JOBS_MAX: usize = 1024;
/// Read at a time when it is opened.
const PAGE: usize = 1024;

/// Why nothing is promised about a write.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The store refused or failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Its thread has ended.
    #[error("the journal is closed")]
    Closed,
    /// What was read is damaged.
    #[error("the journal cannot be read")]
    Read(#[from] ReadError),
    /// The store did something else than it was asked for.
    #[error("the store answered {0} to a put")]
    Unexpected(String),
}

type Done = oneshot::Sender<Result<(), JournalError>>;

struct Job {
    ops: Vec<Op>,
    done: Done,
}

/// Something to be stored.
#[derive(Debug, Clone)]
pub struct Record {
    /// Under which name.
    pub id: ChunkId,
    /// What.
    pub item: Item,
}

/// A place in the queue: whoever has one writes without waiting, so that the order of writes can be fixed under a lock.
pub struct Slot<'a>(mpsc::Permit<'a, Job>);

/// A write under way.
pub struct Written(oneshot::Receiver<Result<(), JournalError>>);

impl Slot<'_> {
    /// Puts `records` into the queue.
    pub fn write(self, records: Vec<Record>) -> Written {
        let ops = records.into_iter().map(|Record { id, item }| Op::Put {
            id,
            item,
            mode: PutMode::Item,
        });
        let (done, written) = oneshot::channel();
        self.0.send(Job {
            ops: ops.collect(),
            done,
        });
        Written(written)
    }
}

impl Written {
    /// Waits until all of it is synced.
    pub async fn durable(self) -> Result<(), JournalError> {
        self.0.await.map_err(|_ended| JournalError::Closed)?
    }
}

/// The log of a peer. Dropping it ends the thread after what waits is written.
pub struct Journal {
    /// None once it is being dropped.
    jobs: Option<mpsc::Sender<Job>>,
    reader: Reader<FileDisk>,
    clock: Arc<SystemClock>,
    thread: Option<thread::JoinHandle<()>>,
}

fn now(clock: &SystemClock) -> Now {
    Now {
        monotonic: clock.monotonic(),
        wall: clock.wall(),
    }
}

impl Journal {
    /// Opens the log in `directory`. Blocks.
    pub fn open(directory: PathBuf) -> Result<Self, OpenError> {
        let clock = Arc::new(SystemClock::start());
        let store = Store::open(FileDisk::new(directory)?, StoreOptions::new(), now(&clock))?;
        let reader = store.reader();
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let writer_clock = Arc::clone(&clock);
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(store, queue, &writer_clock))?;
        Ok(Self {
            jobs: Some(jobs),
            reader,
            clock,
            thread: Some(thread),
        })
    }

    /// Look-ups and counters.
    pub const fn reader(&self) -> &Reader<FileDisk> {
        &self.reader
    }

    /// A place in the queue.
    pub async fn slot(&self) -> Result<Slot<'_>, JournalError> {
        let jobs = self.jobs.as_ref().ok_or(JournalError::Closed)?;
        Ok(Slot(jobs.reserve().await.map_err(|_ended| JournalError::Closed)?))
    }

    /// Writes `records` and waits until they are synced.
    pub async fn write(&self, records: Vec<Record>) -> Result<(), JournalError> {
        self.slot().await?.write(records).durable().await
    }

    /// The bytes of an item, verified.
    pub async fn read(&self, found: Found) -> Result<Vec<u8>, JournalError> {
        let (reader, at) = (self.reader.clone(), self.clock.monotonic());
        let read = tokio::task::spawn_blocking(move || reader.read(&found, None, at)).await;
        Ok(read.map_err(|_panicked| JournalError::Closed)??)
    }

    /// Every record whose name begins with `prefix`, in the order they were written.
    pub async fn records(&self, prefix: &ChunkId) -> Result<Vec<(ChunkId, Vec<u8>)>, JournalError> {
        let (mut records, mut cursor) = (Vec::new(), Some(0));
        while let Some(after) = cursor {
            let page = self
                .reader
                .list_items(after, PAGE, Some(prefix))
                .map_err(ReadError::Io)?;
            cursor = page.next;
            for listed in page.entries {
                let found = self.reader.find(&listed.id, Which::Exact(listed.sha256));
                let found = found.map_err(|_damaged| ReadError::Corrupt)?;
                records.push((listed.id, self.read(found).await?));
            }
        }
        Ok(records)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _it_panicked_and_said_so = thread.join();
        }
    }
}

fn write(mut store: Store<FileDisk>, mut queue: mpsc::Receiver<Job>, clock: &SystemClock) {
    while let Some(first) = queue.blocking_recv() {
        let (mut ops, mut waiting) = (Vec::new(), Vec::new());
        let (mut bytes, mut next) = (0, Some(first));
        while let Some(job) = next {
            bytes += job.ops.iter().map(Op::payload_len).sum::<usize>();
            waiting.push((job.ops.len(), job.done));
            ops.extend(job.ops);
            next = if bytes < BATCH_BYTES_MAX {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        let mut results = store.commit(ops, now(clock)).into_iter();
        for (count, done) in waiting {
            let all: Vec<_> = results.by_ref().take(count).collect();
            // Who asked may have gone away.
            let _ = done.send(all.into_iter().try_for_each(check));
        }
    }
}

fn check(result: Result<Outcome, WriteError>) -> Result<(), JournalError> {
    match result? {
        Outcome::Put(PutOutcome::Stored { .. } | PutOutcome::AlreadyThere { .. }) => Ok(()),
        other => Err(JournalError::Unexpected(format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, bytes: &'static [u8]) -> Record {
        Record {
            id: id.parse().unwrap(),
            item: Item::new(bytes),
        }
    }

    #[tokio::test]
    async fn records_of_one_job_share_a_sync_and_are_read_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path().to_owned()).unwrap();
        let before = journal.reader().stats().syncs;
        journal
            .write(vec![record("b-1", b"one"), record("b-0", b"two"), record("c", b"x")])
            .await
            .unwrap();
        assert_eq!(journal.reader().stats().syncs, before + 1);
        drop(journal);
        let journal = Journal::open(directory.path().to_owned()).unwrap();
        let read = journal.records(&"b-".parse().unwrap()).await.unwrap();
        let read: Vec<_> = read.iter().map(|(id, bytes)| (id.as_str(), bytes.as_slice())).collect();
        assert_eq!(read, [("b-1", &b"one"[..]), ("b-0", &b"two"[..])]);
    }
}
