//! What nodes take of the disk once nothing more comes back: by `du`, as they count it, and where it goes.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::COLLECTED_WITHIN;
use crate::{
    bare_cluster::BareCluster,
    disk,
    engine_names::{ALLOCATED_BYTES, ITEM_BYTES, LIVE_BYTES, SUPERBLOCK_PREFIX},
    films::Film,
    page_cache::files_below,
    process::{command, run as run_command},
};

/// Until what is taken of the disk stays the same.
const SETTLED_WITHIN: Duration = Duration::from_secs(1_800);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const PAGE: u64 = 4096;

/// What nodes hold, and what that takes, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Of chunks and init segments, each counted once.
    pub(super) library: f64,
    /// Of the nodes' data directories, by `du`.
    pub(super) du: f64,
    /// Of their superblocks, as they count them.
    pub(super) allocated: f64,
    /// Of items.
    pub(super) items: f64,
    /// Of records that are wanted.
    pub(super) live: f64,
    /// Of the disk, at the ends of their logs, not written to yet.
    pub(super) unwritten: f64,
    /// That decisions place, as the metadata service tells.
    pub(super) placed: f64,
}

impl Taken {
    /// Bytes of the disk for one of the library.
    pub(super) fn ratio(&self) -> f64 {
        self.du / self.library
    }
}

/// Looks at what is taken once nodes hold these items and no more, and what they take stays the same.
///
/// What is moved so that nodes hold the same is held twice for a moment, in the middle of the quietest time: then this is
/// looked at again.
pub(super) async fn take(
    cluster: &BareCluster,
    library: &[Film],
    items: u64,
    quiet: Duration,
) -> anyhow::Result<Taken> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        cluster.holds(items, COLLECTED_WITHIN).await?;
        let taken = look(cluster, library, quiet).await?;
        if (taken.items - taken.placed).abs() < 0.5 {
            return Ok(taken);
        }
        ensure!(
            Instant::now() < deadline,
            "waited {SETTLED_WITHIN:?} in vain for nodes to hold what decisions place: they hold {} bytes, not {}",
            taken.items,
            taken.placed
        );
    }
}

async fn look(cluster: &BareCluster, library: &[Film], quiet: Duration) -> anyhow::Result<Taken> {
    let directories: Vec<PathBuf> = cluster.nodes.iter().map(|node| node.data.clone()).collect();
    let du = settled(&directories, quiet).await?;
    let library: u64 = library.iter().map(|film| film.bytes).sum();
    let unwritten = tokio::task::spawn_blocking(move || {
        let each = directories.iter().map(|path| unwritten(path));
        each.sum::<anyhow::Result<u64>>()
    });
    let unwritten = unwritten.await.context("looking at superblocks ended badly")??;
    let placed = cluster.metadata().storage_overhead().await?.total_placed_bytes;
    Ok(Taken {
        library: library as f64,
        du: du as f64,
        allocated: cluster.sum(ALLOCATED_BYTES).await?,
        items: cluster.sum(ITEM_BYTES).await?,
        live: cluster.sum(LIVE_BYTES).await?,
        unwritten: unwritten as f64,
        placed: placed as f64,
    })
}

/// What these directories take, once that has not changed for a while.
async fn settled(directories: &[PathBuf], quiet: Duration) -> anyhow::Result<u64> {
    let (mut last, mut since) = (None, Instant::now());
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        disk::settle().await?;
        // A file may go while it is looked at.
        let now = du(directories).await.ok();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if let Some(bytes) = last
            && since.elapsed() >= quiet
        {
            return Ok(bytes);
        }
        ensure!(
            Instant::now() < deadline,
            "waited {SETTLED_WITHIN:?} in vain for what nodes take of the disk to stay the same: {last:?} bytes now"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn du(directories: &[PathBuf]) -> anyhow::Result<u64> {
    let mut du = command("du");
    du.args(["--summarize", "--block-size=1"]).args(directories);
    summed(&run_command(du).await?)
}

/// Of lines that begin with a number of bytes.
fn summed(lines: &str) -> anyhow::Result<u64> {
    let bytes = lines.lines().map(|line| {
        let first = line.split_whitespace().next().unwrap_or_default();
        first
            .parse::<u64>()
            .with_context(|| format!("du gave no number: {line}"))
    });
    bytes.sum()
}

/// What the last superblock of a directory takes behind what was written to it.
fn unwritten(data: &Path) -> anyhow::Result<u64> {
    let is_superblock = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(SUPERBLOCK_PREFIX))
    };
    // Their names are in the order of their numbers.
    let last = files_below(data)?.into_iter().filter(is_superblock).max();
    let last = last.with_context(|| format!("no superblock in {}", data.display()))?;
    let bytes = std::fs::read(&last)?;
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
    let rest = (bytes.len() as u64).saturating_sub(written.next_multiple_of(PAGE));
    Ok(rest.min(last.metadata()?.blocks() * 512))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_du_says_is_added_up() {
        assert_eq!(summed("4096\t/a\n12288\t/b c\n").unwrap(), 16_384);
        assert!(summed("du: nothing\n").is_err());
    }

    #[test]
    fn the_end_of_the_last_superblock_was_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 64 * 1024];
        bytes[..5_000].fill(7);
        std::fs::write(directory.path().join("superblock_000001.vsb"), &bytes).unwrap();
        std::fs::write(directory.path().join("superblock_000000.vsb"), [7; 100]).unwrap();
        std::fs::write(directory.path().join("scrub"), [7; 100]).unwrap();
        // Two pages were.
        assert_eq!(unwritten(directory.path()).unwrap(), 64 * 1024 - 8192);
    }
}
