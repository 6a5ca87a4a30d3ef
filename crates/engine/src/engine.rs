//! The store on a thread of its own, behind a bounded queue.
//!
//! The thread takes everything that waits, up to a limit, commits it as one batch with one sync, and answers all:
//! the more wait, the fewer syncs each costs. Reads go beside it on tokio's blocking threads.

use std::{
    io,
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use vstack_chunkpaxos::{Ballot, Placement, Reply, Request};
use vstack_types::{ByteRange, ChunkId, Clock};

use crate::{
    disk::Disk,
    file_disk::FileDisk,
    item::Item,
    op::{Collected, DeleteOutcome, Now, Op, Outcome, PutMode, PutOutcome, WriteError},
    reader::{Found, ReadError, Reader},
    recovery::OpenReport,
    store::{OpenError, Store, StoreOptions},
};

/// Most bytes of items in one batch. Eight of the largest chunks: enough to share a sync, little enough to wait for.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most operations in the queue, and in a batch.
pub const QUEUE_OPS_MAX: usize = 1024;

/// Most bytes of items in the queue and in the batch in work; more wait outside, where who brings them bounds them.
pub const QUEUE_BYTES_MAX: usize = 4 * BATCH_BYTES_MAX;

/// The queue counts bytes in units of this size.
const QUEUE_UNIT: usize = 1024;

/// An operation that gets no answer for so long is given up; it may still be done, as when an answer is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Idle for so long, the end of what is synced is written down.
const MARK_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The store refused or failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The disk did not answer in time.
    #[error("the disk did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
}

type Answer = oneshot::Sender<Result<Outcome, WriteError>>;

enum Command {
    /// With its bytes' share of the queue, which is free when they are.
    Do(Box<Op>, Answer, Option<OwnedSemaphorePermit>),
    Close,
}

/// How the writer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Running,
    /// A write or sync failed.
    Failed,
    /// It was asked to end. A thread that ends without saying so has panicked.
    Closed,
}

/// A running store. Dropping it ends the thread after the batch in work; [`Engine::close`] waits for that.
pub struct Engine<D: Disk = FileDisk> {
    reader: Reader<D>,
    clock: Arc<dyn Clock>,
    commands: mpsc::Sender<Command>,
    queue_room: Arc<Semaphore>,
    writer: watch::Receiver<Writer>,
    report: OpenReport,
    /// Taken by whoever closes first.
    thread: std::sync::Mutex<Option<thread::JoinHandle<()>>>,
}

fn now(clock: &dyn Clock) -> Now {
    Now {
        monotonic: clock.monotonic(),
        wall: clock.wall(),
    }
}

impl<D: Disk> Engine<D> {
    /// Opens the store of `disk` and starts its thread. Blocks while it reads the superblocks.
    ///
    /// # Errors
    /// As [`Store::open`], and when no thread can be started.
    pub fn open(disk: D, options: StoreOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let store = Store::open(disk, options, now(&*clock))?;
        let (reader, report) = (store.reader(), store.report().clone());
        let (commands, queue) = mpsc::channel(QUEUE_OPS_MAX);
        let (state, writer) = watch::channel(Writer::Running);
        // The runtime is for waiting alone: the queue with a deadline.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let writer_clock = Arc::clone(&clock);
        let thread = thread::Builder::new()
            .name("vstack-writer".into())
            .spawn(move || run(store, queue, &*writer_clock, &runtime, &state))?;
        Ok(Self {
            reader,
            clock,
            commands,
            queue_room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX / QUEUE_UNIT)),
            writer,
            report,
            thread: std::sync::Mutex::new(Some(thread)),
        })
    }

    /// What opening found.
    pub const fn report(&self) -> &OpenReport {
        &self.report
    }

    /// Look-ups, lists and counters.
    pub const fn reader(&self) -> &Reader<D> {
        &self.reader
    }

    /// Whether nothing can be written any more: a write or sync failed, or the thread panicked. Only opening the store
    /// again helps.
    pub fn is_failed(&self) -> bool {
        match *self.writer.borrow() {
            Writer::Running => self.writer.has_changed().is_err(),
            Writer::Failed => true,
            Writer::Closed => false,
        }
    }

    /// Waits until nothing can be written any more; for ever when the store is closed in order.
    pub async fn failed(&self) {
        let mut writer = self.writer.clone();
        let ended = writer.wait_for(|state| *state != Writer::Running).await;
        if ended.is_ok_and(|state| *state == Writer::Closed) {
            std::future::pending::<()>().await;
        }
    }

    /// Bytes of items that wait to be written or are being written.
    pub fn queued_bytes(&self) -> usize {
        QUEUE_BYTES_MAX - self.queue_room.available_permits() * QUEUE_UNIT
    }

    /// A share of the queue for the bytes of `op`, as long as they stand there: who asks may go away meanwhile.
    async fn room_for(&self, op: &Op) -> Result<Option<OwnedSemaphorePermit>, WriteError> {
        let units = op.payload_len().min(QUEUE_BYTES_MAX).div_ceil(QUEUE_UNIT);
        if units == 0 {
            return Ok(None);
        }
        let units = u32::try_from(units).map_err(|_| WriteError::TooLarge { len: op.payload_len() })?;
        let room = Arc::clone(&self.queue_room).acquire_many_owned(units).await;
        room.map(Some).map_err(|_| WriteError::Closed)
    }

    /// Does one operation, together with all others that wait.
    ///
    /// # Errors
    /// When nothing is promised about it.
    pub async fn submit(&self, op: Op) -> Result<Outcome, EngineError> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let room = self.room_for(&op).await?;
            self.commands
                .send(Command::Do(Box::new(op), answer, room))
                .await
                .map_err(|_| WriteError::Closed)?;
            answered.await.map_err(|_| WriteError::Closed)?
        };
        Ok(timeout(ANSWER_TIMEOUT, asked)
            .await
            .map_err(|_| EngineError::Timeout)??)
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn put(&self, id: ChunkId, item: Item, mode: PutMode) -> Result<PutOutcome, EngineError> {
        match self.submit(Op::Put { id, item, mode }).await? {
            Outcome::Put(outcome) => Ok(outcome),
            other => unreachable!("a put is answered as one, not by {other:?}"),
        }
    }

    /// A message to the acceptor.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn paxos(&self, id: ChunkId, request: Request) -> Result<Reply, EngineError> {
        match self.submit(Op::Paxos { id, request }).await? {
            Outcome::Reply(reply) => Ok(reply),
            other => unreachable!("a message is answered by a reply, not by {other:?}"),
        }
    }

    /// Decisions of many registers, with one sync.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn decided(&self, decisions: Vec<(ChunkId, Ballot, Placement)>) -> Result<(), EngineError> {
        self.submit(Op::Decided { decisions }).await.map(|_| ())
    }

    /// Deletes what is staged under `id`.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn delete_staged(&self, id: ChunkId) -> Result<DeleteOutcome, EngineError> {
        match self.submit(Op::DeleteStaged { id }).await? {
            Outcome::Deleted(outcome) => Ok(outcome),
            other => unreachable!("a deletion is answered as one, not by {other:?}"),
        }
    }

    /// Deletes what nothing keeps; see [`Op::Collect`].
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn collect(&self, grace: Duration, staging_ttl: Duration) -> Result<Collected, EngineError> {
        match self.submit(Op::Collect { grace, staging_ttl }).await? {
            Outcome::Collected(collected) => Ok(collected),
            other => unreachable!("a collection is answered as one, not by {other:?}"),
        }
    }

    /// The bytes of an item, or a part of them, verified. Damage found is written down before this returns.
    ///
    /// # Errors
    /// When they are damaged or cannot be read.
    pub async fn read(&self, found: &Found, range: Option<ByteRange>) -> Result<Vec<u8>, ReadError> {
        let (reader, wanted, at) = (self.reader.clone(), found.clone(), self.clock.monotonic());
        let read = tokio::task::spawn_blocking(move || reader.read(&wanted, range, at));
        let result = read.await.map_err(io::Error::other)?;
        if matches!(result, Err(ReadError::Corrupt)) {
            let (id, sha256, lsn) = (found.id().clone(), found.sha256(), found.lsn());
            // Not served either way; without the record it is found again after a restart.
            if let Err(error) = self.submit(Op::Quarantine { id, sha256, lsn }).await {
                tracing::error!(id = %found.id(), %error, "a damaged item could not be written down");
            }
        }
        result
    }

    /// Ends the thread after all that waits is done and marked, and frees the data directory. Reads of handles that
    /// others still have go on; their writes are refused.
    pub async fn close(&self) {
        let asked = self.commands.send(Command::Close).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
            if asked.is_err() || !joined.unwrap_or(false) {
                tracing::error!("the writer thread ended before it was asked to");
            }
        }
    }
}

fn run<D: Disk>(
    mut store: Store<D>,
    mut queue: mpsc::Receiver<Command>,
    clock: &dyn Clock,
    runtime: &tokio::runtime::Runtime,
    state: &watch::Sender<Writer>,
) {
    let mut idle = false;
    loop {
        let first = if idle {
            queue.blocking_recv()
        } else {
            match runtime.block_on(async { timeout(MARK_AFTER_IDLE, queue.recv()).await }) {
                Ok(first) => first,
                Err(_) => {
                    idle = true;
                    mark(&mut store, clock, state);
                    continue;
                }
            }
        };
        idle = false;
        let Some(first) = first else { break };
        let close = commit_with(&mut store, first, &mut queue, clock);
        tell(&store, state);
        if close {
            break;
        }
    }
    mark(&mut store, clock, state);
    state.send_replace(Writer::Closed);
}

fn tell<D: Disk>(store: &Store<D>, state: &watch::Sender<Writer>) {
    if store.is_failed() {
        state.send_if_modified(|state| std::mem::replace(state, Writer::Failed) != Writer::Failed);
    }
}

fn mark<D: Disk>(store: &mut Store<D>, clock: &dyn Clock, state: &watch::Sender<Writer>) {
    if !store.is_failed()
        && let Err(error) = store.mark(now(clock))
    {
        tracing::error!(%error, "the end of the log could not be marked");
    }
    tell(store, state);
}

/// Commits `first` and what waits behind it; says whether the store is to be closed.
fn commit_with<D: Disk>(
    store: &mut Store<D>,
    first: Command,
    queue: &mut mpsc::Receiver<Command>,
    clock: &dyn Clock,
) -> bool {
    let (mut ops, mut answers, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
    let (mut bytes, mut close) = (0, false);
    let mut next = Some(first);
    while let Some(command) = next {
        match command {
            Command::Do(op, answer, room) => {
                bytes += op.payload_len();
                ops.push(*op);
                answers.push(answer);
                rooms.push(room);
            }
            Command::Close => {
                close = true;
                break;
            }
        }
        let full = bytes >= BATCH_BYTES_MAX || ops.len() >= QUEUE_OPS_MAX;
        next = if full { None } else { queue.try_recv().ok() };
    }
    let was_failed = store.is_failed();
    let results = store.commit(ops, now(clock));
    drop(rooms);
    if store.is_failed() && !was_failed {
        tracing::error!("a write failed: no more writes until the node is restarted; reads go on");
    }
    for (answer, result) in answers.into_iter().zip(results) {
        // Who asked may have gone away.
        let _ = answer.send(result);
    }
    close
}
