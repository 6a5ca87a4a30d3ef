//! Startup latency of the smart client on loopback.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use vstack_api::metadata::Manifest;
use vstack_client::NodeClient;
use vstack_types::{ChunkId, Digest, VideoId};

use super::Bench;
use crate::{
    clip::Clip,
    cluster::Cluster,
    measure::{Latencies, percentile},
    process,
    report::{Row, Section},
    targets,
};

const SESSIONS: usize = 20;
/// A film in high definition: 10 s of it are six chunks.
const CLIP: Clip = Clip {
    megabytes: 40,
    megabits_per_second: 10,
};
/// What a player of the plain kind fetches before it starts, as ours does.
const START_SECONDS: f64 = 10.0;
/// Transfers of the plain player at a time, as many as ours may have.
const PARALLEL: usize = 4;

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let about = format!("startup latency of `vstack play --speed max`, {SESSIONS} sessions on loopback");
    let mut section = Section::new("startup", about);
    let cluster = Cluster::start(&bench.binary, &bench.directory, &[]).await?;
    let clip = CLIP.make(cluster.scratch(), "clip.mp4").await?;
    let video = cluster.upload(&clip).await?;
    cluster.wait_copied(video).await?;
    let (mut smart, mut plain) = (Vec::new(), Vec::new());
    for session in 0..SESSIONS {
        smart.push(smart_session(&cluster, video).await?);
        plain.push(plain_session(&cluster, video, session).await?);
    }
    for (name, seconds) in [("vstack play", &smart), ("plain player, round-robin", &plain)] {
        let mut latencies = Latencies::default();
        seconds
            .iter()
            .for_each(|seconds| latencies.record(Duration::from_secs_f64(*seconds)));
        section.rows.push(Row::new(name, "s", seconds.clone()));
        let of = |percent| percentile(seconds, percent).map_or_else(Vec::new, |value| vec![value]);
        section
            .rows
            .push(Row::new(format!("{name}, p50 of all sessions"), "s", of(50.0)));
        section
            .rows
            .push(Row::new(format!("{name}, p95 of all sessions"), "s", of(95.0)));
    }
    section.note("vstack play: startup_latency of its report, from the manifest in hand to playback allowed");
    section.note(format!(
        "plain player: init segment and the first {START_SECONDS} s, verified, {PARALLEL} at a time, replicas in turn, in this process"
    ));
    section.judge(targets::STARTUP_P95, "", percentile(&smart, 95.0));
    Ok(section)
}

async fn smart_session(cluster: &Cluster, video: VideoId) -> anyhow::Result<f64> {
    let video = video.to_string();
    let output = process::run(cluster.tool(&["play", &video, "--json", "--quiet", "--speed", "max"])?).await?;
    let report: serde_json::Value = serde_json::from_str(&output).context("`vstack play --json` gave no JSON")?;
    ensure!(
        report["completed"] == true,
        "the video was not played to its end: {report}"
    );
    report["startup_latency"]
        .as_f64()
        .context("the report has no startup_latency")
}

/// What a client without any cleverness needs for the same bytes, from the manifest in hand on. New connections, as a
/// new process would have.
async fn plain_session(cluster: &Cluster, video: VideoId, turn: usize) -> anyhow::Result<f64> {
    let http = vstack_client::HttpClient::new(None, vstack_client::Timeouts::default())?;
    let manifest = cluster.metadata(http.clone())?.manifest(video).await?;
    let nodes = Arc::new(NodeClient::new(http));
    let started = Instant::now();
    let fetches = wanted(&manifest, turn)?.into_iter().map(|(chunk, digest, url)| {
        let nodes = Arc::clone(&nodes);
        async move { nodes.get_verified(&url, &chunk, digest).await }
    });
    let _all: Vec<_> = stream::iter(fetches).buffered(PARALLEL).try_collect().await?;
    Ok(started.elapsed().as_secs_f64())
}

/// The init segment and the chunks until [`START_SECONDS`], each with the replica whose turn it is.
fn wanted(manifest: &Manifest, turn: usize) -> anyhow::Result<Vec<(ChunkId, Digest, String)>> {
    let init = manifest
        .init
        .as_ref()
        .map(|init| (&init.chunk_id, &init.checksum, &init.replicas));
    let chunks = manifest.chunks.iter().filter(|chunk| chunk.start_sec < START_SECONDS);
    let pieces = init
        .into_iter()
        .chain(chunks.map(|chunk| (&chunk.chunk_id, &chunk.checksum, &chunk.replicas)));
    let with_replica = pieces.enumerate().map(|(index, (chunk, checksum, replicas))| {
        let url = replicas
            .get((index + turn) % replicas.len().max(1))
            .context("a chunk without replicas")?;
        Ok((chunk.clone(), checksum.parse()?, url.clone()))
    });
    with_replica.collect()
}
