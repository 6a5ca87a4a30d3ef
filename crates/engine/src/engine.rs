//! The store on a thread of its own, behind a bounded queue.
//!
//! The thread takes everything that waits, up to a limit, commits it as one batch with one sync, and answers all:
//! the more wait, the fewer syncs each costs. Reads go beside it on tokio's blocking threads.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use vstack_chunkpaxos::{Ballot, Placement, Reply, Request};
use vstack_types::{ByteRange, ChunkId, Clock, Monotonic};

use crate::{
    aside::Waits,
    disk::Disk,
    file_disk::FileDisk,
    instruments::Timed,
    item::Item,
    op::{Collected, DeleteOutcome, Op, Outcome, PutMode, PutOutcome, WriteError},
    reader::{Found, ReadError, Reader},
    recovery::OpenReport,
    store::{OpenError, Store, StoreOptions},
    writer::{Command, Running, Runs, Works, Writer, now},
};

/// Most bytes of items in one batch. Eight of the largest chunks: enough to share a sync, little enough to wait for.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most operations in the queue, and in a batch.
pub const QUEUE_OPS_MAX: usize = 1024;

/// Most bytes of items in the queue and in the batch in work; more wait outside, where who brings them bounds them.
pub const QUEUE_BYTES_MAX: usize = 4 * BATCH_BYTES_MAX;

/// The queue counts bytes in units of this size.
const QUEUE_UNIT: usize = 1024;

/// Votes for which bytes are read back at once: no more, as who reads chunks waits for the same disk and processor.
const READ_BACK_AT_ONCE: usize = 1;
/// What was not read back by then the writer reads, which says what is wrong with the disk.
const READ_BACK_WITHIN: Duration = Duration::from_secs(10);

/// An operation that gets no answer for so long is given up; it may still be done, as when an answer is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The store refused or failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The disk does not give what has to be looked at.
    #[error("the disk cannot be read ({error})")]
    Read {
        /// What it said.
        error: String,
    },
    /// The disk did not answer in time.
    #[error("the disk did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
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
    running: std::sync::Mutex<Option<Running>>,
    /// Where reads wait for the disk.
    waits: Waits,
    read_backs: Arc<Semaphore>,
}

impl<D: Disk> Engine<D> {
    /// Opens the store of `disk` and starts its thread. Blocks while it reads the superblocks.
    ///
    /// # Errors
    /// As [`Store::open`], and when no thread can be started.
    pub fn open(disk: D, options: StoreOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_as(disk, options, clock, Runs::OnAThread)
    }

    /// The same, with the writer where `runs` says.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_as(disk: D, options: StoreOptions, clock: Arc<dyn Clock>, runs: Runs) -> Result<Self, OpenError> {
        let store = Store::open(disk, options, now(&*clock))?;
        let (reader, report) = (store.reader(), store.report().clone());
        reader.instruments().measure_with(Arc::clone(&clock));
        let (commands, queue) = mpsc::channel(QUEUE_OPS_MAX);
        let (state, writer) = watch::channel(Writer::Running);
        let waits = match runs {
            Runs::AsATask(_) => Waits::Here,
            Runs::OnAThread => Waits::OnAThread,
        };
        let works = Works {
            store,
            queue,
            clock: Arc::clone(&clock),
            state,
        };
        Ok(Self {
            reader,
            clock,
            commands,
            queue_room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX / QUEUE_UNIT)),
            writer,
            report,
            running: std::sync::Mutex::new(Some(works.start(runs)?)),
            waits,
            read_backs: Arc::new(Semaphore::new(READ_BACK_AT_ONCE)),
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

    /// Operations that wait to be done.
    pub fn queued_ops(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
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

    /// Looks at what there is under `id`: at once where memory knows it, else where the disk may be waited for.
    ///
    /// # Errors
    /// When the look is given up, as when the process ends.
    pub async fn look<T: Send + 'static>(
        &self,
        id: &ChunkId,
        look: impl FnOnce(&Reader<D>) -> T + Send + 'static,
    ) -> io::Result<T> {
        if self.reader.is_at_hand(id) {
            return Ok(look(&self.reader));
        }
        self.look_aside(look).await
    }

    /// Looks at what there is where the disk may be waited for.
    ///
    /// # Errors
    /// When the look is given up, as when the process ends.
    pub async fn look_aside<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Reader<D>) -> T + Send + 'static,
    ) -> io::Result<T> {
        let reader = self.reader.clone();
        self.waits.aside(move || look(&reader)).await
    }

    /// Does one operation, together with all others that wait.
    ///
    /// # Errors
    /// When nothing is promised about it.
    pub async fn submit(&self, op: Op) -> Result<Outcome, EngineError> {
        let (what, began) = (Timed::of(&op), self.clock.monotonic());
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let room = self.room_for(&op).await?;
            self.commands
                .send(Command::Do(Box::new(op), answer, room))
                .await
                .map_err(|_| WriteError::Closed)?;
            answered.await.map_err(|_| WriteError::Closed)?
        };
        let outcome = timeout(ANSWER_TIMEOUT, asked)
            .await
            .map_err(|_| EngineError::Timeout)??;
        if let Some(what) = what {
            let took = self.clock.monotonic().since(began);
            self.reader.instruments().observe(what, took);
        }
        Ok(outcome)
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
        let _the_writer_sees_to_it_then = timeout(READ_BACK_WITHIN, self.read_back_for(&id, &request)).await;
        match self.submit(Op::Paxos { id, request }).await? {
            Outcome::Reply(reply) => Ok(reply),
            other => unreachable!("a message is answered by a reply, not by {other:?}"),
        }
    }

    /// Sees to it that the writer need not read what it has to vouch for.
    async fn read_back_for(&self, id: &ChunkId, request: &Request) {
        let now = self.now();
        if self.reader.vouches_at_hand(id, request, now) {
            return;
        }
        let Ok(turn) = Arc::clone(&self.read_backs).acquire_owned().await else {
            return;
        };
        let (id, request) = (id.clone(), request.clone());
        let read = move |reader: &Reader<D>| {
            reader.read_back_for(&id, &request, now);
            // A read that hangs keeps its turn, whoever gave it up: no thread waits beside it for the same disk.
            drop(turn);
        };
        let _the_writer_reads_what_is_missing = self.look_aside(read).await;
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

    /// Deletes what nothing keeps: items that a decision names no more, after `grace`, and items without a vote, after
    /// `staging_ttl`. Looks for them beside the writer, which gets a few at a time.
    ///
    /// # Errors
    /// As [`Engine::submit`]; what was deleted until then is.
    pub async fn collect(&self, grace: Duration, staging_ttl: Duration) -> Result<Collected, EngineError> {
        let now = self.clock.wall();
        let due = self.look_aside(move |reader| reader.due(grace, staging_ttl, now)).await;
        let due = due.map_err(|error| EngineError::Read {
            error: error.to_string(),
        })?;
        let mut all = Collected::default();
        for due in due {
            match self.submit(Op::Collect { due }).await? {
                Outcome::Collected(some) => {
                    all.items += some.items;
                    all.bytes += some.bytes;
                    all.more = some.more;
                }
                other => unreachable!("a collection is answered as one, not by {other:?}"),
            }
        }
        Ok(all)
    }

    /// Ends voting on this disk, for good. Every vote that was given is durable before, and none is given after.
    ///
    /// # Errors
    /// As [`Engine::submit`]; then it is unknown whether the disk is sealed until it is opened again.
    pub async fn seal(&self) -> Result<(), EngineError> {
        self.submit(Op::Seal).await.map(|_| ())
    }

    /// Looks whether the data directory is still there and still this disk's. When it is not, nothing is written any more,
    /// as after a failed write.
    ///
    /// # Errors
    /// What is wrong with it, and as [`Engine::submit`].
    pub async fn attend(&self) -> Result<(), EngineError> {
        self.submit(Op::Attend).await.map(|_| ())
    }

    /// Marks the end of the log, and gives back the space that was taken ahead of it, until it is written to again; says
    /// how much.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn rest(&self) -> Result<u64, EngineError> {
        match self.submit(Op::Rest).await? {
            Outcome::Rested(bytes) => Ok(bytes),
            other => unreachable!("a rest is answered as one, not by {other:?}"),
        }
    }

    /// Goes on in a new superblock, so that all that were written to can be emptied; says which it is.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn turn(&self) -> Result<u32, EngineError> {
        match self.submit(Op::Turn).await? {
            Outcome::Turned(number) => Ok(number),
            other => unreachable!("a turn is answered as one, not by {other:?}"),
        }
    }

    /// The bytes of an item, or a part of them, verified. Damage found is written down before this returns.
    ///
    /// # Errors
    /// When they are damaged or cannot be read.
    pub async fn read(&self, found: &Found, range: Option<ByteRange>) -> Result<Vec<u8>, ReadError> {
        let (reader, wanted, at) = (self.reader.clone(), found.clone(), self.clock.monotonic());
        let result = self.waits.aside(move || reader.read(&wanted, range, at)).await?;
        if matches!(result, Err(ReadError::Corrupt)) {
            self.write_down_damage(found).await;
        }
        result
    }

    /// Makes it durable that an item is damaged.
    pub async fn write_down_damage(&self, found: &Found) {
        let (id, sha256, lsn) = (found.id().clone(), found.sha256(), found.lsn());
        // Not served either way; without the record it is found again after a restart.
        if let Err(error) = self.submit(Op::Quarantine { id, sha256, lsn }).await {
            tracing::error!(id = %found.id(), %error, "a damaged item could not be written down");
        }
    }

    pub(crate) const fn waits(&self) -> Waits {
        self.waits
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.clock.monotonic()
    }

    /// Ends the thread after all that waits is done and marked, and frees the data directory. Reads of handles that
    /// others still have go on; their writes are refused.
    pub async fn close(&self) {
        let asked = self.commands.send(Command::Close).await;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running
            && (!running.ended().await || asked.is_err())
        {
            tracing::error!("the writer ended before it was asked to");
        }
    }

    /// What this disk claims where it registers, durably from now on; see [`Reader::set_claim`].
    ///
    /// # Errors
    /// Of the disk.
    pub async fn set_claim(&self, claim: Option<u64>) -> io::Result<()> {
        let reader = self.reader.clone();
        self.waits.aside(move || reader.set_claim(claim)).await?
    }
}
