//! Telling what was decided, in batches and off the path of the decision.
//!
//! The metadata service is told until it has heard, because an upload is complete only then. The nodes are told once:
//! the loss of that message is harmless, it is learned again.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use vstack_api::{
    auth::header_bytes,
    metadata::{ChunkPlace, DecidedBatch, DecidedChunk},
};
use vstack_chunkpaxos::{Request, Vote};
use vstack_client::{Holder, NodeUrls};
use vstack_types::{ChunkId, NodeRef, VideoId};

use crate::{app::SharedApp, failure::UploadFailure};

/// Decisions that wait to be told; when it is full, commits wait.
pub const NEWS_MAX: usize = 256;
/// Decisions told at once.
const BATCH_MAX: usize = 64;
/// How long a first decision waits for others.
const BATCH_WAIT: Duration = Duration::from_millis(100);
/// A metadata service that is away for longer fails the upload.
pub const AWAY_MAX: Duration = Duration::from_secs(300);
/// Batches of one upload on their way to nodes; more are dropped, which is harmless.
pub const NODE_BATCHES_MAX: usize = 16;
/// How long nodes are waited for at the end.
const NODES_WAIT: Duration = Duration::from_secs(2);

/// One decision.
#[derive(Debug, Clone)]
pub struct Decision {
    pub chunk: ChunkId,
    pub vote: Vote,
    /// None for the init segment.
    pub place: Option<ChunkPlace>,
    pub group: std::sync::Arc<Vec<Holder>>,
}

/// Tells everything that comes out of `decisions`, until its end.
///
/// # Errors
/// When the metadata service refuses, or is away for too long.
pub async fn tell(
    app: SharedApp,
    video: VideoId,
    mut decisions: mpsc::Receiver<Decision>,
) -> Result<(), UploadFailure> {
    let mut to_nodes = JoinSet::new();
    let mut batch = Vec::new();
    while let Some(first) = decisions.recv().await {
        batch.push(first);
        let gather = async {
            while batch.len() < BATCH_MAX
                && let Some(next) = decisions.recv().await
            {
                batch.push(next);
            }
        };
        let _whatever_came = timeout(BATCH_WAIT, gather).await;
        while to_nodes.try_join_next().is_some() {}
        tell_nodes(&app, &batch, &mut to_nodes);
        tell_metadata(&app, video, &batch).await?;
        batch.clear();
    }
    let drain = async { while to_nodes.join_next().await.is_some() {} };
    let _rest_is_learned_later = timeout(NODES_WAIT, drain).await;
    Ok(())
}

fn tell_nodes(app: &SharedApp, batch: &[Decision], running: &mut JoinSet<()>) {
    let mut by_node: BTreeMap<NodeRef, Vec<(ChunkId, Request)>> = BTreeMap::new();
    for decision in batch {
        let Vote { ballot, placement } = &decision.vote;
        for node in placement.nodes() {
            let news = Request::Decided {
                ballot: *ballot,
                placement: placement.clone(),
            };
            by_node.entry(node).or_default().push((decision.chunk.clone(), news));
        }
    }
    let members = batch.iter().flat_map(|decision| decision.group.iter());
    let urls: NodeUrls = members.map(|holder| (holder.node.uuid, holder.url.clone())).collect();
    for (node, news) in by_node {
        let Some(holder) = urls.holder(node) else { continue };
        if running.len() >= NODE_BATCHES_MAX {
            break;
        }
        let nodes = app.nodes.clone();
        running.spawn(async move {
            if let Err(error) = nodes.decided(&holder, &news).await {
                tracing::debug!(url = holder.url, %error, "a node was not told of decisions");
            }
        });
    }
}

async fn tell_metadata(app: &SharedApp, video: VideoId, batch: &[Decision]) -> Result<(), UploadFailure> {
    let chunks = batch.iter().map(|decision| DecidedChunk {
        chunk_id: decision.chunk.clone(),
        placement: header_bytes::encode(&decision.vote.placement.encode()),
        place: decision.place,
    });
    let body = DecidedBatch {
        owner: app.owner,
        chunks: chunks.collect(),
    };
    persist(AWAY_MAX, "did not take the list of chunks", || {
        app.metadata.decided(video, &body)
    })
    .await
}

/// Repeats a call of the metadata service that may be repeated, while it is away, for `away_max` at most.
pub async fn persist<T, F>(away_max: Duration, what: &'static str, call: impl Fn() -> F) -> Result<T, UploadFailure>
where
    F: Future<Output = Result<T, vstack_client::ClientError>>,
{
    let deadline = Instant::now() + away_max;
    let mut wait = Duration::from_millis(100);
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error)
                if error.is_transient()
                    && Instant::now() < deadline
                    && !vstack_types::planted!("a missing answer is taken for a refusal") =>
            {
                tracing::debug!(%error, "the metadata service is away");
                sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(5));
            }
            Err(source) => return Err(UploadFailure::Metadata { what, source }),
        }
    }
}
