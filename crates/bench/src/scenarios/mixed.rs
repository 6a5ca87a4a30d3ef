//! Nine hot GETs for every durable PUT, from and to one storage node running alone.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use vstack_types::limits::CHUNK_BYTES_MAX;

use super::{
    Bench,
    get::CHUNKS,
    gets::{check, fill},
};
use crate::{
    cluster::LoneNode,
    disk,
    http::Connection,
    load::{Round, Rounds, Worker, closed_loop},
    measure::{Latencies, LatencyMs, ratios},
    nginx::Nginx,
    payload::Payload,
    report::{Row, Section},
};

const CONCURRENCIES: [usize; 2] = [8, 64];
/// Share of PUTs, in percent.
const PUTS_PERCENT: u32 = 10;
/// More than a round of anybody writes, with room for the file system.
const FREE_BYTES: u64 = 12 << 30;

/// Latencies of GETs and of PUTs, of all workers of a round.
#[derive(Default)]
struct Kinds {
    gets: Latencies,
    puts: Latencies,
}

struct Mixed {
    connection: Connection,
    payload: Payload,
    name: String,
    sent: usize,
    rng: StdRng,
    kinds: Arc<Mutex<Kinds>>,
}

impl Worker for Mixed {
    async fn once(&mut self) -> anyhow::Result<Duration> {
        let puts = self.rng.random_range(0..100) < PUTS_PERCENT;
        let started = Instant::now();
        let answer = if puts {
            let path = format!("/chunk/{}-{}", self.name, self.sent);
            let answer = self.connection.put(&path, &self.payload.chunk(self.sent).bytes).await?;
            ensure!(answer.status == 201, "PUT {path} answered {}", answer.status);
            self.sent += 1;
            answer
        } else {
            let path = format!("/chunk/{}", self.rng.random_range(0..CHUNKS));
            let answer = self.connection.get(&path).await?;
            ensure!(
                answer.status == 200 && answer.length == CHUNK_BYTES_MAX,
                "GET {path} answered {answer:?}"
            );
            answer
        };
        let took = started.elapsed();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = if puts { &mut kinds.puts } else { &mut kinds.gets };
        of_kind.record(took);
        Ok(answer.first_byte)
    }
}

/// Rounds of one server.
#[derive(Default)]
struct Contender {
    rounds: Rounds,
    gets: Vec<LatencyMs>,
    puts: Vec<LatencyMs>,
}

impl Contender {
    async fn round(
        &mut self,
        bench: &Bench,
        host: &str,
        payload: &Payload,
        concurrency: usize,
    ) -> anyhow::Result<Round> {
        let kinds = Arc::<Mutex<Kinds>>::default();
        let mut workers = Vec::with_capacity(concurrency);
        for worker in 0..concurrency {
            workers.push(Mixed {
                connection: Connection::open(host).await?,
                payload: payload.clone(),
                name: format!("mixed-{}-{worker}", self.rounds.rates.len()),
                sent: worker,
                rng: StdRng::seed_from_u64(worker as u64),
                kinds: Arc::clone(&kinds),
            });
        }
        let round = closed_loop(workers, bench.round()).await?;
        disk::settle().await?;
        self.rounds.push(&round);
        let kinds = kinds.lock().unwrap_or_else(PoisonError::into_inner);
        self.gets.extend(kinds.gets.summary());
        self.puts.extend(kinds.puts.summary());
        Ok(round)
    }

    fn tell(&self, section: &mut Section, name: &str, concurrency: usize) {
        section
            .rows
            .push(self.rounds.row(format!("{name}, c{concurrency}"), "requests/s"));
        for (kind, latencies) in [("GET", &self.gets), ("PUT", &self.puts)] {
            let p99s = latencies.iter().map(|latency| latency.p99).collect();
            let name = format!("{name}, c{concurrency}, p99 of {kind}");
            section
                .rows
                .push(Row::new(name, "ms", p99s).with_latency(latencies.clone()));
        }
    }
}

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    bench.require_free(FREE_BYTES)?;
    let about = format!(
        "{} % hot GET, {PUTS_PERCENT} % durable PUT of 2 MiB, one node, {} alternated rounds of {:?} at each concurrency",
        100 - PUTS_PERCENT,
        Bench::ROUNDS,
        bench.round()
    );
    let mut section = Section::new("mixed", about);
    let payload = Payload::make();
    for concurrency in CONCURRENCIES {
        level(bench, &mut section, &payload, concurrency).await?;
    }
    Ok(section)
}

/// On empty disks: every level begins in the same state.
async fn level(bench: &Bench, section: &mut Section, payload: &Payload, concurrency: usize) -> anyhow::Result<()> {
    let node = LoneNode::start(&bench.binary, &bench.directory).await?;
    fill(&node.host, payload, CHUNKS).await?;
    check(&node.host, payload, CHUNKS).await?;
    let nginx = Nginx::start(&bench.directory, payload, CHUNKS).await?;
    let nginx = nginx.filter(|nginx| nginx.takes_puts);
    if let Some(nginx) = &nginx {
        check(&nginx.buffers, payload, CHUNKS).await?;
        section.note(format!("peer: {}; it hashes nothing, and syncs no PUT", nginx.version));
    } else {
        section.note("nginx is not installed, or takes no PUTs: there is no peer");
    }
    let (mut ours, mut theirs) = (Contender::default(), Contender::default());
    for _ in 0..Bench::ROUNDS {
        ours.round(bench, &node.host, payload, concurrency).await?;
        if let Some(nginx) = &nginx {
            theirs.round(bench, &nginx.buffers, payload, concurrency).await?;
        }
    }
    ours.tell(section, "vstack node", concurrency);
    if nginx.is_some() {
        theirs.tell(section, "nginx, 1 MiB buffers, no sync", concurrency);
        let ratios = ratios(&ours.rounds.rates, &theirs.rounds.rates);
        let name = format!("node / nginx, rate, c{concurrency}");
        section.rows.push(Row::new(name, "x", ratios));
    }
    Ok(())
}
