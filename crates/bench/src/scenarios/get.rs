//! GET of 2 MiB chunks that are in the page cache, from one storage node running alone.

use std::time::Duration;

use anyhow::ensure;
use vstack_types::{Digest, limits::CHUNK_BYTES_MAX};

use super::Bench;
use crate::{
    cluster::LoneNode,
    http::Connection,
    load::{Rounds, Worker, closed_loop},
    measure::{pairwise, ratios},
    nginx::Nginx,
    payload::Payload,
    report::{Row, Section},
    targets,
};

const CONCURRENCIES: [usize; 3] = [1, 8, 64];
/// Chunks asked for in turn: 64 MiB, more than any cache of a processor.
const CHUNKS: usize = 32;

/// Asks for chunks in turn.
struct Gets {
    connection: Connection,
    next: usize,
}

impl Gets {
    async fn workers(host: &str, count: usize) -> anyhow::Result<Vec<Self>> {
        let mut workers = Vec::with_capacity(count);
        for worker in 0..count {
            workers.push(Self {
                connection: Connection::open(host).await?,
                next: worker,
            });
        }
        Ok(workers)
    }
}

impl Worker for Gets {
    async fn once(&mut self) -> anyhow::Result<Duration> {
        let path = format!("/chunk/{}", self.next % CHUNKS);
        let answer = self.connection.get(&path).await?;
        ensure!(
            answer.status == 200 && answer.length == CHUNK_BYTES_MAX,
            "GET {path} answered {answer:?}"
        );
        self.next += 1;
        Ok(answer.first_byte)
    }
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let about = format!(
        "hot GET of 2 MiB from one node, {} alternated rounds of {:?} at each concurrency, reads of 1 MiB",
        Bench::ROUNDS,
        bench.round()
    );
    let mut section = Section::new("get", about);
    let payload = Payload::make();
    let node = LoneNode::start(&bench.binary, &bench.directory).await?;
    fill(&node.host, &payload).await?;
    check(&node.host, &payload).await?;
    let nginx = Nginx::start(&bench.directory, &payload, CHUNKS).await?;
    match &nginx {
        Some(nginx) => {
            section.note(format!("peer: {}", nginx.version));
            check(&nginx.sendfile, &payload).await?;
            check(&nginx.buffers, &payload).await?;
        }
        None => section.note("nginx is not installed: there is no peer, and targets relative to it are not measured"),
    }
    for concurrency in CONCURRENCIES {
        level(bench, &mut section, &node, nginx.as_ref(), concurrency).await?;
    }
    Ok(section)
}

async fn level(
    bench: &Bench,
    section: &mut Section,
    node: &LoneNode,
    nginx: Option<&Nginx>,
    concurrency: usize,
) -> anyhow::Result<()> {
    let (mut ours, mut sendfile, mut buffers) = (Rounds::default(), Rounds::default(), Rounds::default());
    let measure = async |host: &str| closed_loop(Gets::workers(host, concurrency).await?, bench.round()).await;
    for _ in 0..Bench::ROUNDS {
        ours.push(&measure(&node.host).await?);
        if let Some(nginx) = nginx {
            sendfile.push(&measure(&nginx.sendfile).await?);
            buffers.push(&measure(&nginx.buffers).await?);
        }
    }
    section
        .rows
        .push(ours.row(format!("vstack node, c{concurrency}"), "chunks/s"));
    if nginx.is_some() {
        section
            .rows
            .push(sendfile.row(format!("nginx, sendfile, c{concurrency}"), "chunks/s"));
        section
            .rows
            .push(buffers.row(format!("nginx, 1 MiB buffers, c{concurrency}"), "chunks/s"));
    }
    let better = pairwise(&sendfile.rates, &buffers.rates, f64::max);
    section.judge_rounds(
        targets::GET_RATE,
        format!("c{concurrency}"),
        &ratios(&ours.rates, &better),
    );
    let p99s: Vec<f64> = (0..better.len())
        .map(|round| {
            if sendfile.rates[round] >= buffers.rates[round] {
                sendfile.p99s()[round]
            } else {
                buffers.p99s()[round]
            }
        })
        .collect();
    section.judge_rounds(
        targets::GET_P99,
        format!("c{concurrency}"),
        &ratios(&ours.p99s(), &p99s),
    );
    if concurrency == 1 {
        let first_bytes: Vec<f64> = ours.part_ms.iter().map(|part| part.p99).collect();
        section.rows.push(Row::new(
            "vstack node, c1, p99 of the first byte",
            "ms",
            first_bytes.clone(),
        ));
        section.judge_rounds(targets::GET_FIRST_BYTE_P99, "", &first_bytes);
    }
    Ok(())
}

async fn fill(host: &str, payload: &Payload) -> anyhow::Result<()> {
    let mut connection = Connection::open(host).await?;
    for index in 0..CHUNKS {
        let answer = connection
            .put(&format!("/chunk/{index}"), &payload.chunk(index).bytes)
            .await?;
        ensure!(answer.status == 201, "PUT answered {}", answer.status);
    }
    Ok(())
}

/// Every byte is right, and after this in the page cache.
async fn check(host: &str, payload: &Payload) -> anyhow::Result<()> {
    let mut connection = Connection::open(host).await?;
    for index in 0..CHUNKS {
        let (answer, body) = connection.get_body(&format!("/chunk/{index}")).await?;
        ensure!(answer.status == 200, "GET answered {}", answer.status);
        ensure!(
            Digest::of(&body) == payload.chunk(index).sha256,
            "{host} gave other bytes than were put"
        );
    }
    Ok(())
}
