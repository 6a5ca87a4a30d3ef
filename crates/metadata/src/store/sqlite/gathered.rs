//! Changes that come one by one, written many at a time: a sync costs the same for one as for a hundred, and on a busy disk
//! it takes so long that a hundred have come meanwhile. These are what comes all the time: decisions about chunks, signs of
//! life of nodes and uploaders, and views.
//!
//! Whoever comes while a transaction is written waits for the next, which takes all who wait. Each is answered once its
//! own changes are synced, and what is wrong with one undoes that one alone.

use futures_util::future::BoxFuture;
use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use vstack_chunkpaxos::Placement;
use vstack_types::{ChunkId, ProcessUuid, Timestamp, VideoId};

use super::{WAIT_MAX, begin_write, chunks, nodes, videos};
use crate::store::{Chunk, Learned, Node, NodeBeat, StoreError};

/// Written in one transaction at most.
const TOGETHER: usize = 256;
/// That wait for one at most; more wait for room, as long as for a connection.
const WAITING_MAX: usize = 1_024;
/// A transaction is given up when the connection that writes was awaited so many times as long as by anybody else: a hundred
/// would fail at once because somebody syncs for long, and whoever waits for it waits for as long himself.
const PATIENCE: u32 = 2;

type Write = Transaction<'static, Sqlite>;

/// What somebody wants written.
trait Change: Send + Sync + 'static {
    /// What comes of it.
    type Done: Send + 'static;

    fn write<'w>(&'w self, transaction: &'w mut Write) -> BoxFuture<'w, Result<Self::Done, StoreError>>;

    /// Whether what was written is to stay.
    fn stays(_done: &Self::Done) -> bool {
        true
    }
}

struct Learn {
    video: VideoId,
    chunks: Vec<Chunk>,
}

impl Change for Learn {
    type Done = Learned;

    fn write<'w>(&'w self, transaction: &'w mut Write) -> BoxFuture<'w, Result<Learned, StoreError>> {
        Box::pin(chunks::learn_all(transaction, self.video, &self.chunks))
    }

    fn stays(learned: &Learned) -> bool {
        matches!(learned, Learned::Known { .. } | Learned::Closed(_))
    }
}

struct LearnDeleted {
    chunk: ChunkId,
    placement: Placement,
}

impl Change for LearnDeleted {
    type Done = bool;

    fn write<'w>(&'w self, transaction: &'w mut Write) -> BoxFuture<'w, Result<bool, StoreError>> {
        Box::pin(chunks::learn_deleted(transaction, &self.chunk, self.placement.clone()))
    }
}

struct Beat {
    label: String,
    beat: NodeBeat,
}

impl Change for Beat {
    type Done = Option<Node>;

    fn write<'w>(&'w self, transaction: &'w mut Write) -> BoxFuture<'w, Result<Option<Node>, StoreError>> {
        Box::pin(nodes::note_beat(transaction, &self.label, &self.beat))
    }
}

struct View(VideoId);

impl Change for View {
    type Done = bool;

    fn write<'w>(&'w self, transaction: &'w mut Write) -> BoxFuture<'w, Result<bool, StoreError>> {
        Box::pin(videos::note_view(transaction, self.0))
    }
}

struct OwnerAlive {
    owner: ProcessUuid,
    videos: Vec<VideoId>,
    at: Timestamp,
}

impl Change for OwnerAlive {
    type Done = ();

    fn write<'w>(&'w self, transaction: &'w mut Write) -> BoxFuture<'w, Result<(), StoreError>> {
        Box::pin(videos::note_owner(transaction, self.owner, &self.videos, self.at))
    }
}

/// A change, and where somebody waits for what comes of it.
struct Waiting<C: Change> {
    change: C,
    /// None before it was written.
    done: Option<Result<C::Done, StoreError>>,
    answer: oneshot::Sender<Result<C::Done, StoreError>>,
}

/// The same, whichever change it is.
trait Wish: Send {
    /// Writes it, or undoes what it wrote. An error means that the transaction cannot be gone on with.
    fn write<'w>(&'w mut self, transaction: &'w mut Write) -> BoxFuture<'w, Result<(), StoreError>>;

    /// Once it is synced, or will never be. Whoever does not wait any more is told nothing.
    fn tell(self: Box<Self>, committed: Result<(), &StoreError>);
}

impl<C: Change> Wish for Waiting<C> {
    fn write<'w>(&'w mut self, transaction: &'w mut Write) -> BoxFuture<'w, Result<(), StoreError>> {
        Box::pin(async move {
            run(transaction, "SAVEPOINT one").await?;
            let done = self.change.write(transaction).await;
            let stays = done.as_ref().is_ok_and(C::stays);
            if !stays {
                run(transaction, "ROLLBACK TO one").await?;
            }
            run(transaction, "RELEASE one").await?;
            self.done = Some(done);
            Ok(())
        })
    }

    fn tell(self: Box<Self>, committed: Result<(), &StoreError>) {
        let Self { done, answer, .. } = *self;
        let outcome = match committed {
            Ok(()) => done.unwrap_or_else(|| Err(unavailable("it was not written"))),
            Err(error) => Err(also(error)),
        };
        drop(answer.send(outcome));
    }
}

/// Writes what everybody wishes.
#[derive(Debug, Clone)]
pub(super) struct Gathered(mpsc::Sender<Box<dyn Wish>>);

impl Gathered {
    /// Works until nobody can wish anything any more.
    pub(super) fn start(writer: SqlitePool) -> Self {
        let (sender, wishes) = mpsc::channel(WAITING_MAX);
        tokio::spawn(write_all(writer, wishes));
        Self(sender)
    }

    pub(super) async fn learn(&self, video: VideoId, chunks: Vec<Chunk>) -> Result<Learned, StoreError> {
        self.wish(Learn { video, chunks }).await
    }

    pub(super) async fn learn_deleted(&self, chunk: ChunkId, placement: Placement) -> Result<bool, StoreError> {
        self.wish(LearnDeleted { chunk, placement }).await
    }

    pub(super) async fn beat(&self, label: String, beat: NodeBeat) -> Result<Option<Node>, StoreError> {
        self.wish(Beat { label, beat }).await
    }

    pub(super) async fn view(&self, video: VideoId) -> Result<bool, StoreError> {
        self.wish(View(video)).await
    }

    pub(super) async fn owner_alive(
        &self,
        owner: ProcessUuid,
        videos: Vec<VideoId>,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.wish(OwnerAlive { owner, videos, at }).await
    }

    async fn wish<C: Change>(&self, change: C) -> Result<C::Done, StoreError> {
        let (answer, told) = oneshot::channel();
        let wish = Box::new(Waiting {
            change,
            done: None,
            answer,
        });
        // Whether or not its caller waits so long, it is written: as with any call that is not answered.
        let sent = timeout(WAIT_MAX, self.0.send(wish)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Err(unavailable("too many writes wait"));
        }
        match timeout(PATIENCE * WAIT_MAX, told).await {
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

async fn write_all(writer: SqlitePool, mut wishes: mpsc::Receiver<Box<dyn Wish>>) {
    let mut together = Vec::with_capacity(TOGETHER);
    while wishes.recv_many(&mut together, TOGETHER).await > 0 {
        let written = write(&writer, &mut together).await;
        for wish in together.drain(..) {
            wish.tell(written.as_ref().copied());
        }
    }
}

/// In one transaction, all or none. Where one cannot be gone on with, SQLite may have undone everything by itself: what would
/// be written then would stand alone.
async fn write(writer: &SqlitePool, wishes: &mut [Box<dyn Wish>]) -> Result<(), StoreError> {
    let mut transaction = begin(writer).await?;
    for wish in wishes {
        wish.write(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn begin(writer: &SqlitePool) -> Result<Write, StoreError> {
    for _ in 1..PATIENCE {
        match writer.begin_with("BEGIN IMMEDIATE").await {
            Err(sqlx::Error::PoolTimedOut) => {}
            begun => return Ok(begun?),
        }
    }
    begin_write(writer).await
}

async fn run(transaction: &mut Write, statement: &'static str) -> Result<(), StoreError> {
    sqlx::query(statement).execute(&mut **transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join_all};
    use sqlx::Row as _;
    use tokio::task::unconstrained;

    use super::*;
    use crate::store::{NewVideo, SqliteStore, Videos as _};

    /// On a disk that syncs for seconds nobody waits for a sync of each.
    #[tokio::test]
    async fn views_that_wait_for_the_same_sync_share_it() {
        const VIEWS: usize = 200;
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("db")).await.expect("it opens");
        let id = VideoId::from_bytes([1; 16]);
        let video = NewVideo {
            id,
            title: "film".to_owned(),
            duration_sec: 0.0,
            owner: None,
            override_mode: None,
            created_at: Timestamp(0),
        };
        store.create_video(video).await.expect("it is created");
        // Pages that are in the log: each transaction adds those that it changed.
        let logged = async |how: &'static str| {
            let row = sqlx::query(how)
                .fetch_one(&store.writer)
                .await
                .expect("it is looked at");
            row.try_get::<i64, _>(1).expect("how many")
        };
        logged("PRAGMA wal_checkpoint(TRUNCATE)").await;
        let mut views: Vec<_> = (0..VIEWS).map(|_| store.count_view(id)).collect();
        for view in &mut views {
            assert!(unconstrained(view).now_or_never().is_none(), "it waits");
        }
        for counted in join_all(views).await {
            assert!(counted.expect("it is counted"));
        }
        let video = store.video(id).await.expect("it is read").expect("it is there");
        assert_eq!(video.view_count, VIEWS as u64);
        let pages = logged("PRAGMA wal_checkpoint(PASSIVE)").await;
        assert!(pages < 100, "{pages} pages for {VIEWS} views");
        store.close().await;
    }
}
