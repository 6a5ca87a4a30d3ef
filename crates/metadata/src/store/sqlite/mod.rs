//! The store on SQLite: embedded, in write-ahead mode, every commit synced.
//!
//! One connection writes (`writer`), in transactions that take the write lock at their start: a transaction that read first
//! and then found the lock taken could only fail. Others read, each seeing one consistent state.

mod changes;
mod chunks;
mod damaged;
mod harm;
mod keeping;
mod location;
mod nodes;
mod rows;
mod salvage;
mod videos;
mod writer;

use std::{path::Path, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, Sqlite, SqlitePool, Transaction,
    migrate::MigrateError,
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteQueryResult,
        SqliteSynchronous,
    },
};

use super::{Answer, Store, StoreError};

pub use location::{DatabaseUrl, DatabaseUrlError};
use writer::{Write, Writer};

/// Connections that only read. Queries take milliseconds and the machine is shared with storage nodes.
const READERS: u32 = 4;
/// How long a call waits for a connection or a lock before it gives up.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A store in one file (and its write-ahead log beside it).
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory cannot be made.
    #[error("cannot make the directory of the database")]
    Directory(#[source] std::io::Error),
    /// The file cannot be opened, or is none of SQLite's.
    #[error("cannot open the database")]
    Open(#[source] sqlx::Error),
    /// Its tables cannot be brought to this version's form.
    #[error("cannot migrate the database")]
    Migrate(#[source] MigrateError),
}

impl SqliteStore {
    /// Opens the database at `path`, makes it when it is not there, and brings its tables up to date.
    ///
    /// # Errors
    /// When it cannot be made, opened or migrated.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        if let Some(directory) = path.parent() {
            tokio::fs::create_dir_all(directory)
                .await
                .map_err(OpenError::Directory)?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(WAIT_MAX)
            .foreign_keys(true)
            .disable_statement_logging();
        let pool = || SqlitePoolOptions::new().acquire_timeout(WAIT_MAX);
        let writer = pool()
            .max_connections(1)
            // A transaction that could not be ended, as on a full disk, may have been by SQLite itself, which this
            // connection would never notice: everything after it would fail.
            .after_release(|connection, _| {
                Box::pin(async move {
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
            .connect_with(options.clone())
            .await
            .map_err(OpenError::Open)?;
        sqlx::migrate!().run(&writer).await.map_err(OpenError::Migrate)?;
        let readers = pool()
            .max_connections(READERS)
            .connect_with(options.create_if_missing(false).read_only(true))
            .await
            .map_err(OpenError::Open)?;
        Ok(Self {
            writer: Writer::new(writer),
            readers,
        })
    }

    /// Closes every connection once its query is done, and folds the log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Works in a task of its own: else who is kept from going on by somebody who waits for a connection would hold the one
    /// that is waited for.
    fn apart<T, F>(&self, work: impl FnOnce(Self) -> F) -> Answer<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let work = work(self.clone());
        Box::pin(async move {
            let done = tokio::spawn(work).await;
            done.unwrap_or_else(|broken| Err(StoreError::Unavailable(broken.into())))
        })
    }

    async fn write(&self) -> Result<Write, StoreError> {
        self.writer.begin().await
    }

    /// Writes by one statement.
    async fn run(&self, statement: Query<'_, Sqlite, SqliteArguments>) -> Result<SqliteQueryResult, StoreError> {
        let mut transaction = self.write().await?;
        let done = statement.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done)
    }

    async fn read(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.readers.begin().await?)
    }
}

impl Store for SqliteStore {
    fn ping(&self) -> Answer<'_, ()> {
        self.apart(|store| async move {
            sqlx::query("SELECT 1").execute(&store.readers).await?;
            Ok(())
        })
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { index, source } => Self::Unreadable {
                what: "column",
                found: format!("{index}: {source}"),
            },
            // SQLITE_FULL.
            sqlx::Error::Database(error) if error.code().as_deref() == Some("13") => Self::Full,
            error => Self::Unavailable(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::VideoId;

    use super::*;
    use crate::store::Videos as _;

    /// As whoever does several things at once in one task, and waits for another thing in between.
    #[tokio::test]
    async fn who_is_kept_from_going_on_holds_up_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("db")).await.expect("it opens");
        let id = VideoId::random();
        let mut writes: Vec<_> = (0..3).map(|_| store.count_view(id)).collect();
        let mut reads: Vec<_> = (0..2 * READERS).map(|_| store.video(id)).collect();
        for _ in 0..100 {
            for write in &mut writes {
                drop(futures_util::poll!(write));
            }
            for read in &mut reads {
                drop(futures_util::poll!(read));
            }
            let held = |connections: &SqlitePool| connections.size() as usize > connections.num_idle();
            if held(&store.readers) {
                break;
            }
            tokio::task::yield_now().await;
        }
        // None of those is asked to go on meanwhile.
        assert!(!store.count_view(id).await.expect("it is written"));
        assert!(store.video(id).await.expect("it is read").is_none());
        drop((writes, reads));
        store.close().await;
    }

    /// As on a disk without a byte left, where SQLite undoes a transaction by itself.
    #[tokio::test]
    async fn a_transaction_that_ended_behind_its_back_stops_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("db")).await.expect("it opens");
        for commits in [true, false] {
            let mut transaction = store.write().await.expect("it begins");
            sqlx::query("ROLLBACK")
                .execute(&mut *transaction)
                .await
                .expect("it is over");
            if commits {
                transaction.commit().await.expect_err("there is nothing to commit");
            } else {
                drop(transaction);
            }
            let again = store.write().await.expect("another one begins");
            again.commit().await.expect("and ends");
        }
        store.close().await;
    }
}
