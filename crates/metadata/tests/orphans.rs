//! What nothing known explains is kept until somebody gives it up, and goes as anything does then, with real storage nodes
//! on disk, in this process.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, Service, bytes, eventually, memory};
use reqwest::StatusCode;
use serde_json::{Value, json};

async fn give_up(cluster: &Cluster, chunks: &[&str]) -> Value {
    let body = json!({ "chunks": chunks });
    let (status, told) = cluster.service.post("/orphans/give-up", body).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    told
}

/// It was not given up, for this reason.
fn is_kept(told: &Value, chunk: &str, words: &str) {
    assert_eq!(told["given_up"], json!([]), "{told}");
    let kept = &told["kept"][0];
    let why = kept["why"].as_str().expect("for people");
    assert!(
        kept["chunk_id"] == chunk && why.contains(words),
        "{words:?} is not in {told}"
    );
}

/// Until it is given up, nothing but a person does anything about it.
async fn is_named(cluster: &Cluster, chunk: &str, on: usize) {
    eventually("it is named", async || {
        cluster.tick();
        let census = cluster.census().await;
        let orphans = census["orphans"].as_array()?.clone();
        let is_it = |orphan: &Value| orphan["chunk_id"] == chunk && orphan["explained"] == false;
        let all = orphans.len() == on && orphans.iter().all(is_it);
        (all && census["health"] == "unexplained").then_some(())
    })
    .await;
}

/// Nothing of it is left on any of these nodes, and nobody speaks of it any more.
async fn is_gone(cluster: &Cluster, chunk: &str, from: &[usize], whole: u64) {
    for node in from {
        eventually("its bytes are collected", async || {
            cluster.tick();
            (cluster.get(*node, chunk).await == StatusCode::NOT_FOUND).then_some(())
        })
        .await;
    }
    let census = cluster.becomes("healthy", whole).await;
    assert_eq!(census["orphans"], json!([]), "{census}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_known_explains_goes_when_somebody_gives_it_up() {
    let cluster = Cluster::start(4).await;
    let video = cluster.store(2, &[0, 1, 2]).await;
    cluster.becomes("healthy", 2).await;
    let chunk = cluster.store_unknown(1).await;
    let chunk = chunk.as_str();
    is_named(&cluster, chunk, 1).await;
    assert_eq!(cluster.get(1, chunk).await, StatusCode::OK);
    // What is known is not given up, nor what nobody has.
    let known = format!("{video}-chunk-000");
    is_kept(&give_up(&cluster, &[&known]).await, &known, "it is known what it is");
    is_kept(
        &give_up(&cluster, &["nobodys"]).await,
        "nobodys",
        "no node that answers has",
    );
    for count in [0, 9] {
        let body = json!({ "chunks": vec![chunk; count] });
        let (status, told) = cluster.service.post("/orphans/give-up", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{told}");
    }
    assert_eq!(cluster.get(1, chunk).await, StatusCode::OK);
    // By two at once, who may hinder each other, and again.
    let asked = [chunk];
    let (one, other) = tokio::join!(give_up(&cluster, &asked), give_up(&cluster, &asked));
    for told in [one, other] {
        let count = |of: &str| told[of].as_array().map_or(0, Vec::len);
        assert_eq!(count("given_up") + count("kept"), 1, "{told}");
    }
    eventually("it is given up", async || {
        let told = give_up(&cluster, &asked).await;
        (told == json!({ "given_up": asked, "kept": [] })).then_some(())
    })
    .await;
    is_gone(&cluster, chunk, &[1], 2).await;
    for (sequence, nodes) in cluster.replicas(&video).await.iter().enumerate() {
        for node in nodes {
            let url = format!("{node}/chunk/{video}-chunk-{sequence:03}");
            let got = cluster.service.http.get(url).send().await.expect("an answer");
            assert_eq!(
                got.bytes().await.expect("bytes")[..],
                bytes(sequence),
                "another went with it"
            );
        }
    }
    assert_eq!(
        give_up(&cluster, &asked).await["given_up"],
        json!(asked),
        "again does no harm"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_kept_while_those_who_decide_about_it_are_not_there() {
    let mut cluster = Cluster::start(3).await;
    let chunk = cluster.store_unknown_on(&[0, 1, 2]).await;
    let chunk = chunk.as_str();
    is_named(&cluster, chunk, 3).await;
    for node in [1, 2] {
        cluster.nodes[node].take().expect("it runs").stop().await;
    }
    cluster.service.clock.advance(Duration::from_secs(7));
    is_kept(
        &give_up(&cluster, &[chunk]).await,
        chunk,
        "too few of the nodes that decide about it",
    );
    assert_eq!(cluster.get(0, chunk).await, StatusCode::OK);
    for node in [1, 2] {
        cluster.start_again(node).await;
    }
    eventually("it is given up", async || {
        cluster.tick();
        let told = give_up(&cluster, &[chunk]).await;
        (told["given_up"] == json!([chunk])).then_some(())
    })
    .await;
    is_gone(&cluster, chunk, &[0, 1, 2], 0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn where_nothing_is_mended_nothing_is_given_up() {
    let service = Service::on(memory(), &["--repairs", "false"]).await;
    let (status, told) = service.post("/orphans/give-up", json!({ "chunks": ["c"] })).await;
    assert_eq!((status, &told["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    service.stop().await;
}
