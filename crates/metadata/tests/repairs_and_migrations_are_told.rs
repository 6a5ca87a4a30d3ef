//! `GET /events` tells what is being mended and what is brought into another form, while real storage nodes do it.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{Cluster, bytes, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use vstack_types::Digest;

/// Whole events of a stream so far, each with its name.
fn events(text: &str) -> Vec<(String, Value)> {
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let parsed = whole.split("\n\n").filter_map(|event| {
        let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
        Some((name.to_owned(), serde_json::from_str(data).ok()?))
    });
    parsed.collect()
}

/// A chunk that was PUT on these nodes, and what is said to commit it.
async fn put(cluster: &Cluster, video: &str, on: &[usize]) -> (String, Value) {
    let (chunk, content) = (format!("{video}-chunk-000"), bytes(0));
    let urls: Vec<&str> = on.iter().map(|node| cluster.url(*node)).collect();
    for url in &urls {
        let put = cluster.service.http.put(format!("{url}/chunk/{chunk}"));
        let put = put.body(content.clone()).send().await.expect("an answer");
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let commit = json!({
        "node_urls": urls, "checksum": Digest::of(&content).prefixed(), "size_bytes": content.len(),
        "video_id": video, "sequence_num": 0,
    });
    (format!("/chunk/{chunk}/commit"), commit)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_has_its_video_kept_as_shards_and_whoever_watches_hears_of_it() {
    let cluster = Cluster::start(5).await;
    let asked = json!({ "title": "by hand", "duration_sec": 10.0, "redundancy_mode": "erasure_coding" });
    let (status, created) = cluster.service.post("/video", asked).await;
    assert_eq!(status, StatusCode::OK, "{created}");
    let video = created["video_id"].as_str().expect("an id").to_owned();
    let (path, commit) = put(&cluster, &video, &[0, 1, 2]).await;
    // Shards are no script's: it is told what to do, and that works.
    let mut as_shards = commit.clone();
    as_shards["redundancy_mode"] = json!("erasure_coding");
    as_shards["fragments_metadata"] = json!([{ "fragment_index": 0 }]);
    let (status, refused) = cluster.service.post(&path, as_shards).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    let why = refused["detail"].as_str().expect("words");
    for part in [
        "leave redundancy_mode out",
        "POST /video",
        &format!("/redundancy/override/{video}?mode=erasure_coding"),
    ] {
        assert!(why.contains(part), "{part} is not in {why}");
    }
    let (status, committed) = cluster.service.post(&path, commit).await;
    assert_eq!(status, StatusCode::OK, "{committed}");

    let stream = cluster.service.http.get(format!("{}/events", cluster.service.url));
    let mut stream = stream.send().await.expect("a stream");
    let opened = Instant::now();
    let (status_path, active) = (format!("/video/{video}/status"), json!({ "status": "active" }));
    let set = cluster.service.call(Method::PATCH, &status_path, Some(active)).await;
    assert_eq!(set.0, StatusCode::OK);

    let mut text = String::new();
    let told = eventually("both are told of", async || {
        cluster.tick();
        while let Ok(part) = tokio::time::timeout(Duration::from_millis(20), stream.chunk()).await {
            let part = part.expect("a part").expect("not the end");
            text.push_str(&String::from_utf8_lossy(&part));
        }
        let told = events(&text);
        let has = |of: &str, field: &str| {
            let mut of = told.iter().filter(|(name, _)| name == of);
            of.any(|(_, data)| data[field].as_u64().is_some_and(|count| count > 0))
        };
        let is_told = has("migrations", "encoded_chunks") && has("repairs", "done");
        is_told.then_some(told)
    })
    .await;
    let seconds = opened.elapsed().as_secs();
    for name in ["repairs", "migrations"] {
        let of: Vec<&Value> = told.iter().filter(|(of, _)| of == name).map(|(_, data)| data).collect();
        assert!(of.len() as u64 <= seconds + 1, "once a second at most: {of:?}");
        assert!(of.windows(2).all(|pair| pair[0] != pair[1]), "news alone: {of:?}");
    }
    let last = told.iter().rev().find(|(name, _)| name == "migrations");
    let (_, keepings) = cluster.service.get("/redundancy/videos").await;
    let fields = |of: &Value| of.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    let (_, migration) = last.expect("one");
    assert_eq!(fields(migration), fields(&keepings["migration"]));
    // Three copies of it would be 576,000 bytes, and the shards are five thirds of it.
    eventually("what is saved is measured", async || {
        cluster.tick();
        let (_, metrics) = cluster.service.get("/metrics").await;
        let lines = metrics.as_str().expect("text").lines();
        let of = |name: &str| lines.clone().find_map(|line| line.strip_prefix(name)?.parse().ok());
        let found: [Option<i64>; 2] = ["vstack_saved_bytes ", "vstack_migration_waiting_bytes "].map(of);
        (found == [Some(256_000), Some(0)]).then_some(())
    })
    .await;
    cluster.stop().await;
}
