//! What handlers and workers share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use vstack_api::{
    ErrorCode,
    metadata::{NodeInfo, VideoStatus},
};
use vstack_chunkpaxos::{Layout, Outcome, Placement, Proposer};
use vstack_client::{Effort, NodeClient, NodeUrls, ProposeError, propose_counting};
use vstack_placement::Candidate;
use vstack_service::{
    ApiError, ApiResult,
    commit_costs::{CommitCosts, CommitPath},
};
use vstack_types::{ChunkId, Clock, NodeRef, Timestamp, VideoId};

use crate::{
    Settings,
    events::{Event, Events},
    hearing::Hearing,
    keeping::KeepingDesk,
    reaper::ReaperPace,
    refused::RefusedNodes,
    registry,
    store::{Group, Node, Store, StoreError, Video},
    trace::TraceHub,
    upkeep::Upkeep,
};

/// State of the service: nothing but ways to it.
pub(crate) struct App {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) nodes: NodeClient,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) events: Events,
    /// Who was heard of, whatever is written down of that.
    pub(crate) hearing: Hearing,
    pub(crate) pace: ReaperPace,
    /// What deciding costs.
    pub(crate) costs: CommitCosts,
    /// What acceptors everywhere do, while somebody watches.
    pub(crate) trace: TraceHub,
    /// Counts and mends.
    pub(crate) upkeep: Upkeep,
    /// How videos are kept.
    pub(crate) keeping: KeepingDesk,
    /// Who asked to take part, and may not.
    pub(crate) refused: Mutex<RefusedNodes>,
    /// Wakes the reaper before its next look.
    pub(crate) reap_now: tokio::sync::Notify,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) type Shared = Arc<App>;

/// A store's failure as an answer.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Full => {
            tracing::error!("the disk of the database is full");
            ApiError::new(
                ErrorCode::DiskFull,
                "the disk of the metadata database is full; make room on it",
            )
        }
        StoreError::Unavailable(cause) => {
            tracing::warn!(%cause, "the database does not answer");
            ApiError::new(ErrorCode::Unavailable, "the database does not answer; try again")
                .retry_after(Duration::from_secs(1))
        }
        StoreError::Exists { what } => ApiError::new(ErrorCode::Conflict, format!("this {what} exists already")),
        error @ StoreError::Unreadable { .. } => ApiError::internal(error),
    }
}

/// 404 for a video.
pub(crate) fn no_such_video(id: VideoId) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no video {id}"))
}

/// The group that chunk `sequence` of a video belongs to; the init segment belongs to the first.
pub(crate) fn group_of(groups: &[Group], sequence: Option<u32>) -> Option<&Group> {
    match sequence {
        None => groups.first(),
        Some(sequence) => groups.iter().rev().find(|group| group.from_seq <= sequence),
    }
}

impl App {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    pub(crate) async fn video(&self, id: VideoId) -> ApiResult<Video> {
        self.store
            .video(id)
            .await
            .map_err(store_error)?
            .ok_or_else(|| no_such_video(id))
    }

    /// The nodes as placement sees them now.
    pub(crate) fn candidates(&self, nodes: &[Node]) -> Vec<Candidate> {
        registry::candidates(nodes, &self.upkeep.mute(), self.now(), self.settings.node_timeout())
    }

    pub(crate) fn refused(&self) -> MutexGuard<'_, RefusedNodes> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All nodes that are registered, each with when it was last heard of, written down or not.
    pub(crate) async fn known_nodes(&self) -> Result<Vec<Node>, StoreError> {
        let nodes = self.store.nodes().await?;
        let heard = self.hearing.heard();
        Ok(nodes.into_iter().map(|node| heard.over(node)).collect())
    }

    /// The same, for who answers with them.
    pub(crate) async fn registered(&self) -> ApiResult<Vec<Node>> {
        self.known_nodes().await.map_err(store_error)
    }

    /// One of them.
    pub(crate) async fn known_node(&self, label: String) -> Result<Option<Node>, StoreError> {
        let node = self.store.node(label).await?;
        Ok(node.map(|node| self.hearing.heard().over(node)))
    }

    /// A node as it is shown, whether it was read with when it was last heard of or not.
    pub(crate) fn info(&self, node: &Node) -> NodeInfo {
        let node = self.hearing.heard().over(node.clone());
        registry::info(&node, self.now(), self.settings.node_timeout())
    }

    /// Proposes, and counts what it costs.
    pub(crate) async fn propose(
        &self,
        urls: &NodeUrls,
        chunk: &ChunkId,
        proposer: Proposer,
        deadline: Duration,
    ) -> Result<Outcome, ProposeError> {
        let mut effort = Effort::default();
        let proposed = propose_counting(&self.nodes, urls, chunk, proposer, deadline, &mut effort).await;
        let outcome = proposed.map(|proposed| proposed.outcome);
        let path = CommitPath::Classic;
        self.costs
            .spent(path, effort.messages, effort.round_trips, effort.votes);
        if matches!(outcome, Ok(Outcome::Decided(_))) {
            self.costs.decided(path);
        }
        outcome
    }

    pub(crate) fn tell_node(&self, node: &Node) {
        self.events.tell(Event::Node(Box::new(self.info(node))));
    }

    pub(crate) fn tell_status(&self, video_id: VideoId, status: VideoStatus, reason: Option<String>) {
        self.events.tell(Event::Upload {
            video_id,
            status,
            reason,
        });
        if matches!(status, VideoStatus::Failed | VideoStatus::Deleted) {
            self.reap_now.notify_one();
        }
    }

    pub(crate) fn tell_placement(&self, video_id: VideoId, chunk_id: &ChunkId, placement: &Placement) {
        let nodes = match &placement.layout {
            Layout::Deleted { .. } => Vec::new(),
            Layout::Replicated { .. } | Layout::Coded { .. } => {
                placement.nodes().iter().map(NodeRef::to_string).collect()
            }
        };
        let (chunk_id, version) = (chunk_id.clone(), placement.version);
        self.events.tell(Event::Placement {
            video_id,
            chunk_id,
            version,
            nodes,
        });
    }
}
