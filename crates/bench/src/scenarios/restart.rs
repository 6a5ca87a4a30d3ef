//! Time until a node with many chunks answers, and memory of its index.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use vstack_client::{HttpClient, Timeouts};

use super::{Bench, Length};
use crate::{
    cluster::LoneNode,
    disk,
    engine_names::{CHECKPOINT_PREFIX, INDEX_BYTES},
    filled,
    measure::Spread,
    metrics,
    page_cache::{drop_below, files_below},
    process::memory_bytes,
    report::{Row, Section},
    targets,
};

/// As many as the targets speak of.
const CHUNKS_FULL: u32 = 1_000_000;
const CHUNKS_QUICK: u32 = 50_000;
const CHUNKS_SMOKE: u32 = 600;
/// Of the disk, for each chunk: its head, its two votes, its part of commit records.
const DISK_BYTES_PER_CHUNK: u64 = 16 * 1024;
/// A start may take far longer than it should: that is a finding.
const START_TIMEOUT: Duration = Duration::from_secs(900);

/// A start that takes longer is not repeated: it is far beyond every target.
const REPEATED_UP_TO: Duration = Duration::from_secs(60);

/// How a start goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Checkpoint,
    Scan,
}

/// What starts showed, of one kind.
#[derive(Debug, Default)]
struct Starts {
    seconds: Vec<f64>,
    resident_bytes_per_chunk: Vec<f64>,
    index_bytes_per_chunk: Vec<f64>,
}

impl Starts {
    fn are_slow(&self) -> bool {
        let last = self.seconds.last();
        last.is_some_and(|seconds| *seconds > REPEATED_UP_TO.as_secs_f64())
    }
}

struct Restart<'a> {
    bench: &'a Bench,
    data: &'a Path,
    chunks: u32,
    http: HttpClient,
    empty_bytes: u64,
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let chunks = bench.chunks.unwrap_or(match bench.length {
        Length::Full => CHUNKS_FULL,
        Length::Quick => CHUNKS_QUICK,
        Length::Smoke => CHUNKS_SMOKE,
    });
    bench.require_free(u64::from(chunks) * DISK_BYTES_PER_CHUNK)?;
    let about = format!(
        "start of a node with {chunks} chunks until it answers /health, {} alternated rounds",
        Bench::ROUNDS
    );
    let mut section = Section::new("restart", about);
    section.note("chunks are of 2 MiB with a vote and its decision each; payloads are holes in the files (sparse test data), everything else is as a cluster leaves it");
    section.note("cold: the data directory's files were dropped from the page cache before the start");
    let directory = tempfile::Builder::new()
        .prefix("restart-")
        .tempdir_in(&bench.directory)?;
    let data = directory.path().join("data");
    let empty_bytes = {
        let node = LoneNode::start(&bench.binary, &bench.directory).await?;
        memory_bytes(node.pid(), "VmRSS")?
    };
    let (path, stop) = (data.clone(), bench.stop.clone());
    let began = Instant::now();
    tokio::task::spawn_blocking(move || filled::fill(&path, chunks, &stop).map(drop))
        .await
        .context("filling ended badly")??;
    section.rows.push(Row::new(
        "filling, by the engine alone, without syncs",
        "s",
        vec![began.elapsed().as_secs_f64()],
    ));
    disk::settle().await?;
    let restart = Restart {
        bench,
        data: &data,
        chunks,
        http: HttpClient::new(None, Timeouts::default())?,
        empty_bytes,
    };
    restart.measure(&mut section).await?;
    Ok(section)
}

impl Restart<'_> {
    async fn measure(&self, section: &mut Section) -> anyhow::Result<()> {
        // What a node leaves when it ends is what the next start finds.
        self.start(&mut Starts::default()).await?;
        let kinds = [
            ("from a checkpoint", From::Checkpoint, false),
            ("from a checkpoint, cold", From::Checkpoint, true),
            ("by scan", From::Scan, false),
            ("by scan, cold", From::Scan, true),
        ];
        let mut found: [Starts; 4] = Default::default();
        for _ in 0..Bench::ROUNDS {
            for ((_, from, cold), starts) in kinds.iter().zip(&mut found) {
                if starts.are_slow() {
                    continue;
                }
                let has_checkpoint = !self.checkpoints()?.is_empty();
                match from {
                    From::Checkpoint if !has_checkpoint => continue,
                    From::Checkpoint => {}
                    From::Scan => self.remove_checkpoints()?,
                }
                if *cold {
                    disk::settle().await?;
                    drop_below(self.data).await?;
                }
                self.start(starts).await?;
            }
        }
        for ((name, ..), starts) in kinds.iter().zip(&found) {
            self.tell(section, name, starts);
        }
        self.judge(section, &found);
        Ok(())
    }

    /// One start, and an orderly end.
    async fn start(&self, starts: &mut Starts) -> anyhow::Result<()> {
        let node = LoneNode::start_on(&self.bench.binary, self.data, &[], START_TIMEOUT).await?;
        let url = format!("http://{}", node.host);
        let resident = memory_bytes(node.pid(), "VmRSS")?;
        let held = metrics::value(self.http.transport(), &url, "vstack_chunks").await?;
        ensure!(
            held == Some(f64::from(self.chunks)),
            "the node holds {held:?} of {} chunks",
            self.chunks
        );
        let chunks = f64::from(self.chunks);
        starts.seconds.push(node.healthy_after.as_secs_f64());
        let grown = resident.saturating_sub(self.empty_bytes);
        starts.resident_bytes_per_chunk.push(grown as f64 / chunks);
        let index = metrics::value(self.http.transport(), &url, INDEX_BYTES).await?;
        starts.index_bytes_per_chunk.extend(index.map(|bytes| bytes / chunks));
        Ok(())
    }

    fn tell(&self, section: &mut Section, name: &str, starts: &Starts) {
        let rows = [
            ("until /health", "s", &starts.seconds),
            (
                "VmRSS over that of an empty node",
                "bytes/chunk",
                &starts.resident_bytes_per_chunk,
            ),
            (INDEX_BYTES, "bytes/chunk", &starts.index_bytes_per_chunk),
        ];
        for (what, unit, rounds) in rows {
            section
                .rows
                .push(Row::new(format!("{name}: {what}"), unit, rounds.clone()));
        }
        if starts.seconds.is_empty() {
            section.note(format!("{name}: there is no checkpoint after an orderly end"));
        } else if starts.are_slow() {
            section.note(format!(
                "{name}: measured until a start took more than {REPEATED_UP_TO:?}"
            ));
        }
    }

    fn judge(&self, section: &mut Section, found: &[Starts; 4]) {
        let full = self.chunks >= CHUNKS_FULL;
        if !full {
            section.note(format!(
                "targets are for {CHUNKS_FULL} chunks, and are not measured with fewer"
            ));
        }
        let [checkpoint, checkpoint_cold, scan, scan_cold] = found;
        let mut judge = |target, at: &str, rounds: &[f64]| {
            if full {
                section.judge_rounds(target, at, rounds);
            } else {
                section.judge(target, at, None);
            }
        };
        judge(targets::RESTART_CHECKPOINT, "", &checkpoint.seconds);
        judge(targets::RESTART_CHECKPOINT, "cold", &checkpoint_cold.seconds);
        judge(targets::RESTART_SCAN, "", &scan.seconds);
        judge(targets::RESTART_SCAN, "cold", &scan_cold.seconds);
        // The kinds differ by what building the index leaves over: the worst counts.
        let worst = found
            .iter()
            .filter_map(|starts| Some((Spread::of(&starts.index_bytes_per_chunk)?.median, starts)))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        let rounds = worst.map_or(&[][..], |(_, starts)| &starts.index_bytes_per_chunk);
        judge(targets::INDEX_MEMORY, "", rounds);
    }

    fn checkpoints(&self) -> anyhow::Result<Vec<std::path::PathBuf>> {
        let is_one = |path: &std::path::PathBuf| {
            let name = path.file_name().and_then(std::ffi::OsStr::to_str);
            name.is_some_and(|name| name.starts_with(CHECKPOINT_PREFIX))
        };
        Ok(files_below(self.data)?.into_iter().filter(is_one).collect())
    }

    fn remove_checkpoints(&self) -> anyhow::Result<()> {
        for path in self.checkpoints()? {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}
