//! A metadata service, nodes and an uploader on real sockets.

use std::{sync::Arc, time::Duration};

use clap::Parser as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use vstack_api::{
    metadata::Manifest,
    uploader::{UploadAccepted, UploadStage, UploadStatus},
};
use vstack_client::{HttpClient, MetadataClient, Timeouts};
use vstack_media::sample::{ClipKind, TestClip, make_test_clip};
use vstack_metadata::{Parts, ReaperPace, serve_with, store::MemoryStore};
use vstack_types::{SystemClock, VideoId};

use crate::node::TestNode;

pub const SECRET: &str = "a secret of the test cluster";

#[derive(clap::Parser)]
struct MetadataCommand {
    #[command(flatten)]
    settings: vstack_metadata::Settings,
}

#[derive(clap::Parser)]
struct UploaderCommand {
    #[command(flatten)]
    settings: vstack_uploader::Settings,
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Waits until `condition` gives something.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let until = std::time::Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(std::time::Instant::now() < until, "still waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Everything an upload needs; ends with the test.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub nodes: Vec<TestNode>,
    pub metadata: MetadataClient,
    pub metadata_url: String,
    pub http: reqwest::Client,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    /// `count` nodes.
    pub async fn start(count: u8) -> Self {
        let settings =
            MetadataCommand::try_parse_from(["metadata", "--cluster-secret", SECRET, "--erasure-min-bytes", "1"])
                .unwrap()
                .settings;
        let (listener, metadata_url) = listener().await;
        let pace = ReaperPace {
            look_every: Duration::from_millis(50),
            confirm_after: Duration::from_secs(1),
            retry_first: Duration::from_millis(50),
            retry_max: Duration::from_millis(200),
            chunk_deadline: Duration::from_secs(5),
            give_up_nodes_after: Duration::from_secs(3600),
            ..ReaperPace::default()
        };
        let clock = Arc::new(SystemClock::start());
        let parts = Parts {
            listener,
            store: Arc::new(MemoryStore::default()),
            clock,
            pace,
        };
        let stop = CancellationToken::new();
        tokio::spawn(serve_with(parts, settings, stop.clone()));
        let http = HttpClient::new(Some(SECRET.parse().unwrap()), Timeouts::default()).unwrap();
        let metadata = MetadataClient::new(http, &metadata_url);
        let mut nodes = Vec::new();
        for n in 1..=count {
            let node = TestNode::start(n).await;
            assert!(metadata.register_node(&node.registration()).await.unwrap().trusted);
            nodes.push(node);
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            nodes,
            metadata,
            metadata_url,
            http,
            stop,
        }
    }

    /// An uploader with `args`, on the cluster's spool directory.
    pub async fn uploader(&self, args: &[&str]) -> Uploader {
        let spool = self.dir.path().join("spool");
        let base = [
            "uploader",
            "--cluster-secret",
            SECRET,
            "--metadata-service-url",
            &self.metadata_url,
        ];
        let spool_args = ["--temp-dir", spool.to_str().unwrap()];
        let all = base.iter().chain(&spool_args).chain(args);
        let settings = UploaderCommand::try_parse_from(all).unwrap().settings;
        let (listener, url) = listener().await;
        let stop = self.stop.child_token();
        let running = tokio::spawn(vstack_uploader::run_on(listener, settings, stop.clone()));
        Uploader {
            url,
            http: self.http.clone(),
            stop,
            running,
        }
    }

    /// A clip of about a megabyte in several chunks of the smallest size allowed.
    pub async fn clip(&self) -> Vec<u8> {
        let path = self.dir.path().join("clip");
        let clip = TestClip {
            bitrate: Some(800_000),
            ..TestClip::new(ClipKind::Mp4, 10.0)
        };
        make_test_clip(&path, clip).await.unwrap();
        std::fs::read(path).unwrap()
    }

    /// Upload directories under the spool, and what was remembered of uploads in it.
    pub fn upload_dirs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("spool"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name != "over")
            .collect()
    }

    /// Checks that every chunk of `video` is decided and whole on every node; gives the number of chunks.
    pub async fn whole_everywhere(&self, video: VideoId) -> u32 {
        let manifest: Manifest = self.metadata.manifest(video).await.unwrap();
        let init = manifest.init.as_ref().unwrap();
        let ids = manifest.chunks.iter().map(|chunk| (&chunk.chunk_id, &chunk.checksum));
        for (id, checksum) in std::iter::once((&init.chunk_id, &init.checksum)).chain(ids) {
            for node in &self.nodes {
                let bytes = eventually("a copy on every node", async || node.placed(id.as_str())).await;
                assert_eq!(&vstack_types::Digest::of(&bytes).prefixed(), checksum, "{id}");
            }
        }
        manifest.total_chunks
    }
}

/// A running uploader.
pub struct Uploader {
    pub url: String,
    pub http: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Uploader {
    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }

    /// Sends a file; gives the status and the body.
    pub async fn post(&self, file: Vec<u8>) -> (u16, serde_json::Value) {
        let part = reqwest::multipart::Part::bytes(file).file_name("My clip.mp4");
        self.post_form(reqwest::multipart::Form::new().part("video", part))
            .await
    }

    pub async fn post_form(&self, form: reqwest::multipart::Form) -> (u16, serde_json::Value) {
        let answer = self
            .http
            .post(format!("{}/upload", self.url))
            .multipart(form)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub async fn begin(&self, file: Vec<u8>) -> UploadAccepted {
        let (status, body) = self.post(file).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_value(body).unwrap()
    }

    pub async fn status(&self, session: &str) -> UploadStatus {
        let answer = self
            .http
            .get(format!("{}/upload/status/{session}", self.url))
            .send()
            .await
            .unwrap();
        answer.json().await.unwrap()
    }

    /// Waits until the status is as `wished`, checking on the way that progress never falls.
    pub async fn until(&self, session: &str, what: &str, wished: impl Fn(&UploadStatus) -> bool) -> UploadStatus {
        let mut progress = 0.0;
        eventually(what, async || {
            let status = self.status(session).await;
            assert!(
                status.progress >= progress,
                "progress fell from {progress} to {}",
                status.progress
            );
            assert!(status.progress < 100.0 || status.status == UploadStage::Completed);
            progress = status.progress;
            wished(&status).then_some(status)
        })
        .await
    }

    pub async fn ended(&self, session: &str) -> UploadStatus {
        self.until(session, "the upload's end", |status| status.status.is_final())
            .await
    }
}
