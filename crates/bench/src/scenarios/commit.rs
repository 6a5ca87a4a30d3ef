//! Chunks committed on three nodes by the [`fast_path`], as the uploader does it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use vstack_api::metadata::{CreateVideo, RequestGroup};
use vstack_client::{Holder, HttpClient, MetadataClient, NodeClient};
use vstack_types::{ChunkId, ProcessUuid, VideoId};

use super::Bench;
use crate::{
    cluster::Cluster,
    disk::{self, Plain},
    fast_path,
    load::{Round, Rounds, Worker, closed_loop},
    measure::ratios,
    metrics::{self, Requests},
    payload::Payload,
    report::{Row, Section},
    targets,
};

const CONCURRENCY: usize = 8;
/// Three copies of all that three rounds can write, and the peer's, with room for the file system.
const FREE_BYTES: u64 = 24 << 30;

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    disk::require_free(&bench.directory, FREE_BYTES)?;
    let about = format!(
        "2 MiB chunks committed at c{CONCURRENCY} on three nodes and a metadata service on this machine, every copy synced, \
         {} alternated rounds of {:?}",
        Bench::ROUNDS,
        bench.round()
    );
    let mut section = Section::new("commit", about);
    let payload = Payload::make();
    let cluster = Cluster::start(&bench.binary, &bench.directory, &[]).await?;
    let proposer = Proposer::of(&cluster)?;
    let nodes: Vec<_> = cluster.nodes()?.into_iter().map(|node| node.url).collect();
    let (mut committed, mut plain) = (Rounds::default(), Rounds::default());
    let mut messages = Vec::new();
    let mut routes = Requests::new();
    for _ in 0..Bench::ROUNDS {
        let batch = proposer.begin().await?;
        let before = count(cluster.http(), &nodes).await?;
        let (round, sent) = proposer.round(bench, &payload, &batch).await?;
        let requests = metrics::since(&before, &count(cluster.http(), &nodes).await?);
        proposer.check(&payload, &batch, sent).await?;
        committed.push(&round);
        messages.push(messages_per_chunk(&requests, sent));
        routes = requests;
        disk::settle().await?;
        let peer = Plain {
            threads: CONCURRENCY,
            copies: nodes.len(),
            duration: bench.round(),
        };
        plain.push(&peer.run(&bench.directory, &payload, &bench.stop).await?);
    }
    section
        .rows
        .push(committed.row("vstack, all copies synced", "chunks/s"));
    let majority: Vec<_> = committed.part_ms.iter().map(|part| part.p50).collect();
    section
        .rows
        .push(Row::new("vstack, p50 until decided by a majority", "ms", majority));
    section
        .rows
        .push(plain.row(format!("disk: {} copies by write + fdatasync", nodes.len()), "chunks/s"));
    section.rows.push(Row::new(
        "vstack, to the disk's own rate",
        "x",
        ratios(&committed.rates, &plain.rates),
    ));
    section.rows.push(Row::new(
        "messages about a chunk at the nodes",
        "messages",
        messages.clone(),
    ));
    section.note(format!("requests at the nodes in the last round: {}", words(&routes)));
    section.note("vstack and the generator share the processor: hashing once and sending three times is in the rate");
    section.judge_rounds(targets::COMMIT_RATE, "", &committed.rates);
    section.judge_rounds(targets::COMMIT_MESSAGES, "", &messages);
    Ok(section)
}

/// All nodes together.
async fn count(http: &HttpClient, nodes: &[String]) -> anyhow::Result<Requests> {
    let mut all = Requests::new();
    for node in nodes {
        for (key, count) in metrics::requests(http.transport(), node).await? {
            *all.entry(key).or_default() += count;
        }
    }
    Ok(all)
}

/// A request and its answer are two messages. Pings, health and metrics are about no chunk.
fn messages_per_chunk(requests: &Requests, chunks: u32) -> f64 {
    let about_chunks = requests
        .iter()
        .filter(|((_, route), _)| route.starts_with("/chunk/") || route.starts_with("/paxos"));
    let count: u64 = about_chunks.map(|(_, count)| count).sum();
    2.0 * count as f64 / f64::from(chunks)
}

fn words(requests: &Requests) -> String {
    let list: Vec<_> = requests
        .iter()
        .map(|((method, route), count)| format!("{count} {method} {route}"))
        .collect();
    list.join(", ")
}

struct Proposer {
    owner: ProcessUuid,
    metadata: MetadataClient,
    nodes: NodeClient,
}

impl Proposer {
    fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let http = cluster.member_http()?;
        let metadata = cluster.metadata(http.clone())?;
        Ok(Self {
            owner: ProcessUuid::random(),
            metadata,
            nodes: NodeClient::new(http),
        })
    }

    /// A new video, and the nodes of its chunks.
    async fn begin(&self) -> anyhow::Result<Batch> {
        let video = CreateVideo {
            title: "benchmark".to_owned(),
            duration_sec: 0.0,
            owner: Some(self.owner),
            redundancy_mode: None,
        };
        let video = self.metadata.create_video(&video).await?.video_id;
        let request = RequestGroup {
            owner: self.owner,
            from_seq: 0,
            avoid: Vec::new(),
        };
        let group = self.metadata.request_group(video, &request).await?;
        let group: Vec<_> = group
            .members
            .into_iter()
            .map(|member| Holder {
                node: member.node,
                url: member.url,
            })
            .collect();
        ensure!(group.len() == 3, "the group has {} nodes, not three", group.len());
        Ok(Batch { video, group })
    }

    /// Also gives how many chunks were sent in all.
    async fn round(&self, bench: &Bench, payload: &Payload, batch: &Batch) -> anyhow::Result<(Round, u32)> {
        let sent = Arc::new(AtomicU32::new(0));
        let commits = (0..CONCURRENCY)
            .map(|_| Commits {
                owner: self.owner,
                video: batch.video,
                nodes: self.nodes.clone(),
                group: batch.group.clone(),
                payload: payload.clone(),
                next: Arc::clone(&sent),
            })
            .collect();
        let round = closed_loop(commits, bench.round()).await?;
        Ok((round, sent.load(Ordering::Relaxed)))
    }

    /// What was reported committed is on every node: the first and the last chunk, read back and verified.
    async fn check(&self, payload: &Payload, batch: &Batch, sent: u32) -> anyhow::Result<()> {
        for sequence in [0, sent.saturating_sub(1)] {
            let digest = payload.chunk(usize::try_from(sequence)?).sha256;
            let chunk = ChunkId::of_video(batch.video, sequence);
            for holder in &batch.group {
                self.nodes.get_verified(&holder.url, &chunk, digest).await?;
            }
        }
        Ok(())
    }
}

/// What one round works on.
struct Batch {
    video: VideoId,
    group: Vec<Holder>,
}

/// Commits one chunk after the other.
struct Commits {
    owner: ProcessUuid,
    video: VideoId,
    nodes: NodeClient,
    group: Vec<Holder>,
    payload: Payload,
    /// Sequence number of the next chunk of all workers.
    next: Arc<AtomicU32>,
}

impl Worker for Commits {
    /// Gives the time until a majority had accepted.
    async fn once(&mut self) -> anyhow::Result<Duration> {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        let chunk = ChunkId::of_video(self.video, sequence);
        let bytes = self.payload.chunk(usize::try_from(sequence)?).bytes.clone();
        let committed = fast_path::commit(&self.nodes, &self.group, self.owner, (&chunk, &bytes)).await?;
        Ok(committed.decided_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_about_chunks_are_counted_and_no_others() {
        let requests = Requests::from([
            (("PUT".to_owned(), "/chunk/{id}".to_owned()), 30),
            (("POST".to_owned(), "/paxos".to_owned()), 3),
            (("GET".to_owned(), "/metrics".to_owned()), 6),
            (("HEAD".to_owned(), "/ping".to_owned()), 9),
        ]);
        assert!((messages_per_chunk(&requests, 10) - 6.6).abs() < 1e-9);
    }
}
