//! A storage node of the tests: bytes and registers in memory, votes by the real acceptor, faults on demand.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use vstack_api::{
    ErrorCode,
    auth::header_bytes,
    headers,
    metadata::RegisterNode,
    node::{RegisterEntry, RegisterPage},
};
use vstack_chunkpaxos::{Ballot, Layout, Register, Reply, Request, acceptor};
use vstack_client::{Holder, HttpClient, Made, Make, NodeClient, Timeouts, Want};
use vstack_erasure::{ReedSolomon, Shape, encode};
use vstack_service::{ApiError, ClusterAuth, ClusterCall, Path, Query, Service, serve};
use vstack_types::{ChunkId, Digest, NodeRef, NodeUuid, ProcessUuid, VideoId};

use crate::support::SECRET;

/// How a node treats what is sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Takes requests and does not answer while it lasts.
    Stalled,
    /// Has no room.
    Full,
    /// Votes, and answers without proof of who it is.
    Unproven,
    /// Another proposer is at every register before its owner.
    Overtaken,
    /// Takes votes, and then is away for the first few questions of proposers.
    AwayForAWhile,
}

/// While it is away.
const QUESTIONS_MISSED: u32 = 12;

#[derive(Default)]
struct Held {
    registers: BTreeMap<ChunkId, Register>,
    items: BTreeMap<(ChunkId, Digest), Bytes>,
    /// Requests that name a single register, as `METHOD path`.
    seen: Vec<String>,
    /// Questions that were not answered while it was away.
    missed: u32,
}

struct Node {
    me: NodeRef,
    peers: NodeClient,
    held: Mutex<Held>,
    fault: watch::Sender<Fault>,
}

impl Node {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    async fn pass(&self, what: String) {
        self.held().seen.push(what);
        self.answering().await;
    }

    async fn answering(&self) {
        let mut fault = self.fault.subscribe();
        let _passes = fault.wait_for(|fault| *fault != Fault::Stalled).await;
    }
}

/// A node that can be stopped and started again at its address.
pub struct TestNode {
    pub me: NodeRef,
    pub url: String,
    address: SocketAddr,
    node: Arc<Node>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl TestNode {
    pub async fn start(n: u8) -> Self {
        let me = NodeRef::first(NodeUuid::from_bytes([n; 16]));
        let http = HttpClient::new(Some(SECRET.parse().unwrap()), Timeouts::default()).unwrap();
        let (held, fault) = (Mutex::default(), watch::Sender::new(Fault::None));
        let node = Arc::new(Node {
            me,
            peers: NodeClient::new(http),
            held,
            fault,
        });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut started = Self {
            me,
            url: format!("http://{address}"),
            address,
            node,
            running: None,
        };
        started.serve(listener);
        started
    }

    fn serve(&mut self, listener: tokio::net::TcpListener) {
        let routes = Router::new()
            .route("/chunk/{id}", put(put_chunk))
            .route("/paxos-challenge", post(challenge))
            .route("/paxos", post(decided))
            .route("/paxos/{id}", post(paxos))
            .route("/paxos/{id}/pull", post(pull))
            .route("/paxos/{id}/make", post(make))
            .route("/paxos/{id}/item/{digest}", get(item))
            .route("/registers", get(registers))
            .with_state(Arc::clone(&self.node))
            .layer(axum::extract::DefaultBodyLimit::disable());
        let router = Service::new("test-node").secret(SECRET.parse().ok()).router(routes);
        let stop = CancellationToken::new();
        self.running = Some((stop.clone(), tokio::spawn(serve(listener, router, stop))));
    }

    /// Like a SIGKILL that leaves the disk.
    pub async fn stop(&mut self) {
        let Some((stop, running)) = self.running.take() else {
            return;
        };
        self.fault(Fault::None);
        stop.cancel();
        running.await.unwrap();
    }

    pub async fn restart(&mut self) {
        let listener = tokio::net::TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    pub fn fault(&self, fault: Fault) {
        self.node.fault.send_replace(fault);
    }

    /// The way to make it fail later.
    pub fn faults(&self) -> watch::Sender<Fault> {
        self.node.fault.clone()
    }

    pub fn registration(&self) -> RegisterNode {
        RegisterNode {
            node_url: self.url.clone(),
            node_id: format!("node-{}", self.me.uuid.as_bytes()[0]),
            version: "test".into(),
            public_url: None,
            zone: None,
            disk_uuid: Some(self.me.uuid),
            incarnation: 0,
            log_seq: 1,
            process: None,
        }
    }

    /// The bytes a register places here, when this node knows that they are decided.
    pub fn placed(&self, chunk: &str) -> Option<Bytes> {
        let held = self.node.held();
        let chunk: ChunkId = chunk.parse().unwrap();
        let register = held.registers.get(&chunk).filter(|register| register.decided)?;
        let vote = register.accepted.as_ref()?;
        held.items.get(&(chunk, vote.placement.sha256)).cloned()
    }

    /// The shards a settled register places here, when this node knows that it is decided.
    pub fn shards(&self, chunk: &str) -> Vec<(u8, Bytes)> {
        let held = self.node.held();
        let chunk: ChunkId = chunk.parse().unwrap();
        let register = held.registers.get(&chunk).filter(|register| register.decided);
        let placement = register
            .and_then(|register| register.accepted.as_ref())
            .map(|vote| &vote.placement);
        let Some(Layout::Coded { shards, .. }) = placement
            .filter(|placement| placement.prev.is_none())
            .map(|placement| &placement.layout)
        else {
            return Vec::new();
        };
        let mine = shards.iter().filter(|shard| shard.node == self.me);
        let bytes = |sha256| held.items.get(&(chunk.clone(), sha256)).cloned();
        mine.filter_map(|shard| Some((shard.index, bytes(shard.sha256)?)))
            .collect()
    }

    /// Registers that place something or may yet.
    pub fn living(&self) -> usize {
        let held = self.node.held();
        let lives = |register: &&Register| {
            register
                .accepted
                .as_ref()
                .is_some_and(|v| !v.placement.layout.is_deleted())
        };
        held.registers.values().filter(lives).count()
    }

    pub fn seen(&self) -> Vec<String> {
        self.node.held().seen.clone()
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

fn status(reply: &Reply, accepted: StatusCode) -> StatusCode {
    match reply {
        Reply::Nack { .. } => StatusCode::CONFLICT,
        Reply::NeedBytes { .. } => StatusCode::FAILED_DEPENDENCY,
        Reply::WrongNode => StatusCode::MISDIRECTED_REQUEST,
        Reply::Damaged => StatusCode::SERVICE_UNAVAILABLE,
        _ => accepted,
    }
}

async fn put_chunk(
    State(node): State<Arc<Node>>,
    Path(id): Path<ChunkId>,
    Extension(auth): Extension<ClusterAuth>,
    request: HttpRequest,
) -> Response {
    let (parts, body) = request.into_parts();
    node.pass(format!("PUT {}", parts.uri.path())).await;
    let bytes = axum::body::to_bytes(body, 4 << 20).await.unwrap();
    let vote = parts
        .headers
        .get(headers::VSTACK_VOTE)
        .map(|value| header_bytes::decode(value.to_str().unwrap()).unwrap());
    let digest = Digest::of(&bytes);
    let payload = vote.clone().unwrap_or_else(|| digest.to_string().into_bytes());
    let call = match auth.verify(&parts.method, parts.uri.path(), &parts.headers, &payload) {
        Ok(call) => call,
        Err(error) => return error.into_response(),
    };
    if *node.fault.borrow() == Fault::Full {
        return ApiError::new(ErrorCode::DiskFull, "the disk is full").into_response();
    }
    let me = node.me.to_string();
    let mut held = node.held();
    held.items.insert((id.clone(), digest), bytes);
    let Some(vote) = vote else {
        return (StatusCode::CREATED, call.sign(&me, b"")).into_response();
    };
    if *node.fault.borrow() == Fault::Overtaken {
        let ballot = Ballot {
            round: 5,
            proposer: ProcessUuid::from_bytes([7; 16]),
        };
        handle(&mut held, node.me, &id, &Request::Prepare { ballot });
    }
    let reply = handle(&mut held, node.me, &id, &Request::decode(&vote).unwrap());
    if *node.fault.borrow() == Fault::Unproven {
        return StatusCode::CREATED.into_response();
    }
    let encoded = reply.encode();
    let mut signed = call.sign(&me, &encoded);
    signed.insert(headers::VSTACK_VOTE, header_bytes::encode(&encoded).parse().unwrap());
    (status(&reply, StatusCode::CREATED), signed, Body::empty()).into_response()
}

async fn challenge(State(node): State<Arc<Node>>, call: ClusterCall) -> Response {
    (StatusCode::OK, call.call.sign(&node.me.to_string(), &call.body)).into_response()
}

async fn paxos(State(node): State<Arc<Node>>, Path(id): Path<ChunkId>, call: ClusterCall) -> Response {
    node.pass(format!("POST /paxos/{id}")).await;
    let request = Request::decode(&call.body).unwrap();
    if *node.fault.borrow() == Fault::AwayForAWhile && node.held().missed < QUESTIONS_MISSED {
        node.held().missed += 1;
        return ApiError::new(ErrorCode::Unavailable, "it is starting").into_response();
    }
    let reply = handle(&mut node.held(), node.me, &id, &request);
    call.call
        .answer(status(&reply, StatusCode::OK), &node.me.to_string(), reply.encode())
}

async fn decided(State(node): State<Arc<Node>>, call: ClusterCall) -> Response {
    let mut rest = &call.body[..];
    while let Some((length, tail)) = rest.split_first() {
        let (id, tail) = tail.split_at(usize::from(*length));
        let (length, tail) = tail.split_first_chunk::<2>().unwrap();
        let (request, tail) = tail.split_at(usize::from(u16::from_le_bytes(*length)));
        let id = std::str::from_utf8(id).unwrap().parse().unwrap();
        handle(&mut node.held(), node.me, &id, &Request::decode(request).unwrap());
        rest = tail;
    }
    call.call.answer(StatusCode::OK, &node.me.to_string(), Vec::new())
}

async fn item(
    State(node): State<Arc<Node>>,
    Path((id, digest)): Path<(ChunkId, Digest)>,
    call: ClusterCall,
) -> Response {
    let bytes = node.held().items.get(&(id, digest)).cloned();
    let Some(bytes) = bytes else {
        return StatusCode::NOT_FOUND.into_response();
    };
    (
        call.call.sign(&node.me.to_string(), digest.to_string().as_bytes()),
        bytes,
    )
        .into_response()
}

#[derive(serde::Deserialize)]
struct Pull {
    sha256: Digest,
    from: Vec<Holder>,
}

async fn pull(State(node): State<Arc<Node>>, Path(id): Path<ChunkId>, call: ClusterCall) -> Response {
    node.pass(format!("POST /paxos/{id}/pull")).await;
    let pull: Pull = serde_json::from_slice(&call.body).unwrap();
    let signed: HeaderMap = call.call.sign(&node.me.to_string(), b"");
    for holder in &pull.from {
        let got = tokio::time::timeout(Duration::from_secs(5), node.peers.item(holder, &id, pull.sha256)).await;
        if let Ok(Ok(item)) = got {
            node.held().items.insert((id, pull.sha256), item.into_bytes());
            return (StatusCode::CREATED, signed).into_response();
        }
    }
    (StatusCode::FAILED_DEPENDENCY, signed).into_response()
}

/// From shards alone, as many as are needed and can be had.
async fn make(State(node): State<Arc<Node>>, Path(id): Path<ChunkId>, call: ClusterCall) -> Response {
    node.pass(format!("POST /paxos/{id}/make")).await;
    let make: Make = serde_json::from_slice(&call.body).unwrap();
    let shards = make.shards.unwrap();
    let code = ReedSolomon::new(Shape::new(shards.data, shards.parity).unwrap());
    let mut have = Vec::new();
    for shard in shards.of.iter().filter(|shard| shard.at.node != node.me) {
        let got = tokio::time::timeout(Duration::from_secs(5), node.peers.item(&shard.at, &id, shard.sha256)).await;
        if let Ok(Ok(item)) = got {
            have.push((shard.index, item.into_bytes()));
        }
    }
    have.truncate(usize::from(shards.data));
    let size = usize::try_from(make.size).unwrap();
    let me = node.me.to_string();
    let Ok(chunk) = vstack_erasure::read(&code, size, make.sha256, &have) else {
        return (StatusCode::FAILED_DEPENDENCY, call.call.sign(&me, b"")).into_response();
    };
    let all = encode(&code, &chunk.into_bytes());
    let mut items = Vec::new();
    for want in make.want {
        let Want::Shard { index, .. } = want else {
            panic!("only shards are made here")
        };
        let shard = all[usize::from(index)].clone();
        let sha256 = Digest::of(&shard);
        node.held().items.insert((id.clone(), sha256), shard);
        items.push(sha256);
    }
    call.call
        .answer(StatusCode::OK, &me, serde_json::to_vec(&Made { items }).unwrap())
}

#[derive(serde::Deserialize)]
struct OfVideo {
    video: Option<VideoId>,
}

async fn registers(State(node): State<Arc<Node>>, Query(of): Query<OfVideo>) -> axum::Json<RegisterPage> {
    node.answering().await;
    let held = node.held();
    let entry = |(chunk, register): (&ChunkId, &Register)| {
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
    };
    let wanted = |(chunk, _): &(&ChunkId, &Register)| of.video.is_none() || chunk.video() == of.video;
    let registers = held.registers.iter().filter(wanted).map(entry).collect();
    axum::Json(RegisterPage {
        registers,
        next_cursor: None,
    })
}
