//! GET of 2 MiB chunks that are not in the page cache, each asked for once, from one storage node running alone.

use std::{path::Path, time::Duration};

use super::{
    Bench, Length,
    contenders::Contenders,
    gets::{Gets, check, fill},
};
use crate::{
    cluster::LoneNode,
    load::{Round, Rounds, fixed_work},
    nginx::Nginx,
    page_cache::drop_below,
    payload::Payload,
    report::{Row, Section},
};

const CONCURRENCIES: [usize; 3] = [1, 8, 64];
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The chunks, once for the node and once for nginx, and superblocks made ahead.
const FREE_BYTES: u64 = 6 << 30;

/// What there is to read. Each concurrency divides it.
const fn chunks(length: Length) -> usize {
    match length {
        Length::Full => 512,
        Length::Quick => 128,
        Length::Smoke => 64,
    }
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let chunks = chunks(bench.length);
    bench.require_free(FREE_BYTES)?;
    let about = format!(
        "cold GET of 2 MiB from one node: {chunks} chunks, each once, {} alternated rounds at each concurrency",
        Bench::ROUNDS
    );
    let mut section = Section::new("cold", about);
    section.note(
        "before each round the server's files are synced and dropped from the page cache (posix_fadvise DONTNEED); a machine below this one may still have them",
    );
    let payload = Payload::make();
    let directory = tempfile::Builder::new().prefix("cold-").tempdir_in(&bench.directory)?;
    let data = directory.path().join("data");
    let mut resident = Vec::new();
    let node = LoneNode::start_on(&bench.binary, &data, &[], START_TIMEOUT).await?;
    fill(&node.host, &payload, chunks).await?;
    let nginx = Nginx::start(&bench.directory, &payload, chunks).await?;
    let contenders = Contenders::new(&node.host, nginx.as_ref(), &mut section);
    for (_, host) in &contenders.hosts {
        check(host, &payload, chunks).await?;
    }
    for concurrency in CONCURRENCIES {
        let mut measured = contenders.measured();
        for _ in 0..Bench::ROUNDS {
            for (nth, ((_, host), rounds)) in contenders.hosts.iter().zip(&mut measured).enumerate() {
                let files = nginx.as_ref().filter(|_| nth > 0).map_or(&data, |nginx| &nginx.root);
                rounds.push(&round(host, files, concurrency, chunks, &mut resident).await?);
            }
        }
        contenders.tell(&mut section, &format!("c{concurrency}"), "chunks/s", &measured);
    }
    drop(node);
    just_started(bench, &mut section, &data, &mut resident).await?;
    section
        .rows
        .push(Row::new("still in the page cache when a round began", "MiB", resident));
    Ok(section)
}

/// The first reads after a start, each of which is verified.
async fn just_started(
    bench: &Bench,
    section: &mut Section,
    data: &Path,
    resident: &mut Vec<f64>,
) -> anyhow::Result<()> {
    for concurrency in CONCURRENCIES {
        let mut rounds = Rounds::default();
        for _ in 0..Bench::ROUNDS {
            let node = LoneNode::start_on(&bench.binary, data, &[], START_TIMEOUT).await?;
            rounds.push(&round(&node.host, data, concurrency, chunks(bench.length), resident).await?);
        }
        let name = format!("vstack node just started, each verified, c{concurrency}");
        section.rows.push(rounds.row(name, "chunks/s"));
    }
    Ok(())
}

async fn round(
    host: &str,
    files: &Path,
    concurrency: usize,
    chunks: usize,
    resident: &mut Vec<f64>,
) -> anyhow::Result<Round> {
    let workers = Gets::sharing(host, chunks, concurrency).await?;
    let still = drop_below(files).await?;
    resident.extend(still.map(|bytes| bytes as f64 / f64::from(1 << 20)));
    fixed_work(workers, chunks / concurrency).await
}
