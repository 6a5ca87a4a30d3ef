//! The client of a Raft cluster: it stands outside, and sends its chunks to the leader.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use vstack_types::{ChunkId, Digest};

use super::trio::Trio;
use crate::{
    peer::{
        Caller,
        raft::{INITIALIZE, Members, STATUS, Status, WRITE, Write},
    },
    process::wait_for,
};

/// Until there is a leader, and until all peers have what it committed.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A client that knows the leader.
pub struct Client {
    caller: Caller,
    urls: Vec<String>,
    leader: String,
}

impl Client {
    /// Makes these peers a cluster, and waits for its leader.
    pub async fn of(trio: &Trio) -> anyhow::Result<Self> {
        let (caller, urls) = (Caller::new(trio.secret.clone())?, trio.urls());
        let members = Members((0..).zip(urls.clone()).collect());
        caller.call::<_, ()>(&urls[0], INITIALIZE, &members, Vec::new()).await?;
        let elected = async || status(&caller, &urls[0]).await.ok()?.leader;
        let leader = wait_for("a leader", WAIT_MAX, elected).await?;
        let leader = urls.get(usize::try_from(leader)?).context("the leader is no member")?;
        Ok(Self {
            leader: leader.clone(),
            caller,
            urls,
        })
    }

    /// Gives the time until it is committed, which is when the leader answers. The third copy may still be on its way.
    pub async fn commit(&self, chunk: &ChunkId, bytes: &Bytes) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let write = Write {
            chunk: chunk.clone(),
            sha256: Digest::of(bytes),
            size: bytes.len(),
        };
        self.caller
            .call::<_, ()>(&self.leader, WRITE, &write, vec![bytes.clone()])
            .await?;
        Ok(started.elapsed())
    }

    /// Waits until every peer has applied everything.
    pub async fn copied(&self) -> anyhow::Result<()> {
        let last = status(&self.caller, &self.leader).await?.applied;
        for url in &self.urls {
            let there = async || (status(&self.caller, url).await.ok()?.applied >= last).then_some(());
            wait_for("every peer to apply what is committed", WAIT_MAX, there).await?;
        }
        Ok(())
    }
}

async fn status(caller: &Caller, url: &str) -> anyhow::Result<Status> {
    Ok(caller.call(url, STATUS, &(), Vec::new()).await?)
}
