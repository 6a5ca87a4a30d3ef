//! `vstack client`: its calls and their fields.

use std::time::Duration;

use clap::Parser as _;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use vstack_player::{Settings, serve_on};
use vstack_types::VideoId;

use crate::fake::{Cluster, Fault, Video, nobody, soon};

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    settings: Settings,
}

struct Client {
    url: String,
    http: reqwest::Client,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Client {
    async fn start(metadata_url: &str, more: &[&str]) -> Self {
        let arguments = ["client", "--metadata-service-url", metadata_url]
            .into_iter()
            .chain(more.iter().copied());
        let settings = Command::parse_from(arguments).settings;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve_on(listener, settings, stop.clone()));
        Self {
            url,
            http: reqwest::Client::new(),
            stop,
            task,
        }
    }

    async fn get(&self, path: &str) -> Value {
        soon(self.http.get(format!("{}{path}", self.url)).send())
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn post(&self, path: &str) -> (u16, Value) {
        let response = soon(self.http.post(format!("{}{path}", self.url)).send())
            .await
            .unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Asks until the status is as wanted.
    async fn status_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.when("/api/status", wanted).await
    }

    async fn when(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        soon(async {
            loop {
                let said = self.get(path).await;
                if wanted(&said) {
                    return said;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    async fn end(self) {
        self.stop.cancel();
        soon(self.task).await.unwrap().unwrap();
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_played_and_reported_in_the_published_fields() {
    let cluster = Cluster::start(Video::new(8, 50_000, 0.2), &[Fault::None; 3]).await;
    let client = Client::start(&cluster.metadata.server.url, &[]).await;
    let idle = client.get("/api/status").await;
    assert_eq!(
        (&idle["video_id"], &idle["playing"], &idle["buffer"]["state"]),
        (&Value::Null, &false.into(), &"IDLE".into())
    );

    let id = cluster.video.id;
    let (code, ack) = client.post(&format!("/play/{id}")).await;
    assert_eq!((code, &ack["video_id"]), (200, &id.to_string().into()));
    let status = client.status_when(|status| status["buffer"]["state"] == "ENDED").await;
    assert_eq!(
        keys(&status),
        [
            "buffer",
            "buffer_stats",
            "network_stats",
            "node_scores",
            "playback_duration",
            "playing",
            "scheduler_stats",
            "startup_latency",
            "video_id"
        ]
    );
    assert_eq!(
        keys(&status["buffer"]),
        [
            "buffer_health_percent",
            "buffer_level_sec",
            "current_position",
            "state",
            "target_buffer_sec"
        ]
    );
    assert_eq!(
        keys(&status["buffer_stats"]),
        ["average_buffer_level", "rebuffering_events", "total_chunks_played"]
    );
    assert_eq!(
        keys(&status["scheduler_stats"]),
        ["failover_count", "success_rate", "total_downloads"]
    );
    assert_eq!(status["buffer_stats"]["total_chunks_played"], 8);
    assert_eq!(status["network_stats"].as_object().unwrap().len(), 3);
    for network in status["network_stats"].as_object().unwrap().values() {
        assert_eq!(keys(network), ["bandwidth_mbps", "latency_ms", "success_rate"]);
    }
    let stats = client.get("/api/stats").await;
    assert_eq!(keys(&stats), ["buffer", "downloads", "nodes", "session"]);
    let given: u64 = stats["nodes"]
        .as_object()
        .unwrap()
        .values()
        .map(|node| node["chunks"].as_u64().unwrap())
        .sum();
    assert_eq!(given, 9);
    let metrics = client.get("/api/metrics").await;
    assert_eq!(
        keys(&metrics),
        ["buffer_history", "node_score_history", "throughput_history"]
    );
    assert!(!metrics["buffer_history"].as_array().unwrap().is_empty());
    let performance = client.get("/api/performance").await;
    assert_eq!(
        keys(&performance),
        [
            "average_buffer_level_sec",
            "average_throughput_mbps",
            "chunks_played",
            "download_success_rate",
            "playback_duration_sec",
            "rebuffering_events",
            "startup_latency_sec"
        ]
    );
    assert_eq!(
        (&performance["chunks_played"], &performance["rebuffering_events"]),
        (&8.into(), &0.into())
    );
    assert_eq!(cluster.metadata.views(), 1);
    client.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_replaces_the_running_one_and_stop_ends_it() {
    let cluster = Cluster::start(Video::new(10, 50_000, 60.0), &[Fault::None; 2]).await;
    let client = Client::start(&cluster.metadata.server.url, &["--target-buffer-sec", "120"]).await;
    let path = format!("/play/{}", cluster.video.id);
    for _ in 0..2 {
        assert_eq!(client.post(&path).await.0, 200);
        let status = client.status_when(|status| status["playing"] == true).await;
        assert_eq!(status["buffer"]["target_buffer_sec"], 120.0);
    }
    // What was seen to play above may have been the session before.
    client.when("/health", |health| health["playing"] == true).await;
    assert_eq!(client.post("/stop").await.0, 200);
    let status = client.get("/api/status").await;
    assert_eq!((&status["video_id"], &status["playing"]), (&Value::Null, &false.into()));
    client.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_waits_for_a_busy_metadata_service_and_stopping_for_nobody() {
    let cluster = Cluster::start(Video::new(2, 1000, 60.0), &[Fault::None]).await;
    let client = Client::start(&cluster.metadata.server.url, &[]).await;
    let path = format!("/play/{}", cluster.video.id);
    cluster.metadata.refuse(2);
    assert_eq!(client.post(&path).await.0, 200);
    cluster.metadata.refuse(usize::MAX);
    let asked = cluster.metadata.asked().len();
    let stopping = async {
        while cluster.metadata.asked().len() < asked + 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.stop.cancel();
    };
    let ((code, body), ()) = tokio::join!(client.post(&path), stopping);
    assert_eq!((code, &body["code"]), (503, &"unavailable".into()));
    assert!(body["detail"].as_str().unwrap().contains("stopping"), "{body}");
    client.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_their_codes_and_pages_are_there() {
    let cluster = Cluster::start(Video::new(1, 1000, 1.0), &[Fault::None]).await;
    let client = Client::start(&cluster.metadata.server.url, &[]).await;
    let (code, body) = client.post(&format!("/play/{}", VideoId::generate())).await;
    assert_eq!((code, &body["code"]), (404, &"not_found".into()));
    let (code, body) = client.post("/play/nonsense").await;
    assert_eq!((code, &body["code"]), (400, &"bad_id".into()));
    assert_eq!(
        keys(&client.get("/health").await),
        ["playing", "service", "status", "version"]
    );
    assert!(client.get("/openapi.json").await["paths"]["/play/{id}"]["post"].is_object());
    for path in ["/", "/ready", "/metrics"] {
        assert_eq!(
            soon(client.http.get(format!("{}{path}", client.url)).send())
                .await
                .unwrap()
                .status(),
            200,
            "{path}"
        );
    }
    client.end().await;

    let lonely = Client::start(&nobody().await, &[]).await;
    let (code, body) = lonely.post(&format!("/play/{}", VideoId::generate())).await;
    assert_eq!((code, &body["code"]), (503, &"unavailable".into()));
    lonely.end().await;
}

#[test]
fn settings_that_cannot_be_stop_the_start() {
    for bad in [
        ["--max-concurrent-downloads", "0"],
        ["--max-concurrent-downloads", "many"],
        ["--monitoring-interval", "0"],
        ["--target-buffer-sec", "-1"],
        ["--port", "65536"],
    ] {
        assert!(
            Command::try_parse_from(["client"].into_iter().chain(bad)).is_err(),
            "{bad:?}"
        );
    }
    let settings = Command::parse_from(["client", "--target-buffer-sec", "12"]).settings;
    assert!(
        vstack_player::routes(&settings, &CancellationToken::new()).is_err(),
        "low water above the target"
    );
}
