//! A metadata service and storage nodes, with nothing around them: settings reach each of them, and nobody starts again
//! what was killed. On ports of their own, in a directory of their own, and gone when their guard is.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use rand::RngExt as _;
use rustix::process::Signal;
use vstack_api::metadata::{NodeInfo, NodeStatus};
use vstack_client::{HttpClient, MetadataClient, Timeouts};

use crate::{
    engine_names::ITEMS,
    metrics,
    process::{self, Running, command, free_port, wait_for},
};

/// A service alone takes far less, a machine under load may not.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at what nodes hold: whoever asks all the time takes of what they do.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A storage node of a cluster.
#[derive(Debug)]
pub struct Node {
    /// Its label.
    pub name: String,
    /// Where it listens.
    pub url: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Starts it, with the settings it has now.
    command: Command,
    running: Running,
}

/// The services, until it is dropped.
#[derive(Debug)]
pub struct BareCluster {
    /// Its storage nodes, killed ones too.
    pub nodes: Vec<Node>,
    metadata: Running,
    metadata_url: String,
    http: HttpClient,
    /// Removed after the processes have ended: fields are dropped in this order.
    _directory: tempfile::TempDir,
}

impl BareCluster {
    /// Started on an empty directory with so many storage nodes, and with more settings, as environment variables of
    /// every service; every node takes part when this returns.
    pub async fn start(
        binary: &Path,
        directory: &Path,
        count: usize,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("cluster-").tempdir_in(directory)?;
        let place = directory.path();
        let secret = format!("{:032x}", rand::rng().random::<u128>());
        let service = |subcommand: &str, port: u16| {
            let mut service = command(binary);
            service
                .arg(subcommand)
                .env("PORT", port.to_string())
                .env("CLUSTER_SECRET", &secret)
                .env("LOG_LEVEL", "warn")
                .envs(settings.iter().map(|(name, value)| (name, value)));
            service
        };
        let port = free_port()?;
        let metadata_url = format!("http://127.0.0.1:{port}");
        let mut metadata = service("metadata", port);
        metadata.env("DATABASE_URL", place.join("metadata.db"));
        let metadata = Running::start("metadata", &mut metadata, &place.join("metadata.log"))?;
        let mut nodes = Vec::with_capacity(count);
        for number in 1..=count {
            let (name, port) = (format!("node-{number}"), free_port()?);
            let (url, data) = (format!("http://127.0.0.1:{port}"), place.join(&name));
            let mut node = service("storage-node", port);
            node.env("NODE_ID", &name)
                .env("NODE_URL", &url)
                .env("DATA_DIR", &data)
                .env("METADATA_SERVICE_URL", &metadata_url);
            let running = Running::start(&name, &mut node, &place.join(format!("{name}.log")))?;
            nodes.push(Node {
                name,
                url,
                data,
                command: node,
                running,
            });
        }
        let http = HttpClient::new(Some(secret.parse()?), Timeouts::default())?;
        let cluster = Self {
            nodes,
            metadata,
            metadata_url,
            http,
            _directory: directory,
        };
        cluster.all_take_part().await?;
        Ok(cluster)
    }

    /// Ends the storage nodes in order and starts each again on what it has, killed ones too, with `setting` at another
    /// value, or at its default. All of them answer when this returns.
    pub async fn restart_nodes(&mut self, setting: &str, value: Option<&str>) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            match value {
                Some(value) => node.command.env(setting, value),
                None => node.command.env_remove(setting),
            };
            node.running.restart(&mut node.command)?;
        }
        // The metadata service may not have missed them: what it says of them shows nothing.
        let answers = async || self.sum(ITEMS).await.ok();
        let waited = wait_for("every storage node to answer again", READY_TIMEOUT, answers).await;
        waited.with_context(|| format!("the services said: {}", self.said()))?;
        Ok(())
    }

    async fn all_take_part(&self) -> anyhow::Result<()> {
        let metadata = self.metadata();
        let takes_part = |node: &&NodeInfo| node.trusted && node.status == NodeStatus::Healthy;
        let all = async || {
            let known = metadata.nodes().await.ok()?;
            (known.iter().filter(takes_part).count() == self.nodes.len()).then_some(())
        };
        let waited = wait_for("every storage node to take part", READY_TIMEOUT, all).await;
        waited.with_context(|| format!("the services said: {}", self.said()))
    }

    /// What all services printed.
    fn said(&self) -> String {
        let all = self.nodes.iter().map(|node| node.running.said());
        all.chain([self.metadata.said()]).collect::<Vec<_>>().join("\n")
    }

    /// Connections of a member of the cluster.
    pub const fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Calls of its metadata service, as a member.
    pub fn metadata(&self) -> MetadataClient {
        MetadataClient::new(self.http.clone(), &self.metadata_url)
    }

    /// Kills a storage node, for good.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        let node = self.nodes.iter().find(|node| node.name == name);
        let node = node.with_context(|| format!("there is no {name}"))?;
        process::signal(node.running.pid(), Signal::KILL)
    }

    /// Adds up a sample of all nodes.
    pub async fn sum(&self, sample: &str) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for node in &self.nodes {
            let value = metrics::value(self.http.transport(), &node.url, sample).await?;
            sum += value.with_context(|| format!("{} does not tell {sample}", node.name))?;
        }
        Ok(sum)
    }

    /// Waits until all nodes together hold so many items and no more: what nobody wants any more was collected.
    pub async fn holds(&self, items: u64, limit: Duration) -> anyhow::Result<()> {
        let held = async || {
            tokio::time::sleep(LOOK_EVERY).await;
            let held = self.sum(ITEMS).await.ok()?;
            ((held - items as f64).abs() < 0.5).then_some(())
        };
        let waited = wait_for(&format!("the nodes to hold {items} items and no more"), limit, held).await;
        if waited.is_err() {
            let held = self.sum(ITEMS).await?;
            return waited.with_context(|| format!("they hold {held}"));
        }
        Ok(())
    }
}
