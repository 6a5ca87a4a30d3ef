//! Uploads that are shards from their first chunk on.

use vstack_api::{
    metadata::{Manifest, ManifestChunk, RedundancyMode},
    uploader::{UploadAccepted, UploadStage},
};
use vstack_erasure::{ReedSolomon, Shape};

use crate::{
    node::Fault,
    support::{Cluster, Uploader, eventually},
};

const SMALL_CHUNKS: [&str; 2] = ["--chunk-size", "65536"];

async fn post(cluster: &Cluster, uploader: &Uploader) -> (u16, serde_json::Value) {
    let file = reqwest::multipart::Part::bytes(cluster.clip().await).file_name("My clip.mp4");
    let form = reqwest::multipart::Form::new()
        .text("redundancy_mode", "erasure_coding")
        .part("video", file);
    uploader.post_form(form).await
}

async fn begin(cluster: &Cluster, uploader: &Uploader) -> UploadAccepted {
    let (status, body) = post(cluster, uploader).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_value(body).unwrap()
}

/// Checks that `chunk` is read from the shards at those nodes alone.
async fn is_read_from(cluster: &Cluster, chunk: &ManifestChunk, nodes: &[usize]) {
    let code = ReedSolomon::new(Shape::new(3, 2).unwrap());
    let size = usize::try_from(chunk.size_bytes).unwrap();
    let sha256 = chunk.checksum.parse().unwrap();
    eventually("the chunk, from few nodes", async || {
        let shards = nodes
            .iter()
            .map(|node| cluster.nodes[*node].shards(chunk.chunk_id.as_str()));
        let have: Vec<_> = shards.flatten().collect();
        vstack_erasure::read(&code, size, sha256, &have).ok()
    })
    .await;
}

fn modes(manifest: &Manifest) -> Vec<RedundancyMode> {
    manifest.chunks.iter().map(|chunk| chunk.redundancy_mode).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_is_shards_from_its_first_chunk_on_and_any_two_nodes_may_be_lost() {
    let cluster = Cluster::start(5).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let accepted = begin(&cluster, &uploader).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    assert_eq!(status.under_replicated, 0);
    let manifest = cluster.metadata.manifest(accepted.video_id).await.unwrap();
    assert!(manifest.total_chunks > 8);
    assert!(
        modes(&manifest)
            .iter()
            .all(|mode| *mode == RedundancyMode::ErasureCoding)
    );
    for chunk in &manifest.chunks {
        for one in 0..5 {
            for other in 0..one {
                let left: Vec<usize> = (0..5).filter(|node| *node != one && *node != other).collect();
                is_read_from(&cluster, chunk, &left).await;
            }
        }
    }
    // The init segment is small, and everybody needs it first.
    let init = manifest.init.as_ref().unwrap();
    for node in &cluster.nodes {
        eventually("a copy of the init segment", async || {
            node.placed(init.chunk_id.as_str())
        })
        .await;
    }
    // Whole copies went nowhere.
    for chunk in &manifest.chunks {
        for node in &cluster.nodes {
            assert_eq!(node.placed(chunk.chunk_id.as_str()), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_gets_its_shards_when_it_is_back() {
    let mut cluster = Cluster::start(5).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    cluster.nodes[1].stop().await;
    let accepted = begin(&cluster, &uploader).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    assert!(status.under_replicated > 0);
    cluster.nodes[1].restart().await;
    let manifest = cluster.metadata.manifest(accepted.video_id).await.unwrap();
    let url = &cluster.nodes[1].url;
    let names_it = |chunk: &&ManifestChunk| {
        let fragments = chunk.fragments.iter().flat_map(|fragments| &fragments.shards);
        fragments.into_iter().any(|shard| shard.node_url == *url)
    };
    let named: Vec<&ManifestChunk> = manifest.chunks.iter().filter(names_it).collect();
    assert!(!named.is_empty(), "the first chunks were meant for it");
    for chunk in named {
        is_read_from(&cluster, chunk, &[0, 1, 2]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_hold_it_so_that_one_may_be_lost() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let accepted = begin(&cluster, &uploader).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    let manifest = cluster.metadata.manifest(accepted.video_id).await.unwrap();
    for chunk in &manifest.chunks {
        for without in [[1, 2], [0, 2], [0, 1]] {
            is_read_from(&cluster, chunk, &without).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_while_its_shards_are_settled_is_waited_for() {
    let cluster = Cluster::start(3).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    // Of three nodes each one's word is needed.
    cluster.nodes[0].fault(Fault::AwayForAWhile);
    let accepted = begin(&cluster, &uploader).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_are_too_few_and_the_refusal_says_so() {
    let cluster = Cluster::start(2).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    let (status, body) = post(&cluster, &uploader).await;
    assert_eq!(status, 422, "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("3 nodes") && detail.contains('2'), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_somebody_else_was_first_it_is_stored_all_the_same() {
    let cluster = Cluster::start(5).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    for node in &cluster.nodes {
        node.fault(Fault::Overtaken);
    }
    let accepted = begin(&cluster, &uploader).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!((status.status, status.error.as_deref()), (UploadStage::Completed, None));
    cluster.whole_everywhere(accepted.video_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_settled_is_not_told_and_leaves_nothing() {
    let cluster = Cluster::start(5).await;
    let uploader = cluster.uploader(&SMALL_CHUNKS).await;
    // Three of five are a majority, and still too few for a node to be lost.
    for node in &cluster.nodes[..2] {
        node.fault(Fault::Full);
    }
    let accepted = begin(&cluster, &uploader).await;
    let status = uploader.ended(&accepted.upload_session_id).await;
    assert_eq!(status.status, UploadStage::Failed);
    let error = status.error.unwrap();
    assert!(error.contains("full"), "{error}");
    for node in &cluster.nodes[..2] {
        node.fault(Fault::None);
    }
    eventually("an end of everything that was placed", async || {
        cluster.nodes.iter().all(|node| node.living() == 0).then_some(())
    })
    .await;
}
