//! What is measured, a file for each.

mod commit;
mod consensus;
mod failover;
mod get;
mod idle;
mod ingest;
mod put;
mod startup;

use std::{path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::report::Section;

/// How long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// As long as it takes to be quoted.
    Full,
    /// Shorter rounds and smaller files.
    Quick,
    /// To see that it works.
    Smoke,
}

/// What every scenario is given.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The program measured.
    pub binary: PathBuf,
    /// Where data goes; removed at the end.
    pub directory: PathBuf,
    /// Of rounds, and size of files.
    pub length: Length,
    /// Cancelled by Ctrl-C, for work that cannot be dropped.
    pub stop: CancellationToken,
}

impl Bench {
    /// Rounds of everything that is alternated.
    pub const ROUNDS: usize = 3;

    /// Shorter rounds and smaller files.
    pub const fn quick(&self) -> bool {
        !matches!(self.length, Length::Full)
    }

    /// Length of one round of a load.
    pub const fn round(&self) -> Duration {
        if self.quick() {
            Duration::from_millis(1500)
        } else {
            Duration::from_secs(4)
        }
    }
}

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Memory of `vstack up` with nothing to do.
    Idle,
    /// Durable PUT to one node, beside the disk itself and the processor's ceiling.
    Put,
    /// Hot GET from one node, beside nginx.
    Get,
    /// Committed chunks on three nodes.
    Commit,
    /// ChunkPaxos beside textbook Paxos and a Raft log.
    Consensus,
    /// Time until a video plays.
    Startup,
    /// Time until another node gives what a dead one does not.
    Failover,
    /// Upload of a large file, beside copying it by hand.
    Ingest,
}

impl Scenario {
    /// Measures.
    ///
    /// # Errors
    /// When it could not be measured. A target missed is no error.
    pub async fn run(self, bench: &Bench) -> anyhow::Result<Section> {
        match self {
            Self::Idle => Box::pin(idle::run(bench)).await,
            Self::Put => Box::pin(put::run(bench)).await,
            Self::Get => Box::pin(get::run(bench)).await,
            Self::Commit => Box::pin(commit::run(bench)).await,
            Self::Consensus => Box::pin(consensus::run(bench)).await,
            Self::Startup => Box::pin(startup::run(bench)).await,
            Self::Failover => Box::pin(failover::run(bench)).await,
            Self::Ingest => Box::pin(ingest::run(bench)).await,
        }
    }
}
