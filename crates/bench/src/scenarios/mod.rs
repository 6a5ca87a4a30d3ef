//! What is measured, a file for each.

mod census;
mod coding;
mod cold;
mod commit;
mod consensus;
mod contenders;
mod degraded;
mod failover;
mod get;
mod gets;
mod idle;
mod ingest;
mod mixed;
mod overhead;
mod paced;
mod put;
mod range;
mod reclaim;
mod restart;
mod scrub;
mod startup;

use std::{path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{disk, report::Section};

/// A superblock prepared ahead, and as much again.
const FREE_BYTES_SMOKE_MAX: u64 = 2 << 30;

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
    /// What `restart` and `census` fill nodes with, when it was said.
    pub chunks: Option<u32>,
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

    /// Fails unless so much is free where data goes; a run that is to show that it works gets along with less.
    pub fn require_free(&self, bytes: u64) -> anyhow::Result<()> {
        let bytes = match self.length {
            Length::Smoke => bytes.min(FREE_BYTES_SMOKE_MAX),
            Length::Full | Length::Quick => bytes,
        };
        disk::require_free(&self.directory, bytes)
    }

    /// Length of one round of a load.
    pub const fn round(&self) -> Duration {
        match self.length {
            Length::Full => Duration::from_secs(4),
            Length::Quick => Duration::from_millis(1500),
            Length::Smoke => Duration::from_millis(200),
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
    /// Cold GET from one node, beside nginx.
    Cold,
    /// GET of parts of hot chunks, beside nginx.
    Range,
    /// Latency of hot GETs at a set rate, beside nginx.
    Paced,
    /// Nine GETs for every PUT, beside nginx.
    Mixed,
    /// Time to start with many chunks, and memory of the index.
    Restart,
    /// What readers notice while space is given back.
    Reclaim,
    /// What readers notice of scrub.
    Scrub,
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
    /// Counting what many chunks on five nodes come to.
    Census,
    /// Reed-Solomon of a chunk, beside ISA-L and other crates.
    Coding,
    /// Reading chunks in shards: whole, with two nodes dead, and with one slow.
    Degraded,
    /// What a library in shards takes of the disk, beside three copies.
    Overhead,
}

impl Scenario {
    /// The program that has to be installed to be measured beside.
    pub const fn peer(self) -> Option<&'static str> {
        match self {
            Self::Put => Some("fio"),
            Self::Get | Self::Cold | Self::Range | Self::Paced | Self::Mixed => Some("nginx"),
            Self::Idle
            | Self::Restart
            | Self::Reclaim
            | Self::Scrub
            | Self::Commit
            | Self::Consensus
            | Self::Startup
            | Self::Failover
            | Self::Ingest
            | Self::Census
            | Self::Coding
            | Self::Degraded
            | Self::Overhead => None,
        }
    }

    /// Measures.
    ///
    /// # Errors
    /// When it could not be measured. A target missed is no error.
    pub async fn run(self, bench: &Bench) -> anyhow::Result<Section> {
        match self {
            Self::Idle => Box::pin(idle::run(bench)).await,
            Self::Put => Box::pin(put::run(bench)).await,
            Self::Get => Box::pin(get::run(bench)).await,
            Self::Cold => Box::pin(cold::run(bench)).await,
            Self::Range => Box::pin(range::run(bench)).await,
            Self::Paced => Box::pin(paced::run(bench)).await,
            Self::Mixed => Box::pin(mixed::run(bench)).await,
            Self::Restart => Box::pin(restart::run(bench)).await,
            Self::Reclaim => Box::pin(reclaim::run(bench)).await,
            Self::Scrub => Box::pin(scrub::run(bench)).await,
            Self::Commit => Box::pin(commit::run(bench)).await,
            Self::Consensus => Box::pin(consensus::run(bench)).await,
            Self::Startup => Box::pin(startup::run(bench)).await,
            Self::Failover => Box::pin(failover::run(bench)).await,
            Self::Ingest => Box::pin(ingest::run(bench)).await,
            Self::Census => Box::pin(census::run(bench)).await,
            Self::Coding => Box::pin(coding::run(bench)).await,
            Self::Degraded => Box::pin(degraded::run(bench)).await,
            Self::Overhead => Box::pin(overhead::run(bench)).await,
        }
    }
}
