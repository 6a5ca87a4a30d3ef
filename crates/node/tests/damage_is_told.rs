//! A chunk that is found damaged is told to the metadata service, again by every process, until it is whole.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use support::*;
use tokio::{sync::mpsc, task::JoinHandle};
use vstack_api::metadata::{DamageTold, Heartbeat, NodeAck, TOLD_CHUNKS_MAX};

type Told = mpsc::Receiver<DamageTold>;

fn ack() -> Json<NodeAck> {
    Json(NodeAck {
        status: "ok".to_owned(),
        node_id: "n".to_owned(),
        trusted: true,
    })
}

async fn beat(
    State(told): State<mpsc::Sender<DamageTold>>,
    Json(beat): Json<Heartbeat>,
) -> Result<Json<NodeAck>, StatusCode> {
    if let Some(damage) = beat.damage {
        let all = told.send(damage).await;
        all.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    }
    Ok(ack())
}

/// Hears what nodes tell.
async fn metadata() -> (String, Told, JoinHandle<()>) {
    let (sender, told) = mpsc::channel(100);
    let router = Router::new()
        .route("/nodes/register", post(|| async { ack() }))
        .route("/nodes/{id}/heartbeat", post(beat))
        .with_state(sender);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, told, service)
}

async fn next(told: &mut Told) -> DamageTold {
    tokio::time::timeout(PATIENCE, told.recv())
        .await
        .expect("the node tells")
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_told_until_it_is_whole() {
    let (url, mut told, service) = metadata().await;
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--metadata-service-url", &url, "--heartbeat-interval", "1"];
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    let body = bytes(50_000);
    node.put("/chunk/a", &body).await;
    let first = next(&mut told).await;
    assert!(
        first.anew && first.damaged.is_empty() && first.whole.is_empty(),
        "{first:?}"
    );

    damage(dir.path(), &body);
    assert_eq!(node.get("/chunk/a").await.status(), 500);
    let found = next(&mut told).await;
    assert!(!found.anew && found.whole.is_empty(), "{found:?}");
    let chunk = found.damaged[0].clone();
    assert_eq!((chunk.chunk_id.as_str(), found.damaged.len()), ("a", 1));
    assert_eq!(chunk.sha256, vstack_types::Digest::of(&body));
    node.stop().await;

    let node = TestNode::start(settings(dir.path(), &flags)).await;
    let again = next(&mut told).await;
    assert!(again.anew && again.whole.is_empty(), "{again:?}");
    assert_eq!(
        again.damaged,
        std::slice::from_ref(&chunk),
        "another process tells it, too"
    );

    assert_eq!(node.put("/chunk/a", &body).await.status(), 201);
    let healed = next(&mut told).await;
    assert!(!healed.anew && healed.damaged.is_empty(), "{healed:?}");
    assert_eq!(healed.whole, [chunk]);
    node.stop().await;
    service.abort();
}

/// Nobody reads the chunk: the scrub comes upon it by itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_scrub_finds_is_counted_and_told() {
    const FOUND: &str = "vstack_scrub_findings_total{kind=\"item\"}";
    let (url, mut told, service) = metadata().await;
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--metadata-service-url",
        &url,
        "--heartbeat-interval",
        "1",
        "--scrub-period",
        "1",
    ];
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    let (rots, stays) = (bytes(50_000), vec![7; 40_000]);
    node.put("/chunk/rots", &rots).await;
    node.put("/chunk/stays", &stays).await;
    let first = next(&mut told).await;
    assert!(first.anew && first.damaged.is_empty(), "{first:?}");

    damage(dir.path(), &rots);
    let found = next(&mut told).await;
    let [chunk] = &found.damaged[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (chunk.chunk_id.as_str(), chunk.sha256),
        ("rots", vstack_types::Digest::of(&rots))
    );
    until("what was found is counted", async || metric(&node, FOUND).await == 1).await;
    assert_eq!(metric(&node, "vstack_engine_quarantined_total").await, 1);
    assert_eq!(node.get("/chunk/stays").await.bytes().await.unwrap(), stays);
    assert_ne!(node.get("/chunk/rots").await.status(), 200);
    node.stop().await;
    service.abort();
}

/// What one heartbeat cannot carry comes with the next ones.
#[tokio::test(flavor = "multi_thread")]
async fn much_damage_is_told_little_by_little() {
    let (url, mut told, service) = metadata().await;
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--metadata-service-url", &url, "--heartbeat-interval", "1"];
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let count = TOLD_CHUNKS_MAX + 3;
    for number in 0..count {
        let body = [&number.to_le_bytes()[..], &bytes(5_000)].concat();
        node.put(&format!("/chunk/c{number}"), &body).await;
    }
    let path = dir.path().join("superblock_000000.vsb");
    let mut contents = std::fs::read(&path).unwrap();
    for number in 0..count {
        let begin = [&number.to_le_bytes()[..], &bytes(56)].concat();
        let at = contents.windows(begin.len()).position(|here| here == begin).unwrap();
        contents[at + 60] ^= 1;
    }
    std::fs::write(&path, contents).unwrap();
    for number in 0..count {
        assert_eq!(node.get(&format!("/chunk/c{number}")).await.status(), 500);
    }
    node.stop().await;
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    let (one, two) = (next(&mut told).await, next(&mut told).await);
    assert_eq!((one.anew, one.damaged.len()), (true, TOLD_CHUNKS_MAX));
    assert_eq!((two.anew, two.damaged.len()), (false, 3));
    let chunks: BTreeSet<_> = one.damaged.into_iter().chain(two.damaged).collect();
    assert_eq!(chunks.len(), count);
    node.stop().await;
    service.abort();
}
