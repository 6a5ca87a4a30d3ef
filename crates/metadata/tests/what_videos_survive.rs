//! How many nodes videos may lose is computed from the nodes there are, with real storage nodes on disk, in this process.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};
use vstack_types::VideoId;

/// What one video survives, asked for by itself.
async fn one(cluster: &Cluster, video: &str) -> Value {
    let (status, told) = cluster.service.get(&format!("/video/{video}/survival")).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(told["video_id"], video);
    told
}

/// Each video survives so much, and all of them this, wherever that is told.
async fn survive(cluster: &Cluster, videos: &[(&str, Option<u32>)], library: Value) {
    eventually(&format!("{videos:?} to be counted, and {library}"), async || {
        cluster.tick();
        let is_it = |told: &Value, nodes: Option<u32>| {
            told["failures_survived"] == json!(nodes) && told["survival_counted"] == true
        };
        let (_, list) = cluster.service.get("/videos").await;
        for (video, nodes) in videos {
            let mut listed = list.as_array()?.iter();
            let listed = listed.find(|listed| listed["video_id"] == *video)?;
            if !is_it(listed, *nodes) || !is_it(&one(cluster, video).await, *nodes) {
                return None;
            }
        }
        let (_, stats) = cluster.service.get("/stats").await;
        (stats["survival"] == library).then_some(())
    })
    .await;
}

/// As many videos survive no more than this, and so many cannot be read; all are counted.
fn library(nodes: Option<u32>, videos: u64, unreadable: u64) -> Value {
    json!({
        "failures_survived": nodes, "videos": videos, "unreadable_videos": unreadable, "uncounted_videos": 0,
    })
}

/// For longer than nodes may be silent.
async fn loses(cluster: &mut Cluster, node: usize) {
    cluster.nodes[node].take().expect("it runs").stop().await;
    cluster.service.clock.advance(Duration::from_secs(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_of_each_video_and_of_all_by_the_nodes_there_are() {
    // What is not whole stays so.
    let mut cluster = Cluster::start_with(3, &["--repairs", "false"]).await;
    let three = cluster.store(2, &[0, 1, 2]).await;
    // Counted or not: it is placed on three nodes, and they are there.
    assert_eq!(one(&cluster, &three).await["failures_survived"], 2);
    survive(&cluster, &[(&three, Some(2))], library(Some(2), 1, 0)).await;
    let two = cluster.store(2, &[0, 1]).await;
    assert_eq!(one(&cluster, &two).await["failures_survived"], 1);
    survive(&cluster, &[(&three, Some(2)), (&two, Some(1))], library(Some(1), 1, 0)).await;
    loses(&mut cluster, 2).await;
    survive(&cluster, &[(&three, Some(1)), (&two, Some(1))], library(Some(1), 2, 0)).await;
    loses(&mut cluster, 1).await;
    survive(&cluster, &[(&three, Some(0)), (&two, Some(0))], library(Some(0), 2, 0)).await;
    cluster.start_again(2).await;
    loses(&mut cluster, 0).await;
    // One of them is on the third node, too.
    survive(&cluster, &[(&three, Some(0)), (&two, None)], library(Some(0), 1, 1)).await;
    loses(&mut cluster, 2).await;
    survive(&cluster, &[(&three, None), (&two, None)], library(None, 0, 2)).await;
    let nobodys = format!("/video/{}/survival", VideoId::generate());
    assert_eq!(cluster.service.get(&nobodys).await.0, StatusCode::NOT_FOUND);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_on_three_nodes_survive_the_loss_of_one() {
    let cluster = Cluster::start(3).await;
    let video = cluster.store(1, &[0, 1, 2]).await;
    survive(&cluster, &[(&video, Some(2))], library(Some(2), 1, 0)).await;
    let asked = format!("/redundancy/override/{video}?mode=erasure_coding");
    assert_eq!(cluster.service.post(&asked, json!({})).await.0, StatusCode::OK);
    survive(&cluster, &[(&video, Some(1))], library(Some(1), 1, 0)).await;
    cluster.stop().await;
}

/// Everybody who watches it asks every minute.
#[tokio::test(flavor = "multi_thread")]
async fn once_a_video_is_counted_its_chunks_are_not_read_to_say_what_it_survives() {
    let cluster = Cluster::start(3).await;
    let video = cluster.store(4, &[0, 1, 2]).await;
    survive(&cluster, &[(&video, Some(2))], library(Some(2), 1, 0)).await;
    let before = cluster.memory.chunks_read();
    let told = one(&cluster, &video).await;
    assert_eq!(told["survival_counted"], true, "{told}");
    assert_eq!(cluster.memory.chunks_read(), before);
    cluster.stop().await;
}
