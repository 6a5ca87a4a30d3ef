//! The loop that commits: on a thread of its own, or, in a simulation, as a task of the thread that simulates.
//!
//! Both take everything that waits, up to a limit, commit it as one batch with one sync, and answer all.

use std::{fmt, io, sync::Arc, thread, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use vstack_types::Clock;

use crate::{
    disk::Disk,
    engine::{BATCH_BYTES_MAX, QUEUE_OPS_MAX},
    op::{Now, Op, Outcome, WriteError},
    store::Store,
};

/// Idle for so long, the end of what is synced is written down.
const MARK_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Where the disk was too full for that, it is tried again so much later.
const MARK_AGAIN: Duration = Duration::from_secs(5);

type Answer = oneshot::Sender<Result<Outcome, WriteError>>;

pub(crate) enum Command {
    /// With its bytes' share of the queue, which is free when they are.
    Do(Box<Op>, Answer, Option<OwnedSemaphorePermit>),
    Close,
}

/// How the writer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    Running,
    /// A write or sync failed.
    Failed,
    /// It was asked to end. A thread that ends without saying so has panicked.
    Closed,
}

/// Where the writer runs, and where reads do.
#[derive(Clone)]
pub enum Runs {
    /// On a thread of its own, as disks that block need it.
    OnAThread,
    /// As a task of the runtime that is there, for a simulated disk. Each batch takes as long as this says before it
    /// is written, and again before it is answered.
    AsATask(Arc<dyn Fn() -> Duration + Send + Sync>),
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnAThread => "OnAThread",
            Self::AsATask(_) => "AsATask",
        })
    }
}

/// The writer that runs.
pub(crate) enum Running {
    Thread(thread::JoinHandle<()>),
    Task(JoinHandle<()>),
}

impl Running {
    /// Waits for its end; says whether it was a good one.
    pub(crate) async fn ended(self) -> bool {
        match self {
            Self::Thread(thread) => tokio::task::spawn_blocking(move || thread.join().is_ok())
                .await
                .unwrap_or(false),
            Self::Task(task) => task.await.is_ok(),
        }
    }
}

/// What the writer works with.
pub(crate) struct Works<D: Disk> {
    pub store: Store<D>,
    pub queue: mpsc::Receiver<Command>,
    pub clock: Arc<dyn Clock>,
    pub state: watch::Sender<Writer>,
}

pub(crate) fn now(clock: &dyn Clock) -> Now {
    Now {
        monotonic: clock.monotonic(),
        wall: clock.wall(),
    }
}

impl<D: Disk> Works<D> {
    pub(crate) fn start(self, runs: Runs) -> io::Result<Running> {
        match runs {
            Runs::OnAThread => {
                // The runtime is for waiting alone: the queue with a deadline.
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
                let thread = thread::Builder::new()
                    .name("vstack-writer".into())
                    .spawn(move || self.on_a_thread(&runtime))?;
                Ok(Running::Thread(thread))
            }
            Runs::AsATask(pause) => Ok(Running::Task(tokio::spawn(self.in_a_task(pause)))),
        }
    }

    fn on_a_thread(mut self, runtime: &tokio::runtime::Runtime) {
        let mut mark_after = Some(MARK_AFTER_IDLE);
        loop {
            let first = if let Some(wait) = mark_after {
                let Ok(first) = runtime.block_on(async { timeout(wait, self.queue.recv()).await }) else {
                    mark_after = self.mark();
                    continue;
                };
                first
            } else {
                self.queue.blocking_recv()
            };
            mark_after = Some(MARK_AFTER_IDLE);
            let Some(first) = first else { break };
            let batch = Batch::gather(first, &mut self.queue);
            let close = batch.close;
            let done = self.commit(batch);
            self.tell();
            done.answer();
            if close {
                break;
            }
        }
        self.end();
    }

    /// The same steps, with simulated time where the thread waits for the disk.
    async fn in_a_task(mut self, pause: Arc<dyn Fn() -> Duration + Send + Sync>) {
        let mut mark_after = Some(MARK_AFTER_IDLE);
        loop {
            let first = if let Some(wait) = mark_after {
                let Ok(first) = timeout(wait, self.queue.recv()).await else {
                    mark_after = self.mark();
                    continue;
                };
                first
            } else {
                self.queue.recv().await
            };
            mark_after = Some(MARK_AFTER_IDLE);
            let Some(first) = first else { break };
            sleep(pause()).await;
            let batch = Batch::gather(first, &mut self.queue);
            let close = batch.close;
            let done = self.commit(batch);
            self.tell();
            sleep(pause()).await;
            done.answer();
            if close {
                break;
            }
        }
        self.end();
    }

    fn end(mut self) {
        let _ = self.mark();
        self.state.send_replace(Writer::Closed);
    }

    fn tell(&self) {
        if self.store.is_failed() {
            self.state
                .send_if_modified(|state| std::mem::replace(state, Writer::Failed) != Writer::Failed);
        }
    }

    /// Says when it has to be tried again.
    fn mark(&mut self) -> Option<Duration> {
        if self.store.is_failed() {
            return None;
        }
        let marked = self.try_to_mark();
        self.tell();
        match marked {
            Ok(()) => None,
            Err(WriteError::DiskFull) => {
                tracing::debug!("no room to mark the end of the log");
                Some(MARK_AGAIN)
            }
            Err(error) => {
                tracing::error!(%error, "the end of the log could not be marked");
                None
            }
        }
    }

    fn try_to_mark(&mut self) -> Result<(), WriteError> {
        let now = now(&*self.clock);
        self.store.finish_opening(now)?;
        self.store.mark(now)
    }

    fn commit(&mut self, batch: Batch) -> Done {
        let was_failed = self.store.is_failed();
        if batch.ops.contains(&Op::Rest) {
            // What came before is marked now: a mark that came later would take space again. Where there is no room for
            // it, it waits as it did.
            let _ = self.mark();
        }
        let now = now(&*self.clock);
        self.store.instruments().batch(batch.ops.len(), batch.bytes);
        let results = match self.store.finish_opening(now) {
            Ok(()) => self.store.commit(batch.ops, now),
            Err(error) => batch.ops.iter().map(|_| Err(error.clone())).collect(),
        };
        drop(batch.rooms);
        if self.store.is_failed() && !was_failed {
            tracing::error!("a write failed: no more writes until the node is restarted; reads go on");
        }
        Done {
            answers: batch.answers,
            results,
        }
    }
}

/// What is committed together.
struct Batch {
    ops: Vec<Op>,
    answers: Vec<Answer>,
    rooms: Vec<Option<OwnedSemaphorePermit>>,
    /// Of items.
    bytes: usize,
    /// The store is to be closed afterwards.
    close: bool,
}

impl Batch {
    /// `first` and what waits behind it.
    fn gather(first: Command, queue: &mut mpsc::Receiver<Command>) -> Self {
        let mut batch = Self {
            ops: Vec::new(),
            answers: Vec::new(),
            rooms: Vec::new(),
            bytes: 0,
            close: false,
        };
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Do(op, answer, room) => {
                    batch.bytes += op.payload_len();
                    batch.ops.push(*op);
                    batch.answers.push(answer);
                    batch.rooms.push(room);
                }
                Command::Close => {
                    batch.close = true;
                    break;
                }
            }
            let full = batch.bytes >= BATCH_BYTES_MAX || batch.ops.len() >= QUEUE_OPS_MAX;
            next = if full { None } else { queue.try_recv().ok() };
        }
        batch
    }
}

/// What came of a batch, still to be said.
struct Done {
    answers: Vec<Answer>,
    results: Vec<Result<Outcome, WriteError>>,
}

impl Done {
    fn answer(self) {
        for (answer, result) in self.answers.into_iter().zip(self.results) {
            // Who asked may have gone away.
            let _ = answer.send(result);
        }
    }
}
