//! What readers notice of scrub, at a rate far above the one it runs at by default.

use std::{path::Path, time::Duration};

use vstack_client::{HttpClient, Timeouts};
use vstack_types::limits::CHUNK_BYTES_MAX;

use super::{
    Bench, Length,
    gets::{Gets, check, fill},
    paced,
};
use crate::{
    cluster::LoneNode,
    disturbed::Signs,
    engine_names::{SCRUB_PERIOD, SCRUBBED_BYTES},
    load::closed_loop,
    open_loop::{Pace, Paced, Plan, open_loop},
    payload::Payload,
    report::{Row, Section},
};

/// Connections of the open loop.
const CONNECTIONS: usize = 32;
/// At which the throughput is found.
const FOUND_AT: usize = 8;
/// Rate of the GETs, as a share of that throughput.
const RATE_SHARE: f64 = 0.5;
/// What scrub is asked to read a second.
const SCRUB_BYTES_PER_SECOND: usize = 100_000_000;
const START_TIMEOUT: Duration = Duration::from_secs(60);
const FREE_BYTES: u64 = 4 << 30;

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let chunks = match bench.length {
        Length::Full => 512,
        Length::Quick => 128,
        Length::Smoke => 16,
    };
    bench.require_free(FREE_BYTES)?;
    let period = (chunks * CHUNK_BYTES_MAX / SCRUB_BYTES_PER_SECOND).max(1);
    let about = format!(
        "hot GETs at {:.0} % of what a closed loop finds, beside scrub at the default rate and at all of {chunks} chunks in {period} s, {} alternated rounds",
        RATE_SHARE * 100.0,
        Bench::ROUNDS
    );
    let mut section = Section::new("scrub", about);
    let payload = Payload::make();
    let directory = tempfile::Builder::new().prefix("scrub-").tempdir_in(&bench.directory)?;
    let data = directory.path().join("data");
    let rate = {
        let node = LoneNode::start_on(&bench.binary, &data, &[], START_TIMEOUT).await?;
        fill(&node.host, &payload, chunks).await?;
        check(&node.host, &payload, chunks).await?;
        let workers = Gets::workers(&node.host, chunks, FOUND_AT).await?;
        closed_loop(workers, bench.round()).await?.rate * RATE_SHARE
    };
    let fast = [(SCRUB_PERIOD, period.to_string())];
    let (mut quiet, mut scrubbed) = (Vec::new(), Vec::new());
    let mut megabytes_per_second = Vec::new();
    for round in 0..Bench::ROUNDS {
        let plan = Plan {
            pace: Pace::Poisson,
            rate: rate.max(1.0),
            // Long enough that scrub is seen whatever steps it reads in.
            duration: bench.round().max(Duration::from_secs(1)),
            seed: round as u64,
        }
        .with_requests();
        quiet.push(round_of(bench, &data, &[], (chunks, &payload), plan).await?.0);
        let (paced, work) = round_of(bench, &data, &fast, (chunks, &payload), plan).await?;
        match work {
            Some(bytes) if bytes > 0.0 => {
                scrubbed.push(paced);
                megabytes_per_second.push(bytes / 1e6 / plan.duration.as_secs_f64());
            }
            Some(_) => section.note(format!("round {}: scrub read nothing", round + 1)),
            None => section.note(format!("this node has no {SCRUBBED_BYTES}")),
        }
    }
    let ratios = paced::p99_ratios(&scrubbed, &quiet);
    section
        .rows
        .push(Row::new("read by scrub", "MB/s", megabytes_per_second));
    section
        .rows
        .push(Row::new("p99 beside fast scrub / at rest", "x", ratios));
    let columns = vec!["at rest", "scrubbing"];
    section
        .beside
        .push(paced::table("latency of GETs".to_owned(), columns, &[quiet, scrubbed]));
    Ok(section)
}

/// One round on a node of its own start, and what scrub read meanwhile.
async fn round_of(
    bench: &Bench,
    data: &Path,
    settings: &[(&str, String)],
    (chunks, payload): (usize, &Payload),
    plan: Plan,
) -> anyhow::Result<(Paced, Option<f64>)> {
    let node = LoneNode::start_on(&bench.binary, data, settings, START_TIMEOUT).await?;
    check(&node.host, payload, chunks).await?;
    let http = HttpClient::new(None, Timeouts::default())?;
    let signs = Signs::new(http, &node.host, &[SCRUBBED_BYTES]);
    let workers = Gets::workers(&node.host, chunks, CONNECTIONS).await?;
    let before = signs.sum().await?;
    let (paced, _) = open_loop(workers, plan).await?;
    let after = signs.sum().await?;
    Ok((paced, before.zip(after).map(|(before, after)| after - before)))
}
