//! What readers notice while a node empties superblocks, and how much space comes back.
//!
//! Large chunks that are deleted give their pages back where they are, and nothing is copied. Small ones share pages with
//! what stays, so the superblock has to be emptied: what stays in it, large chunks that are being read too, is written
//! again. Here are both, and only the time in which something is written again counts. A run in which nothing was moved,
//! or no superblock was emptied, has measured nothing and fails.

use std::{os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tokio::task::JoinSet;
use vstack_client::{HttpClient, Timeouts};
use vstack_types::limits::CHUNK_BYTES_MAX;

use super::{Bench, Length, gets::Gets, paced};
use crate::{
    cluster::LoneNode,
    disk,
    disturbed::{Disturbed, Patience, Signs, while_at_work},
    engine_names::{COPIED_BYTES, EMPTIED, GC_INTERVAL, RECLAIMED_BYTES, SUPERBLOCK_SIZE},
    http::Connection,
    load::{Worker, closed_loop, fixed_work},
    open_loop::{Pace, Paced, Plan, open_loop},
    page_cache::files_below,
    payload::Payload,
    report::{Row, Section},
    targets,
};

/// Connections that fill, and that delete.
const WRITERS: usize = 8;
/// Connections of the open loop.
const CONNECTIONS: usize = 32;
/// At which the throughput is found.
const FOUND_AT: usize = 8;
/// Rate of the GETs, as a share of that throughput.
const RATE_SHARE: f64 = 0.5;
/// Short, so that most of a window with work in it is at work: the windows of a round make one p99.
const WINDOW: Duration = Duration::from_millis(200);
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Below what is given back where it is: emptying its superblock is the only way.
const SMALL_BYTES: usize = 48 * 1024;
/// Of them, for each large chunk. Half of both gone is two fifths of a superblock wasted once the large ones' pages are
/// given back: more than it takes for all superblocks to be emptied.
const SMALL_OF_GROUP: usize = 80;
/// Seconds between two looks for a superblock worth emptying: the shortest, so that most of the time one is being emptied.
const LOOK_EVERY_SECONDS: u64 = 1;

/// How much of it there is.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// A large chunk and its small ones. A part is deleted in each round, half of its large and half of its small chunks.
    groups: usize,
    superblock_bytes: u64,
    patience: Patience,
}

impl Size {
    fn of(length: Length) -> Self {
        let seconds = Duration::from_secs;
        let patience = |begins, over| Patience {
            begins_within: seconds(begins),
            over_after: seconds(over),
            at_most: seconds(900),
        };
        match length {
            Length::Full => Self {
                groups: 1584,
                superblock_bytes: 256 << 20,
                patience: patience(90, 10),
            },
            Length::Quick => Self {
                groups: 144,
                superblock_bytes: 64 << 20,
                patience: patience(30, 5),
            },
            Length::Smoke => Self {
                groups: 24,
                superblock_bytes: 8 << 20,
                patience: patience(20, 2),
            },
        }
    }

    const fn bytes(self) -> u64 {
        (self.groups * (CHUNK_BYTES_MAX + SMALL_OF_GROUP * SMALL_BYTES)) as u64
    }

    /// Large chunks that stay: those with even numbers.
    const fn read(self) -> usize {
        self.groups / 2
    }

    /// The groups of which half is deleted in `round`: beside each other, so that their superblocks are emptied in it.
    const fn groups_of(self, round: usize) -> std::ops::Range<usize> {
        self.groups * round / Bench::ROUNDS..self.groups * (round + 1) / Bench::ROUNDS
    }
}

/// What the rounds showed.
#[derive(Default)]
struct Found {
    quiet: Vec<Paced>,
    at_work: Vec<Paced>,
    megabytes_per_second: Vec<f64>,
    moved: Vec<f64>,
    emptied: Vec<f64>,
    given_back: Vec<f64>,
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let size = Size::of(bench.length);
    bench.require_free(size.bytes() * 2 + (1 << 30))?;
    let about = format!(
        "hot GETs of the {} chunks of 2 MiB that stay, at {:.0} % of what a closed loop finds, at rest and while superblocks of {} MiB are emptied, of which half was deleted: {} chunks of 2 MiB and {} of 48 KiB, in {} steps",
        size.read(),
        RATE_SHARE * 100.0,
        size.superblock_bytes >> 20,
        size.groups / 2,
        size.groups * SMALL_OF_GROUP / 2,
        Bench::ROUNDS,
    );
    let mut section = Section::new("reclaim", about);
    section.note("windows of GETs count as compaction in which the node wrote records again; all come after the deletions of their round, at the same rate as those at rest");
    let payload = Payload::make();
    let directory = tempfile::Builder::new()
        .prefix("reclaim-")
        .tempdir_in(&bench.directory)?;
    let data = directory.path().join("data");
    let settings = [
        (SUPERBLOCK_SIZE, size.superblock_bytes.to_string()),
        (GC_INTERVAL, LOOK_EVERY_SECONDS.to_string()),
    ];
    let node = LoneNode::start_on(&bench.binary, &data, &settings, START_TIMEOUT).await?;
    fixed_work(
        Groups::writers(&node.host, &payload).await?,
        size.groups.div_ceil(WRITERS),
    )
    .await?;
    disk::settle().await?;
    // Into the page cache, and verified.
    fixed_work(Gets::of_every(&node.host, 2, size.read(), 1).await?, size.read()).await?;
    let found = rounds(bench, &mut section, &node, size).await?;
    tell(&mut section, &found)?;
    drop(node);
    space(&mut section, &data, size)?;
    Ok(section)
}

/// Stores whole groups: `/chunk/5`, and with it `/chunk/5-0`, `/chunk/5-1` and so on.
struct Groups {
    connection: Connection,
    payload: Payload,
    next: usize,
}

impl Groups {
    async fn writers(host: &str, payload: &Payload) -> anyhow::Result<Vec<Self>> {
        let mut writers = Vec::with_capacity(WRITERS);
        for next in 0..WRITERS {
            writers.push(Self {
                connection: Connection::open(host).await?,
                payload: payload.clone(),
                next,
            });
        }
        Ok(writers)
    }
}

impl Worker for Groups {
    async fn once(&mut self) -> anyhow::Result<Duration> {
        let group = self.next;
        let bytes = self.payload.chunk(group).bytes.clone();
        let large = (format!("/chunk/{group}"), bytes.clone());
        let small = (0..SMALL_OF_GROUP).map(|n| {
            let at = n * 4096;
            (format!("/chunk/{group}-{n}"), bytes.slice(at..at + SMALL_BYTES))
        });
        let mut first_byte = Duration::ZERO;
        for (path, body) in std::iter::once(large).chain(small) {
            let answer = self.connection.put(&path, &body).await?;
            ensure!(answer.status == 201, "PUT {path} answered {}", answer.status);
            first_byte = answer.first_byte;
        }
        self.next += WRITERS;
        Ok(first_byte)
    }
}

async fn rounds(bench: &Bench, section: &mut Section, node: &LoneNode, size: Size) -> anyhow::Result<Found> {
    let workers = Gets::of_every(&node.host, 2, size.read(), FOUND_AT).await?;
    let round = closed_loop(workers, bench.round()).await?;
    let plan = Plan {
        pace: Pace::Poisson,
        rate: (round.rate * RATE_SHARE).max(1.0),
        duration: bench.round(),
        seed: 0,
    };
    let http = HttpClient::new(None, Timeouts::default())?;
    let of = |names| Signs::new(http.clone(), &node.host, names);
    let (moving, emptied, given_back) = (of(&[COPIED_BYTES]), of(&[EMPTIED]), of(&[RECLAIMED_BYTES]));
    let look = async || {
        let all = (moving.sum().await?, emptied.sum().await?, given_back.sum().await?);
        let (Some(moved), Some(emptied), Some(given_back)) = all else {
            bail!("this node does not say what it moves: {COPIED_BYTES}, {EMPTIED}, {RECLAIMED_BYTES}");
        };
        anyhow::Ok([moved, emptied, given_back])
    };
    let mut found = Found::default();
    for round in 0..Bench::ROUNDS {
        let plan = Plan {
            seed: round as u64,
            ..plan
        };
        let workers = Gets::of_every(&node.host, 2, size.read(), CONNECTIONS).await?;
        let (quiet, _) = open_loop(workers, plan.with_requests()).await?;
        let before = look().await?;
        delete(&node.host, size.groups_of(round)).await?;
        // Deleting takes longer than a node keeps connections that nobody uses.
        let workers = Gets::of_every(&node.host, 2, size.read(), CONNECTIONS).await?;
        let plan = Plan {
            duration: WINDOW.min(bench.round()),
            ..plan
        };
        let [moved, ..] = look().await?;
        let disturbed = while_at_work(workers, plan, &moving, moved, size.patience).await?;
        let after = look().await?;
        found.moved.push((after[0] - before[0]) / 1e6);
        found.emptied.push(after[1] - before[1]);
        found.given_back.push((after[2] - before[2]) / 1e6);
        match disturbed {
            Some(disturbed) => found.take(section, quiet, disturbed),
            None => section.note(format!("round {}: nothing was moved", round + 1)),
        }
    }
    Ok(found)
}

impl Found {
    /// A round counts with both its sides.
    fn take(&mut self, section: &mut Section, quiet: Paced, disturbed: Disturbed) {
        if disturbed.unfinished {
            section.note("it was not over when it was given up");
        }
        self.megabytes_per_second.push(disturbed.work / 1e6 / disturbed.seconds);
        self.quiet.push(quiet);
        self.at_work.push(disturbed.paced);
    }
}

/// Deletes half of these groups: the large chunks with odd numbers, and of the small ones those.
async fn delete(host: &str, groups: std::ops::Range<usize>) -> anyhow::Result<()> {
    let mut deleting = JoinSet::new();
    for writer in 0..WRITERS {
        let mut connection = Connection::open(host).await?;
        let groups = groups.clone();
        deleting.spawn(async move {
            for group in groups.skip(writer).step_by(WRITERS) {
                let large = (group % 2 == 1).then(|| format!("/chunk/{group}"));
                let small = (1..SMALL_OF_GROUP).step_by(2).map(|n| format!("/chunk/{group}-{n}"));
                for path in large.into_iter().chain(small) {
                    let answer = connection.delete(&path).await?;
                    ensure!(answer.status == 204, "DELETE {path} answered {}", answer.status);
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = deleting.join_next().await {
        done.context("a deletion ended badly")??;
    }
    Ok(())
}

fn tell(section: &mut Section, found: &Found) -> anyhow::Result<()> {
    let any = |rounds: &[f64]| rounds.iter().sum::<f64>() > 0.0;
    ensure!(
        any(&found.moved) && any(&found.emptied),
        "nothing was measured: {:?} MB were moved and {:?} superblocks emptied in the rounds",
        found.moved,
        found.emptied
    );
    let columns = vec!["at rest", "compaction"];
    let measured = [found.quiet.clone(), found.at_work.clone()];
    section
        .beside
        .push(paced::table("latency of GETs".to_owned(), columns, &measured));
    let mut row = |name: &str, unit, rounds: &[f64]| section.rows.push(Row::new(name, unit, rounds.to_vec()));
    row("moved in a round", "MB", &found.moved);
    row("emptied in a round", "superblocks", &found.emptied);
    row("given back where it was, in a round", "MB", &found.given_back);
    row("moved, in the windows that count", "MB/s", &found.megabytes_per_second);
    let ratios = paced::p99_ratios(&found.at_work, &found.quiet);
    section.judge_rounds(targets::RECLAIM_P99, "", &ratios);
    for paced in found.quiet.iter().chain(&found.at_work) {
        if let Some(trouble) = paced.trouble() {
            section.note(trouble);
        }
    }
    Ok(())
}

/// What the superblocks take of the disk, beside what is in them.
fn space(section: &mut Section, data: &Path, size: Size) -> anyhow::Result<()> {
    let mut used = 0;
    for file in files_below(data)? {
        used += file.metadata()?.blocks() * 512;
    }
    let live = size.bytes() / 2;
    section.rows.push(Row::new(
        "disk space of the data directory after an orderly end",
        "MB",
        vec![used as f64 / 1e6],
    ));
    section.rows.push(Row::new("live bytes", "MB", vec![live as f64 / 1e6]));
    section.judge(targets::RECLAIM_SPACE, "", Some(used as f64 / live as f64));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_nothing_was_moved_or_emptied_fails() {
        let found = |moved: f64, emptied: f64| Found {
            moved: vec![0.0, moved],
            emptied: vec![0.0, emptied],
            ..Found::default()
        };
        let told = |found: &Found| tell(&mut Section::new("reclaim", ""), found);
        assert!(told(&found(0.0, 1.0)).is_err(), "emptied, but nothing moved");
        assert!(told(&found(1.0, 0.0)).is_err(), "moved, but nothing emptied");
        assert!(told(&Found::default()).is_err());
        assert!(told(&found(1.0, 1.0)).is_ok());
    }

    #[test]
    fn every_group_is_in_one_round() {
        for length in [Length::Full, Length::Quick, Length::Smoke] {
            let size = Size::of(length);
            let all: Vec<usize> = (0..Bench::ROUNDS).flat_map(|round| size.groups_of(round)).collect();
            assert_eq!(all, (0..size.groups).collect::<Vec<_>>());
            assert_eq!(size.groups % WRITERS, 0, "each writer stores as many");
        }
    }
}
