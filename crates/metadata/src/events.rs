//! What happens in the cluster, for whoever watches `GET /events`.

use serde::Serialize;
use tokio::sync::broadcast;
use vstack_api::metadata::{NodeInfo, VideoStatus};
use vstack_types::{ChunkId, VideoId};

/// Events kept for a watcher that reads slowly; one that falls behind further is told so and asks again.
const BACKLOG: usize = 512;

/// One event. Its name goes into the stream's `event` field, its content into `data`, as JSON.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(crate) enum Event {
    /// `nodes`: a node registered, came, went, or gained or lost trust.
    Node(Box<NodeInfo>),
    /// `uploads`: a video was created or changed its status.
    Upload {
        #[schema(value_type = String)]
        video_id: VideoId,
        status: VideoStatus,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// `placements`: a chunk's decided placement was learned.
    Placement {
        #[schema(value_type = String)]
        video_id: VideoId,
        #[schema(value_type = String)]
        chunk_id: ChunkId,
        version: u64,
        /// Acceptors named, `<uuid>/<incarnation>`; empty once it is deleted.
        nodes: Vec<String>,
    },
}

impl Event {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Node(_) => "nodes",
            Self::Upload { .. } => "uploads",
            Self::Placement { .. } => "placements",
        }
    }
}

/// Where events come from.
#[derive(Debug, Clone)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    /// Tells everybody who watches, and nobody else.
    pub(crate) fn tell(&self, event: Event) {
        let _nobody_watches = self.0.send(event);
    }

    pub(crate) fn watch(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
