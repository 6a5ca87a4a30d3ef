//! A metadata service and storage nodes, as processes that can be killed, stopped and started again.

use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use vstack_chunkpaxos::{Reply, Request};
use vstack_client::{Holder, NodeClient};
use vstack_types::ChunkId;

use crate::harness::{
    Signal,
    service::{Service, free_port},
    try_http, wait_for,
};

/// Signs the calls of this test's clusters.
pub const SECRET: &str = "a secret of the recorded histories";

struct Node {
    port: String,
    service: Option<Service>,
    _sign: UdpSocket,
}

/// Ends with all its processes when dropped.
pub struct Cluster {
    metadata_url: String,
    metadata: Service,
    _metadata_sign: UdpSocket,
    nodes: Vec<Node>,
    directory: tempfile::TempDir,
}

impl Cluster {
    /// With so many storage nodes.
    pub fn start(nodes: usize) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("vstack-history-")
            .tempdir()
            .expect("a temporary directory");
        let (port, sign) = free_port();
        let database = directory.path().join("metadata.db");
        let env = [
            ("PORT", port.as_str()),
            ("DATABASE_URL", database.to_str().expect("UTF-8")),
        ];
        let metadata = Service::start("metadata", &directory.path().join("metadata.log"), SECRET, &env);
        let metadata_url = format!("http://127.0.0.1:{port}");
        wait_ready(&metadata_url);
        let mut cluster = Self {
            metadata_url,
            metadata,
            _metadata_sign: sign,
            nodes: Vec::new(),
            directory,
        };
        for number in 0..nodes {
            let (port, sign) = free_port();
            cluster.nodes.push(Node {
                port,
                service: None,
                _sign: sign,
            });
            cluster.restart(number);
        }
        cluster
    }

    /// Storage nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Of a storage node itself, past all links.
    pub fn address(&self, node: usize) -> SocketAddr {
        let port = self.nodes[node].port.parse().expect("a port");
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// SIGKILL, now.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].service = None;
    }

    /// On the disk it had.
    pub fn restart(&mut self, node: usize) {
        let name = format!("node-{node}");
        let path = |name: &str| -> PathBuf { self.directory.path().join(name) };
        let (url, data) = (format!("http://{}", self.address(node)), path(&name));
        let env = [
            ("PORT", self.nodes[node].port.as_str()),
            ("NODE_ID", &name),
            ("NODE_URL", &url),
            ("DATA_DIR", data.to_str().expect("UTF-8")),
            ("METADATA_SERVICE_URL", &self.metadata_url),
            ("GC_GRACE", "4"),
            ("GC_INTERVAL", "1"),
        ];
        let log = path(&format!("{name}.log"));
        self.nodes[node].service = Some(Service::start("storage-node", &log, SECRET, &env));
    }

    /// SIGSTOP or SIGCONT, to a node that runs.
    pub fn signal(&self, node: usize, signal: Signal) {
        if let Some(service) = &self.nodes[node].service {
            service.signal(signal);
        }
    }

    /// The same, to the metadata service.
    pub fn signal_metadata(&self, signal: Signal) {
        self.metadata.signal(signal);
    }

    /// Waits until every node votes; gives the disks, in order.
    pub async fn wait_voting(&self, calls: &NodeClient) -> Vec<Holder> {
        let probe: ChunkId = "probe".parse().expect("an id");
        let mut holders = Vec::new();
        for node in 0..self.len() {
            let url = format!("http://{}", self.address(node));
            let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
            let holder = loop {
                let voting = async {
                    let holder = Holder {
                        node: calls.challenge(&url).await.ok()?,
                        url: url.clone(),
                    };
                    let reply = calls.paxos(&holder, &probe, &Request::Read).await.ok()?;
                    matches!(reply, Reply::State { damaged: false, .. }).then_some(holder)
                };
                if let Some(holder) = voting.await {
                    break holder;
                }
                assert!(tokio::time::Instant::now() < deadline, "node {node} does not vote");
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            holders.push(holder);
        }
        holders
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = std::env::temp_dir().join(format!("vstack-failed-{}", std::process::id()));
            let _copied = std::process::Command::new("cp")
                .arg("-r")
                .args([self.directory.path(), &kept])
                .status();
            eprintln!("the failed history's cluster is kept in {}", kept.display());
        }
    }
}

fn wait_ready(url: &str) {
    wait_for("the metadata service", || {
        try_http("GET", &format!("{url}/ready"), |request| request)
            .ok()
            .filter(|answer| answer.status == 200)
    });
}
