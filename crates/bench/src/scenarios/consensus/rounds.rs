//! What is measured of one protocol on three nodes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::task::JoinSet;

use super::{committer::Committer, protocol::Protocol, tally::Tally, trio::Trio};
use crate::{delay::Delay, measure::Latencies, payload::Payload, process::cpu_seconds, scenarios::Bench};

/// Held back in each direction while round trips are measured, at least; and no less than a chunk takes by itself, however
/// slow the machine is: what varies of that is then less than half a round trip.
const ONE_WAY: Duration = Duration::from_millis(50);
/// And at most: calls have timeouts.
const ONE_WAY_MAX: Duration = Duration::from_millis(500);
/// Chunks committed before anything is counted.
const WARM_UP: u32 = 3;

/// One load at one concurrency.
pub struct Level {
    /// Chunks a second.
    pub rate: f64,
    /// Until decided.
    pub latency: Latencies,
    /// What a chunk cost.
    pub tally: Tally,
    /// Processor time of all nodes for a chunk, in milliseconds.
    pub nodes_cpu_ms: f64,
    /// Of the client.
    pub client_cpu_ms: f64,
}

/// A client whose nodes have committed a few chunks.
pub async fn warm(protocol: Protocol, trio: &Trio, payload: &Payload, bytes: usize) -> anyhow::Result<Arc<Committer>> {
    let committer = Committer::of(protocol, trio, payload, bytes).await?;
    for _ in 0..WARM_UP {
        committer.commit().await?;
    }
    committer.settle().await?;
    Ok(committer)
}

/// Keeps `concurrency` chunks in flight for `duration`, and lets the last of them end; gives chunks a second until then,
/// and how long each took to be decided. So many chunks go before and are not counted.
async fn load(duration: Duration, concurrency: usize, committer: &Arc<Committer>) -> anyhow::Result<(f64, Latencies)> {
    let mut warming = JoinSet::new();
    for _ in 0..concurrency {
        let committer = Arc::clone(committer);
        warming.spawn(async move { committer.commit().await });
    }
    while let Some(committed) = warming.join_next().await {
        committed.context("a worker ended badly")??;
    }
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let committer = Arc::clone(committer);
        workers.spawn(async move {
            let mut latency = Latencies::default();
            while latency.count() == 0 || started.elapsed() < duration {
                latency.record(committer.commit().await?);
            }
            anyhow::Ok(latency)
        });
    }
    let mut all = Latencies::default();
    while let Some(latency) = workers.join_next().await {
        all.merge(&latency.context("a worker ended badly")??);
    }
    Ok((all.count() as f64 / started.elapsed().as_secs_f64(), all))
}

/// Chunks one after the other, each finished before the next begins.
pub async fn counted(chunks: u32, trio: &Trio, committer: &Committer) -> anyhow::Result<Tally> {
    let before = trio.counters().await?;
    for _ in 0..chunks {
        committer.commit().await?;
        committer.is_everywhere().await?;
    }
    let decided = trio.counters().await?;
    committer.settle().await?;
    let told = trio.counters().await?;
    // What is sent once everything is decided, in a batch, is news, and its syncs are not those of decisions.
    let mut tally = Tally::of(&decided.since(&before), chunks);
    tally.news_messages += Tally::of(&told.since(&decided), chunks).news_messages;
    Ok(tally)
}

pub async fn level(
    duration: Duration,
    concurrency: usize,
    trio: &Trio,
    committer: &Arc<Committer>,
) -> anyhow::Result<Level> {
    let (before, first) = (trio.counters().await?, committer.done());
    let (nodes_cpu, client_cpu) = (trio.cpu_seconds()?, cpu_seconds(std::process::id())?);
    let (rate, latency) = load(duration, concurrency, committer).await?;
    committer.settle().await?;
    let chunks = committer.done() - first;
    let each = |seconds: f64| seconds * 1e3 / f64::from(chunks.max(1));
    let level = Level {
        rate,
        latency,
        tally: Tally::of(&trio.counters().await?.since(&before), chunks),
        nodes_cpu_ms: each(trio.cpu_seconds()? - nodes_cpu),
        client_cpu_ms: each(cpu_seconds(std::process::id())? - client_cpu),
    };
    committer.check(first).await?;
    Ok(level)
}

/// How many round trips a chunk waits for: what it takes longer when every message is held back, in units of a round trip.
pub async fn round_trips(
    bench: &Bench,
    chunks: usize,
    protocol: Protocol,
    bytes: usize,
    payload: &Payload,
) -> anyhow::Result<Vec<f64>> {
    let delay = Delay::default();
    let trio = Trio::start(protocol, &bench.binary, &bench.directory, Some(&delay)).await?;
    let committer = warm(protocol, &trio, payload, bytes).await?;
    let mut free = Vec::new();
    for _ in 0..chunks {
        free.push(committer.commit().await?);
        committer.settle().await?;
    }
    free.sort_unstable();
    // One that was held up by something else says nothing of the others.
    let middle = free.get(free.len() / 2).copied().unwrap_or_default();
    let one_way = middle.clamp(ONE_WAY, ONE_WAY_MAX);
    let mut held_back = Vec::new();
    for _ in 0..chunks {
        delay.set(one_way);
        held_back.push(committer.commit().await?);
        // What is still under way belongs to none of them.
        delay.set(Duration::ZERO);
        committer.settle().await?;
    }
    committer.check(0).await?;
    // Other work only ever adds to what a chunk takes by itself.
    let alone = free.first().copied().unwrap_or_default();
    let trips = held_back
        .into_iter()
        .map(|took| (took.as_secs_f64() - alone.as_secs_f64()) / (2.0 * one_way.as_secs_f64()));
    Ok(trips.collect())
}
