//! Real nodes on free ports over temporary directories, and what tests send them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses a part")]

pub mod claim_watch;
pub mod registry;

use std::{os::unix::fs::FileExt as _, path::Path, time::Duration};

use clap::Parser;
use reqwest::{Method, RequestBuilder, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use vstack_api::{ErrorBody, ErrorCode, auth::ClusterSecret};
use vstack_chunkpaxos::{Ballot, Layout, Placement, Request};
use vstack_client::{Holder, HttpClient, NodeClient, Timeouts};
use vstack_node::{Node, OpenNode, Settings};
use vstack_service::Entrance;
use vstack_types::{ChunkId, Digest, NodeRef, ProcessUuid};

pub const SECRET: &str = "the secret of a test cluster";

/// No call takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

/// Settings of a node in `dir` on a free port, with `more` flags.
/// Without a scrub, unless it is asked for: what it reads counts as read back.
pub fn settings(dir: &Path, more: &[&str]) -> Settings {
    let dir = dir.to_str().unwrap();
    let scrubs = more.contains(&"--scrub-period");
    let never: &[&str] = if scrubs { &[] } else { &["--scrub-period", "0"] };
    let fixed = [
        "node",
        "--port",
        "0",
        "--data-dir",
        dir,
        "--max-superblock-size",
        "16777216",
    ];
    Flags::parse_from(
        fixed
            .into_iter()
            .chain(["--cluster-secret", SECRET])
            .chain(never.iter().chain(more).copied()),
    )
    .settings
}

pub struct TestNode {
    pub url: String,
    pub address: std::net::SocketAddr,
    pub me: NodeRef,
    stop: CancellationToken,
    done: JoinHandle<()>,
}

impl TestNode {
    pub async fn start(settings: Settings) -> Self {
        Self::serving(Node::start(settings).await.unwrap())
    }

    pub fn serving(node: Node) -> Self {
        let (address, me) = (node.address(), node.me());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let done = tokio::spawn(async move { node.serve(stopped).await.unwrap() });
        Self {
            url: format!("http://{address}"),
            address,
            me,
            stop,
            done,
        }
    }

    /// A node made of parts, on a free port.
    pub async fn serving_on(node: OpenNode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, me) = (listener.local_addr().unwrap(), node.me());
        let url = format!("http://{address}");
        let stop = CancellationToken::new();
        let (stopped, at) = (stop.clone(), url.clone());
        let done = tokio::spawn(async move { node.serve(Entrance::listener(listener), at, stopped).await.unwrap() });
        Self {
            url,
            address,
            me,
            stop,
            done,
        }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.done).await.unwrap().unwrap();
    }

    pub fn holder(&self) -> Holder {
        Holder {
            node: self.me,
            url: self.url.clone(),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.request(method, format!("{}{path}", self.url)).timeout(PATIENCE)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub async fn head(&self, path: &str) -> Response {
        self.request(Method::HEAD, path).send().await.unwrap()
    }

    pub async fn put(&self, path: &str, body: &[u8]) -> Response {
        self.request(Method::PUT, path)
            .body(body.to_vec())
            .send()
            .await
            .unwrap()
    }

    /// Sends `bytes` as they are and gives everything that comes back until the node closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the node closes")
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Looks until `holds`.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + 3 * PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A metric without labels.
pub async fn metric(node: &TestNode, name: &str) -> u64 {
    let text = node.get("/metrics").await.text().await.unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

pub fn peers() -> NodeClient {
    NodeClient::new(HttpClient::new(Some(secret()), Timeouts::default()).unwrap())
}

pub fn secret() -> ClusterSecret {
    SECRET.parse().unwrap()
}

/// Status and code of a refusal.
pub async fn refusal(response: Response) -> (u16, ErrorCode) {
    let status = response.status().as_u16();
    let body: ErrorBody = response.json().await.unwrap();
    assert!(!body.detail.is_empty());
    (status, body.code)
}

pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .unwrap_or_else(|| panic!("no {name}"))
        .to_str()
        .unwrap()
}

pub fn id(text: &str) -> ChunkId {
    text.parse().unwrap()
}

pub fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        proposer: ProcessUuid::from_bytes([9; 16]),
    }
}

pub fn placement(bytes: &[u8], version: u64, nodes: &[NodeRef]) -> Placement {
    let layout = Layout::Replicated { nodes: nodes.to_vec() };
    Placement {
        version,
        size: bytes.len() as u64,
        sha256: Digest::of(bytes),
        layout,
        prev: None,
        back: false,
    }
}

pub fn put0(bytes: &[u8], nodes: &[NodeRef]) -> Request {
    Request::Put0 {
        ballot: ballot(0),
        placement: placement(bytes, 1, nodes),
    }
}

/// `len` bytes that repeat nowhere soon.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| u8::try_from((n * 7 + n / 251) % 256).unwrap())
        .collect()
}

/// Flips the bits of a byte of `body` where it is in the first superblock of a data directory.
pub fn damage(directory: &Path, body: &[u8]) {
    let path = directory.join("superblock_000000.vsb");
    let contents = std::fs::read(&path).unwrap();
    let at = contents
        .windows(256)
        .rposition(|here| here == &body[1000..1256])
        .unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[!contents[at]], at as u64).unwrap();
}
