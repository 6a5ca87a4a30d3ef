//! Work that may wait for the disk, on a thread that may wait.

use std::io;

/// Where such work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Where it is asked for: one thread does everything, and the disk never waits.
    Here,
    /// On one of tokio's blocking threads.
    OnAThread,
}

impl Waits {
    /// Does `work`.
    ///
    /// # Errors
    /// When it panics, or the process stops before it begins.
    pub(crate) async fn aside<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        match self {
            Self::Here => Ok(work()),
            Self::OnAThread => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
        }
    }
}
