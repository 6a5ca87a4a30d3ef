//! ChunkPaxos through the client that the uploader and the metadata service use.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::task::JoinSet;
use vstack_chunkpaxos::{Change, Outcome, Proposer, Request};
use vstack_client::{Effort, Holder, HttpClient, NodeClient, NodeUrls, Timeouts, propose_counting};
use vstack_types::{ChunkId, Digest, NodeRef, ProcessUuid};

use super::trio::Trio;
use crate::fast_path;

/// Decisions told to the nodes at once, as the uploader does.
const NEWS_BATCH: usize = 64;
/// Longest wait for a decision by the classic path.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(30);

type News = (ChunkId, Request);

/// A client of three storage nodes.
pub struct Client {
    nodes: NodeClient,
    group: Vec<Holder>,
    urls: NodeUrls,
    owner: ProcessUuid,
    /// Decisions that the nodes have not been told.
    news: Mutex<Vec<News>>,
}

impl Client {
    /// Asks the nodes who they are.
    pub async fn of(trio: &Trio) -> anyhow::Result<Self> {
        let nodes = NodeClient::new(HttpClient::new(Some(trio.secret.clone()), Timeouts::default())?);
        let mut group = Vec::new();
        for url in trio.urls() {
            let node = nodes.challenge(&url).await?;
            group.push(Holder { node, url });
        }
        let urls = group
            .iter()
            .map(|holder| (holder.node.uuid, holder.url.clone()))
            .collect();
        Ok(Self {
            nodes,
            group,
            urls,
            owner: ProcessUuid::random(),
            news: Mutex::default(),
        })
    }

    fn members(&self) -> Vec<NodeRef> {
        self.group.iter().map(|holder| holder.node).collect()
    }

    /// The owner's path. Gives the time until a majority had accepted; returns when all have.
    pub async fn fast(&self, chunk: &ChunkId, bytes: &Bytes) -> anyhow::Result<Duration> {
        let committed = fast_path::commit(&self.nodes, &self.group, self.owner, (chunk, bytes)).await?;
        self.decided(chunk, committed.decision).await?;
        Ok(committed.decided_after)
    }

    /// Keeps the news until there is a batch of it.
    async fn decided(&self, chunk: &ChunkId, decision: Request) -> anyhow::Result<()> {
        let full = {
            let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.push((chunk.clone(), decision));
            (news.len() >= NEWS_BATCH).then(|| std::mem::take(&mut *news))
        };
        self.tell(full.unwrap_or_default()).await
    }

    /// Tells the nodes what they have not been told.
    pub async fn tell_rest(&self) -> anyhow::Result<()> {
        let rest = std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
        self.tell(rest).await
    }

    async fn tell(&self, news: Vec<News>) -> anyhow::Result<()> {
        if news.is_empty() {
            return Ok(());
        }
        let told = self.group.iter().map(|holder| self.nodes.decided(holder, &news));
        for answer in futures_util::future::join_all(told).await {
            answer?;
        }
        Ok(())
    }

    /// The path of everybody else: the bytes to all nodes, then a proposer. Gives the time until it has its outcome;
    /// returns when all nodes have been told.
    pub async fn classic(&self, chunk: &ChunkId, bytes: &Bytes) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let (sha256, size) = (Digest::of(bytes), bytes.len() as u64);
        let mut puts = JoinSet::new();
        for holder in &self.group {
            let (nodes, holder, chunk) = (self.nodes.clone(), holder.clone(), chunk.clone());
            let bytes = bytes.clone();
            puts.spawn(async move { nodes.put_item(&holder, &chunk, sha256, bytes).await });
        }
        while let Some(stored) = puts.join_next().await {
            stored.context("a PUT ended badly")??;
        }
        let create = Change::Create { size, sha256 };
        let proposer = Proposer::new(ProcessUuid::random(), self.members(), create);
        let mut effort = Effort::default();
        let (nodes, urls) = (&self.nodes, &self.urls);
        let proposed = propose_counting(nodes, urls, chunk, proposer, PROPOSE_TIMEOUT, &mut effort).await?;
        let decided = started.elapsed();
        match &proposed.outcome {
            Outcome::Decided(vote) if vote.placement.sha256 == sha256 => {}
            other => bail!("{chunk} came to {other:?}"),
        }
        proposed.rest().await;
        Ok(decided)
    }
}
