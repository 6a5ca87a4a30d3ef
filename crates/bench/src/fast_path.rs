//! The owner's path as the uploader takes it: bytes and vote to all nodes at once, decided by a majority, waited for on
//! all, so that every copy counted is synced.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::task::JoinSet;
use vstack_chunkpaxos::{Ballot, Layout, Placement, Reply, Request};
use vstack_client::{Holder, NodeClient};
use vstack_types::{ChunkId, Digest, ProcessUuid};

/// A chunk that every node of its group accepted.
pub struct Committed {
    /// What is to be told: a [`Request::Decided`].
    pub decision: Request,
    /// Until a majority had accepted.
    pub decided_after: Duration,
}

/// Commits `chunk` on `group`. The bytes are hashed here, as the uploader has to.
pub async fn commit(
    nodes: &NodeClient,
    group: &[Holder],
    owner: ProcessUuid,
    (chunk, bytes): (&ChunkId, &Bytes),
) -> anyhow::Result<Committed> {
    let started = Instant::now();
    let placement = Placement {
        version: 1,
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
        layout: Layout::Replicated {
            nodes: group.iter().map(|holder| holder.node).collect(),
        },
        prev: None,
        back: false,
    };
    let ballot = Ballot::zero(owner);
    let vote = Arc::new(Request::Put0 {
        ballot,
        placement: placement.clone(),
    });
    let mut puts = JoinSet::new();
    for holder in group {
        let (nodes, holder, chunk) = (nodes.clone(), holder.clone(), chunk.clone());
        let (vote, bytes) = (Arc::clone(&vote), bytes.clone());
        puts.spawn(async move { nodes.put_vote(&holder, &chunk, &vote, bytes).await });
    }
    let (mut accepted, mut decided) = (0, None);
    while let Some(answer) = puts.join_next().await {
        match answer.context("a PUT ended badly")?? {
            Reply::Accepted { .. } => accepted += 1,
            other => bail!("a node answered {other:?} for {chunk}"),
        }
        if accepted * 2 > group.len() {
            decided.get_or_insert_with(|| started.elapsed());
        }
    }
    Ok(Committed {
        decision: Request::Decided { ballot, placement },
        decided_after: decided.context("no majority")?,
    })
}
