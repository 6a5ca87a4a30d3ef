//! Fake nodes and a fake metadata service: plain HTTP servers with fixed contents and a fault that can be switched.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, head, post},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use vstack_api::{
    WallTime,
    metadata::{Manifest, ManifestChunk, ManifestInit, RedundancyMode, VideoStatus, ViewCounted},
};
use vstack_types::{ChunkId, Digest, Timestamp, VideoId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Half of the body, then the connection is closed.
    BreaksOff,
    /// No answer to anything.
    Silent,
    /// Half of the body, then nothing.
    StallsMidway,
    /// One bit is wrong.
    FlipsABit,
    /// 404.
    Missing,
    /// 503.
    Refuses,
}

/// Ends its server when dropped.
pub struct Server {
    pub url: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Server { url, task }
}

/// A URL at which nobody listens.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub struct FakeNode {
    pub server: Server,
    state: Arc<NodeState>,
}

/// What a node has, by id: under one id several, of which `?sha256=` names one.
pub type Contents = HashMap<String, Vec<Bytes>>;

struct NodeState {
    contents: Contents,
    fault: Mutex<Fault>,
    gets: Mutex<Vec<(String, Instant)>>,
    /// Bodies that stall and whose connection is still open.
    stalling: watch::Sender<usize>,
}

impl FakeNode {
    pub async fn start(video: &Video, fault: Fault) -> Self {
        Self::holding(video.contents(), fault).await
    }

    pub async fn holding(contents: Contents, fault: Fault) -> Self {
        let state = Arc::new(NodeState {
            contents,
            fault: Mutex::new(fault),
            gets: Mutex::new(vec![]),
            stalling: watch::channel(0).0,
        });
        let router = Router::new()
            .route("/ping", head(ping))
            .route("/chunk/{id}", get(chunk))
            .with_state(Arc::clone(&state));
        Self {
            server: serve(router).await,
            state,
        }
    }

    pub fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// Chunks asked for, and when.
    pub fn gets(&self) -> Vec<(String, Instant)> {
        self.state.gets.lock().unwrap().clone()
    }

    pub fn stalling(&self) -> watch::Receiver<usize> {
        self.state.stalling.subscribe()
    }
}

impl NodeState {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }
}

async fn ping(State(state): State<Arc<NodeState>>) -> StatusCode {
    if state.fault() == Fault::Silent {
        std::future::pending::<()>().await;
    }
    StatusCode::OK
}

async fn chunk(
    State(state): State<Arc<NodeState>>,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    state.gets.lock().unwrap().push((id.clone(), Instant::now()));
    let is_asked_for = |bytes: &&Bytes| {
        let sha256 = query.get("sha256");
        sha256.is_none_or(|sha256| *sha256 == Digest::of(bytes).to_string())
    };
    let items = state.contents.get(&id).map_or(&[][..], Vec::as_slice);
    let Some(bytes) = items.iter().find(is_asked_for).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let half = bytes.slice(..bytes.len() / 2);
    match state.fault() {
        Fault::None => whole(bytes),
        Fault::Silent => {
            std::future::pending::<()>().await;
            unreachable!("nothing ends it")
        }
        Fault::Missing => StatusCode::NOT_FOUND.into_response(),
        Fault::Refuses => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Fault::FlipsABit => {
            let mut wrong = bytes.to_vec();
            wrong[bytes.len() / 3] ^= 4;
            whole(wrong.into())
        }
        Fault::BreaksOff => with_length(
            bytes.len(),
            PartialBody {
                part: Some(half),
                then: Then::Fail,
            },
        ),
        Fault::StallsMidway => {
            state.stalling.send_modify(|count| *count += 1);
            let open = Then::Stall { _open: Stalling(state) };
            with_length(
                bytes.len(),
                PartialBody {
                    part: Some(half),
                    then: open,
                },
            )
        }
    }
}

fn whole(bytes: Bytes) -> Response {
    bytes.into_response()
}

fn with_length(length: usize, body: PartialBody) -> Response {
    Response::builder()
        .header("content-length", length)
        .body(Body::new(body))
        .unwrap()
}

/// Counts one body less when the connection is gone.
struct Stalling(Arc<NodeState>);

impl Drop for Stalling {
    fn drop(&mut self) {
        self.0.stalling.send_modify(|count| *count -= 1);
    }
}

enum Then {
    Fail,
    Stall { _open: Stalling },
}

struct PartialBody {
    part: Option<Bytes>,
    then: Then,
}

impl hyper::body::Body for PartialBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, std::io::Error>>> {
        match (self.part.take(), &self.then) {
            (Some(part), _) => std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(part)))),
            (None, Then::Fail) => std::task::Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
            (None, Then::Stall { .. }) => std::task::Poll::Pending,
        }
    }
}

/// A video of pseudo-random chunks.
#[derive(Debug, Clone)]
pub struct Video {
    pub id: VideoId,
    pub init: Bytes,
    pub chunks: Vec<Bytes>,
    pub chunk_sec: f64,
}

impl Video {
    pub fn new(chunks: u8, chunk_bytes: usize, chunk_sec: f64) -> Self {
        let noise = |seed: u8, length: usize| -> Bytes {
            let mut block = Digest::of(&[seed]);
            let mut bytes = Vec::with_capacity(length + 32);
            while bytes.len() < length {
                bytes.extend_from_slice(block.as_bytes());
                block = Digest::of(block.as_bytes());
            }
            bytes.truncate(length);
            bytes.into()
        };
        Self {
            id: VideoId::generate(),
            init: noise(255, 900),
            chunks: (0..chunks)
                .map(|index| noise(index, chunk_bytes + usize::from(index)))
                .collect(),
            chunk_sec,
        }
    }

    pub fn whole(&self) -> Vec<u8> {
        std::iter::once(&self.init)
            .chain(&self.chunks)
            .flat_map(|bytes| bytes.to_vec())
            .collect()
    }

    fn contents(&self) -> Contents {
        let chunks = self.chunks.iter().zip(0..);
        let chunks = chunks.map(|(bytes, index)| (ChunkId::of_video(self.id, index).to_string(), vec![bytes.clone()]));
        chunks.chain([self.init_item()]).collect()
    }

    pub fn init_item(&self) -> (String, Vec<Bytes>) {
        (ChunkId::init_of_video(self.id).to_string(), vec![self.init.clone()])
    }

    pub fn manifest(&self, nodes: &[String]) -> Manifest {
        let ids: Vec<String> = (0..nodes.len()).map(|index| format!("node-{index}")).collect();
        let chunks = self.chunks.iter().zip(0_u32..).map(|(bytes, index)| ManifestChunk {
            chunk_id: ChunkId::of_video(self.id, index),
            sequence_num: index,
            size_bytes: bytes.len() as u64,
            checksum: Digest::of(bytes).prefixed(),
            redundancy_mode: RedundancyMode::Replication,
            fragments: None,
            replicas: nodes.to_vec(),
            replica_ids: ids.clone(),
            segment: index,
            start_sec: f64::from(index) * self.chunk_sec,
            duration_sec: self.chunk_sec,
            independent: true,
        });
        Manifest {
            video_id: self.id,
            title: "fake".to_owned(),
            duration_sec: self.chunks.len() as f64 * self.chunk_sec,
            total_chunks: u32::try_from(self.chunks.len()).unwrap(),
            chunk_duration_sec: 10,
            chunk_size_bytes: 2 * 1024 * 1024,
            created_at: WallTime(Timestamp(0)),
            status: VideoStatus::Active,
            version: 1,
            codecs: String::new(),
            width: 0,
            height: 0,
            init: Some(ManifestInit {
                chunk_id: ChunkId::init_of_video(self.id),
                size_bytes: self.init.len() as u64,
                checksum: Digest::of(&self.init).prefixed(),
                replicas: nodes.to_vec(),
                replica_ids: ids.clone(),
            }),
            chunks: chunks.collect(),
        }
    }
}

pub struct FakeMetadata {
    pub server: Server,
    state: Arc<MetadataState>,
}

struct MetadataState {
    /// Given one after the other, each under a tag of its own; the last again and again.
    manifests: Vec<Manifest>,
    given: AtomicUsize,
    views: AtomicUsize,
    /// So many more requests for a manifest are refused.
    refusals: AtomicUsize,
    /// The tag in each request for a manifest.
    asked: Mutex<Vec<Option<String>>>,
    /// Only the first request for a manifest is answered while this is so.
    holds: watch::Sender<bool>,
    open: AtomicUsize,
    open_max: AtomicUsize,
}

/// A request for a manifest that is not answered yet.
struct Open(Arc<MetadataState>);

impl Open {
    fn new(state: Arc<MetadataState>) -> Self {
        let open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
        state.open_max.fetch_max(open, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeMetadata {
    pub async fn start(manifests: Vec<Manifest>) -> Self {
        let state = Arc::new(MetadataState {
            manifests,
            given: AtomicUsize::new(0),
            views: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            asked: Mutex::new(vec![]),
            holds: watch::channel(false).0,
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/manifest/{id}", get(manifest))
            .route("/video/{id}/view", post(view))
            .with_state(Arc::clone(&state));
        Self {
            server: serve(router).await,
            state,
        }
    }

    pub fn views(&self) -> usize {
        self.state.views.load(Ordering::SeqCst)
    }

    /// Says so often that it cannot answer now.
    pub fn refuse(&self, times: usize) {
        self.state.refusals.store(times, Ordering::SeqCst);
    }

    /// Answers no request for a manifest but the first for as long as this is so.
    pub fn hold(&self, holds: bool) {
        self.state.holds.send_replace(holds);
    }

    /// The tag in each request for a manifest.
    pub fn asked(&self) -> Vec<Option<String>> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Most requests for a manifest that waited at a time.
    pub fn open_max(&self) -> usize {
        self.state.open_max.load(Ordering::SeqCst)
    }
}

async fn manifest(State(state): State<Arc<MetadataState>>, Path(id): Path<VideoId>, headers: HeaderMap) -> Response {
    let tag = headers
        .get(header::IF_NONE_MATCH)
        .map(|tag| tag.to_str().unwrap().to_owned());
    let is_first = {
        let mut asked = state.asked.lock().unwrap();
        asked.push(tag.clone());
        asked.len() == 1
    };
    let _open = Open::new(Arc::clone(&state));
    if !is_first {
        let mut holds = state.holds.subscribe();
        assert!(holds.wait_for(|holds| !*holds).await.is_ok());
    }
    let refusing = |left: usize| left.checked_sub(1);
    if state
        .refusals
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, refusing)
        .is_ok()
    {
        let body = serde_json::json!({"detail": "the database is busy", "code": "unavailable"});
        return (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response();
    }
    let given = state.given.fetch_add(1, Ordering::SeqCst);
    let number = given.min(state.manifests.len() - 1);
    let its_tag = format!("\"{number}\"");
    match state.manifests.get(number) {
        Some(manifest) if manifest.video_id == id && tag.as_ref() == Some(&its_tag) => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Some(manifest) if manifest.video_id == id => ([(header::ETAG, its_tag)], axum::Json(manifest)).into_response(),
        _ => (
            StatusCode::NOT_FOUND,
            axum::Json(serde_json::json!({"detail": "no such video", "code": "not_found"})),
        )
            .into_response(),
    }
}

async fn view(State(state): State<Arc<MetadataState>>) -> Result<axum::Json<ViewCounted>, Infallible> {
    state.views.fetch_add(1, Ordering::SeqCst);
    Ok(axum::Json(ViewCounted {
        status: "success".to_owned(),
        message: "counted".to_owned(),
    }))
}

/// A video, nodes with these faults, and a metadata service whose manifest names them all.
pub struct Cluster {
    pub video: Video,
    pub nodes: Vec<FakeNode>,
    pub metadata: FakeMetadata,
}

impl Cluster {
    pub async fn start(video: Video, faults: &[Fault]) -> Self {
        let mut nodes = vec![];
        for fault in faults {
            nodes.push(FakeNode::start(&video, *fault).await);
        }
        let urls: Vec<String> = nodes.iter().map(|node| node.server.url.clone()).collect();
        let metadata = FakeMetadata::start(vec![video.manifest(&urls)]).await;
        Self { video, nodes, metadata }
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.server.url.clone()).collect()
    }
}

/// Nothing in these tests takes this long unless it hangs.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("it hangs")
}
