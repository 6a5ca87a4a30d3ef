//! Registration and heartbeats, against a metadata service that is away, forgets, and does not trust at first.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use support::*;
use tokio::sync::mpsc;
use vstack_api::metadata::{Heartbeat, NodeAck, RegisterNode};

#[derive(Debug)]
enum Heard {
    Registration(RegisterNode),
    Heartbeat(String, Heartbeat),
}

/// Answers by a script: the status of each call in turn, and whether the node is trusted.
struct Metadata {
    script: Mutex<Vec<(u16, bool)>>,
    heard: mpsc::Sender<Heard>,
}

impl Metadata {
    async fn answer(&self, heard: Heard) -> Response {
        self.heard.send(heard).await.unwrap();
        let mut script = self.script.lock().unwrap();
        let (status, trusted) = if script.is_empty() {
            (200, true)
        } else {
            script.remove(0)
        };
        let ack = NodeAck {
            status: "ok".to_owned(),
            node_id: "n".to_owned(),
            trusted,
        };
        (StatusCode::from_u16(status).unwrap(), Json(ack)).into_response()
    }
}

async fn register(State(metadata): State<Arc<Metadata>>, Query(node): Query<RegisterNode>) -> Response {
    metadata.answer(Heard::Registration(node)).await
}

async fn beat(State(metadata): State<Arc<Metadata>>, Path(id): Path<String>, Json(beat): Json<Heartbeat>) -> Response {
    metadata.answer(Heard::Heartbeat(id, beat)).await
}

async fn next(heard: &mut mpsc::Receiver<Heard>) -> Heard {
    tokio::time::timeout(PATIENCE, heard.recv())
        .await
        .expect("the node keeps trying")
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_registers_until_it_is_heard_and_again_when_it_is_forgotten() {
    let (sender, mut heard) = mpsc::channel(100);
    // Away; there but not trusting; a heartbeat that asks for more; trusting; a heartbeat; forgotten; known again.
    let script = vec![
        (503, false),
        (200, false),
        (200, false),
        (200, true),
        (200, true),
        (404, false),
        (200, true),
    ];
    let metadata = Arc::new(Metadata {
        script: Mutex::new(script),
        heard: sender,
    });
    let router = Router::new()
        .route("/nodes/register", post(register))
        .route("/nodes/{id}/heartbeat", post(beat))
        .with_state(metadata);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let dir = tempfile::tempdir().unwrap();
    // It has a chunk before anybody hears of it.
    let before = TestNode::start(settings(dir.path(), &[])).await;
    before.put("/chunk/a", b"x").await;
    before.stop().await;
    // Nobody listens at the first of the two.
    let urls = format!("http://127.0.0.1:1,{url}");
    let flags = [
        "--metadata-service-url",
        &urls,
        "--heartbeat-interval",
        "1",
        "--node-id",
        "n7",
        "--zone",
        "z",
    ];
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    let mut kinds = String::new();
    let process = peers().prove(&node.url).await.unwrap().process;
    assert!(process.is_some());
    for _ in 0..7 {
        match next(&mut heard).await {
            Heard::Registration(registered) => {
                kinds.push('R');
                assert_eq!(
                    (registered.node_id.as_str(), registered.node_url.as_str()),
                    ("n7", node.url.as_str())
                );
                assert_eq!((registered.disk_uuid, registered.incarnation), (Some(node.me.uuid), 0));
                assert_eq!(registered.process, process);
                assert_eq!((registered.zone.as_deref(), registered.public_url), (Some("z"), None));
            }
            Heard::Heartbeat(id, beat) => {
                kinds.push('H');
                assert_eq!((id.as_str(), beat.chunk_count), ("n7", 1));
                assert_eq!((beat.disk_uuid, beat.process), (Some(node.me.uuid), process));
                assert!(beat.log_seq >= 2 && beat.disk_usage_percent > 0.0);
                // The byte that it has, and the file that this is in.
                let held = beat.held.expect("it says what it holds");
                assert_eq!(held.item_bytes, 1);
                assert!(held.allocated_bytes >= 4_096, "{held:?}");
            }
        }
    }
    assert_eq!(kinds, "RRHRHHR");
    node.stop().await;
    service.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_nothing_keeps_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--staging-ttl", "0", "--gc-grace", "0", "--gc-interval", "1"];
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    peers()
        .put_vote(
            &node.holder(),
            &id("kept"),
            &put0(b"x", &[node.me]),
            b"x".to_vec().into(),
        )
        .await
        .unwrap();
    node.put("/chunk/staged", b"y").await;
    until("it goes", async || node.get("/chunk/staged").await.status() == 404).await;
    assert_eq!(node.get("/chunk/kept").await.status(), 200);
    node.stop().await;
}
