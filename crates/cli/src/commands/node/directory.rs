//! The data directory that a tool works on, and how what was found in it is told.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use vstack_engine::{
    CheckpointSeen, Damage, Depth, Engine, FileDisk, Look, LookError, OpenError, OpenReport, StoreOptions, has_claim,
    holds_data,
};
use vstack_types::{Digest, SystemClock};

use crate::output::{bytes, out};

/// Exit code when what was asked was done, and damage was found.
pub const DAMAGE_FOUND: u8 = 3;

/// Which directory, and how to report.
#[derive(Debug, Clone, clap::Args)]
pub struct Directory {
    /// The node's data directory (DATA_DIR). The node must not run.
    #[arg(value_name = "DATA_DIR")]
    pub data_dir: PathBuf,
    /// Report as JSON on stdout.
    #[arg(long)]
    pub json: bool,
    /// Bytes of a superblock file, as the node is told: of those that are made, and by which it is judged whether one is
    /// worth emptying.
    #[arg(long, env = "MAX_SUPERBLOCK_SIZE", default_value_t = 1 << 30, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(8 << 20..=u64::from(u32::MAX)))]
    pub max_superblock_size: u64,
}

impl Directory {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.data_dir
    }

    fn there(&self) -> anyhow::Result<()> {
        let path = self.path();
        anyhow::ensure!(path.is_dir(), "{} is no directory", path.display());
        Ok(())
    }

    /// Reads it and changes nothing. Blocks on the disk.
    pub fn look(&self, depth: Depth) -> anyhow::Result<Look<FileDisk>> {
        self.there()?;
        let disk = FileDisk::as_it_is(self.path());
        Look::at(disk, depth, self.max_superblock_size).map_err(|error| self.plain(error))
    }

    /// Opens it as a node does, so that it can be written to. Blocks on the disk.
    ///
    /// A disk that registers claims its log first, as at every start: should it have gone back in time, it is still known
    /// by that after what is written now.
    pub fn open(&self) -> anyhow::Result<Engine> {
        self.there()?;
        let unusable = || format!("{} cannot be used", self.path().display());
        let disk = FileDisk::new(self.path()).with_context(unusable)?;
        if !holds_data(&disk).with_context(unusable)? {
            return Err(self.plain(LookError::NoDisk));
        }
        let options = StoreOptions {
            superblock_bytes: self.max_superblock_size,
            claims: has_claim(&disk).with_context(unusable)?,
            ..StoreOptions::new()
        };
        let clock = std::sync::Arc::new(SystemClock::start());
        Engine::open(disk, options, clock).map_err(|error| self.plain(error.into()))
    }

    fn plain(&self, error: LookError) -> anyhow::Error {
        let place = self.path().display();
        match error {
            LookError::Open(OpenError::Locked) => anyhow::anyhow!("{place} is in use: stop the node first"),
            error => anyhow::Error::new(error).context(format!("{place} cannot be used")),
        }
    }
}

/// What opening found, a line each.
pub fn damage_lines(report: &OpenReport) -> Vec<String> {
    let mut lines: Vec<String> = report.damage.iter().map(damage).collect();
    if let Some(why) = &report.checkpoint_refused {
        lines.push(format!("checkpoint: {why}"));
    }
    if report.unreadable {
        lines.push("the disk did not give everything that was asked for".to_owned());
    }
    lines
}

pub fn damage(damage: &Damage) -> String {
    match damage {
        Damage::Superblock { number } => format!("superblock {number} cannot be read"),
        Damage::Head { number } => format!("one of the two heads of superblock {number}"),
        Damage::Stretch { superblock, from, to } => format!("superblock {superblock}, bytes {from} to {to}"),
        Damage::Item { id, sha256 } => damaged_chunk(id.as_str(), sha256),
        Damage::Votes { first_lsn, last_lsn } => format!("records {first_lsn} to {last_lsn} of the log, votes perhaps"),
    }
}

pub fn damaged_chunk(id: &str, sha256: &Digest) -> String {
    format!("chunk {id}, SHA-256 {sha256}")
}

pub fn checkpoint(seen: &CheckpointSeen) -> String {
    match seen {
        CheckpointSeen::Absent => "none: a start reads everything".to_owned(),
        CheckpointSeen::UpTo(log_seq) => format!("up to record {log_seq}"),
        CheckpointSeen::Refused(why) => format!("of no use, a start reads everything: {why}"),
    }
}

pub fn show_torn(torn_bytes: u64) {
    if torn_bytes > 0 {
        out!(
            "torn tail   {}: a write that was cut off, and that nobody was told was done; the next start cuts it",
            bytes(torn_bytes)
        );
    }
}

/// What was found before.
pub fn show_quarantined(chunks: u64) {
    if chunks > 0 {
        out!("quarantined {chunks} chunks, served no more until good copies come in their place");
    }
}

/// Lines of damage, or that there is none.
pub fn show_damage(lines: &[String]) {
    if lines.is_empty() {
        out!("No damage found.");
    }
    for line in lines {
        out!("damage: {line}");
    }
}

/// A bar on stderr, where that is a terminal.
pub fn bar(what: &str, total: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:12} {bar:30} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta}");
    let bar = ProgressBar::new(total).with_message(what.to_owned());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
