//! A Raft log (openraft) as a node: the client sends a chunk to the leader, the log carries it to the followers, and the
//! entry in the log is the stored chunk. Nothing is written twice, nothing is compacted.

mod batcher;
mod log;
mod machine;
mod network;
mod types;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use axum::{Router, extract::State, response::Response, routing::post};
use openraft::{BasicNode, Config, Raft, SnapshotPolicy, raft::AppendEntriesRequest};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use vstack_engine::{Buffer, BufferPool};
use vstack_service::{ApiError, ApiResult};
use vstack_types::{ChunkId, Digest, limits::CHUNK_BYTES_MAX};

use self::{
    batcher::Batcher,
    log::Log,
    machine::Machine,
    network::{APPEND, HEARTBEAT, Network, SNAPSHOT, VOTE},
    types::{Chunk, PeerId, Types, chunks_mut},
};
use super::{
    Caller,
    bodies::{Call, malformed},
    journal::Journal,
    single_decree::BODIES_MAX,
};

/// Path of [`Write`], at the leader.
pub const WRITE: &str = "/raft/write";
/// Path of [`Members`], at one peer, once.
pub const INITIALIZE: &str = "/raft/initialize";
/// Path that answers with [`Status`].
pub const STATUS: &str = "/raft/status";

/// Between two heartbeats, in milliseconds, and the limit of a replication request, which may carry 16 MiB.
const HEARTBEAT_MS: u64 = 5_000;
/// Without a word from the leader, in milliseconds. Nothing fails on purpose while this is measured.
const ELECTION_MS: std::ops::Range<u64> = 15_000..20_000;

/// Buffers for large chunks: those in the log's cache and those under way.
const BUFFERS_MAX: usize = 128;

/// A chunk to be committed; its bytes are the payload.
#[derive(Debug, Serialize, Deserialize)]
pub struct Write {
    /// Its name.
    pub chunk: ChunkId,
    /// Of the bytes.
    pub sha256: Digest,
    /// How many; at most [`CHUNK_BYTES_MAX`].
    pub size: usize,
}

/// The first members of the cluster, with their URLs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Members(pub BTreeMap<PeerId, String>);

/// How a peer is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Status {
    /// Who leads, as far as it knows.
    pub leader: Option<PeerId>,
    /// Index of the last entry it applied.
    pub applied: Option<u64>,
    /// Chunks committed.
    pub chunks: usize,
}

struct Node {
    raft: Raft<Types>,
    machine: Machine,
    batcher: Batcher,
    bodies: Semaphore,
    buffers: BufferPool,
}

/// The routes of peer `id`, whose log is in `journal`.
pub async fn routes(id: PeerId, journal: Arc<Journal>, caller: Caller) -> anyhow::Result<Router> {
    let config = Config {
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.start,
        election_timeout_max: ELECTION_MS.end,
        snapshot_policy: SnapshotPolicy::Never,
        // With no snapshots, a follower that is behind is sent the log.
        replication_lag_threshold: u64::MAX,
        ..Config::default()
    };
    let config = Arc::new(config.validate().context("openraft's configuration")?);
    let (log, machine) = (Log::open(journal).await?, Machine::default());
    let raft = Raft::new(id, config, Network(caller), log, machine.clone()).await?;
    let node = Arc::new(Node {
        batcher: Batcher::start(raft.clone()),
        raft,
        machine,
        bodies: Semaphore::new(BODIES_MAX),
        buffers: BufferPool::new(CHUNK_BYTES_MAX, BUFFERS_MAX),
    });
    Ok(Router::new()
        .route(INITIALIZE, post(initialize))
        .route(STATUS, post(status))
        .route(WRITE, post(write))
        .route(APPEND, post(append))
        .route(HEARTBEAT, post(append))
        .route(VOTE, post(vote))
        .route(SNAPSHOT, post(snapshot))
        .with_state(node))
}

async fn initialize(State(node): State<Arc<Node>>, call: Call) -> ApiResult<Response> {
    let Members(members) = call.head()?;
    let members: BTreeMap<_, _> = members.into_iter().map(|(id, url)| (id, BasicNode::new(url))).collect();
    node.raft.initialize(members).await.map_err(ApiError::internal)?;
    call.answer(&())
}

async fn status(State(node): State<Arc<Node>>, call: Call) -> ApiResult<Response> {
    let leader = node.raft.metrics().borrow().current_leader;
    call.answer(&Status {
        leader,
        applied: node.machine.applied(),
        chunks: node.machine.chunk_count(),
    })
}

impl Node {
    /// Memory for a chunk. A buffer of the pool stays with its entry in the cache, so none is wasted on a small chunk.
    async fn place(&self, len: usize) -> Buffer {
        match self.buffers.try_take() {
            Some(buffer) if len > CHUNK_BYTES_MAX / 2 => buffer,
            _ => BufferPool::new(len, 1).take().await,
        }
    }
}

async fn write(State(node): State<Arc<Node>>, mut call: Call) -> ApiResult<Response> {
    let Write { chunk, sha256, size } = call.head()?;
    if size > CHUNK_BYTES_MAX {
        return Err(malformed("a chunk is too large"));
    }
    let _place = node.bodies.acquire().await.map_err(ApiError::internal)?;
    let item = call.item(size, sha256, node.place(size).await).await?;
    let chunk = Chunk {
        id: chunk,
        sha256,
        size,
        item: Some(item),
    };
    node.batcher.commit(chunk).await.map_err(ApiError::internal)?;
    call.answer(&())
}

async fn append(State(node): State<Arc<Node>>, mut call: Call) -> ApiResult<Response> {
    let mut request: AppendEntriesRequest<Types> = call.head()?;
    for chunk in request.entries.iter_mut().flat_map(chunks_mut) {
        if chunk.size > CHUNK_BYTES_MAX {
            return Err(malformed("a chunk is too large"));
        }
        let place = node.place(chunk.size).await;
        chunk.item = Some(call.item(chunk.size, chunk.sha256, place).await?);
    }
    let answer = node.raft.append_entries(request).await;
    call.answer(&answer)
}

async fn vote(State(node): State<Arc<Node>>, call: Call) -> ApiResult<Response> {
    let answer = node.raft.vote(call.head()?).await;
    call.answer(&answer)
}

async fn snapshot(State(node): State<Arc<Node>>, call: Call) -> ApiResult<Response> {
    let answer = node.raft.install_snapshot(call.head()?).await;
    call.answer(&answer)
}
