//! The connection that writes. Whoever waits for it shares a sync with the others who wait: a sync costs the same for one as
//! for a hundred, and on a busy disk it takes so long that a hundred have come meanwhile.
//!
//! Those who wait have their turns one after the other in one transaction, each in a savepoint of its own, so that what is
//! wrong with one undoes that one alone. Behind those who waited when the transaction began, its end waits for a turn: then
//! it is committed, and everybody is answered.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, oneshot},
    time::timeout,
};

use super::WAIT_MAX;
use crate::store::StoreError;

/// Who writes.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    /// One connection.
    pool: SqlitePool,
    /// Turns are taken in the order in which they were asked for.
    turn: Arc<Mutex<Option<Group>>>,
}

/// A transaction that several share.
#[derive(Debug)]
struct Group {
    transaction: Transaction<'static, Sqlite>,
    /// Somebody began and did not end yet: whoever has the turn himself, or somebody who gave up.
    is_open: bool,
    /// Those who are through, and wait for the sync.
    through: Vec<oneshot::Sender<Result<(), StoreError>>>,
}

impl Group {
    async fn run(&mut self, statement: &'static str) -> Result<(), StoreError> {
        sqlx::query(statement).execute(&mut *self.transaction).await?;
        Ok(())
    }

    /// Undoes what somebody left who gave up.
    async fn tidy(&mut self) -> Result<(), StoreError> {
        if self.is_open {
            self.run("ROLLBACK TO one").await?;
            self.run("RELEASE one").await?;
            self.is_open = false;
        }
        Ok(())
    }

    async fn begin_one(&mut self) -> Result<(), StoreError> {
        self.tidy().await?;
        self.run("SAVEPOINT one").await?;
        self.is_open = true;
        Ok(())
    }

    async fn commit(mut self) {
        let committed = match self.tidy().await {
            Ok(()) => self.transaction.commit().await.map_err(StoreError::from),
            Err(error) => Err(error),
        };
        tell(self.through, committed.as_ref().copied());
    }

    /// SQLite may have undone everything by itself, as on a full disk: what would be written now would stand alone.
    fn fail(self, error: &StoreError) {
        tell(self.through, Err(error));
    }
}

/// Whoever does not wait any more is told nothing.
fn tell(through: Vec<oneshot::Sender<Result<(), StoreError>>>, committed: Result<(), &StoreError>) {
    for one in through {
        drop(one.send(committed.map_err(also)));
    }
}

/// The same failure for everybody who shared a transaction.
fn also(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        other => unavailable(other.to_string()),
    }
}

fn unavailable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unavailable(why.into())
}

/// Somebody's turn. What is written is undone unless it is committed.
pub(super) struct Write {
    turn: OwnedMutexGuard<Option<Group>>,
}

impl Writer {
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self {
            pool,
            turn: Arc::default(),
        }
    }

    /// Waits for a turn.
    pub(super) async fn begin(&self) -> Result<Write, StoreError> {
        let turn = timeout(WAIT_MAX, Arc::clone(&self.turn).lock_owned()).await;
        let mut turn = turn.map_err(|_elapsed| unavailable("too many writes wait"))?;
        if let Some(mut group) = turn.take() {
            match group.begin_one().await {
                Ok(()) => {
                    *turn = Some(group);
                    return Ok(Write { turn });
                }
                Err(error) => group.fail(&error),
            }
        }
        let mut group = Group {
            transaction: self.pool.begin_with("BEGIN IMMEDIATE").await?,
            is_open: false,
            through: Vec::new(),
        };
        group.begin_one().await?;
        *turn = Some(group);
        tokio::spawn(commit(Arc::clone(&self.turn)));
        Ok(Write { turn })
    }

    /// Ends what was begun, and lets nobody write any more.
    pub(super) async fn close(&self) {
        commit(Arc::clone(&self.turn)).await;
        self.pool.close().await;
    }
}

/// Commits what is shared, after those who wait for their turn now.
async fn commit(turn: Arc<Mutex<Option<Group>>>) {
    let mut turn = turn.lock_owned().await;
    if let Some(group) = turn.take() {
        group.commit().await;
    }
}

impl Write {
    /// Keeps what was written, and waits until it is synced. Whether or not the caller waits so long, it is.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        let Some(mut group) = self.turn.take() else {
            return Err(unavailable("the transaction is over"));
        };
        if let Err(error) = group.run("RELEASE one").await {
            group.fail(&error);
            return Err(error);
        }
        group.is_open = false;
        let (sender, told) = oneshot::channel();
        group.through.push(sender);
        *self.turn = Some(group);
        drop(self);
        match timeout(2 * WAIT_MAX, told).await {
            Ok(Ok(committed)) => committed,
            Ok(Err(_dropped)) => Err(unavailable("the database was closed")),
            Err(_elapsed) => Err(unavailable("a write took too long")),
        }
    }
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        let group = self.turn.as_ref();
        &group
            .expect("there is one until it is committed, which takes this away")
            .transaction
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        let group = self.turn.as_mut();
        &mut group
            .expect("there is one until it is committed, which takes this away")
            .transaction
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::store::SqliteStore;

    async fn opened(directory: &Path) -> SqliteStore {
        let store = SqliteStore::open(&directory.join("db")).await.expect("it opens");
        let mut made = store.write().await.expect("a turn");
        run(&mut made, "CREATE TABLE told (number INTEGER PRIMARY KEY)")
            .await
            .expect("a table");
        made.commit().await.expect("it is made");
        store
    }

    async fn run(connection: &mut SqliteConnection, statement: &str) -> Result<(), sqlx::Error> {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement).execute(connection).await.map(|_done| ())
    }

    async fn tell(write: &mut Write, number: u32) -> Result<(), sqlx::Error> {
        run(write, &format!("INSERT INTO told VALUES ({number})")).await
    }

    async fn told(store: &SqliteStore) -> Vec<u32> {
        let told = sqlx::query_scalar("SELECT number FROM told ORDER BY number");
        told.fetch_all(&store.readers).await.expect("they are read")
    }

    /// Commits in the write-ahead log: the frames that say how long the database is then.
    /// <https://www.sqlite.org/fileformat2.html#walformat>
    fn commits(directory: &Path) -> usize {
        let log = std::fs::read(directory.join("db-wal")).expect("it is read");
        let page = u32::from_be_bytes(log[8..12].try_into().expect("four bytes")) as usize;
        let frames = log[32..].chunks_exact(24 + page);
        frames.filter(|frame| frame[4..8] != [0; 4]).count()
    }

    fn holds(store: &SqliteStore) -> usize {
        Arc::strong_count(&store.writer.turn)
    }

    /// Waits until so many more wait for a turn: each has a store, and what it waits for.
    async fn until_queued(store: &SqliteStore, before: usize, writers: usize) {
        while holds(store) < before + 2 * writers {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_who_wait_share_a_sync() {
        const WRITERS: u32 = 20;
        let directory = tempfile::tempdir().expect("a directory");
        let store = opened(directory.path()).await;
        let before = commits(directory.path());
        let first = store.write().await.expect("a turn");
        let held = holds(&store);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut write = store.write().await?;
                    tell(&mut write, number).await?;
                    write.commit().await
                })
            })
            .collect();
        until_queued(&store, held, WRITERS as usize).await;
        drop(first);
        for writer in writers {
            writer.await.expect("it ends").expect("it is written");
        }
        assert_eq!(told(&store).await, (0..WRITERS).collect::<Vec<_>>());
        let synced = commits(directory.path()) - before;
        assert!(synced <= 3, "{synced} syncs for {WRITERS} who waited at once");
        store.close().await;
    }

    #[tokio::test]
    async fn what_is_wrong_with_one_undoes_that_one_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = opened(directory.path()).await;
        let mut first = store.write().await.expect("a turn");
        tell(&mut first, 1).await.expect("it is new");
        let first = tokio::spawn(first.commit());

        let mut second = store.write().await.expect("a turn");
        tell(&mut second, 2).await.expect("it is new");
        tell(&mut second, 2).await.expect_err("it is there");
        drop(second);

        let mut third = store.write().await.expect("a turn");
        tell(&mut third, 3).await.expect("it is new");
        third.commit().await.expect("it is written");
        first.await.expect("it ends").expect("it is written");
        assert_eq!(told(&store).await, [1, 3]);
        store.close().await;
    }

    #[tokio::test]
    async fn nobody_is_told_that_something_is_written_which_the_database_undid() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = opened(directory.path()).await;
        let first = store.write().await.expect("a turn");
        let held = holds(&store);
        let shares = |number| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut write = store.write().await?;
                tell(&mut write, number).await?;
                if number == 2 {
                    // As on a disk without a byte left, where SQLite does so itself.
                    run(&mut write, "ROLLBACK").await?;
                }
                write.commit().await
            })
        };
        let (one, two) = (shares(1), shares(2));
        until_queued(&store, held, 2).await;
        drop(first);
        let (one, two) = (one.await.expect("it ends"), two.await.expect("it ends"));
        two.expect_err("it was undone");
        let there = told(&store).await;
        one.expect_err("it shared what was undone");
        assert!(there.is_empty(), "{there:?}");

        let mut again = store.write().await.expect("a turn");
        tell(&mut again, 3).await.expect("it is new");
        again.commit().await.expect("it is written");
        assert_eq!(told(&store).await, [3]);
        store.close().await;
    }
}
