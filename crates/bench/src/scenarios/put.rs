//! Durable PUT of random 2 MiB chunks to one storage node running alone.

use std::time::Duration;

use anyhow::ensure;

use super::Bench;
use crate::{
    ceiling::Ceiling,
    cluster::LoneNode,
    disk::{self, Plain},
    http::Connection,
    load::{Round, Rounds, Worker, closed_loop},
    measure::{pairwise, ratios},
    payload::Payload,
    process::cpu_seconds,
    report::{Row, Section},
    targets,
};

const CONCURRENCIES: [usize; 4] = [1, 8, 32, 64];
/// Concurrencies up to this one have a target.
const RATE_TARGET_UP_TO: usize = 32;
/// Concurrency at which the p99 has a target.
const P99_AT: usize = 8;
/// More than a round of any peer writes, with room for the file system.
const FREE_BYTES: u64 = 16 << 30;

/// Sends chunks that were never there.
pub struct Puts {
    connection: Connection,
    payload: Payload,
    /// Of its chunks' ids.
    prefix: String,
    sent: usize,
}

impl Puts {
    /// So many workers for one server; ids begin with `prefix`.
    pub async fn workers(host: &str, payload: &Payload, count: usize, prefix: &str) -> anyhow::Result<Vec<Self>> {
        let mut workers = Vec::with_capacity(count);
        for worker in 0..count {
            let connection = Connection::open(host).await?;
            workers.push(Self {
                connection,
                payload: payload.clone(),
                prefix: format!("{prefix}-{worker}"),
                sent: worker,
            });
        }
        Ok(workers)
    }
}

impl Worker for Puts {
    async fn once(&mut self) -> anyhow::Result<Duration> {
        let path = format!("/chunk/{}-{}", self.prefix, self.sent);
        let answer = self.connection.put(&path, &self.payload.chunk(self.sent).bytes).await?;
        ensure!(answer.status == 201, "PUT {path} answered {}", answer.status);
        self.sent += 1;
        Ok(answer.first_byte)
    }
}

/// All rounds at one concurrency.
#[derive(Default)]
struct Level {
    node: Rounds,
    cpu_ms_per_chunk: Vec<f64>,
    ceiling: Rounds,
    plain: Rounds,
    fio: Vec<f64>,
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    bench.require_free(FREE_BYTES)?;
    let about = format!(
        "durable PUT of random 2 MiB chunks to one node, {} alternated rounds of {:?} at each concurrency",
        Bench::ROUNDS,
        bench.round()
    );
    let mut section = Section::new("put", about);
    let payload = Payload::make();
    let fio = disk::fio();
    match &fio {
        Some(path) => section.note(format!(
            "fio: {} --direct=1 --fdatasync=1, 2 MiB blocks",
            path.display()
        )),
        None => section.note("fio is not installed: plain write + fdatasync stands for the disk"),
    }
    section.note("ceiling: a server that receives and hashes (SHA-256) and writes nothing, fed by the same generator");
    for concurrency in CONCURRENCIES {
        let mut level = Level::default();
        for _ in 0..Bench::ROUNDS {
            let (round, cpu) = node_round(bench, &payload, concurrency).await?;
            level.node.push(&round);
            level.cpu_ms_per_chunk.push(cpu);
            level.ceiling.push(&ceiling_round(bench, &payload, concurrency).await?);
            let plain = Plain {
                threads: concurrency,
                copies: 1,
                duration: bench.round(),
            };
            level
                .plain
                .push(&plain.run(&bench.directory, &payload, &bench.stop).await?);
            if let Some(fio) = &fio {
                level
                    .fio
                    .push(disk::run_fio(fio, &bench.directory, concurrency, bench.round()).await?);
            }
        }
        level.tell(&mut section, concurrency);
    }
    Ok(section)
}

impl Level {
    fn tell(self, section: &mut Section, concurrency: usize) {
        section
            .rows
            .push(self.node.row(format!("vstack node, c{concurrency}"), "chunks/s"));
        section.rows.push(
            self.ceiling
                .row(format!("ceiling: receive + SHA-256, c{concurrency}"), "chunks/s"),
        );
        section.rows.push(
            self.plain
                .row(format!("disk: write + fdatasync, {concurrency} threads"), "chunks/s"),
        );
        let disk = if self.fio.is_empty() {
            &self.plain.rates
        } else {
            section.rows.push(Row::new(
                format!("disk: fio, {concurrency} jobs"),
                "chunks/s",
                self.fio.clone(),
            ));
            &self.fio
        };
        let lesser = pairwise(disk, &self.ceiling.rates, f64::min);
        let ratios = ratios(&self.node.rates, &lesser);
        let name = format!("vstack node's processor time, c{concurrency}");
        section.rows.push(Row::new(name, "ms/chunk", self.cpu_ms_per_chunk));
        if concurrency <= RATE_TARGET_UP_TO {
            section.judge_rounds(targets::PUT_RATE, format!("c{concurrency}"), &ratios);
        } else {
            let name = format!("node / the lesser of disk and ceiling, c{concurrency}");
            section.rows.push(Row::new(name, "x", ratios));
        }
        if concurrency == P99_AT {
            section.judge_rounds(targets::PUT_P99, "", &self.node.p99s());
        }
    }
}

/// On an empty disk each time: every round begins in the same state.
async fn node_round(bench: &Bench, payload: &Payload, concurrency: usize) -> anyhow::Result<(Round, f64)> {
    let node = LoneNode::start(&bench.binary, &bench.directory).await?;
    let workers = Puts::workers(&node.host, payload, concurrency, "bench").await?;
    let before = cpu_seconds(node.pid())?;
    let round = closed_loop(workers, bench.round()).await?;
    let used = cpu_seconds(node.pid())? - before;
    drop(node);
    disk::settle().await?;
    // One request of each worker comes before the round, and one ends after it.
    let chunks = round.requests + 2 * concurrency as u64;
    Ok((round, used * 1e3 / chunks as f64))
}

async fn ceiling_round(bench: &Bench, payload: &Payload, concurrency: usize) -> anyhow::Result<Round> {
    let ceiling = Ceiling::start()?;
    let workers = Puts::workers(&ceiling.host, payload, concurrency, "bench").await?;
    closed_loop(workers, bench.round()).await
}
