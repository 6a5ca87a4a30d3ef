//! The closed loop: so many workers, each one request after the other, for a while.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::{
    measure::{Latencies, LatencyMs},
    report::Row,
};

/// One worker of a load.
pub trait Worker: Send + 'static {
    /// One request, to its end; gives the latency to be counted beside the whole, for example the first byte's.
    fn once(&mut self) -> impl Future<Output = anyhow::Result<Duration>> + Send;
}

/// What one round of a load showed.
#[derive(Debug, Clone)]
pub struct Round {
    /// Requests that ended in time.
    pub requests: u64,
    /// Requests a second.
    pub rate: f64,
    /// Of the whole request.
    pub latency: Latencies,
    /// Of what [`Worker::once`] gave.
    pub part: Latencies,
}

/// Runs all workers side by side for `duration`. One request each goes before and is not counted. A request that fails
/// ends the round: a rate with errors in it means nothing.
pub async fn closed_loop<W: Worker>(workers: Vec<W>, duration: Duration) -> anyhow::Result<Round> {
    let mut warming = JoinSet::new();
    for mut worker in workers {
        warming.spawn(async move { worker.once().await.map(|_| worker) });
    }
    let mut warm = Vec::new();
    while let Some(worker) = warming.join_next().await {
        warm.push(worker.context("a worker ended badly")??);
    }
    let deadline = Instant::now() + duration;
    let mut running = JoinSet::new();
    for worker in warm {
        running.spawn(work(worker, deadline));
    }
    let (mut latency, mut part) = (Latencies::default(), Latencies::default());
    while let Some(done) = running.join_next().await {
        let (whole, parts) = done.context("a worker ended badly")??;
        latency.merge(&whole);
        part.merge(&parts);
    }
    let requests = latency.count();
    Ok(Round {
        requests,
        rate: requests as f64 / duration.as_secs_f64(),
        latency,
        part,
    })
}

/// As [`closed_loop`], for work that may be done only once: each worker sends `each` requests, none goes before, and the
/// round lasts until the last of them has ended.
pub async fn fixed_work<W: Worker>(workers: Vec<W>, each: usize) -> anyhow::Result<Round> {
    let started = Instant::now();
    let mut running = JoinSet::new();
    for mut worker in workers {
        running.spawn(async move {
            let (mut whole, mut parts) = (Latencies::default(), Latencies::default());
            for _ in 0..each {
                let sent = Instant::now();
                parts.record(worker.once().await?);
                whole.record(sent.elapsed());
            }
            anyhow::Ok((whole, parts))
        });
    }
    let (mut latency, mut part) = (Latencies::default(), Latencies::default());
    while let Some(done) = running.join_next().await {
        let (whole, parts) = done.context("a worker ended badly")??;
        latency.merge(&whole);
        part.merge(&parts);
    }
    let requests = latency.count();
    Ok(Round {
        requests,
        rate: requests as f64 / started.elapsed().as_secs_f64(),
        latency,
        part,
    })
}

async fn work<W: Worker>(mut worker: W, deadline: Instant) -> anyhow::Result<(Latencies, Latencies)> {
    let (mut whole, mut parts) = (Latencies::default(), Latencies::default());
    loop {
        let started = Instant::now();
        let part = worker.once().await?;
        let ended = Instant::now();
        if ended > deadline {
            return Ok((whole, parts));
        }
        whole.record(ended - started);
        parts.record(part);
    }
}

/// The rounds of one load at one concurrency.
#[derive(Debug, Clone, Default)]
pub struct Rounds {
    /// Requests a second.
    pub rates: Vec<f64>,
    /// Of the whole request.
    pub latency_ms: Vec<LatencyMs>,
    /// Of the part.
    pub part_ms: Vec<LatencyMs>,
}

impl Rounds {
    /// One more.
    pub fn push(&mut self, round: &Round) {
        self.rates.push(round.rate);
        self.latency_ms.extend(round.latency.summary());
        self.part_ms.extend(round.part.summary());
    }

    /// For the report.
    pub fn row(&self, name: impl Into<String>, unit: &'static str) -> Row {
        Row::new(name, unit, self.rates.clone()).with_latency(self.latency_ms.clone())
    }

    /// The p99 of each round, in milliseconds.
    pub fn p99s(&self) -> Vec<f64> {
        self.latency_ms.iter().map(|latency| latency.p99).collect()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    struct Waits(Duration);

    impl Worker for Waits {
        async fn once(&mut self) -> anyhow::Result<Duration> {
            tokio::time::sleep(self.0).await;
            Ok(self.0 / 2)
        }
    }

    struct Fails(u32);

    impl Worker for Fails {
        async fn once(&mut self) -> anyhow::Result<Duration> {
            self.0 += 1;
            if self.0 > 3 {
                bail!("the fourth fails");
            }
            Ok(Duration::ZERO)
        }
    }

    #[tokio::test]
    async fn requests_that_end_in_time_are_counted() {
        let wait = Duration::from_millis(20);
        let round = closed_loop(vec![Waits(wait), Waits(wait)], Duration::from_millis(200))
            .await
            .unwrap();
        assert!((2..=20).contains(&round.requests), "{round:?}");
        assert!((round.rate - round.requests as f64 / 0.2).abs() < 1e-9);
        assert!(round.latency.summary().unwrap().p50 >= 20.0);
        assert!((round.part.summary().unwrap().max - 10.0).abs() < 0.1);
    }

    #[tokio::test]
    async fn work_that_is_done_once_takes_as_long_as_it_takes() {
        let wait = Duration::from_millis(10);
        let round = fixed_work(vec![Waits(wait), Waits(wait)], 3).await.unwrap();
        assert_eq!((round.requests, round.part.count()), (6, 6));
        assert!(round.rate <= 6.0 / 0.03, "{round:?}");
        assert!(fixed_work(vec![Fails(0)], 4).await.is_err());
    }

    #[tokio::test]
    async fn a_failed_request_fails_the_round() {
        assert!(closed_loop(vec![Fails(0)], Duration::from_secs(60)).await.is_err());
        assert!(closed_loop(vec![Fails(3)], Duration::from_secs(60)).await.is_err());
    }
}
