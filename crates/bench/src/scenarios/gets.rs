//! Workers that GET chunks, and the chunks they ask for.

use std::time::Duration;

use anyhow::ensure;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use vstack_types::{Digest, limits::CHUNK_BYTES_MAX};

use crate::{http::Connection, load::Worker, payload::Payload};

/// Asks for chunks `/chunk/<index>` in turn, whole.
pub struct Gets {
    connection: Connection,
    chunks: usize,
    /// Only every so many-th index is asked for.
    every: usize,
    next: usize,
    step: usize,
}

impl Gets {
    /// So many workers, each beginning at another of `chunks` and going through all of them.
    pub async fn workers(host: &str, chunks: usize, count: usize) -> anyhow::Result<Vec<Self>> {
        Self::of_every(host, 1, chunks, count).await
    }

    /// So many workers, each going through `chunks` chunks: of all indexes every so many-th.
    pub async fn of_every(host: &str, every: usize, chunks: usize, count: usize) -> anyhow::Result<Vec<Self>> {
        let mut workers = Self::sharing(host, chunks, count).await?;
        for worker in &mut workers {
            worker.every = every;
            worker.step = 1;
        }
        Ok(workers)
    }

    /// So many workers which share the `chunks` between them: together they ask for each once before any of them asks
    /// for one again.
    pub async fn sharing(host: &str, chunks: usize, count: usize) -> anyhow::Result<Vec<Self>> {
        let mut workers = Vec::with_capacity(count);
        for worker in 0..count {
            workers.push(Self {
                connection: Connection::open(host).await?,
                chunks,
                every: 1,
                next: worker,
                step: count,
            });
        }
        Ok(workers)
    }
}

impl Worker for Gets {
    async fn once(&mut self) -> anyhow::Result<Duration> {
        let path = format!("/chunk/{}", self.next % self.chunks * self.every);
        let answer = self.connection.get(&path).await?;
        ensure!(
            answer.status == 200 && answer.length == CHUNK_BYTES_MAX,
            "GET {path} answered {answer:?}"
        );
        self.next += self.step;
        Ok(answer.first_byte)
    }
}

/// Asks for parts of a given length, of random chunks, at random places. The same of every server.
pub struct RangeGets {
    connection: Connection,
    chunks: usize,
    length: usize,
    rng: StdRng,
}

impl RangeGets {
    /// So many workers.
    pub async fn workers(host: &str, chunks: usize, length: usize, count: usize) -> anyhow::Result<Vec<Self>> {
        let mut workers = Vec::with_capacity(count);
        for worker in 0..count {
            workers.push(Self {
                connection: Connection::open(host).await?,
                chunks,
                length,
                rng: StdRng::seed_from_u64(worker as u64),
            });
        }
        Ok(workers)
    }
}

impl Worker for RangeGets {
    async fn once(&mut self) -> anyhow::Result<Duration> {
        let path = format!("/chunk/{}", self.rng.random_range(0..self.chunks));
        let start = self.rng.random_range(0..=CHUNK_BYTES_MAX - self.length);
        let answer = self.connection.get_range(&path, start, self.length).await?;
        ensure!(
            answer.status == 206 && answer.length == self.length,
            "GET {path} from {start} answered {answer:?}"
        );
        Ok(answer.first_byte)
    }
}

/// Stores `count` chunks as `/chunk/<index>`.
pub async fn fill(host: &str, payload: &Payload, count: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(host).await?;
    for index in 0..count {
        let answer = connection
            .put(&format!("/chunk/{index}"), &payload.chunk(index).bytes)
            .await?;
        ensure!(answer.status == 201, "PUT answered {}", answer.status);
    }
    Ok(())
}

/// Every byte of `count` chunks is right, and after this in the page cache.
pub async fn check(host: &str, payload: &Payload, count: usize) -> anyhow::Result<()> {
    let mut connection = Connection::open(host).await?;
    for index in 0..count {
        let (answer, body) = connection.get_body(&format!("/chunk/{index}")).await?;
        ensure!(answer.status == 200, "GET answered {}", answer.status);
        ensure!(
            Digest::of(&body) == payload.chunk(index).sha256,
            "{host} gave other bytes than were put"
        );
    }
    Ok(())
}
