//! `vstack node`: tools for one storage node's data directory, used while the node does not run.
//!
//! `inspect` and `verify` change nothing at all. The others open it as a node does; each can be ended at any moment and
//! loses nothing.

mod adopt;
mod compact;
mod directory;
mod inspect;
mod scrub;
mod verify;

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use vstack_engine::{Engine, Reader};

pub use self::adopt::run as adopt;
use crate::output::say;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what a data directory holds, without changing anything.
    ///
    /// The identity, superblocks and what they take, chunks, registers, the checkpoint, and the damage that a start would
    /// find.
    Inspect(inspect::Options),
    /// Read everything and compare every digest and checksum, without changing anything.
    ///
    /// Exit code 0: no damage; 3: damage was found. A write that was cut off at the end of the log is no damage.
    Verify(verify::Options),
    /// Read everything, quarantine what is damaged, mend what has another copy.
    ///
    /// Exit code 0: no damage; 3: damage was found.
    Scrub(scrub::Options),
    /// Give space back: empty the superblocks of which little is wanted.
    ///
    /// Exit code 3: a superblock stayed because something in it is damaged.
    Compact(compact::Options),
    /// Give a data directory a new identity: its chunks are kept, its votes are not.
    ///
    /// For a directory that has forgotten votes: a restored snapshot or a copy, one whose identity is lost, one in
    /// which records of votes are damaged. Under its old name it must never vote again; under a new one it is a new
    /// disk that has the chunks already.
    Adopt(adopt::Adopt),
}

/// Runs it until it is done or told to stop. What asks a person is run outside of any runtime: see [`adopt()`].
pub async fn run(command: Command, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    match command {
        Command::Inspect(options) => inspect::run(options, stop).await,
        Command::Verify(options) => verify::run(options, stop).await,
        Command::Scrub(options) => scrub::run(options, stop).await,
        Command::Compact(options) => compact::run(options, stop).await,
        Command::Adopt(options) => adopt(&options),
    }
}

/// What is said of work that was ended early. What was done of it stays, and what was not is as it was.
fn say_interrupted(how_far: &str) {
    say!("interrupted {how_far}: nothing is lost; run it again for the rest");
}

/// Blocking work that ends with the process when it is told to stop; none then.
async fn aside<T: Send + 'static>(
    stop: &CancellationToken,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => {
            say_interrupted("while the log was being read");
            Ok(None)
        }
        done = tokio::task::spawn_blocking(work) => done?.map(Some),
    }
}

/// Writes the index down, so that the node starts fast, and closes the directory.
async fn close(engine: &Engine) {
    if !engine.is_failed()
        && let Err(error) = engine.look_aside(Reader::write_checkpoint).await.flatten()
    {
        say!("warning: the index could not be written down, the next start reads more: {error}");
    }
    engine.close().await;
}
