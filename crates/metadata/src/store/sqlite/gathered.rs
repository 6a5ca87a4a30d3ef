//! Decisions that come one by one, written many at a time: a sync costs the same for one as for a hundred, and on a busy
//! disk it takes so long that a hundred have come meanwhile.
//!
//! Whoever comes while a transaction is written waits for the next, which takes all who wait. Each is answered once its
//! own changes are synced, and what is wrong with one undoes that one alone.

use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use vstack_chunkpaxos::Placement;
use vstack_types::{ChunkId, VideoId};

use super::{WAIT_MAX, begin_write, chunks};
use crate::store::{Chunk, Learned, StoreError};

/// Written in one transaction at most.
const TOGETHER: usize = 256;
/// That wait for one at most; more wait for room, as long as for a connection.
const WAITING_MAX: usize = 1_024;

/// What somebody wants written, and where he waits.
enum Wish {
    Learn {
        video: VideoId,
        chunks: Vec<Chunk>,
        answer: oneshot::Sender<Result<Learned, StoreError>>,
    },
    LearnDeleted {
        chunk: ChunkId,
        placement: Placement,
        answer: oneshot::Sender<Result<bool, StoreError>>,
    },
}

/// Writes what everybody wishes.
#[derive(Debug, Clone)]
pub(super) struct Gathered(mpsc::Sender<Wish>);

impl Gathered {
    /// Works until nobody can wish anything any more.
    pub(super) fn start(writer: SqlitePool) -> Self {
        let (sender, wishes) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(writer, wishes));
        Self(sender)
    }

    pub(super) async fn learn(&self, video: VideoId, chunks: Vec<Chunk>) -> Result<Learned, StoreError> {
        let (answer, told) = oneshot::channel();
        self.wish(Wish::Learn { video, chunks, answer }, told).await
    }

    pub(super) async fn learn_deleted(&self, chunk: ChunkId, placement: Placement) -> Result<bool, StoreError> {
        let (answer, told) = oneshot::channel();
        let wish = Wish::LearnDeleted {
            chunk,
            placement,
            answer,
        };
        self.wish(wish, told).await
    }

    async fn wish<T>(&self, wish: Wish, told: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
        // Whether or not its caller waits so long, it is written: as with any call that is not answered.
        let sent = timeout(WAIT_MAX, self.0.send(wish)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Err(unavailable("too many writes wait"));
        }
        match timeout(2 * WAIT_MAX, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(unavailable("the database was closed")),
            Err(_elapsed) => Err(unavailable("a write took too long")),
        }
    }
}

fn unavailable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(why.into())
}

/// The same failure for everybody who waited for a transaction.
fn also(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        other => unavailable(other.to_string()),
    }
}

async fn write_all(writer: SqlitePool, mut wishes: mpsc::Receiver<Wish>) {
    let mut together = Vec::with_capacity(TOGETHER);
    while wishes.recv_many(&mut together, TOGETHER).await > 0 {
        write(&writer, &mut together).await;
    }
}

/// What became of one, to be told once it is synced.
enum Outcome {
    Learn(
        oneshot::Sender<Result<Learned, StoreError>>,
        Result<Learned, StoreError>,
    ),
    LearnDeleted(oneshot::Sender<Result<bool, StoreError>>, Result<bool, StoreError>),
}

impl Outcome {
    /// Whoever does not wait any more is told nothing.
    fn tell(self, committed: Result<(), &StoreError>) {
        match (self, committed) {
            (Self::Learn(answer, outcome), Ok(())) => drop(answer.send(outcome)),
            (Self::Learn(answer, _), Err(error)) => drop(answer.send(Err(also(error)))),
            (Self::LearnDeleted(answer, outcome), Ok(())) => drop(answer.send(outcome)),
            (Self::LearnDeleted(answer, _), Err(error)) => drop(answer.send(Err(also(error)))),
        }
    }
}

impl Wish {
    fn fail(self, error: &StoreError) {
        match self {
            Self::Learn { answer, .. } => drop(answer.send(Err(also(error)))),
            Self::LearnDeleted { answer, .. } => drop(answer.send(Err(also(error)))),
        }
    }
}

async fn write(writer: &SqlitePool, wishes: &mut Vec<Wish>) {
    let mut transaction = match begin_write(writer).await {
        Ok(transaction) => transaction,
        Err(error) => return wishes.drain(..).for_each(|wish| wish.fail(&error)),
    };
    let mut outcomes = Vec::with_capacity(wishes.len());
    let mut broken: Option<StoreError> = None;
    for wish in wishes.drain(..) {
        if let Some(error) = &broken {
            wish.fail(error);
            continue;
        }
        match wish {
            Wish::Learn { video, chunks, answer } => match learn(&mut transaction, video, &chunks).await {
                Ok(outcome) => outcomes.push(Outcome::Learn(answer, outcome)),
                Err(error) => drop(answer.send(Err(also(broken.insert(error))))),
            },
            Wish::LearnDeleted {
                chunk,
                placement,
                answer,
            } => match learn_deleted(&mut transaction, &chunk, placement).await {
                Ok(outcome) => outcomes.push(Outcome::LearnDeleted(answer, outcome)),
                Err(error) => drop(answer.send(Err(also(broken.insert(error))))),
            },
        }
    }
    let committed = match broken {
        // SQLite may have undone everything by itself: what would be written now would stand alone.
        Some(error) => Err(error),
        None => transaction.commit().await.map_err(StoreError::from),
    };
    for outcome in outcomes {
        outcome.tell(committed.as_ref().copied());
    }
}

type Write = Transaction<'static, Sqlite>;
/// What came of one; an error outside means that the transaction cannot be gone on with.
type Tried<T> = Result<Result<T, StoreError>, StoreError>;

async fn learn(transaction: &mut Write, video: VideoId, chunks: &[Chunk]) -> Tried<Learned> {
    run(transaction, "SAVEPOINT one").await?;
    let learned = chunks::learn_all(transaction, video, chunks).await;
    let keeps = matches!(learned, Ok(Learned::Known { .. } | Learned::Closed(_)));
    end(transaction, keeps).await?;
    Ok(learned)
}

async fn learn_deleted(transaction: &mut Write, chunk: &ChunkId, placement: Placement) -> Tried<bool> {
    run(transaction, "SAVEPOINT one").await?;
    let learned = chunks::learn_deleted(transaction, chunk, placement).await;
    end(transaction, learned.is_ok()).await?;
    Ok(learned)
}

/// Keeps or undoes what was written since the savepoint.
async fn end(transaction: &mut Write, keeps: bool) -> Result<(), StoreError> {
    if !keeps {
        run(transaction, "ROLLBACK TO one").await?;
    }
    run(transaction, "RELEASE one").await
}

async fn run(transaction: &mut Write, statement: &'static str) -> Result<(), StoreError> {
    sqlx::query(statement).execute(&mut **transaction).await?;
    Ok(())
}
