//! A metadata service, storage nodes and an uploader that do as the tests say, on real sockets, and the web service
//! in front of them.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use clap::{Args as _, FromArgMatches as _};
use futures_util::{StreamExt as _, stream};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use vstack_api::{
    WallTime,
    metadata::{Manifest, ManifestChunk, ManifestInit, RedundancyMode, VideoStatus},
};
use vstack_types::{ChunkId, Digest, Timestamp, VideoId};
use vstack_web::Settings;

/// What a node has, by id: under one id several, of which `?sha256=` names one.
pub type Contents = HashMap<String, Vec<Bytes>>;

/// Between two bytes of a node that trickles: less than any silence for which a transfer is given up.
const TRICKLE: Duration = Duration::from_millis(50);

/// A storage node that has whatever it was given.
#[derive(Default)]
pub struct FakeNode {
    contents: Contents,
    /// It refuses everything.
    pub down: AtomicBool,
    /// It flips a bit in everything.
    pub corrupt: AtomicBool,
    /// Chunks given.
    pub served: AtomicU64,
    /// It gives one byte after the other, with pauses, for as long as this is so.
    pub trickles: watch::Sender<bool>,
    /// Of those, bodies that are on their way.
    pub trickling: watch::Sender<usize>,
}

/// Counts one body less when it was given, or its reader is gone.
struct Trickling(Arc<FakeNode>);

impl Drop for Trickling {
    fn drop(&mut self) {
        self.0.trickling.send_modify(|bodies| *bodies -= 1);
    }
}

fn trickle(node: Arc<FakeNode>, bytes: Bytes) -> Response {
    node.trickling.send_modify(|bodies| *bodies += 1);
    let trickles = node.trickles.subscribe();
    let parts = stream::unfold(
        (bytes, trickles, Trickling(node)),
        |(mut left, mut trickles, trickling)| async move {
            if left.is_empty() {
                return None;
            }
            let is_over = timeout(TRICKLE, trickles.wait_for(|trickles| !*trickles)).await.is_ok();
            let part = left.split_to(if is_over { left.len() } else { 1 });
            Some((Ok::<Bytes, Infallible>(part), (left, trickles, trickling)))
        },
    );
    Body::from_stream(parts).into_response()
}

async fn give(
    State(node): State<Arc<FakeNode>>,
    Path(chunk): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if node.down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let is_asked_for = |bytes: &&Bytes| {
        let sha256 = query.get("sha256");
        sha256.is_none_or(|sha256| *sha256 == Digest::of(bytes).to_string())
    };
    let items = node.contents.get(&chunk).map_or(&[][..], Vec::as_slice);
    let Some(bytes) = items.iter().find(is_asked_for).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    node.served.fetch_add(1, Ordering::SeqCst);
    if node.corrupt.load(Ordering::SeqCst) {
        let mut other = bytes.to_vec();
        other[0] ^= 1;
        return other.into_response();
    }
    if *node.trickles.borrow() {
        return trickle(Arc::clone(&node), bytes);
    }
    bytes.into_response()
}

/// A metadata service that knows one video.
pub struct FakeMetadata {
    pub manifest: Mutex<Manifest>,
    pub down: AtomicBool,
    /// It takes requests for the manifest, and never answers them.
    pub silent: AtomicBool,
    /// Method and path of every other call.
    pub calls: Mutex<Vec<String>>,
}

async fn manifest(State(metadata): State<Arc<FakeMetadata>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if metadata.silent.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    if metadata.down.load(Ordering::SeqCst) {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(serde_json::json!({"detail": "down", "code": "unavailable"})),
        )
            .into_response();
    }
    let manifest = metadata.manifest.lock().unwrap().clone();
    if id != manifest.video_id.to_string() {
        return (
            StatusCode::NOT_FOUND,
            Json(serde_json::json!({"detail": "no such video", "code": "not_found"})),
        )
            .into_response();
    }
    let tag = format!("\"{}\"", manifest.version);
    if headers.get("if-none-match").is_some_and(|value| value == tag.as_str()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([("etag", tag)], Json(manifest)).into_response()
}

async fn note(State(metadata): State<Arc<FakeMetadata>>, request: Request) -> Response {
    metadata
        .calls
        .lock()
        .unwrap()
        .push(format!("{} {}", request.method(), request.uri()));
    ([("x-total-count", "7")], Json(serde_json::json!([]))).into_response()
}

/// How the uploader takes a file.
pub struct FakeUploader {
    /// It answers 415 after the first piece, and throws the rest away.
    pub refuses: AtomicBool,
    /// Length of every piece as it arrives.
    pub arrived: mpsc::UnboundedSender<usize>,
}

async fn take(State(uploader): State<Arc<FakeUploader>>, headers: HeaderMap, body: Body) -> Response {
    let mut body = body.into_data_stream();
    let mut length = 0;
    while let Some(piece) = body.next().await {
        let Ok(piece) = piece else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        length += piece.len();
        uploader.arrived.send(piece.len()).unwrap();
        if uploader.refuses.load(Ordering::SeqCst) {
            tokio::spawn(async move { while body.next().await.is_some_and(|piece| piece.is_ok()) {} });
            let body = serde_json::json!({"detail": "this is not a video", "code": "unsupported_media"});
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, Json(body)).into_response();
        }
    }
    let kind = headers
        .get("content-type")
        .map(|value| value.to_str().unwrap().to_owned());
    Json(serde_json::json!({"length": length, "content_type": kind, "content_length": headers.get("content-length").map(|v| v.to_str().unwrap().to_owned())})).into_response()
}

/// All of it.
pub struct Stage {
    pub web: String,
    pub video: VideoId,
    pub nodes: Vec<Arc<FakeNode>>,
    pub metadata: Arc<FakeMetadata>,
    pub uploader: Arc<FakeUploader>,
    pub arrived: mpsc::UnboundedReceiver<usize>,
    pub init: Bytes,
    pub chunks: Vec<Bytes>,
    pub http: reqwest::Client,
    _stop: DropGuard,
}

impl Stage {
    /// The whole virtual file.
    pub fn file(&self) -> Vec<u8> {
        std::iter::once(&self.init)
            .chain(&self.chunks)
            .flat_map(|bytes| bytes.to_vec())
            .collect()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.web)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }
}

async fn listen(router: Router) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the test's runtime.
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

fn settings(metadata: &str, uploader: &str) -> Settings {
    let command = Settings::augment_args(clap::Command::new("web").no_binary_name(true));
    let args = ["--metadata-service-url", metadata, "--uploader-service-url", uploader];
    Settings::from_arg_matches(&command.get_matches_from(args)).unwrap()
}

/// A video, not yet anywhere.
pub struct Footage {
    pub video: VideoId,
    pub init: Bytes,
    pub chunks: Vec<Bytes>,
}

impl Footage {
    /// With an init segment of 100 bytes.
    pub fn new(chunks: Vec<Bytes>) -> Self {
        Self {
            video: VideoId::generate(),
            init: Bytes::from(vec![7; 100]),
            chunks,
        }
    }

    pub fn init_item(&self) -> (String, Vec<Bytes>) {
        (ChunkId::init_of_video(self.video).to_string(), vec![self.init.clone()])
    }

    /// All of it, whole.
    pub fn copies(&self) -> Contents {
        let numbered = (0..).zip(&self.chunks);
        let chunks = numbered.map(|(at, bytes)| (ChunkId::of_video(self.video, at).to_string(), vec![bytes.clone()]));
        chunks.chain([self.init_item()]).collect()
    }

    /// Everything whole at each of `urls`; five chunks are in two segments (three and two).
    pub fn manifest(&self, urls: &[String]) -> Manifest {
        manifest_of(self.video, &self.init, &self.chunks, urls)
    }
}

/// A video of an init segment of 100 bytes and five chunks in two segments (three and two), on three nodes.
pub async fn stage() -> Stage {
    let chunks = (1..=5).map(|n: u8| Bytes::from(vec![n; 1000 * usize::from(n)]));
    let footage = Footage::new(chunks.collect());
    let held = vec![footage.copies(); 3];
    stage_of(footage, held, Footage::manifest).await
}

/// A node for each of `held`, and a metadata service with the manifest that is made for their URLs.
pub async fn stage_of(
    footage: Footage,
    held: Vec<Contents>,
    manifest_for: impl FnOnce(&Footage, &[String]) -> Manifest,
) -> Stage {
    let mut nodes = Vec::new();
    let mut urls = Vec::new();
    for contents in held {
        let node = Arc::new(FakeNode {
            contents,
            ..FakeNode::default()
        });
        let router = Router::new()
            .route("/chunk/{id}", get(give))
            .route("/ping", any(|| async { StatusCode::OK }))
            .with_state(Arc::clone(&node));
        urls.push(listen(router).await);
        nodes.push(node);
    }
    let metadata = Arc::new(FakeMetadata {
        manifest: Mutex::new(manifest_for(&footage, &urls)),
        down: AtomicBool::new(false),
        silent: AtomicBool::new(false),
        calls: Mutex::default(),
    });
    let router = Router::new()
        .route("/manifest/{id}", get(manifest))
        .fallback(note)
        .with_state(Arc::clone(&metadata));
    let metadata_url = listen(router).await;
    let (sender, arrived) = mpsc::unbounded_channel();
    let uploader = Arc::new(FakeUploader {
        refuses: AtomicBool::new(false),
        arrived: sender,
    });
    let router = Router::new()
        .route("/upload", post(take))
        .route("/health", get(|| async { Json(serde_json::json!({})) }))
        .with_state(Arc::clone(&uploader));
    let uploader_url = listen(router).await;

    let stop = CancellationToken::new();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap();
    let web = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(vstack_web::serve_on(
        listener,
        settings(&metadata_url, &uploader_url),
        stop.clone(),
    ));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let Footage { video, init, chunks } = footage;
    Stage {
        web,
        video,
        nodes,
        metadata,
        uploader,
        arrived,
        init,
        chunks,
        http,
        _stop: stop.drop_guard(),
    }
}

fn manifest_of(video: VideoId, init: &Bytes, chunks: &[Bytes], urls: &[String]) -> Manifest {
    let ids: Vec<String> = (1..=urls.len()).map(|n| format!("node-{n}")).collect();
    let segments = [0, 0, 0, 1, 1];
    let total_chunks = u32::try_from(chunks.len()).unwrap();
    Manifest {
        video_id: video,
        title: "Täst".to_owned(),
        duration_sec: f64::from(total_chunks) * 2.0,
        total_chunks,
        chunk_duration_sec: 10,
        chunk_size_bytes: 2_097_152,
        created_at: WallTime(Timestamp(0)),
        status: VideoStatus::Active,
        version: 1,
        codecs: "avc1.640028,mp4a.40.2".to_owned(),
        width: 640,
        height: 360,
        init: Some(ManifestInit {
            chunk_id: ChunkId::init_of_video(video),
            size_bytes: init.len() as u64,
            checksum: Digest::of(init).prefixed(),
            replicas: urls.to_vec(),
            replica_ids: ids.clone(),
        }),
        chunks: (0..)
            .zip(chunks)
            .zip(segments)
            .map(|((sequence, bytes), segment)| ManifestChunk {
                chunk_id: ChunkId::of_video(video, sequence),
                sequence_num: sequence,
                size_bytes: bytes.len() as u64,
                checksum: Digest::of(bytes).prefixed(),
                redundancy_mode: RedundancyMode::Replication,
                fragments: None,
                replicas: urls.to_vec(),
                replica_ids: ids.clone(),
                segment,
                start_sec: f64::from(sequence) * 2.0,
                duration_sec: 2.0,
                independent: sequence == 0 || sequence == 3,
            })
            .collect(),
    }
}
