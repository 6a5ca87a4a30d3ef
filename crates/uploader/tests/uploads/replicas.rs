//! Chunks and their copies, whatever the nodes do.

use std::collections::BTreeMap;

use vstack_api::uploader::UploadStage;

use crate::{
    node::Fault,
    support::{Cluster, eventually},
};

const SMALL_CHUNKS: [&str; 2] = ["--chunk-size", "65536"];

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_cluster_takes_every_chunk_in_one_round() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let accepted = uploader.begin(cluster.clip().await).await;
    assert_eq!(
        (accepted.title.as_str(), accepted.status),
        ("My clip", UploadStage::Processing)
    );
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    assert!((status.progress - 100.0).abs() < f64::EPSILON);
    assert_eq!(status.under_replicated, 0);
    assert_eq!(status.manifest_url, Some(format!("/manifest/{}", accepted.video_id)));
    let chunks = cluster.whole_everywhere(accepted.video_id).await;
    assert!(chunks > 8, "{chunks} chunks");
    assert_eq!(status.total_chunks, chunks);
    let manifest = cluster.metadata.manifest(accepted.video_id).await.unwrap();
    assert!(
        manifest.codecs.starts_with("avc1.") && manifest.codecs.ends_with("mp4a.40.2"),
        "{}",
        manifest.codecs
    );
    assert_eq!((manifest.width, manifest.height), (320, 180));
    assert!((manifest.duration_sec - 10.0).abs() < 0.2);
    let played: f64 = manifest.chunks.iter().map(|chunk| chunk.duration_sec).sum();
    assert!((played - manifest.duration_sec).abs() < 1e-6);
    // One PUT per node and register, and nothing else that speaks of a single register.
    let mut messages: BTreeMap<String, usize> = BTreeMap::new();
    for seen in cluster.nodes.iter().flat_map(|node| node.seen()) {
        *messages.entry(seen).or_default() += 1;
    }
    assert_eq!(messages.len(), chunks as usize + 1, "{messages:?}");
    assert!(
        messages
            .iter()
            .all(|(request, count)| request.starts_with("PUT /chunk/") && *count == 3),
        "{messages:?}"
    );
    eventually("an empty spool", async || {
        cluster.upload_dirs().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_gets_its_copies_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let clip = cluster.clip().await;
    cluster.nodes[1].stop().await;
    let accepted = uploader.begin(clip).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    assert!(status.under_replicated > 0);
    cluster.nodes[1].restart().await;
    uploader
        .until(&accepted.upload_session_id, "all copies", |status| {
            status.under_replicated == 0
        })
        .await;
    for node in [0, 2] {
        assert_eq!(cluster.nodes[node].living(), status.total_chunks as usize + 1);
    }
    // It is left out of groups once it is known to fail; it has all that named it.
    let manifest = cluster.metadata.manifest(accepted.video_id).await.unwrap();
    for chunk in &manifest.chunks {
        let named = chunk.replicas.contains(&cluster.nodes[1].url);
        assert_eq!(
            cluster.nodes[1].placed(chunk.chunk_id.as_str()).is_some(),
            named,
            "{}",
            chunk.chunk_id
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_holds_nobody_up_and_is_shown() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let clip = cluster.clip().await;
    cluster.nodes[2].fault(Fault::Stalled);
    let accepted = uploader.begin(clip).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    assert_eq!(status.under_replicated, status.total_chunks + 1);
    cluster.nodes[2].fault(Fault::None);
    uploader
        .until(&accepted.upload_session_id, "all copies", |status| {
            status.under_replicated == 0
        })
        .await;
    cluster.whole_everywhere(accepted.video_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_put_off_are_made_by_the_next_process() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let clip = cluster.clip().await;
    cluster.nodes[2].fault(Fault::Stalled);
    let accepted = uploader.begin(clip).await;
    let session = accepted.upload_session_id.clone();
    assert_eq!(uploader.ended(&session).await.status, UploadStage::Completed);
    uploader.stop().await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let again = uploader.status(&session).await;
    assert_eq!(
        (again.status, again.under_replicated),
        (UploadStage::Completed, again.total_chunks + 1)
    );
    cluster.nodes[2].fault(Fault::None);
    uploader
        .until(&session, "all copies", |status| status.under_replicated == 0)
        .await;
    cluster.whole_everywhere(accepted.video_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_whose_answer_proves_nothing_is_asked_for_and_not_sent_again() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let clip = cluster.clip().await;
    cluster.nodes.iter().for_each(|node| node.fault(Fault::Unproven));
    let accepted = uploader.begin(clip).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    for node in &cluster.nodes {
        let seen = node.seen();
        let puts = seen.iter().filter(|request| request.starts_with("PUT "));
        assert_eq!(
            puts.count(),
            status.total_chunks as usize + 1,
            "every chunk's bytes once"
        );
        assert!(seen.iter().any(|request| request.starts_with("POST /paxos/")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overtaken_owner_takes_the_classic_path() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&[]).await;
    let clip = cluster.clip().await;
    cluster.nodes.iter().for_each(|node| node.fault(Fault::Overtaken));
    let accepted = uploader.begin(clip).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    cluster.whole_everywhere(accepted.video_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_the_upload_fails_and_leaves_nothing() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let clip = cluster.clip().await;
    cluster.nodes[0].fault(Fault::Full);
    cluster.nodes[1].fault(Fault::Full);
    let accepted = uploader.begin(clip).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!(status.status, UploadStage::Failed);
    let error = status.error.unwrap();
    assert!(
        error.contains("majority") && error.contains("the disk is full"),
        "{error}"
    );
    assert_eq!(
        cluster.metadata.manifest(accepted.video_id).await.unwrap_err().status(),
        Some(404)
    );
    eventually("an empty spool", async || {
        cluster.upload_dirs().is_empty().then_some(())
    })
    .await;
    eventually("no chunk left", async || (cluster.nodes[2].living() == 0).then_some(())).await;
}
