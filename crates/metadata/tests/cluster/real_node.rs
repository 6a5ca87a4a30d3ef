//! A real storage node on disk, in this process.

use clap::Parser as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vstack_node::RunError;

use super::{Front, SECRET};

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    settings: vstack_node::Settings,
}

pub struct RealNode {
    pub url: String,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl RealNode {
    pub async fn start(label: &str, data: &std::path::Path, metadata: &str) -> Self {
        Self::start_behind(None, label, data, metadata).await
    }

    /// Where there is a door before it, others know the node by that alone.
    pub async fn start_behind(front: Option<&Front>, label: &str, data: &std::path::Path, metadata: &str) -> Self {
        let data = data.join(label);
        let data = data.to_str().expect("a path of text");
        let mut args = vec![
            "node",
            "--port",
            "0",
            "--node-id",
            label,
            "--data-dir",
            data,
            "--cluster-secret",
            SECRET,
            "--metadata-service-url",
            metadata,
            "--max-superblock-size",
            "16777216",
            "--gc-grace",
            "0",
            "--gc-interval",
            "1",
            "--heartbeat-interval",
            "1",
        ];
        if let Some(front) = front {
            args.extend(["--node-url", front.url.as_str()]);
        }
        let mut settings = Command::try_parse_from(args).expect("settings").settings;
        let mut node = vstack_node::Node::start(settings.clone()).await.expect("a node");
        let mut url = format!("http://{}", node.address());
        if let Some(front) = front {
            front.leads_to(&url);
            url.clone_from(&front.url);
        }
        settings.port = node.address().port();
        let stop = CancellationToken::new();
        let until = stop.clone();
        let running = tokio::spawn(async move {
            while let Err(ended) = node.serve(until.clone()).await {
                assert!(matches!(ended, RunError::Renewal), "{ended}");
                node = vstack_node::Node::start(settings.clone()).await.expect("the same node");
            }
        });
        Self { url, stop, running }
    }

    /// Waits until it takes votes: a moment later than the service trusts it, since it writes down whose it is.
    pub async fn votes(&self) {
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .expect("a client");
        super::eventually("it takes votes", async || {
            let asked = http.get(format!("{}/consensus/any", self.url)).send().await.ok()?;
            let state: serde_json::Value = asked.json().await.ok()?;
            (state["standing"] == "votes").then_some(())
        })
        .await;
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("it ends well");
    }
}
