//! Films become shards and copies again, with real storage nodes on disk, in this process.

mod cluster;

use cluster::{
    Cluster, RealNode, bytes, eventually,
    forms::{ask, becomes, get, manifest, nodes_of, read},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use vstack_api::metadata::RedundancyMode;

async fn kept(cluster: &Cluster, video: &str) -> Value {
    let (_, keepings) = cluster.service.get("/redundancy/videos").await;
    let videos = keepings["videos"].as_array().expect("a list").iter();
    let mut of_video = videos.filter(|kept| kept["video_id"] == video);
    of_video.next().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_becomes_shards_that_any_two_nodes_may_be_missing_of_and_copies_again() {
    let cluster = Cluster::start(5).await;
    let video = cluster.store(3, &[0, 1, 2]).await;
    cluster.becomes("healthy", 3).await;
    assert_eq!(ask(&cluster, &video, "erasure_coding").await.0, StatusCode::OK);
    let coded = becomes(&cluster, &video, RedundancyMode::ErasureCoding).await;
    let urls: Vec<&str> = (0..5).map(|node| cluster.url(node)).collect();
    for (sequence, chunk) in coded.chunks.iter().enumerate() {
        assert_eq!(nodes_of(chunk).len(), 5, "each shard has its own node");
        for one in 0..5 {
            for other in 0..one {
                let without = [urls[one], urls[other]];
                let read = read(&cluster, chunk, &without).await;
                assert!(read == Some(bytes(sequence)), "chunk {sequence} without {without:?}");
            }
        }
        assert_eq!(read(&cluster, chunk, &urls[..3]).await, None);
    }
    // While a move is ended, what is left behind is placed, too.
    let of_video = eventually("it is counted, and nothing of it is placed twice", async || {
        cluster.tick();
        let of_video = kept(&cluster, &video).await;
        let (placed, logical) = (of_video["placed_bytes"].as_u64()?, of_video["logical_bytes"].as_u64()?);
        let is_settled = logical > 0 && placed * 3 == logical * 5;
        (of_video["coded_chunks"] == 3 && of_video["waiting_chunks"] == 0 && is_settled).then_some(of_video)
    })
    .await;
    assert_eq!(
        (&of_video["mode"], &of_video["why"]),
        (&json!("erasure_coding"), &json!("asked"))
    );
    assert_eq!(
        (&of_video["coded_chunks"], &of_video["failures_survived"]),
        (&json!(3), &json!(2))
    );
    let (_, overhead) = cluster.service.get("/storage/overhead").await;
    assert_eq!(
        (&overhead["erasure_coded_chunks"], &overhead["replication_chunks"]),
        (&json!(3), &json!(0))
    );

    assert_eq!(ask(&cluster, &video, "replication").await.0, StatusCode::OK);
    let copied = becomes(&cluster, &video, RedundancyMode::Replication).await;
    for (sequence, chunk) in copied.chunks.iter().enumerate() {
        assert_eq!(chunk.replicas.len(), 3);
        for node in &chunk.replicas {
            let got = get(&cluster, &format!("{node}/chunk/{}", chunk.chunk_id)).await;
            assert!(got == Some(bytes(sequence)), "{node}");
        }
    }
    eventually("what was done is counted, each chunk once", async || {
        cluster.tick();
        let (_, keepings) = cluster.service.get("/redundancy/videos").await;
        let migration = &keepings["migration"];
        (migration["encoded_chunks"] == 3 && migration["decoded_chunks"] == 3).then_some(())
    })
    .await;
    cluster.stop().await;
}

/// By what it is held to `MIGRATION_RATE` for, and not by what is stored then.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_form_is_told_with_the_bytes_that_went_from_node_to_node() {
    let cluster = Cluster::start(5).await;
    let video = cluster.store(1, &[0, 1, 2]).await;
    cluster.becomes("healthy", 1).await;
    let (chunk, shard) = (bytes(0).len() as u64, bytes(0).len().div_ceil(3) as u64);
    let moved = async |what: &str| {
        eventually(what, async || {
            cluster.tick();
            let (_, repairs) = cluster.service.get("/repairs").await;
            let recent = repairs["recent"].as_array()?.clone();
            let done = |repair: &&Value| repair["what"] == what && repair["failed"].is_null();
            recent.iter().find(done)?["bytes"].as_u64().filter(|bytes| *bytes > 0)
        })
        .await
    };
    assert_eq!(ask(&cluster, &video, "erasure_coding").await.0, StatusCode::OK);
    becomes(&cluster, &video, RedundancyMode::ErasureCoding).await;
    // Two nodes have no copy, and four shards are fetched to prove all five.
    assert_eq!(moved("encode").await, 2 * chunk + 4 * shard);
    assert_eq!(ask(&cluster, &video, "replication").await.0, StatusCode::OK);
    becomes(&cluster, &video, RedundancyMode::Replication).await;
    // Each of three nodes has one of three shards itself.
    assert_eq!(moved("decode").await, 3 * 2 * shard);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_shard_is_made_anew_and_so_are_those_of_a_node_that_is_lost() {
    let mut cluster = Cluster::start(6).await;
    let video = cluster.store(2, &[0, 1, 2]).await;
    cluster.becomes("healthy", 2).await;
    assert_eq!(ask(&cluster, &video, "erasure_coding").await.0, StatusCode::OK);
    let coded = becomes(&cluster, &video, RedundancyMode::ErasureCoding).await;
    // The bytes of a data shard are in what is left of the copies, too.
    let shard = coded.chunks[0].fragments.as_ref().unwrap().shards[3].clone();
    let at = (0..6)
        .find(|node| cluster.url(*node) == shard.node_url)
        .expect("it runs");
    let url = format!("{}/chunk/{}", shard.node_url, shard.fragment_id);
    let content = get(&cluster, &url).await.expect("it is there");
    cluster.rots(at, &content).await;
    let url = |cluster: &Cluster| format!("{}/chunk/{}", cluster.url(at), shard.fragment_id);
    assert_eq!(get(&cluster, &url(&cluster)).await, None, "whoever reads it finds out");
    // Nodes may be evened out meanwhile.
    eventually("it is made anew", async || {
        cluster.tick();
        let manifest = manifest(&cluster, &video).await;
        let shard = manifest.chunks[0].fragments.as_ref()?.shards.get(3)?.clone();
        let url = format!("{}/chunk/{}", shard.node_url, shard.fragment_id);
        (get(&cluster, &url).await? == content).then_some(())
    })
    .await;
    becomes(&cluster, &video, RedundancyMode::ErasureCoding).await;

    let lost = cluster.url(at).to_owned();
    cluster.nodes[at].take().expect("it runs").stop().await;
    let moved = eventually("nothing is left on it", async || {
        cluster.tick();
        let manifest = manifest(&cluster, &video).await;
        manifest
            .chunks
            .iter()
            .all(|chunk| !nodes_of(chunk).contains(&lost))
            .then_some(manifest)
    })
    .await;
    cluster.becomes("healthy", 2).await;
    for (sequence, chunk) in moved.chunks.iter().enumerate() {
        assert_eq!(nodes_of(chunk).len(), 5, "six nodes were there");
        assert!(read(&cluster, chunk, &[]).await == Some(bytes(sequence)));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fewer_nodes_it_is_refused_or_said_what_is_survived() {
    let cluster = Cluster::start(2).await;
    let video = cluster.store(1, &[0, 1]).await;
    let (status, why) = ask(&cluster, &video, "erasure_coding").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let why = why["detail"].as_str().expect("words");
    assert!(
        why.contains("needs 3 nodes") && why.contains("2 nodes can take chunks now"),
        "{why}"
    );
    cluster.stop().await;

    let cluster = Cluster::start_with(3, &["--cold-after", "0"]).await;
    let video = cluster.store(1, &[0, 1, 2]).await;
    // By the policy it is cold, and stays as copies, since shards would survive less.
    let refused = eventually("it is said why nothing is done", async || {
        cluster.tick();
        let (_, keepings) = cluster.service.get("/redundancy/videos").await;
        keepings["migration"]["refused"].as_str().map(str::to_owned)
    })
    .await;
    assert!(
        refused.contains("survive the loss of 1, and of 2 as copies"),
        "{refused}"
    );
    assert_eq!(kept(&cluster, &video).await["replicated_chunks"], 1);
    let (status, told) = ask(&cluster, &video, "erasure_coding").await;
    assert_eq!(status, StatusCode::OK);
    let message = told["message"].as_str().expect("words");
    assert!(message.contains("1 node"), "{message}");
    let coded = becomes(&cluster, &video, RedundancyMode::ErasureCoding).await;
    assert_eq!(nodes_of(&coded.chunks[0]).len(), 3, "two, two and one");
    eventually("it is counted", async || {
        cluster.tick();
        (kept(&cluster, &video).await["failures_survived"] == 1).then_some(())
    })
    .await;
    for node in 0..3 {
        let without = read(&cluster, &coded.chunks[0], &[cluster.url(node)]).await;
        assert!(without == Some(bytes(0)), "without one of three");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_migrated_while_it_is_paused() {
    let cluster = Cluster::start(5).await;
    let (status, paused) = cluster.service.post("/redundancy/pause", json!({})).await;
    assert_eq!((status, &paused["paused"]), (StatusCode::OK, &json!(true)));
    let video = cluster.store(2, &[0, 1, 2]).await;
    assert_eq!(ask(&cluster, &video, "erasure_coding").await.0, StatusCode::OK);
    eventually("it waits", async || {
        cluster.tick();
        let of_video = kept(&cluster, &video).await;
        (of_video["waiting_chunks"] == 2 && of_video["replicated_chunks"] == 2).then_some(())
    })
    .await;
    cluster.becomes("healthy", 2).await;
    let (_, keepings) = cluster.service.get("/redundancy/videos").await;
    assert_eq!(keepings["migration"]["encoded_chunks"], 0, "{keepings}");
    let (_, resumed) = cluster.service.post("/redundancy/resume", json!({})).await;
    assert_eq!(resumed["paused"], false);
    becomes(&cluster, &video, RedundancyMode::ErasureCoding).await;
    cluster.stop().await;
}

/// A whole library became cold, and takes its time to become shards: a new node is filled meanwhile, and who has nodes evened
/// out at once does not wait for the library either.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_gets_its_share_while_a_library_becomes_shards() {
    // One chunk in six seconds.
    let settings = ["--cold-after", "0", "--migration-rate", "100000"];
    let mut cluster = Cluster::start_with(5, &settings).await;
    let video = cluster.store(48, &[0, 1, 2]).await;
    let waiting = async |cluster: &Cluster| {
        let waiting = kept(cluster, &video).await["waiting_chunks"].as_u64();
        waiting.filter(|chunks| *chunks > 0)
    };
    eventually("it is decided that all of it is to be shards", async || {
        cluster.tick();
        waiting(&cluster).await.filter(|chunks| *chunks > 40)
    })
    .await;
    let new = RealNode::start("node-6", cluster.data.path(), &cluster.service.url).await;
    cluster.nodes.push(Some(new));
    let url = cluster.url(5).to_owned();
    eventually("the new node has copies of what is to be shards yet", async || {
        cluster.tick();
        let replicas = cluster.replicas(&video).await;
        let copies = replicas.iter().filter(|nodes| nodes.contains(&url)).count();
        waiting(&cluster).await.filter(|_| copies > 0)
    })
    .await;
    assert_eq!(cluster.service.post("/rebalance", json!({})).await.0, StatusCode::OK);
    eventually("nodes are even, and not all of it is shards", async || {
        cluster.tick();
        let (_, repairs) = cluster.service.get("/repairs").await;
        waiting(&cluster).await.filter(|_| repairs["hurried"] == false)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_is_watched_much_has_copies_and_one_that_is_not_shards() {
    let settings = [
        "--cold-after",
        "3",
        "--popularity-threshold",
        "3",
        "--redundancy-dwell",
        "2",
    ];
    let cluster = Cluster::start_with(5, &settings).await;
    let cold = cluster.store(1, &[0, 1, 2]).await;
    let new = kept(&cluster, &cold).await;
    assert!(new.is_null() || new["why"] == "new", "{new}");
    becomes(&cluster, &cold, RedundancyMode::ErasureCoding).await;
    assert_eq!(kept(&cluster, &cold).await["why"], "cold");
    for _ in 0..4 {
        let path = format!("/video/{cold}/view");
        assert_eq!(cluster.service.post(&path, json!({})).await.0, StatusCode::OK);
    }
    becomes(&cluster, &cold, RedundancyMode::Replication).await;
    assert_eq!(kept(&cluster, &cold).await["why"], "hot");
    cluster.stop().await;
}

/// There is something else to do for as long as anybody looks.
#[tokio::test(flavor = "multi_thread")]
async fn shards_are_audited_while_a_library_becomes_shards() {
    // One chunk in six seconds.
    let settings = ["--cold-after", "0", "--migration-rate", "100000", "--audit-every", "1"];
    let cluster = Cluster::start_with(5, &settings).await;
    let video = cluster.store(48, &[0, 1, 2]).await;
    eventually("what is shards is audited, and not all of it is", async || {
        cluster.tick();
        let waiting = kept(&cluster, &video).await["waiting_chunks"].as_u64()?;
        let (_, metrics) = cluster.service.get("/metrics").await;
        let is_audited = metrics.as_str()?.contains("vstack_audits_total{found=\"sound\"}");
        (is_audited && waiting > 0).then_some(())
    })
    .await;
    cluster.stop().await;
}
