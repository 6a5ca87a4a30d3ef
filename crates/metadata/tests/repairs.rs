//! What is stored is counted, and mended where it is damaged or missing, with real storage nodes on disk, in this
//! process.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, bytes, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_counted_before_it_is_called_healthy() {
    let cluster = Cluster::start(3).await;
    let video = cluster.store(4, &[0, 1, 2]).await;
    let census = cluster.becomes("healthy", 4).await;
    assert_eq!(
        (&census["complete"], &census["videos_not_whole"]),
        (&json!(true), &json!(0))
    );
    let nodes = census["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    for node in nodes {
        assert_eq!((&node["items"], &node["orphans"]), (&json!(4), &json!(0)), "{node}");
    }
    // That a register is read of which its node was not told yet mends nothing.
    let repairs = cluster.service.get("/repairs").await.1;
    let mut done = repairs["recent"].as_array().expect("a list").iter();
    assert!(
        done.all(|job| job["what"] == "read_registers"),
        "nothing was to be mended: {repairs}"
    );
    let path = format!("/video/{video}");
    let deleted = cluster.service.call(Method::DELETE, &path, None).await;
    assert_eq!(deleted.0, StatusCode::OK);
    // It is looked after as long as it can be restored.
    cluster.becomes("healthy", 4).await;
    let (status, restored) = cluster.service.post(&format!("{path}/restore"), json!({})).await;
    assert_eq!((status, &restored["status"]), (StatusCode::OK, &json!("active")));
    assert_eq!(
        cluster.service.call(Method::DELETE, &path, None).await.0,
        StatusCode::OK
    );
    cluster.becomes("healthy", 0).await;
    let again = cluster.service.post(&format!("{path}/restore"), json!({})).await;
    assert_eq!(again.0, StatusCode::CONFLICT);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_restored_where_it_is() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.store(3, &[0, 1, 2]).await;
    cluster.becomes("healthy", 3).await;
    cluster.rots(0, &bytes(1)).await;
    let chunk = format!("{video}-chunk-001");
    // Whoever reads it finds out.
    let url = format!("{}/chunk/{chunk}", cluster.url(0));
    let found = eventually("the node finds it damaged", async || {
        let got = cluster.service.http.get(&url).send().await.ok()?;
        (!got.status().is_success()).then(|| got.status())
    })
    .await;
    assert!(found.is_server_error(), "{found}");
    eventually("it is restored", async || {
        cluster.tick();
        let got = cluster.service.http.get(&url).send().await.ok()?;
        let status = got.status();
        let same = got.bytes().await.ok()?[..] == bytes(1);
        (status.is_success() && same).then_some(())
    })
    .await;
    cluster.becomes("healthy", 3).await;
    let (_, repairs) = cluster.service.get("/repairs").await;
    let mended = &repairs["recent"].as_array().expect("a list");
    let restored = mended
        .iter()
        .find(|repair| repair["what"] == "restore_copy")
        .expect("it");
    assert_eq!(
        (&restored["chunk_id"], &restored["failed"]),
        (&json!(chunk), &Value::Null)
    );
    let harmed = json!({ "found": 1, "repaired": 1, "ended": 0, "open": 0, "beyond_repair": 0 });
    assert_eq!(repairs["harmed"], harmed);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_come_back_is_replaced_and_one_that_restarts_is_not() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.store(4, &[0, 1, 2]).await;
    let before = cluster.is_even(&video, 3).await;
    let lost = cluster.url(2).to_owned();
    cluster.nodes[2].take().expect("it runs").stop().await;
    // Longer than nodes may be silent. From here on the clock stands still: it cannot be missed for long.
    cluster.service.clock.advance(Duration::from_secs(7));
    eventually("it is missed", async || {
        (cluster.census().await["tally"]["under_replicated"] == 3).then_some(())
    })
    .await;
    assert_eq!(cluster.replicas(&video).await, before, "it is waited for");
    let healed = cluster.becomes("healthy", 4).await;
    assert_eq!(healed["videos"], json!([]));
    for (sequence, nodes) in cluster.replicas(&video).await.iter().enumerate() {
        assert!(nodes.len() == 3 && !nodes.contains(&lost), "{nodes:?}");
        for node in nodes {
            let url = format!("{node}/chunk/{video}-chunk-{sequence:03}");
            let got = cluster.service.http.get(url).send().await.expect("an answer");
            assert_eq!(got.bytes().await.expect("bytes")[..], bytes(sequence));
        }
    }
    // It comes back, and is to get nothing new: what it still has is given up, since it is elsewhere by now.
    let drain = cluster.service.call(Method::POST, "/nodes/node-3/drain", None).await;
    assert_eq!(drain.0, StatusCode::OK);
    cluster.start_again(2).await;
    let emptied = eventually("it is counted, and empty", async || {
        cluster.tick();
        let census = cluster.census().await;
        let mut nodes = census["nodes"].as_array()?.iter();
        let is_empty = |node: &Value| {
            let is_counted = node["node"] == "node-3" && !node["counted_at"].is_null();
            is_counted && node["items"] == 0 && node["orphans"] == 0
        };
        nodes.any(is_empty).then_some(census)
    })
    .await;
    assert_eq!(emptied["orphans"], json!([]));
    for sequence in 0..4 {
        let chunk = format!("{video}-chunk-{sequence:03}");
        assert_eq!(cluster.get(2, &chunk).await, StatusCode::NOT_FOUND);
    }
    cluster.becomes("healthy", 4).await;
    cluster.stop().await;
}

/// A film of which the database knows nothing, as when it is an older one: its bytes are not touched, and named.
#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_known_explains_is_kept_and_named() {
    let cluster = Cluster::start(4).await;
    cluster.store(2, &[0, 1, 2]).await;
    cluster.becomes("healthy", 2).await;
    let chunk = cluster.store_unknown(1).await;
    let named = eventually("it is named", async || {
        cluster.tick();
        let census = cluster.census().await;
        (census["orphans"] != json!([])).then_some(census)
    })
    .await;
    assert_eq!(named["health"], "unexplained", "whole or not, nobody knows of it");
    let orphans = named["orphans"].as_array().expect("a list");
    assert_eq!(orphans.len(), 1, "{named}");
    assert_eq!(
        (&orphans[0]["chunk_id"], &orphans[0]["node"]),
        (&json!(chunk), &json!("node-2"))
    );
    let why = orphans[0]["why"].as_str().expect("for people");
    assert!(why.contains("its video is not known"), "{why}");
    assert_eq!(cluster.get(1, chunk.as_str()).await, StatusCode::OK);
    // Nor is it taken out with its node.
    let removed = cluster.service.call(Method::DELETE, "/nodes/node-2", None).await;
    assert_eq!(removed.0, StatusCode::OK);
    eventually("its node stays, and says why", async || {
        cluster.tick();
        let census = cluster.census().await;
        let mut nodes = census["nodes"].as_array()?.iter();
        let is_why = |why: &Value| {
            why.as_str()
                .is_some_and(|why| why.contains("nothing known placed there"))
        };
        nodes
            .any(|node| node["node"] == "node-2" && is_why(&node["stays_because"]))
            .then_some(())
    })
    .await;
    assert_eq!(cluster.get(1, chunk.as_str()).await, StatusCode::OK);
    cluster.stop().await;
}

/// Items and registers that nodes told of so far.
async fn told(cluster: &Cluster, of: &str) -> u64 {
    let (_, metrics) = cluster.service.get("/metrics").await;
    let metrics = metrics.as_str().expect("text");
    let series = format!("vstack_census_told_total{{of=\"{of}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(0, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_counted_and_not_everything() {
    const CHUNKS: u64 = 40;
    let mut cluster = Cluster::start(3).await;
    cluster.store(40, &[0, 1, 2]).await;
    cluster.becomes("healthy", CHUNKS).await;
    // Another process tells everything, once.
    let before = told(&cluster, "everything").await;
    cluster.nodes[0].take().expect("it runs").stop().await;
    cluster.start_again(0).await;
    eventually("everything is told anew", async || {
        cluster.tick();
        (told(&cluster, "everything").await >= before + 2 * CHUNKS).then_some(())
    })
    .await;
    cluster.becomes("healthy", CHUNKS).await;
    let before = (told(&cluster, "everything").await, told(&cluster, "changes").await);
    let video = cluster.store(1, &[0, 1, 2]).await;
    cluster.becomes("healthy", CHUNKS + 1).await;
    let after = (told(&cluster, "everything").await, told(&cluster, "changes").await);
    assert_eq!(after.0, before.0);
    // An item and a register of each node, perhaps some times until what it decides is known there.
    let few = 3 * 2..3 * 2 * CHUNKS;
    assert!(few.contains(&(after.1 - before.1)), "{before:?} {after:?}");
    // What is deleted is counted by what changed, too.
    let deleted = cluster
        .service
        .call(Method::DELETE, &format!("/video/{video}"), None)
        .await;
    assert_eq!(deleted.0, StatusCode::OK);
    let census = cluster.becomes("healthy", CHUNKS).await;
    eventually("nothing of it is left at the nodes", async || {
        cluster.tick();
        let census = cluster.census().await;
        let mut nodes = census["nodes"].as_array()?.iter();
        nodes
            .all(|node| node["items"] == CHUNKS && node["orphans"] == 0)
            .then_some(())
    })
    .await;
    assert_eq!(census["complete"], true);
    assert_eq!(told(&cluster, "everything").await, before.0);
    cluster.stop().await;
}
