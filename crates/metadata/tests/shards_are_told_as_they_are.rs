//! `GET /chunk/{id}/fragments` tells of each shard how it was counted, with real storage nodes on disk, in this process.

mod cluster;

use cluster::{
    Cluster, eventually,
    forms::{ask, becomes, get},
};
use reqwest::StatusCode;
use vstack_api::metadata::RedundancyMode;

/// The shards of a chunk are told so, by their index.
async fn are_told(cluster: &Cluster, chunk: &str, expected: [&str; 5]) {
    eventually(&format!("{expected:?}"), async || {
        cluster.tick();
        let (status, told) = cluster.service.get(&format!("/chunk/{chunk}/fragments")).await;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        assert_eq!(status, StatusCode::OK, "{told}");
        let shards = told["fragments"].as_array().expect("a list");
        let statuses: Vec<&str> = shards.iter().filter_map(|shard| shard["status"].as_str()).collect();
        (statuses == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_damaged_or_away_is_not_called_active() {
    let mut cluster = Cluster::start_with(5, &["--audit-every", "0"]).await;
    let video = cluster.store(1, &[0, 1, 2]).await;
    cluster.becomes("healthy", 1).await;
    assert_eq!(ask(&cluster, &video, "erasure_coding").await.0, StatusCode::OK);
    let coded = becomes(&cluster, &video, RedundancyMode::ErasureCoding).await;
    let chunk = coded.chunks[0].chunk_id.to_string();
    are_told(&cluster, &chunk, ["active"; 5]).await;

    // What is found stays as it is found; and nobody knows of anything that it is there before it was counted.
    cluster
        .restart_service(&["--audit-every", "0", "--repairs", "false"])
        .await;
    are_told(&cluster, &chunk, ["active"; 5]).await;
    // A parity shard: the bytes of the others are in what is left of the copies, too.
    let shards = &coded.chunks[0].fragments.as_ref().expect("it has some").shards;
    let holder = |index: usize| {
        let mut nodes = 0..5;
        nodes.find(|node| cluster.url(*node) == shards[index].node_url)
    };
    let (damaged, away) = (holder(3).expect("it runs"), holder(4).expect("it runs"));
    let fragment = shards[3].fragment_id.to_string();
    let content = get(&cluster, &format!("{}/chunk/{fragment}", cluster.url(damaged))).await;
    cluster.rots(damaged, &content.expect("it is there")).await;
    let url = format!("{}/chunk/{fragment}", cluster.url(damaged));
    assert_eq!(get(&cluster, &url).await, None, "whoever reads it finds out");
    are_told(&cluster, &chunk, ["active", "active", "active", "damaged", "active"]).await;

    cluster.nodes[away].take().expect("it runs").stop().await;
    are_told(
        &cluster,
        &chunk,
        ["active", "active", "active", "damaged", "unreachable"],
    )
    .await;
    cluster.stop().await;
}
