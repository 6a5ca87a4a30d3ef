//! The programs measured: a storage node by itself, and a whole cluster under `vstack up`. Both on ports of their own,
//! in a directory of their own, and gone when their guard is.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use vstack_api::{auth::ClusterSecret, uploader::UploadStatus};
use vstack_client::{HttpClient, MetadataClient, Timeouts};
use vstack_types::VideoId;

use crate::process::{self, Running, command, free_port, wait_for};

/// A service alone takes far less, a machine under load may not.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A storage node without a metadata service.
#[derive(Debug)]
pub struct LoneNode {
    running: Running,
    /// `host:port`.
    pub host: String,
    /// From the start of its process until it answered `/health`.
    pub healthy_after: Duration,
    /// Removed after the process has ended: fields are dropped in this order.
    directory: Option<tempfile::TempDir>,
}

impl LoneNode {
    /// Started on an empty disk.
    pub async fn start(binary: &Path, directory: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("node-").tempdir_in(directory)?;
        let data = directory.path().join("data");
        let mut node = Self::start_on(binary, &data, &[], READY_TIMEOUT).await?;
        node.directory = Some(directory);
        Ok(node)
    }

    /// Started on `data`, which may hold something and stays when the node is dropped; with more settings, as
    /// environment variables, and a limit on how long it may take to look through what it holds.
    pub async fn start_on(
        binary: &Path,
        data: &Path,
        settings: &[(&str, String)],
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut command = command(binary);
        command
            .arg("storage-node")
            .env("PORT", port.to_string())
            .env("NODE_ID", "bench")
            .env("DATA_DIR", data)
            .env("LOG_LEVEL", "warn")
            .envs(settings.iter().map(|(name, value)| (name, value)));
        let http = HttpClient::new(None, Timeouts::default())?;
        let started = Instant::now();
        let mut running = Running::start("storage-node", &mut command, &data.with_extension("log"))?;
        let host = format!("127.0.0.1:{port}");
        let (health, ready) = (format!("http://{host}/health"), format!("http://{host}/ready"));
        running
            .until(limit, async || answers(&http, &health).await.then_some(()))
            .await?;
        let healthy_after = started.elapsed();
        running
            .until(READY_TIMEOUT, async || answers(&http, &ready).await.then_some(()))
            .await?;
        Ok(Self {
            running,
            host,
            healthy_after,
            directory: None,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// `cluster.json`, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct State {
    services: Vec<Service>,
}

/// One service of a cluster.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    /// `storage-node-1`.
    pub name: String,
    /// Where it listens.
    pub url: String,
    /// While it runs.
    pub pid: Option<u32>,
}

/// A cluster under `vstack up`, with three storage nodes.
#[derive(Debug)]
pub struct Cluster {
    supervisor: Running,
    binary: PathBuf,
    http: HttpClient,
    /// Removed after the processes have ended: fields are dropped in this order.
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Started on an empty directory, with more arguments for `vstack up`; every service answers and every node is
    /// trusted when this returns.
    pub async fn start(binary: &Path, directory: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("cluster-").tempdir_in(directory)?;
        Self::start_on(binary, directory, arguments, READY_TIMEOUT).await
    }

    /// Started where another one ended, which may have left much: it is waited for so long. The supervisor itself waits as
    /// long as its processes live.
    pub async fn start_on(
        binary: &Path,
        directory: tempfile::TempDir,
        arguments: &[&str],
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let mut command = command(binary);
        command
            .args(["up", "--ports", "auto", "--data"])
            .arg(directory.path().join("data"))
            .args(arguments);
        let supervisor = Running::start("vstack up", &mut command, &directory.path().join("up.log"))?;
        let http = HttpClient::new(None, Timeouts::default())?;
        let mut cluster = Self {
            supervisor,
            binary: binary.to_owned(),
            http,
            directory,
        };
        let log = cluster.directory.path().join("up.log");
        // It prints where to open the page once every service answers and every node is trusted.
        let up = async || {
            std::fs::read_to_string(&log)
                .is_ok_and(|text| text.contains("Open http"))
                .then_some(())
        };
        cluster.supervisor.until(limit, up).await?;
        Ok(cluster)
    }

    /// Ends its processes; gives what they leave.
    pub fn stop(self) -> tempfile::TempDir {
        drop(self.supervisor);
        self.directory
    }

    /// Where its services keep what they have.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A place for files that belong to this run.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The services, as they are now.
    pub fn services(&self) -> anyhow::Result<Vec<Service>> {
        let text = std::fs::read(self.data().join("cluster.json")).context("cannot read cluster.json")?;
        Ok(serde_json::from_slice::<State>(&text)
            .context("cluster.json cannot be understood")?
            .services)
    }

    /// One of them.
    pub fn service(&self, name: &str) -> anyhow::Result<Service> {
        let services = self.services()?;
        services
            .into_iter()
            .find(|service| service.name == name)
            .with_context(|| format!("there is no service {name}"))
    }

    /// Its storage nodes.
    pub fn nodes(&self) -> anyhow::Result<Vec<Service>> {
        Ok(self
            .services()?
            .into_iter()
            .filter(|service| service.name.starts_with("storage-node"))
            .collect())
    }

    /// The supervisor's process id.
    pub fn supervisor_pid(&self) -> u32 {
        self.supervisor.pid()
    }

    /// Connections without the cluster's secret.
    pub const fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Connections of a member of the cluster.
    pub fn member_http(&self) -> anyhow::Result<HttpClient> {
        let secret: ClusterSecret = std::fs::read_to_string(self.data().join("cluster-secret"))?.parse()?;
        Ok(HttpClient::new(Some(secret), Timeouts::default())?)
    }

    /// Calls of its metadata service.
    pub fn metadata(&self, http: HttpClient) -> anyhow::Result<MetadataClient> {
        Ok(MetadataClient::new(http, &self.service("metadata")?.url))
    }

    /// A `vstack` tool that talks to this cluster.
    pub fn tool(&self, arguments: &[&str]) -> anyhow::Result<std::process::Command> {
        let mut command = command(&self.binary);
        command.args(arguments);
        command.env("METADATA_SERVICE_URL", self.service("metadata")?.url);
        command.env("UPLOADER_SERVICE_URL", self.service("uploader")?.url);
        Ok(command)
    }

    /// Uploads by `vstack upload` and waits until it can be played.
    pub async fn upload(&self, path: &Path) -> anyhow::Result<VideoId> {
        let mut command = self.tool(&["upload", "--json"])?;
        command.arg(path);
        let output = process::run(command).await?;
        let statuses: Vec<UploadStatus> =
            serde_json::from_str(&output).context("`vstack upload --json` gave no JSON")?;
        let status = statuses.first().context("`vstack upload --json` gave no status")?;
        ensure!(
            status.status == vstack_api::uploader::UploadStage::Completed,
            "the upload failed: {:?}",
            status.error
        );
        Ok(status.video_id)
    }

    /// Waits until every chunk of a video is on every node.
    pub async fn wait_copied(&self, video: VideoId) -> anyhow::Result<()> {
        let metadata = self.metadata(self.http.clone())?;
        let expected = u64::from(metadata.manifest(video).await?.total_chunks) + 1;
        let nodes = self.nodes()?;
        let client = vstack_client::NodeClient::new(self.http.clone());
        let copied = async || {
            for node in &nodes {
                if client.health(&node.url).await.ok()?.chunk_count < expected {
                    return None;
                }
            }
            Some(())
        };
        wait_for("every copy to be made", READY_TIMEOUT, copied).await
    }
}

async fn answers(http: &HttpClient, url: &str) -> bool {
    let answer = http.transport().get(url).timeout(Duration::from_secs(2)).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}
