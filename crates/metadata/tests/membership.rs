//! Nodes come, leave and go on under a new name, and chunks move with them, with real storage nodes on disk, in this
//! process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;

use cluster::{Cluster, RealNode, bytes, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Wipes the first records of the log, and what would save reading it. They end where `end` says.
fn lose_records(dir: &std::path::Path, end: impl Fn(&[u8]) -> Option<usize>) {
    std::fs::remove_file(dir.join("checkpoint")).unwrap();
    let path = dir.join("superblock_000000.vsb");
    let mut content = std::fs::read(&path).unwrap();
    let end = end(&content).expect("what is to stay is there");
    content[8192..end].fill(0);
    std::fs::write(&path, content).unwrap();
}

/// Of the first node.
async fn disk(cluster: &Cluster) -> String {
    let (_, all) = cluster.service.get("/nodes/all").await;
    let mut nodes = all["nodes"].as_array().expect("a list").iter();
    let node = nodes.find(|node| node["node_id"] == "node-1").expect("it");
    node["disk_uuid"].as_str().expect("a UUID").to_owned()
}

/// Records are gone from a disk, and nobody knows which votes were in them: it votes no more, and is not taken for one
/// that does. Others take its place, and once it is empty it goes on under a new name, without a command.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lost_votes_goes_on_under_a_new_name() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.store(4, &[0, 1, 2]).await;
    cluster.becomes("healthy", 4).await;
    let old = disk(&cluster).await;
    cluster.nodes[0].take().expect("it runs").stop().await;
    lose_records(&cluster.data.path().join("node-1"), |content| {
        // The last ones stay: what is missing was there.
        let last = content.windows(4).rposition(|window| window == b"VSR1")?;
        last.checked_sub(100_000)
    });
    cluster.start_again(0).await;
    eventually("it is missed", async || {
        cluster.tick();
        (cluster.census().await["health"] != "healthy").then_some(())
    })
    .await;
    let new = eventually("all is whole", async || {
        cluster.tick();
        let before = cluster.replicas(&video).await;
        let (census, new) = (cluster.census().await, disk(&cluster).await);
        let after = cluster.replicas(&video).await;
        if census["health"] == "healthy" && new == old && before == after {
            let is_named = after.iter().flatten().any(|url| url == cluster.url(0));
            assert!(!is_named, "healthy with a disk that votes no more: {census} {after:?}");
        }
        (census["health"] == "healthy" && census["tally"]["whole"] == 4 && new != old).then_some(new)
    })
    .await;
    // What is moved, so that nodes hold the same, is at four of them meanwhile.
    let replicas = eventually("each chunk has three copies", async || {
        cluster.tick();
        let replicas = cluster.replicas(&video).await;
        replicas.iter().all(|of| of.len() == 3).then_some(replicas)
    })
    .await;
    for (sequence, replicas) in replicas.into_iter().enumerate() {
        for url in replicas {
            let url = format!("{url}/chunk/{video}-chunk-{sequence:03}");
            let got = cluster.service.http.get(url).send().await.expect("an answer");
            assert_eq!(got.bytes().await.expect("bytes")[..], bytes(sequence));
        }
    }
    eventually("it votes again", async || {
        let url = format!("{}/consensus/any", cluster.url(0));
        let state: Value = cluster.service.http.get(url).send().await.ok()?.json().await.ok()?;
        (state["standing"] == "votes").then_some(())
    })
    .await;
    let (_, all) = cluster.service.get("/nodes/all").await;
    assert_eq!(all["nodes"].as_array().map(Vec::len), Some(4), "{all}");
    assert_eq!(disk(&cluster).await, new);
    cluster.stop().await;
}

/// The same, where something is left on it that nothing known explains: with an older database that may be all there is
/// of a film. Everything else is moved away, and the disk keeps its name and serves it.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_lost_votes_keeps_its_name_while_something_on_it_is_unknown() {
    let mut cluster = Cluster::start(4).await;
    cluster.store(2, &[0, 1, 2]).await;
    cluster.becomes("healthy", 2).await;
    let unknown = cluster.store_unknown(0).await;
    let old = disk(&cluster).await;
    cluster.nodes[0].take().expect("it runs").stop().await;
    lose_records(&cluster.data.path().join("node-1"), |content| {
        // With the head of its record.
        let kept = bytes(9);
        let first = content.windows(64).position(|window| window == &kept[..64])?;
        first.checked_sub(20_000)
    });
    cluster.start_again(0).await;
    let looks = std::cell::Cell::new((0, Value::Null));
    eventually("it is empty otherwise, for many counts", async || {
        cluster.tick();
        let census = cluster.census().await;
        let node = census["nodes"]
            .as_array()?
            .iter()
            .find(|node| node["node"] == "node-1")?;
        let is_so = census["complete"] == true && node["placed"] == 0 && node["orphans"] != 0;
        let (times, last) = looks.take();
        let times = times + usize::from(is_so && last != census["at"]);
        looks.set((times, census["at"].clone()));
        (times >= 10).then_some(())
    })
    .await;
    assert_eq!(disk(&cluster).await, old);
    assert_eq!(cluster.get(0, unknown.as_str()).await, StatusCode::OK);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_emptied_and_taken_out_and_its_disk_does_not_come_back() {
    let mut cluster = Cluster::start(4).await;
    let video = cluster.store(3, &[0, 1, 2]).await;
    cluster.becomes("healthy", 3).await;
    let gone = cluster.url(0).to_owned();
    let call = async |method: Method, path: &str| cluster.service.call(method, path, None).await;
    // Twice: the same.
    for _ in 0..2 {
        let (status, node) = call(Method::POST, "/nodes/node-1/drain").await;
        assert_eq!((status, &node["role"]), (StatusCode::OK, &json!("draining")));
    }
    let moved = eventually("it is emptied", async || {
        cluster.tick();
        let replicas = cluster.replicas(&video).await;
        replicas.iter().flatten().all(|url| *url != gone).then_some(replicas)
    })
    .await;
    assert!(moved.iter().all(|nodes| nodes.len() == 3), "{moved:?}");
    let (_, all) = call(Method::GET, "/nodes/all").await;
    assert_eq!(all["nodes"].as_array().map(Vec::len), Some(4), "it stays, empty");
    assert_eq!(call(Method::DELETE, "/nodes/node-1").await.0, StatusCode::OK);
    eventually("it is taken out", async || {
        cluster.tick();
        let (_, all) = call(Method::GET, "/nodes/all").await;
        (all["nodes"].as_array().map(Vec::len) == Some(3)).then_some(())
    })
    .await;
    assert_eq!(call(Method::DELETE, "/nodes/node-1").await.0, StatusCode::NOT_FOUND);
    cluster.becomes("healthy", 3).await;
    cluster.nodes[0].take().expect("it runs").stop().await;
    cluster.start_again(0).await;
    cluster.becomes("healthy", 3).await;
    let (_, all) = cluster.service.get("/nodes/all").await;
    assert_eq!(all["nodes"].as_array().map(Vec::len), Some(3), "{all}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_gets_its_share_without_a_command() {
    let mut cluster = Cluster::start(3).await;
    let video = cluster.store(24, &[0, 1, 2]).await;
    cluster.becomes("healthy", 24).await;
    let new = RealNode::start("node-4", cluster.data.path(), &cluster.service.url).await;
    cluster.nodes.push(Some(new));
    let url = cluster.url(3).to_owned();
    // Three quarters of three copies of 24 chunks on four nodes.
    let replicas = eventually("it has its share", async || {
        cluster.tick();
        let replicas = cluster.replicas(&video).await;
        let has = |node: &str| replicas.iter().flatten().filter(|url| *url == node).count();
        let shares: Vec<_> = (0..4).map(|node| has(cluster.url(node))).collect();
        (shares.iter().sum::<usize>() == 72 && shares.iter().all(|share| (17..=19).contains(share))).then_some(replicas)
    })
    .await;
    assert!(replicas.iter().all(|nodes| nodes.len() == 3), "{replicas:?}");
    cluster.becomes("healthy", 24).await;
    eventually("nothing is left to even out", async || {
        (cluster.service.get("/repairs").await.1["uneven"] == 0).then_some(())
    })
    .await;
    let moved = replicas.iter().position(|nodes| nodes.contains(&url)).expect("one");
    let got = cluster
        .service
        .http
        .get(format!("{url}/chunk/{video}-chunk-{moved:03}"))
        .send()
        .await;
    assert_eq!(got.expect("an answer").bytes().await.expect("bytes")[..], bytes(moved));
    cluster.stop().await;
}
