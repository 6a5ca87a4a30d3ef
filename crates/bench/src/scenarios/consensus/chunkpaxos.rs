//! ChunkPaxos through the client that the uploader and the metadata service use.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::task::JoinSet;
use vstack_chunkpaxos::{Ballot, Change, Layout, Outcome, Placement, Proposer, Reply, Request};
use vstack_client::{Effort, Holder, HttpClient, NodeClient, NodeUrls, Timeouts, propose_counting};
use vstack_types::{ChunkId, Digest, NodeRef, ProcessUuid};

use super::trio::Trio;

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

    /// The owner's path: bytes and vote to all nodes at once. Gives the time until a majority had accepted; returns when
    /// all have.
    pub async fn fast(&self, chunk: &ChunkId, bytes: &Bytes) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let placement = Placement {
            version: 1,
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
            layout: Layout::Replicated { nodes: self.members() },
            prev: None,
            back: false,
        };
        let ballot = Ballot::zero(self.owner);
        let vote = Arc::new(Request::Put0 {
            ballot,
            placement: placement.clone(),
        });
        let mut puts = JoinSet::new();
        for holder in &self.group {
            let (nodes, holder, chunk) = (self.nodes.clone(), holder.clone(), chunk.clone());
            let (vote, bytes) = (Arc::clone(&vote), bytes.clone());
            puts.spawn(async move { nodes.put_vote(&holder, &chunk, &vote, bytes).await });
        }
        let (mut accepted, mut decided) = (0, None);
        while let Some(answer) = puts.join_next().await {
            match answer.context("a PUT ended badly")?? {
                Reply::Accepted { .. } => accepted += 1,
                other => bail!("a node answered {other:?} for {chunk}"),
            }
            if accepted * 2 > self.group.len() {
                decided.get_or_insert_with(|| started.elapsed());
            }
        }
        let decided = decided.context("no majority")?;
        self.decided(chunk, Request::Decided { ballot, placement }).await?;
        Ok(decided)
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
