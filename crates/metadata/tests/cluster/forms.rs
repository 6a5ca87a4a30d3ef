//! Films that are kept as copies and as shards, with real storage nodes, and shards that are listed and are none of their
//! chunk.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::{Value, json};
use vstack_api::metadata::{Manifest, ManifestChunk, RedundancyMode};
use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer, Refusal, Reply, Request};
use vstack_client::{Holder, HttpClient, NodeClient, NodeUrls, Timeouts, propose};
use vstack_erasure::{ReedSolomon, Shape};
use vstack_types::{ChunkId, Digest, Hashed, NodeRef, ProcessUuid};

use super::{Cluster, SECRET, eventually};

pub async fn ask(cluster: &Cluster, video: &str, mode: &str) -> (StatusCode, Value) {
    let path = format!("/redundancy/override/{video}?mode={mode}");
    cluster.service.post(&path, json!({})).await
}

pub async fn manifest(cluster: &Cluster, video: &str) -> Manifest {
    let (_, manifest) = cluster.service.get(&format!("/manifest/{video}")).await;
    serde_json::from_value(manifest).expect("a manifest")
}

/// All chunks are kept so, whole, and nothing is under way.
pub async fn becomes(cluster: &Cluster, video: &str, mode: RedundancyMode) -> Manifest {
    eventually(&format!("all is {}", mode.as_str()), async || {
        cluster.tick();
        let manifest = manifest(cluster, video).await;
        let is_so = |chunk: &ManifestChunk| {
            let whole = chunk.replicas.is_empty() == (mode == RedundancyMode::ErasureCoding);
            let shards = chunk.fragments.is_some() == (mode == RedundancyMode::ErasureCoding);
            chunk.redundancy_mode == mode && whole && shards
        };
        let census = cluster.census().await;
        (manifest.chunks.iter().all(is_so) && census["health"] == "healthy").then_some(manifest)
    })
    .await
}

pub async fn get(cluster: &Cluster, url: &str) -> Option<Vec<u8>> {
    let got = cluster.service.http.get(url).send().await.ok()?;
    let is_there = got.status() == StatusCode::OK;
    let body = got.bytes().await.ok()?;
    is_there.then(|| body.to_vec())
}

/// Those shards of a chunk, each as it is listed, that whoever reads it without the nodes at `but` gets; none when it is
/// listed to have none.
pub async fn shards_but(cluster: &Cluster, chunk: &ManifestChunk, but: &[&str]) -> Option<Vec<(u8, Bytes)>> {
    let fragments = chunk.fragments.as_ref()?;
    let mut have = Vec::new();
    for shard in &fragments.shards {
        if but.contains(&shard.node_url.as_str()) {
            continue;
        }
        let listed: Digest = shard.checksum.parse().ok()?;
        let url = format!("{}/chunk/{}", shard.node_url, shard.fragment_id);
        // A node that has not heard of a change has another under the same name.
        if let Some(bytes) = get(cluster, &url).await.filter(|bytes| Digest::of(bytes) == listed) {
            have.push((shard.fragment_index, bytes.into()));
        }
    }
    Some(have)
}

/// A chunk as whoever reads it without the nodes at `but` gets it; none when that cannot be.
pub async fn read(cluster: &Cluster, chunk: &ManifestChunk, but: &[&str]) -> Option<Vec<u8>> {
    let fragments = chunk.fragments.as_ref()?;
    let code = ReedSolomon::new(Shape::new(fragments.data_shards, fragments.parity_shards).ok()?);
    let have = shards_but(cluster, chunk, but).await?;
    let size = usize::try_from(chunk.size_bytes).expect("small");
    let read = vstack_erasure::read(&code, size, chunk.checksum.parse().ok()?, &have);
    read.ok().map(|chunk| Hashed::into_bytes(chunk).to_vec())
}

pub fn nodes_of(chunk: &ManifestChunk) -> BTreeSet<String> {
    let shards = chunk.fragments.iter().flat_map(|fragments| &fragments.shards);
    shards.map(|shard| shard.node_url.clone()).collect()
}

/// Has something else listed, and kept by its node, in the place of shards of a chunk, as when bad memory made them.
pub async fn list_wrongly(cluster: &Cluster, chunk: &ChunkId, indexes: &[usize]) {
    let secret = SECRET.parse().expect("a secret");
    let nodes = NodeClient::new(HttpClient::new(Some(secret), Timeouts::default()).expect("a client"));
    let known = cluster.service.cluster().nodes().await.expect("nodes");
    let located = known.iter();
    let located = located.filter_map(|node| Some((node.disk_uuid?, node.node_url.clone())));
    let urls: NodeUrls = located.collect();
    let any = urls.holder(NodeRef::first(known[0].disk_uuid.expect("its disk")));
    let any = any.expect("it is registered");
    let settled = eventually("its shards are settled", async || {
        cluster.tick();
        match nodes.paxos(&any, chunk, &Request::Read).await {
            Ok(Reply::State {
                accepted: Some(vote),
                decided: true,
                ..
            }) => vote.placement.prev.is_none().then_some(vote.placement),
            _ => None,
        }
    })
    .await;
    let Layout::Coded {
        data,
        parity,
        mut shards,
    } = settled.layout.clone()
    else {
        panic!("{settled:?}")
    };
    let len = usize::try_from(settled.size.div_ceil(data.into())).expect("small");
    let mut wrong: Vec<(Holder, Vec<u8>)> = Vec::new();
    for index in indexes {
        let content = vec![u8::try_from(*index).expect("few"); len];
        shards[*index].sha256 = Digest::of(&content);
        wrong.push((urls.holder(shards[*index].node).expect("it is registered"), content));
    }
    let put = async || {
        for (holder, content) in &wrong {
            let put = nodes.put_item(holder, chunk, Digest::of(content), content.clone().into());
            put.await.expect("stored");
        }
    };
    let asked = async |known: Placement, change: Change| {
        let proposer = Proposer::new(ProcessUuid::random(), settled.nodes(), change).knowing(known);
        propose(&nodes, &urls, chunk, proposer, Duration::from_secs(10)).await
    };
    let to = Layout::Coded { data, parity, shards };
    let joint = eventually("it is listed", async || {
        put().await;
        match asked(settled.clone(), Change::Move { to: to.clone() }).await {
            Ok(Outcome::Decided(vote)) => Some(vote.placement),
            Ok(Outcome::Refused(Refusal::Joint(joint))) => Some(*joint),
            _ => None,
        }
    })
    .await;
    assert_eq!(joint.layout, to);
    // Until it was named it could be collected.
    put().await;
    eventually("nothing else is", async || {
        let ended = asked(joint.clone(), Change::Settle).await;
        matches!(ended, Ok(Outcome::Decided(_))).then_some(())
    })
    .await;
}
