//! Three node processes on ports and disks of their own, and what they counted.

use std::{net::SocketAddr, path::Path, time::Duration};

use clap::ValueEnum as _;
use rand::RngExt as _;
use vstack_api::auth::ClusterSecret;

use super::protocol::Protocol;
use crate::{
    delay::{Delay, Relay},
    metrics::{self, Counters},
    process::{Running, command, cpu_seconds, free_port},
};

/// Nodes of a chunk.
pub const NODES: usize = 3;
/// A node alone takes far less, a machine under load may not.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Three nodes, until it is dropped.
#[derive(Debug)]
pub struct Trio {
    nodes: Vec<Running>,
    /// Where they listen.
    direct: Vec<String>,
    relays: Vec<Relay>,
    /// What they share.
    pub secret: ClusterSecret,
    http: reqwest::Client,
    /// Removed after the processes have ended: fields are dropped in this order.
    _directory: tempfile::TempDir,
}

impl Trio {
    /// Started on empty disks; behind relays when there is a `delay`.
    pub async fn start(
        protocol: Protocol,
        binary: &Path,
        directory: &Path,
        delay: Option<&Delay>,
    ) -> anyhow::Result<Self> {
        let secret: String = format!("{:032x}", rand::rng().random::<u128>());
        let mut trio = Self {
            nodes: Vec::new(),
            direct: Vec::new(),
            relays: Vec::new(),
            secret: secret.parse()?,
            http: reqwest::Client::new(),
            _directory: tempfile::Builder::new().prefix("trio-").tempdir_in(directory)?,
        };
        for id in 0..NODES {
            trio.add(protocol, binary, id, &secret)?;
        }
        for (node, url) in trio.nodes.iter_mut().zip(&trio.direct) {
            let (http, ready) = (trio.http.clone(), format!("{url}/ready"));
            let answers = async || {
                http.get(&ready)
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status().is_success())
            };
            node.until(READY_TIMEOUT, async || answers().await.then_some(()))
                .await?;
        }
        if let Some(delay) = delay {
            for url in &trio.direct {
                let target: SocketAddr = url.trim_start_matches("http://").parse()?;
                trio.relays.push(Relay::before(target, delay.clone()).await?);
            }
        }
        Ok(trio)
    }

    fn add(&mut self, protocol: Protocol, binary: &Path, id: usize, secret: &str) -> anyhow::Result<()> {
        let (place, port) = (self._directory.path(), free_port()?);
        let mut node = match protocol.peer() {
            None => {
                let mut node = command(binary);
                node.arg("storage-node");
                node
            }
            Some(peer) => {
                let mut node = command(std::env::current_exe()?);
                let name = peer.to_possible_value();
                node.args(["peer", "--id", &id.to_string(), "--protocol"]);
                node.args(name.map(|name| name.get_name().to_owned()));
                node
            }
        };
        node.env("PORT", port.to_string()).env("CLUSTER_SECRET", secret);
        node.env("DATA_DIR", place.join(format!("node-{id}")))
            .env("LOG_LEVEL", "warn");
        let log = place.join(format!("node-{id}.log"));
        self.nodes.push(Running::start(&format!("node {id}"), &mut node, &log)?);
        self.direct.push(format!("http://127.0.0.1:{port}"));
        Ok(())
    }

    /// Where the nodes are reached.
    pub fn urls(&self) -> Vec<String> {
        if self.relays.is_empty() {
            self.direct.clone()
        } else {
            self.relays
                .iter()
                .map(|relay| format!("http://{}", relay.host))
                .collect()
        }
    }

    /// What all nodes counted so far.
    pub async fn counters(&self) -> anyhow::Result<Counters> {
        let mut all = Counters::default();
        for url in &self.direct {
            all.add(&metrics::counters(&self.http, url).await?);
        }
        Ok(all)
    }

    /// Processor time of all nodes, in seconds.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.nodes.iter().map(|node| cpu_seconds(node.pid())).sum()
    }
}
