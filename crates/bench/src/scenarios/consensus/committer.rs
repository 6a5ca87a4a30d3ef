//! One client for all protocols: it commits chunks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use vstack_client::{HttpClient, NodeClient, Timeouts};
use vstack_types::{ChunkId, Digest};

use super::{chunkpaxos, protocol::Protocol, raft, textbook, trio::Trio};
use crate::payload::Payload;

enum Client {
    Fast(chunkpaxos::Client),
    Classic(chunkpaxos::Client),
    Textbook(textbook::Client),
    Raft(raft::Client),
}

/// Commits chunks of one size, each under a name of its own.
pub struct Committer {
    client: Client,
    nodes: NodeClient,
    urls: Vec<String>,
    payload: Payload,
    chunk_bytes: usize,
    begun: AtomicU32,
    done: AtomicU32,
}

impl Committer {
    /// Of three nodes that have just been started.
    pub async fn of(
        protocol: Protocol,
        trio: &Trio,
        payload: &Payload,
        chunk_bytes: usize,
    ) -> anyhow::Result<Arc<Self>> {
        let client = match protocol {
            Protocol::Fast => Client::Fast(chunkpaxos::Client::of(trio).await?),
            Protocol::Classic => Client::Classic(chunkpaxos::Client::of(trio).await?),
            Protocol::Textbook => Client::Textbook(textbook::Client::of(trio)?),
            Protocol::Raft => Client::Raft(raft::Client::of(trio).await?),
        };
        Ok(Arc::new(Self {
            client,
            nodes: NodeClient::new(HttpClient::new(None, Timeouts::default())?),
            urls: trio.urls(),
            payload: payload.clone(),
            chunk_bytes,
            begun: AtomicU32::new(0),
            done: AtomicU32::new(0),
        }))
    }

    /// Chunks committed so far.
    pub fn done(&self) -> u32 {
        self.done.load(Ordering::Relaxed)
    }

    fn chunk(&self, number: u32) -> anyhow::Result<(ChunkId, Bytes)> {
        let bytes = &self.payload.chunk(usize::try_from(number)?).bytes;
        Ok((format!("bench-{number}").parse()?, bytes.slice(..self.chunk_bytes)))
    }

    /// Commits the next chunk; gives the time until it was decided.
    pub async fn commit(&self) -> anyhow::Result<Duration> {
        let (chunk, bytes) = self.chunk(self.begun.fetch_add(1, Ordering::Relaxed))?;
        let decided = match &self.client {
            Client::Fast(client) => client.fast(&chunk, &bytes).await,
            Client::Classic(client) => client.classic(&chunk, &bytes).await,
            Client::Textbook(client) => client.commit(&chunk, &bytes).await,
            Client::Raft(client) => client.commit(&chunk, &bytes).await,
        };
        let decided = decided.with_context(|| format!("{chunk} was not committed"))?;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(decided)
    }

    /// Waits until every node has what was committed, where a commit does not wait for that.
    pub async fn is_everywhere(&self) -> anyhow::Result<()> {
        match &self.client {
            Client::Raft(client) => client.copied().await,
            Client::Fast(_) | Client::Classic(_) | Client::Textbook(_) => Ok(()),
        }
    }

    /// Waits until every node has everything, and sends the news that has gathered.
    pub async fn settle(&self) -> anyhow::Result<()> {
        match &self.client {
            Client::Fast(client) => client.tell_rest().await,
            Client::Raft(_) | Client::Classic(_) | Client::Textbook(_) => self.is_everywhere().await,
        }
    }

    /// Reads the chunks `from` and the last one back from every node, and verifies them.
    pub async fn check(&self, from: u32) -> anyhow::Result<()> {
        for number in [from, self.begun.load(Ordering::Relaxed).saturating_sub(1)] {
            let (chunk, bytes) = self.chunk(number)?;
            for url in &self.urls {
                let read = self.nodes.get_verified(url, &chunk, Digest::of(&bytes)).await;
                read.with_context(|| format!("{chunk} is not at {url}"))?;
            }
        }
        Ok(())
    }
}
