//! A storage node of the tests: bytes and registers in memory, votes by the real acceptor.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use tokio::{sync::Barrier, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use vstack_api::{
    ErrorCode,
    auth::header_bytes,
    metadata::{Heartbeat, RegisterNode},
    node::{ChunkPage, HeldItem, NodeHealth, RegisterEntry, RegisterPage},
};
use vstack_chunkpaxos::{Layout, Placement, Register, Reply, Request, acceptor};
use vstack_client::{HttpClient, NodeClient, Timeouts};
use vstack_service::{ApiError, ClusterCall, Path, Query, Service, serve};
use vstack_types::{ChunkId, Digest, NodeRef, NodeUuid, ProcessUuid, VideoId};

#[derive(Default)]
struct Held {
    registers: BTreeMap<ChunkId, Register>,
    items: BTreeMap<(ChunkId, Digest), Bytes>,
}

struct Node {
    me: NodeRef,
    process: ProcessUuid,
    label: String,
    peers: NodeClient,
    held: Mutex<Held>,
    faults: Mutex<Faults>,
}

/// What a faulty node does, and what it was asked.
#[derive(Default)]
struct Faults {
    /// How often it was asked for its proof.
    challenges: usize,
    /// The next time, it answers together with others that were asked.
    answers_with: Option<Arc<Barrier>>,
    /// Lists what it holds of every video, whichever it is asked for.
    lists_everything: bool,
    /// What it says of bytes that it does not have; else that it does not have them.
    lacks_as: Option<ErrorCode>,
    /// Never answers what it is asked about this video.
    stalled: Option<VideoId>,
    /// How often it was asked about that one.
    stalled_calls: usize,
    /// How often who asked gave up.
    given_up: usize,
}

/// Counts a call that is dropped.
struct GivenUp(Arc<Node>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.faults.lock().expect("no panic before").given_up += 1;
    }
}

/// A node that can be stopped and started again at its address.
pub struct TestNode {
    pub me: NodeRef,
    pub label: String,
    pub url: String,
    address: SocketAddr,
    secret: String,
    node: Arc<Node>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl TestNode {
    pub async fn start(n: u8, secret: &str) -> Self {
        let (listener, _) = super::listener().await;
        Self::start_on(listener, n, secret)
    }

    /// Another one at the address of `before`, which has to be stopped.
    pub async fn start_in_place_of(before: &Self, n: u8) -> Self {
        let listener = tokio::net::TcpListener::bind(before.address).await;
        Self::start_on(listener.expect("its port"), n, &before.secret)
    }

    fn start_on(listener: tokio::net::TcpListener, n: u8, secret: &str) -> Self {
        let address = listener.local_addr().expect("an address");
        let me = NodeRef::first(NodeUuid::from_bytes([n; 16]));
        let label = format!("node-{n}");
        let http = HttpClient::new(Some(secret.parse().expect("a secret")), Timeouts::default()).expect("a client");
        let held = Mutex::new(Held::default());
        let node = Arc::new(Node {
            me,
            process: ProcessUuid::random(),
            label: label.clone(),
            peers: NodeClient::new(http),
            held,
            faults: Mutex::default(),
        });
        let url = format!("http://{address}");
        let mut started = Self {
            me,
            label,
            url,
            address,
            secret: secret.into(),
            node,
            running: None,
        };
        started.serve(listener);
        started
    }

    fn serve(&mut self, listener: tokio::net::TcpListener) {
        let routes = Router::new()
            .route("/health", get(health))
            .route("/chunk/{id}", get(fetch).put(put).delete(discard))
            .route("/paxos-challenge", post(challenge))
            .route("/paxos/{id}", post(paxos))
            .route("/paxos/{id}/pull", post(pull))
            .route("/paxos/{id}/item/{digest}", get(item))
            .route("/registers", get(registers))
            .route("/chunks", get(chunks))
            .with_state(self.node.clone());
        let router = Service::new("test-node")
            .secret(self.secret.parse().ok())
            .router(routes);
        let stop = CancellationToken::new();
        let until = stop.clone();
        self.running = Some((stop, tokio::spawn(serve(listener, router, until))));
    }

    /// Like a SIGKILL that leaves the disk: nothing answers at the address any more.
    pub async fn stop(&mut self) {
        let Some((stop, running)) = self.running.take() else {
            return;
        };
        stop.cancel();
        running.await.expect("it ends well");
    }

    pub async fn restart(&mut self) {
        let listener = tokio::net::TcpListener::bind(self.address)
            .await
            .expect("its own port again");
        self.serve(listener);
    }

    /// Another name of the same address.
    pub fn public_url(&self) -> String {
        self.url.replace("127.0.0.1", "localhost")
    }

    pub fn registration(&self, log_seq: u64) -> RegisterNode {
        RegisterNode {
            node_url: self.url.clone(),
            node_id: self.label.clone(),
            version: "test".into(),
            public_url: Some(self.public_url()),
            zone: None,
            disk_uuid: Some(self.me.uuid),
            incarnation: 0,
            log_seq,
            process: Some(self.node.process),
        }
    }

    /// Its sign of life.
    pub fn heartbeat(&self, log_seq: u64) -> Heartbeat {
        Heartbeat {
            damage: None,
            disk_usage_percent: 40.0,
            disk_free_bytes: None,
            chunk_count: 7,
            held: None,
            log_seq,
            disk_uuid: Some(self.me.uuid),
            process: Some(self.node.process),
        }
    }

    /// The owner's PUT, as if it had come over HTTP.
    pub fn put0(&self, owner: ProcessUuid, chunk: &ChunkId, placement: &Placement, bytes: &[u8]) -> Reply {
        let mut held = self.node.held.lock().expect("no panic before");
        held.items
            .insert((chunk.clone(), Digest::of(bytes)), Bytes::copy_from_slice(bytes));
        let ballot = vstack_chunkpaxos::Ballot::zero(owner);
        handle(
            &mut held,
            self.me,
            chunk,
            &Request::Put0 {
                ballot,
                placement: placement.clone(),
            },
        )
    }

    pub fn list_everything(&self) {
        self.node.faults.lock().expect("no panic before").lists_everything = true;
    }

    /// What it says from now on of bytes that it does not have.
    pub fn lacks_as(&self, code: ErrorCode) {
        self.node.faults.lock().expect("no panic before").lacks_as = Some(code);
    }

    pub fn stall(&self, video: VideoId) {
        self.node.faults.lock().expect("no panic before").stalled = Some(video);
    }

    /// It shows its proof next when as many nodes as `together` waits for were asked for theirs.
    pub fn answer_with(&self, together: &Arc<Barrier>) {
        self.node.faults.lock().expect("no panic before").answers_with = Some(Arc::clone(together));
    }

    /// How often it was asked for its proof.
    pub fn challenges(&self) -> usize {
        self.node.faults.lock().expect("no panic before").challenges
    }

    /// Calls about the stalled video: that arrived, and that were given up.
    pub fn stalled(&self) -> (usize, usize) {
        let faults = self.node.faults.lock().expect("no panic before");
        (faults.stalled_calls, faults.given_up)
    }

    pub fn register(&self, chunk: &ChunkId) -> Register {
        self.node
            .held
            .lock()
            .expect("no panic before")
            .registers
            .get(chunk)
            .cloned()
            .unwrap_or_default()
    }

    /// Registers whose accepted placement is something else than a decided deletion.
    pub fn living(&self) -> Vec<ChunkId> {
        let held = self.node.held.lock().expect("no panic before");
        let gone = |register: &Register| {
            register
                .accepted
                .as_ref()
                .is_none_or(|vote| register.decided && vote.placement.layout.is_deleted())
        };
        held.registers
            .iter()
            .filter(|(_, register)| !gone(register))
            .map(|(chunk, _)| chunk.clone())
            .collect()
    }

    pub fn has(&self, chunk: &ChunkId, bytes: &[u8]) -> bool {
        self.node
            .held
            .lock()
            .expect("no panic before")
            .items
            .contains_key(&(chunk.clone(), Digest::of(bytes)))
    }
}

fn handle(held: &mut Held, me: NodeRef, chunk: &ChunkId, request: &Request) -> Reply {
    let register = held.registers.get(chunk).cloned().unwrap_or_default();
    let outcome = acceptor::handle(
        &register,
        me,
        |digest| held.items.contains_key(&(chunk.clone(), digest)),
        request,
    );
    if let Some(register) = outcome.persist {
        held.registers.insert(chunk.clone(), register);
    }
    outcome.reply
}

async fn health(State(node): State<Arc<Node>>) -> axum::Json<NodeHealth> {
    axum::Json(NodeHealth {
        status: vstack_api::node::DiskStatus::Healthy,
        disk_usage: 12.5,
        chunk_count: 4,
        uptime: 1.0,
        node_id: node.label.clone(),
        disk_uuid: node.me.uuid,
        lost_superblocks: Vec::new(),
        version: "test".into(),
    })
}

async fn put(State(node): State<Arc<Node>>, Path(id): Path<ChunkId>, body: Bytes) -> StatusCode {
    let mut held = node.held.lock().expect("no panic before");
    held.items.insert((id, Digest::of(&body)), body);
    StatusCode::CREATED
}

#[derive(Deserialize)]
struct Which {
    sha256: Option<Digest>,
}

async fn fetch(State(node): State<Arc<Node>>, Path(id): Path<ChunkId>, Query(which): Query<Which>) -> Response {
    let held = node.held.lock().expect("no panic before");
    let mut found = held
        .items
        .iter()
        .filter(|((chunk, digest), _)| *chunk == id && which.sha256.is_none_or(|wanted| wanted == *digest));
    let Some(((_, digest), bytes)) = found.next() else {
        let lacks_as = node.faults.lock().expect("no panic before").lacks_as;
        return ApiError::new(lacks_as.unwrap_or(ErrorCode::NotFound), "not given").into_response();
    };
    let headers = [
        ("etag", format!("\"{digest}\"")),
        ("x-chunk-size", bytes.len().to_string()),
    ];
    (headers, bytes.clone()).into_response()
}

async fn discard(State(node): State<Arc<Node>>, Path(id): Path<ChunkId>) -> StatusCode {
    let mut held = node.held.lock().expect("no panic before");
    let placed = held.registers.get(&id).is_some_and(|register| {
        register
            .accepted
            .as_ref()
            .is_some_and(|vote| !(register.decided && vote.placement.layout.is_deleted()))
    });
    if placed {
        return StatusCode::CONFLICT;
    }
    held.items.retain(|(chunk, _), _| *chunk != id);
    StatusCode::NO_CONTENT
}

async fn challenge(State(node): State<Arc<Node>>, call: ClusterCall) -> Response {
    let together = {
        let mut faults = node.faults.lock().expect("no panic before");
        faults.challenges += 1;
        faults.answers_with.take()
    };
    if let Some(together) = together {
        together.wait().await;
    }
    let process = node.process.as_bytes();
    let signed = call.call.sign(&node.me.to_string(), &[&*call.body, process].concat());
    (StatusCode::OK, signed, process.to_vec()).into_response()
}

async fn paxos(State(node): State<Arc<Node>>, Path(id): Path<ChunkId>, call: ClusterCall) -> Response {
    let Ok(request) = Request::decode(&call.body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let reply = if call.call.node == node.me.to_string() {
        handle(&mut node.held.lock().expect("no panic before"), node.me, &id, &request)
    } else {
        Reply::WrongNode
    };
    let status = match reply {
        Reply::Nack { .. } => StatusCode::CONFLICT,
        Reply::NeedBytes { .. } => StatusCode::FAILED_DEPENDENCY,
        Reply::WrongNode => StatusCode::MISDIRECTED_REQUEST,
        _ => StatusCode::OK,
    };
    call.call.answer(status, &node.me.to_string(), reply.encode())
}

async fn item(
    State(node): State<Arc<Node>>,
    Path((id, digest)): Path<(ChunkId, Digest)>,
    call: ClusterCall,
) -> Response {
    let bytes = node
        .held
        .lock()
        .expect("no panic before")
        .items
        .get(&(id, digest))
        .cloned();
    let Some(bytes) = bytes else {
        return StatusCode::NOT_FOUND.into_response();
    };
    (
        call.call.sign(&node.me.to_string(), digest.to_string().as_bytes()),
        bytes,
    )
        .into_response()
}

#[derive(Deserialize)]
struct Pull {
    sha256: Digest,
    from: Vec<vstack_client::Holder>,
}

async fn pull(State(node): State<Arc<Node>>, Path(id): Path<ChunkId>, call: ClusterCall) -> Response {
    let pull: Pull = serde_json::from_slice(&call.body).expect("a pull");
    let signed: HeaderMap = call.call.sign(&node.me.to_string(), b"");
    for holder in &pull.from {
        if let Ok(item) = node.peers.item(holder, &id, pull.sha256).await {
            node.held
                .lock()
                .expect("no panic before")
                .items
                .insert((id, pull.sha256), item.into_bytes());
            return (StatusCode::CREATED, signed).into_response();
        }
    }
    (StatusCode::FAILED_DEPENDENCY, signed).into_response()
}

#[derive(Deserialize)]
struct Page {
    video: Option<VideoId>,
    cursor: Option<usize>,
    limit: usize,
}

impl Page {
    /// One entry a page, so that whoever asks has to follow the cursor.
    fn cut<T>(&self, all: Vec<T>) -> (Vec<T>, Option<String>) {
        let from = self.cursor.unwrap_or(0);
        let to = from + self.limit.min(1);
        let next = (to < all.len()).then(|| to.to_string());
        (all.into_iter().skip(from).take(to - from).collect(), next)
    }

    fn wants(&self, node: &Node, chunk: &ChunkId) -> bool {
        let everything = node.faults.lock().expect("no panic before").lists_everything;
        everything || self.video.is_none_or(|video| chunk.video() == Some(video))
    }
}

async fn registers(State(node): State<Arc<Node>>, Query(page): Query<Page>) -> axum::Json<RegisterPage> {
    let stalls = {
        let mut faults = node.faults.lock().expect("no panic before");
        let stalls = faults.stalled.is_some() && faults.stalled == page.video;
        faults.stalled_calls += usize::from(stalls);
        stalls
    };
    if stalls {
        let _counted = GivenUp(node.clone());
        std::future::pending::<()>().await;
    }
    let held = node.held.lock().expect("no panic before");
    let all = held
        .registers
        .iter()
        .filter(|(chunk, _)| page.wants(&node, chunk))
        .map(|(chunk, register)| {
            let placement = register.accepted.as_ref().map(|vote| &vote.placement);
            let layout = match placement.map(|placement| &placement.layout) {
                None => "none",
                Some(Layout::Replicated { .. }) => "replicated",
                Some(Layout::Coded { .. }) => "coded",
                Some(Layout::Deleted { .. }) => "deleted",
            };
            RegisterEntry {
                id: chunk.clone(),
                layout: layout.into(),
                version: placement.map(|placement| placement.version),
                joint: placement.is_some_and(|placement| placement.prev.is_some()),
                decided: register.decided,
                damaged: register.damaged,
                promised: register.promised.map(|ballot| ballot.to_string()),
                accepted: register.accepted.as_ref().map(|vote| vote.ballot.to_string()),
                nodes: Vec::new(),
                encoded: header_bytes::encode(&register.encode()),
            }
        });
    let (registers, next_cursor) = page.cut(all.collect());
    axum::Json(RegisterPage { registers, next_cursor })
}

async fn chunks(State(node): State<Arc<Node>>, Query(page): Query<Page>) -> axum::Json<ChunkPage> {
    let held = node.held.lock().expect("no panic before");
    let all = held
        .items
        .iter()
        .filter(|((chunk, _), _)| page.wants(&node, chunk))
        .map(|((chunk, digest), bytes)| {
            let register = held.registers.get(chunk).cloned().unwrap_or_default();
            let placed = register
                .accepted
                .is_some_and(|vote| vote.placement.keeps(node.me, *digest));
            HeldItem {
                id: chunk.clone(),
                size: bytes.len() as u64,
                checksum: *digest,
                placed,
            }
        });
    let (chunks, next_cursor) = page.cut(all.collect());
    axum::Json(ChunkPage { chunks, next_cursor })
}
