//! What readers notice while a node gives back the space of deleted chunks, and how much comes back.

use std::{os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;
use vstack_client::{HttpClient, Timeouts};
use vstack_types::limits::CHUNK_BYTES_MAX;

use super::{Bench, Length, gets::Gets, paced, put::Puts};
use crate::{
    cluster::LoneNode,
    disk,
    disturbed::{Disturbed, Patience, Signs, while_at_work},
    engine_names::{COPIED_BYTES, RECLAIMED_BYTES, SUPERBLOCK_SIZE},
    http::Connection,
    load::{closed_loop, fixed_work},
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
/// Long enough for a p99, short enough that most of a window with work in it is at work.
const WINDOW: Duration = Duration::from_secs(1);
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of it there is.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Half of them stay; divided by all writers, and by all rounds in which deletions come.
    chunks: usize,
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
                chunks: 4800,
                superblock_bytes: 256 << 20,
                patience: patience(90, 10),
            },
            Length::Quick => Self {
                chunks: 480,
                superblock_bytes: 32 << 20,
                patience: patience(60, 5),
            },
            Length::Smoke => Self {
                chunks: 48,
                superblock_bytes: 8 << 20,
                patience: patience(2, 1),
            },
        }
    }

    const fn bytes(self) -> u64 {
        (self.chunks * CHUNK_BYTES_MAX) as u64
    }
}

/// What the rounds showed.
#[derive(Default)]
struct Found {
    quiet: Vec<Paced>,
    at_work: Vec<Paced>,
    megabytes_per_second: Vec<f64>,
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let size = Size::of(bench.length);
    bench.require_free(size.bytes() * 2 + (1 << 30))?;
    let about = format!(
        "hot GETs of the {} chunks that stay, at {:.0} % of what a closed loop finds, while as many are deleted in {} steps; superblocks of {} MiB",
        size.chunks / 2,
        RATE_SHARE * 100.0,
        Bench::ROUNDS,
        size.superblock_bytes >> 20
    );
    let mut section = Section::new("reclaim", about);
    section.note("windows of GETs in which the node says that it copied or gave back something count as reclaiming; the first of them are beside the deletions too");
    let payload = Payload::make();
    let directory = tempfile::Builder::new()
        .prefix("reclaim-")
        .tempdir_in(&bench.directory)?;
    let data = directory.path().join("data");
    let settings = [(SUPERBLOCK_SIZE, size.superblock_bytes.to_string())];
    let node = LoneNode::start_on(&bench.binary, &data, &settings, START_TIMEOUT).await?;
    let writers = Puts::numbered(&node.host, &payload, WRITERS).await?;
    fixed_work(writers, size.chunks / WRITERS).await?;
    disk::settle().await?;
    // Into the page cache, and verified.
    fixed_work(
        Gets::of_every(&node.host, 2, size.chunks / 2, 1).await?,
        size.chunks / 2,
    )
    .await?;
    let found = rounds(bench, &mut section, &node, size).await?;
    tell(&mut section, &found);
    drop(node);
    space(&mut section, &data, size)?;
    Ok(section)
}

async fn rounds(bench: &Bench, section: &mut Section, node: &LoneNode, size: Size) -> anyhow::Result<Found> {
    let workers = Gets::of_every(&node.host, 2, size.chunks / 2, FOUND_AT).await?;
    let round = closed_loop(workers, bench.round()).await?;
    let plan = Plan {
        pace: Pace::Poisson,
        rate: (round.rate * RATE_SHARE).max(1.0),
        duration: bench.round(),
        seed: 0,
    };
    let http = HttpClient::new(None, Timeouts::default())?;
    let signs = Signs::new(http, &node.host, &[RECLAIMED_BYTES, COPIED_BYTES]);
    let mut found = Found::default();
    for round in 0..Bench::ROUNDS {
        let plan = Plan {
            seed: round as u64,
            ..plan
        };
        let workers = Gets::of_every(&node.host, 2, size.chunks / 2, CONNECTIONS).await?;
        let (quiet, workers) = open_loop(workers, plan).await?;
        found.quiet.push(quiet);
        let deletion = delete(&node.host, size.chunks, round);
        let Some(before) = signs.sum().await? else {
            section.note(format!("this node has none of {}", signs.words()));
            deletion.await?;
            continue;
        };
        let plan = Plan {
            duration: WINDOW.min(bench.round()),
            ..plan
        };
        let work = while_at_work(workers, plan, &signs, before, size.patience);
        let (disturbed, ()) = tokio::try_join!(work, deletion)?;
        match disturbed {
            Some(disturbed) => found.take(section, disturbed),
            None => section.note(format!("round {}: no space came back", round + 1)),
        }
    }
    Ok(found)
}

impl Found {
    fn take(&mut self, section: &mut Section, disturbed: Disturbed) {
        if disturbed.unfinished {
            section.note("it was not over when it was given up");
        }
        self.megabytes_per_second.push(disturbed.work / 1e6 / disturbed.seconds);
        self.at_work.push(disturbed.paced);
    }
}

/// Deletes what this round deletes of the odd chunks.
async fn delete(host: &str, chunks: usize, round: usize) -> anyhow::Result<()> {
    let mut deleting = JoinSet::new();
    for writer in 0..WRITERS {
        let mut connection = Connection::open(host).await?;
        deleting.spawn(async move {
            let odd = (0..chunks / 2).filter(|index| index % Bench::ROUNDS == round);
            for index in odd.skip(writer).step_by(WRITERS) {
                let answer = connection.delete(&format!("/chunk/{}", 2 * index + 1)).await?;
                ensure!(answer.status == 204, "DELETE answered {}", answer.status);
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = deleting.join_next().await {
        done.context("a deletion ended badly")??;
    }
    Ok(())
}

fn tell(section: &mut Section, found: &Found) {
    let columns = vec!["at rest", "reclaiming"];
    let measured = [found.quiet.clone(), found.at_work.clone()];
    section
        .beside
        .push(paced::table("latency of GETs".to_owned(), columns, &measured));
    section.rows.push(Row::new(
        "given back or copied, while at work",
        "MB/s",
        found.megabytes_per_second.clone(),
    ));
    section.judge_rounds(
        targets::RECLAIM_P99,
        "",
        &paced::p99_ratios(&found.at_work, &found.quiet),
    );
    for paced in found.quiet.iter().chain(&found.at_work) {
        if let Some(trouble) = paced.trouble() {
            section.note(trouble);
        }
    }
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
