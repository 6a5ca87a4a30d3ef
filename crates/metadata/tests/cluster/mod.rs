//! A metadata service on a real socket, with nodes that keep everything in memory but speak the real protocol
//! through the real acceptor.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

pub mod forms;
mod front;
mod node;
mod real_cluster;
mod real_node;
mod upload;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser as _;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use vstack_client::{HttpClient, MetadataClient, Timeouts};
use vstack_metadata::{
    Parts, ReaperPace, Settings, serve_with,
    store::{MemoryStore, SqliteStore, Store},
};
use vstack_types::{Clock, Monotonic, SystemClock, Timestamp};

pub use front::Front;
pub use node::TestNode;
pub use real_cluster::{Cluster, bytes, damage};
pub use real_node::RealNode;
pub use upload::{Upload, status};

const START_MS: i64 = 1_700_000_000_000;

pub const SECRET: &str = "a secret of the test cluster";

/// A wall clock that stands still until it is moved, and a monotonic one that moves with it, and goes on by itself unless
/// it is told to stand still, too.
pub struct ManualClock {
    wall_ms: AtomicI64,
    system: SystemClock,
    stands: AtomicBool,
}

impl ManualClock {
    pub fn stand_still(&self) {
        self.stands.store(true, Ordering::SeqCst);
    }

    pub fn advance(&self, by: Duration) {
        self.wall_ms
            .fetch_add(i64::try_from(by.as_millis()).expect("a test's step"), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Monotonic {
        let moved = self.wall_ms.load(Ordering::SeqCst) - START_MS;
        let moved = Duration::from_millis(u64::try_from(moved).unwrap_or(0));
        if self.stands.load(Ordering::SeqCst) {
            Monotonic::from_start(moved)
        } else {
            self.system.monotonic() + moved
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.wall_ms.load(Ordering::SeqCst))
    }
}

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    settings: Settings,
}

/// A running metadata service.
pub struct Service {
    pub url: String,
    pub clock: Arc<ManualClock>,
    pub http: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// A new store that lives as long as its service.
pub fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::default())
}

pub async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Has a service run on these parts.
fn begun(parts: Parts, args: &[&str]) -> (CancellationToken, JoinHandle<()>) {
    let base = ["metadata", "--cluster-secret", SECRET];
    let settings = Command::try_parse_from(base.iter().chain(args))
        .expect("settings")
        .settings;
    let stop = CancellationToken::new();
    let until = stop.clone();
    let running = tokio::spawn(async move { serve_with(parts, settings, until).await.expect("it serves") });
    (stop, running)
}

impl Service {
    pub async fn start() -> Self {
        Self::on(memory(), &[]).await
    }

    pub async fn on_sqlite(path: &Path, args: &[&str]) -> Self {
        Self::on(Arc::new(SqliteStore::open(path).await.expect("a database")), args).await
    }

    pub async fn on(store: Arc<dyn Store>, args: &[&str]) -> Self {
        let pace = ReaperPace {
            look_every: Duration::from_millis(20),
            confirm_after: Duration::ZERO,
            retry_first: Duration::ZERO,
            retry_max: Duration::ZERO,
            chunk_deadline: Duration::from_secs(5),
            give_up_nodes_after: Duration::from_secs(3_600),
            // Who tests something else is not helped.
            count_every: Duration::from_secs(3_600),
            listen_every: Duration::from_secs(3_600),
            ..ReaperPace::default()
        };
        // Who deletes means it.
        let args = [&["--trash-time", "0"], args].concat();
        Self::at_pace(store, &args, pace).await
    }

    pub async fn at_pace(store: Arc<dyn Store>, args: &[&str], pace: ReaperPace) -> Self {
        let (listener, address) = listener().await;
        let clock = Arc::new(ManualClock {
            wall_ms: AtomicI64::new(START_MS),
            system: SystemClock::start(),
            stands: AtomicBool::new(false),
        });
        let parts = Parts {
            listener,
            store,
            clock: clock.clone(),
            pace,
        };
        let (stop, running) = begun(parts, args);
        // A service that is started again has none of the connections to the one before.
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .expect("a client");
        Self {
            url: format!("http://{address}"),
            clock,
            http,
            stop,
            running,
        }
    }

    /// It ends, and another one begins: at its address, by its clock, on what is kept.
    pub async fn begin_again(&mut self, store: Arc<dyn Store>, args: &[&str], pace: ReaperPace) {
        self.stop.cancel();
        (&mut self.running).await.expect("it ends well");
        let address = self.url.strip_prefix("http://").expect("as it was made");
        let parts = Parts {
            listener: TcpListener::bind(address).await.expect("its own port again"),
            store,
            clock: self.clock.clone(),
            pace,
        };
        (self.stop, self.running) = begun(parts, args);
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("it ends well");
    }

    /// The client of services of this cluster.
    pub fn cluster(&self) -> MetadataClient {
        self.client_with(Some(SECRET))
    }

    pub fn client_with(&self, secret: Option<&str>) -> MetadataClient {
        let secret = secret.map(|secret| secret.parse().expect("a secret"));
        MetadataClient::new(
            HttpClient::new(secret, Timeouts::default()).expect("a client"),
            &self.url,
        )
    }

    /// A call with an optional JSON body; gives status and JSON.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Starts `count` nodes and registers them.
    pub async fn with_nodes(&self, count: u8) -> Vec<TestNode> {
        let mut nodes = Vec::new();
        for n in 1..=count {
            let node = TestNode::start(n, SECRET).await;
            let ack = self
                .cluster()
                .register_node(&node.registration(1))
                .await
                .expect("registered");
            assert!(ack.trusted, "{ack:?}");
            nodes.push(node);
        }
        nodes
    }
}

/// Waits until `condition` gives something; fails the test when it does not in time.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(180);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < until, "still waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
