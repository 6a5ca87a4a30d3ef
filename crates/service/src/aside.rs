//! Work that may wait for a disk, beside the tasks that may not.

use std::io;

use vstack_types::ambient;

/// Does `work` on a thread that may wait; in a simulation, which has one thread and disks that do not wait, at once.
///
/// # Errors
/// When it panics, or the process stops before it begins.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if ambient::is_simulated() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
