//! What all handlers share.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use vstack_chunkpaxos::{Register, Reply, Request};
use vstack_client::NodeClient;
use vstack_engine::{BoxedDisk, BufferPool, Engine, Found, Missing, Reader, VoteState, Which, WriteError};
use vstack_service::{ApiError, event_ring::EventRing};
use vstack_types::{ChunkId, Clock, Digest, NodeRef, ProcessUuid, limits::DISK_PERCENT_FULL};

use vstack_api::ErrorCode;

use crate::{
    background::Background,
    gaps::Gaps,
    metrics::NodeMetrics,
    standing::{CurrentStanding, Standing, Verdict},
    trace::Handled,
};

/// The node.
pub(crate) struct App {
    pub engine: Engine<BoxedDisk>,
    pub clock: Arc<dyn Clock>,
    /// `<uuid>/<incarnation>`, as in `X-VStack-Node`.
    pub me_text: String,
    pub label: String,
    /// New with every start: tells this process from another on a copy of the disk.
    pub process: ProcessUuid,
    pub started: Instant,
    pub chunk_bytes_max: usize,
    pub body_timeout: Duration,
    /// From one piece of a body to the next.
    pub body_pause: Duration,
    /// What opening found missing.
    pub gaps: Gaps,
    /// Memory for chunks that arrive, until they are written.
    pub bodies: BufferPool,
    /// Places that bodies of anybody may take of it at once.
    pub turns_of_anyone: Arc<Semaphore>,
    /// Memory for chunks on their way out.
    pub sending: BufferPool,
    pub standing: CurrentStanding,
    /// The disk is to give up its name: the node ends, to be started again.
    pub renews: CancellationToken,
    pub peers: NodeClient,
    /// Where chunks are copied and coded.
    pub background: Background,
    pub metrics: NodeMetrics,
    /// Messages its acceptor answered lately.
    pub trace: EventRing<Handled>,
}

/// As handlers get it.
pub(crate) type Shared = Arc<App>;

impl App {
    pub(crate) fn me(&self) -> NodeRef {
        self.engine.reader().me()
    }

    /// Share of the disk in use, in percent; full when the disk does not say.
    pub(crate) fn disk_percent(&self) -> f64 {
        match self.engine.reader().usage(self.clock.monotonic()) {
            Ok(usage) => usage.percent(),
            Err(error) => {
                tracing::error!(%error, "the filesystem does not say how full it is");
                100.0
            }
        }
    }

    /// Bytes of the disk that are free; none when the disk does not say.
    pub(crate) fn disk_free_bytes(&self) -> Option<u64> {
        let usage = self.engine.reader().usage(self.clock.monotonic()).ok()?;
        Some(usage.total_bytes.saturating_sub(usage.used_bytes))
    }

    /// What a message to the acceptor comes to before it is asked: nothing, or its reply.
    pub(crate) fn before_asking(&self, request: &Request) -> Result<Option<Reply>, ApiError> {
        match self.standing.verdict(request) {
            Verdict::Ask => Ok(None),
            Verdict::Say(reply) => Ok(Some(reply)),
            Verdict::Later => Err(ApiError::new(
                ErrorCode::Unavailable,
                "this node votes as soon as the metadata service has accepted it",
            )
            .retry_after(Duration::from_secs(1))),
        }
    }

    /// Whether the disk is known to remember its votes, as far as anybody can say. One that forgot some may have vouched
    /// for bytes that look as if nothing kept them, so until then it deletes none.
    pub(crate) fn remembers(&self) -> bool {
        self.standing.get() == Standing::Votes
    }

    /// The register of `id`.
    pub(crate) async fn register_of(&self, id: &ChunkId) -> Result<Register, ApiError> {
        let wanted = id.clone();
        let register = self.engine.look(id, move |reader| reader.register(&wanted)).await;
        register.flatten().map_err(|error| unreadable(&error))
    }

    /// The register of `id` in short.
    pub(crate) async fn vote_state_of(&self, id: &ChunkId) -> Result<VoteState, ApiError> {
        let wanted = id.clone();
        let state = self.engine.look(id, move |reader| reader.vote_state(&wanted)).await;
        state.flatten().map_err(|error| unreadable(&error))
    }

    /// Whether all of `items` are here and not known to be damaged.
    pub(crate) async fn has_items(&self, id: &ChunkId, items: Vec<Digest>) -> Result<bool, ApiError> {
        let wanted = id.clone();
        let all = move |reader: &Reader<BoxedDisk>| {
            for item in items {
                if !reader.has_item(&wanted, item)? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let found = self.engine.look(id, all).await;
        found.flatten().map_err(|error| unreadable(&error))
    }

    /// What `id` stands for here.
    pub(crate) async fn find(&self, id: &ChunkId, which: Which) -> Result<Found, Missing> {
        let wanted = id.clone();
        let found = self.engine.look(id, move |reader| reader.find(&wanted, which)).await;
        found.unwrap_or(Err(Missing::Unreadable))
    }

    /// Refuses new bytes on a disk that is too full.
    pub(crate) fn check_space(&self) -> Result<(), ApiError> {
        let percent = self.disk_percent();
        if percent > DISK_PERCENT_FULL {
            return Err(disk_full(percent));
        }
        Ok(())
    }
}

/// What is known of a chunk could not be read, as an answer.
pub(crate) fn unreadable(error: &std::io::Error) -> ApiError {
    ApiError::internal(format!(
        "what is known of this chunk cannot be read from the disk: {error}"
    ))
}

fn disk_full(percent: f64) -> ApiError {
    ApiError::new(
        ErrorCode::DiskFull,
        format!("the disk is {percent:.1} % full and takes no more chunks"),
    )
}

/// An engine's refusal as an answer.
pub(crate) fn engine_error(error: vstack_engine::EngineError) -> ApiError {
    use vstack_engine::EngineError;
    match error {
        EngineError::Write(WriteError::DiskFull) => {
            ApiError::new(ErrorCode::DiskFull, WriteError::DiskFull.to_string())
        }
        EngineError::Write(error @ WriteError::TooLarge { .. }) => {
            ApiError::new(ErrorCode::TooLarge, error.to_string())
        }
        EngineError::Write(error @ WriteError::Unreadable { .. }) => ApiError::internal(error.to_string()),
        EngineError::Write(error @ (WriteError::Failed { .. } | WriteError::Closed)) => {
            ApiError::new(ErrorCode::Unavailable, error.to_string()).retry_after(Duration::from_secs(30))
        }
        EngineError::Read { .. } => ApiError::internal(error.to_string()),
        EngineError::Timeout => {
            ApiError::new(ErrorCode::Unavailable, error.to_string()).retry_after(Duration::from_secs(5))
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_engine::EngineError;

    use super::*;

    #[test]
    fn every_refusal_of_the_engine_has_its_status() {
        let table = [
            (EngineError::Write(WriteError::DiskFull), 507),
            (EngineError::Write(WriteError::TooLarge { len: 1 }), 413),
            (
                EngineError::Write(WriteError::Failed {
                    error: "EIO".to_owned(),
                }),
                503,
            ),
            (EngineError::Write(WriteError::Closed), 503),
            (
                EngineError::Write(WriteError::Unreadable {
                    error: "EIO".to_owned(),
                }),
                500,
            ),
            (EngineError::Timeout, 503),
        ];
        for (error, status) in table {
            assert_eq!(engine_error(error.clone()).status(), status, "{error:?}");
        }
        assert_eq!(disk_full(95.2).status(), 507);
    }
}
