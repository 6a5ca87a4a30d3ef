//! A metadata service and storage nodes, as processes that can be killed, stopped and started again.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use tokio::runtime::Runtime;
use vstack_chunkpaxos::{Reply, Request};
use vstack_client::{Holder, NodeClient};
use vstack_types::ChunkId;

use crate::{
    harness::{
        Signal,
        service::{Service, free_port},
        try_http, wait_for,
    },
    links::Link,
    namespaces::Namespaces,
};

/// Signs the calls of this test's clusters.
pub const SECRET: &str = "a secret of the recorded histories";

struct Node {
    port: String,
    service: Option<Service>,
    /// All that anybody asks of the node passes through it: callers behind links of their own, other nodes that fetch
    /// bytes, the metadata service.
    front: Link,
    /// Its own way to the metadata service.
    to_metadata: Link,
    _sign: UdpSocket,
}

/// Ends with all its processes when dropped.
pub struct Cluster {
    metadata_port: u16,
    metadata: Service,
    _metadata_sign: UdpSocket,
    nodes: Vec<Node>,
    directory: tempfile::TempDir,
    /// Where the processes are, when not beside the test: the nodes in order, then the metadata service. No link but
    /// those of the callers to the metadata service is used then.
    net: Option<Namespaces>,
}

impl Cluster {
    /// With so many storage nodes, and links that live in `runtime`.
    pub fn start(runtime: &Runtime, nodes: usize, net: Option<Namespaces>) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("vstack-history-")
            .tempdir()
            .expect("a temporary directory");
        let (port, sign) = free_port();
        let database = directory.path().join("metadata.db");
        let env = [
            ("PORT", port.as_str()),
            ("DATABASE_URL", database.to_str().expect("UTF-8")),
            ("BIND_ADDRESS", bind_address(net.as_ref())),
            // What it moved by itself would be missing in the record.
            ("REPAIRS", "false"),
        ];
        let within = within(net.as_ref(), nodes);
        let log = directory.path().join("metadata.log");
        let metadata = Service::start_within(&within, "metadata", &log, SECRET, &env);
        let metadata_port = port.parse().expect("a port");
        let mut cluster = Self {
            metadata_port,
            metadata,
            _metadata_sign: sign,
            nodes: Vec::new(),
            directory,
            net,
        };
        wait_ready(&format!("http://{}", cluster.metadata_address()));
        for number in 0..nodes {
            let (port, sign) = free_port();
            let address = at(cluster.net(), number, port.parse().expect("a port"));
            cluster.nodes.push(Node {
                port,
                service: None,
                front: runtime.block_on(Link::to(address)),
                to_metadata: runtime.block_on(Link::to(cluster.metadata_address())),
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
        at(self.net.as_ref(), node, self.nodes[node].port.parse().expect("a port"))
    }

    /// Of the metadata service itself.
    pub fn metadata_address(&self) -> SocketAddr {
        let last = self.net.as_ref().map_or(0, |net| net.len() - 1);
        at(self.net.as_ref(), last, self.metadata_port)
    }

    /// Where the processes are, when not beside the test.
    pub fn net(&self) -> Option<&Namespaces> {
        self.net.as_ref()
    }

    /// Where a storage node says that it is.
    pub fn advertised(&self, node: usize) -> String {
        match self.net {
            Some(_) => format!("http://{}", self.address(node)),
            None => self.front(node).url(),
        }
    }

    /// What lies before a storage node.
    pub fn front(&self, node: usize) -> &Link {
        &self.nodes[node].front
    }

    /// What lies between a storage node and the metadata service.
    pub fn to_metadata(&self, node: usize) -> &Link {
        &self.nodes[node].to_metadata
    }

    /// SIGKILL, now.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].service = None;
    }

    /// On the disk it had.
    pub fn restart(&mut self, node: usize) {
        let name = format!("node-{node}");
        let path = |name: &str| -> PathBuf { self.directory.path().join(name) };
        let url = self.advertised(node);
        let metadata = match self.net {
            Some(_) => format!("http://{}", self.metadata_address()),
            None => self.to_metadata(node).url(),
        };
        let data = path(&name);
        let env = [
            ("PORT", self.nodes[node].port.as_str()),
            ("NODE_ID", &name),
            ("NODE_URL", &url),
            ("DATA_DIR", data.to_str().expect("UTF-8")),
            ("METADATA_SERVICE_URL", &metadata),
            ("BIND_ADDRESS", bind_address(self.net.as_ref())),
            // Files of the usual size, on so many nodes, would fill disks on which nodes then take no bytes.
            ("MAX_SUPERBLOCK_SIZE", "67108864"),
            // So that there is something to be held up.
            ("HEARTBEAT_INTERVAL", "1"),
            ("GC_GRACE", "4"),
            ("GC_INTERVAL", "1"),
        ];
        let log = path(&format!("{name}.log"));
        let within = within(self.net.as_ref(), node);
        let service = Service::start_within(&within, "storage-node", &log, SECRET, &env);
        self.nodes[node].service = Some(service);
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

fn at(net: Option<&Namespaces>, number: usize, port: u16) -> SocketAddr {
    let ip = net.map_or(Ipv4Addr::LOCALHOST, |net| net.address(number));
    SocketAddr::from((ip, port))
}

fn within(net: Option<&Namespaces>, number: usize) -> Vec<String> {
    net.map_or(Vec::new(), |net| net.within(number).into())
}

fn bind_address(net: Option<&Namespaces>) -> &'static str {
    if net.is_some() { "0.0.0.0" } else { "127.0.0.1" }
}

fn wait_ready(url: &str) {
    wait_for("the metadata service", || {
        try_http("GET", &format!("{url}/ready"), |request| request)
            .ok()
            .filter(|answer| answer.status == 200)
    });
}
