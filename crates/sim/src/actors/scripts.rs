//! People with scripts: they PUT chunks to nodes of their choice without a vote, commit them at the metadata service,
//! read them back, and make the video active. Another of them may send other bytes under the same ids meanwhile; then
//! one of both stands, and the loser goes with it.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use vstack_api::metadata::{Committed, Manifest, NodeInfo, VideoCreated, VideoStatus};
use vstack_client::HttpClient;
use vstack_types::{ChunkId, Digest, VideoId};

use super::{
    choosers::expect_shards,
    plain_http::{Heard, Sent, call},
};
use crate::{
    dice::Dice,
    hosts::{METADATA, USERS},
    ledger::Known,
    world::World,
};

/// Refused so often, with nothing to be seen that stands, a chunk is given up.
const CONFLICTS_MAX: u32 = 5;
/// Not answered or put off so often, it is given up too: a group of one or two nodes may have lost its majority.
const TRIES_MAX: u32 = 60;

/// Somebody with a script.
struct Script {
    world: Arc<World>,
    http: HttpClient,
    dice: Dice,
    video: VideoId,
    /// Of each chunk the bytes to be sent, those of this one first, then those of who sends others.
    chunks: Vec<(ChunkId, Vec<Bytes>)>,
}

/// Publishes one film after a while, and ends when it is known what became of it.
pub(crate) async fn publish(world: Arc<World>, number: u32) {
    let mut dice = world.dice(&format!("script {number}"));
    let http = world.outsider(USERS);
    sleep(dice.millis(3_000, 20_000) * world.plan.stretch).await;
    let video = loop {
        let film = json!({"title": format!("script {number}"), "duration_sec": 30});
        let url = format!("{}/video", METADATA.url());
        let created = call(&http, Method::POST, &url, Sent::Json(film)).await;
        match created.and_then(|heard| heard.json::<VideoCreated>()) {
            Some(created) => break created.video_id,
            None => sleep(dice.millis(500, 3_000)).await,
        }
    };
    let senders = if dice.chance(30) { 2 } else { 1 };
    let chunks: Vec<_> = (0..u32::try_from(dice.between(1, 4)).unwrap_or(1))
        .map(|sequence| {
            let mut bytes = || {
                let len = usize::try_from(dice.between(50, 4_000)).unwrap_or(50);
                dice.bytes(len)
            };
            (
                ChunkId::of_video(video, sequence),
                (0..senders).map(|_| bytes()).collect::<Vec<_>>(),
            )
        })
        .collect();
    let first = |(chunk, bytes): &(ChunkId, Vec<Bytes>)| (chunk.clone(), bytes[0].clone());
    world.ledger().sent(video, chunks.iter().map(first).collect());
    for (chunk, bytes) in &chunks {
        for bytes in bytes {
            world.ledger().may_hold(chunk, Digest::of(bytes));
            if world.plan.policy.is_some() {
                expect_shards(&world, chunk, bytes);
            }
        }
    }
    world.noted(format!("script {number} makes video {video}, from {senders} sides"));
    let _other = (senders > 1).then(|| {
        let other = Script {
            world: Arc::clone(&world),
            http: http.clone(),
            dice: world.dice(&format!("other script {number}")),
            video,
            chunks: chunks
                .iter()
                .map(|(chunk, bytes)| (chunk.clone(), bytes.iter().rev().cloned().collect()))
                .collect(),
        };
        AbortOnDropHandle::new(tokio::spawn(other.interfere()))
    });
    let mut script = Script {
        world: Arc::clone(&world),
        http,
        dice,
        video,
        chunks,
    };
    let known = script.send_all().await;
    world.ledger().learn(video, known);
    world.noted(format!("script {number}: {known:?}"));
}

impl Script {
    async fn rest(&mut self) {
        let pause = self.dice.millis(300, 3_000);
        sleep(pause).await;
    }

    async fn send_all(&mut self) -> Known {
        for (chunk, bytes) in self.chunks.clone() {
            let Some(stands) = self.store(&chunk, &bytes).await else {
                return self.end(VideoStatus::Failed).await;
            };
            self.world.ledger().settle(self.video, &chunk, stands);
            self.rest().await;
        }
        self.end(VideoStatus::Active).await
    }

    /// Sends other bytes under the same ids, and takes back what lost.
    async fn interfere(mut self) {
        for (chunk, bytes) in self.chunks.clone() {
            let stands = self.store(&chunk, &bytes[..1]).await;
            if stands.is_none() {
                for node in self.nodes().await {
                    call(
                        &self.http,
                        Method::DELETE,
                        &format!("{node}/chunk/{chunk}"),
                        Sent::Nothing,
                    )
                    .await;
                }
            }
            self.rest().await;
        }
    }

    /// Stores one chunk; gives what stands under its id, when that is one of `bytes`.
    async fn store(&mut self, chunk: &ChunkId, bytes: &[Bytes]) -> Option<Bytes> {
        let ours = bytes.first()?;
        let mut conflicts = 0;
        for _ in 0..TRIES_MAX {
            if conflicts >= CONFLICTS_MAX {
                return None;
            }
            let holders = self.put(chunk, ours).await;
            let answer = if holders.is_empty() {
                None
            } else {
                self.commit(chunk, ours, &holders).await
            };
            match answer {
                Some(heard) if heard.status == 200 => {
                    if let Err(what) = self.world.ledger().commit(chunk, Digest::of(ours)) {
                        self.world.violate(what);
                    }
                    self.read_back(chunk, &heard).await;
                    return Some(ours.clone());
                }
                Some(heard) if heard.status == 409 => {
                    conflicts += 1;
                    self.world
                        .noted(format!("{chunk} is not committed: {}", heard.detail()));
                }
                _ => {}
            }
            // What was moved meanwhile, and what somebody else committed, is refused and stands all the same.
            if let Some(stands) = self.listed(chunk).await {
                return bytes
                    .iter()
                    .find(|bytes| Digest::of(bytes).prefixed() == stands)
                    .cloned();
            }
            self.rest().await;
        }
        None
    }

    /// Nodes that can be used.
    async fn nodes(&self) -> Vec<String> {
        let url = format!("{}/nodes/healthy", METADATA.url());
        let heard = call(&self.http, Method::GET, &url, Sent::Nothing).await;
        let nodes: Vec<NodeInfo> = heard.and_then(|heard| heard.json()).unwrap_or_default();
        nodes.into_iter().map(|node| node.node_url).collect()
    }

    /// Stages the bytes on some nodes; gives those that have them.
    async fn put(&mut self, chunk: &ChunkId, bytes: &Bytes) -> Vec<String> {
        let mut nodes = self.nodes().await;
        // Nothing is to be lost with a node that is taken out and does not answer.
        let fewest = if self.world.plan.removes { 2 } else { 1 };
        let wanted = usize::try_from(self.dice.between(1, 3)).unwrap_or(1).max(fewest);
        let mut holders = Vec::new();
        while holders.len() < wanted && !nodes.is_empty() {
            let node = nodes.swap_remove(self.dice.index(nodes.len()));
            let url = format!("{node}/chunk/{chunk}");
            let heard = call(&self.http, Method::PUT, &url, Sent::Bytes(bytes.clone())).await;
            if heard.is_some_and(|heard| matches!(heard.status, 200 | 201)) {
                holders.push(node);
            }
        }
        if holders.len() < fewest {
            holders.clear();
        }
        holders
    }

    async fn commit(&self, chunk: &ChunkId, bytes: &Bytes, holders: &[String]) -> Option<Heard> {
        let sequence = self.chunks.iter().position(|(id, _)| id == chunk)?;
        let commit = json!({
            "node_urls": holders,
            "checksum": Digest::of(bytes).to_string(),
            "size_bytes": bytes.len(),
            "video_id": self.video,
            "sequence_num": sequence,
        });
        let url = format!("{}/chunk/{chunk}/commit", METADATA.url());
        call(&self.http, Method::POST, &url, Sent::Json(commit)).await
    }

    /// Reads a committed chunk from the nodes that were named; which bytes they may serve is the observer's to say.
    async fn read_back(&self, chunk: &ChunkId, answer: &Heard) {
        let committed: Option<Committed> = answer.json();
        let mut given = 0;
        let nodes = committed.map(|committed| committed.committed_nodes).unwrap_or_default();
        for node in &nodes {
            let url = format!("{node}/chunk/{chunk}");
            let heard = call(&self.http, Method::GET, &url, Sent::Nothing).await;
            given += u32::from(heard.is_some_and(|heard| heard.status == 200));
        }
        self.world.noted(format!(
            "{chunk} is committed, {given} of {} nodes give it",
            nodes.len()
        ));
    }

    /// The checksum with which the manifest lists `chunk`.
    async fn listed(&self, chunk: &ChunkId) -> Option<String> {
        let url = format!("{}/manifest/{}", METADATA.url(), self.video);
        let heard = call(&self.http, Method::GET, &url, Sent::Nothing).await?;
        let manifest: Manifest = heard.json()?;
        let entry = manifest.chunks.into_iter().find(|entry| entry.chunk_id == *chunk)?;
        Some(entry.checksum)
    }

    /// Has the video stand at `wanted`, and tells what came of it.
    async fn end(&mut self, wanted: VideoStatus) -> Known {
        let url = format!("{}/video/{}/status", METADATA.url(), self.video);
        loop {
            let status = json!({ "status": wanted });
            match call(&self.http, Method::PATCH, &url, Sent::Json(status)).await {
                Some(heard) if heard.status == 200 && wanted == VideoStatus::Active => return Known::Completed,
                Some(heard) if heard.status == 409 && heard.detail().contains("is missing") => {
                    self.world
                        .violate(format!("a chunk that was committed is not there: {}", heard.detail()));
                    return Known::Failed;
                }
                Some(heard) if matches!(heard.status, 200 | 404 | 409) => return Known::Failed,
                _ => self.rest().await,
            }
        }
    }
}
