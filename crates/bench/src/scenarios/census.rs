//! How long the first count of a cluster with many chunks takes, and what keeping it takes.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;
use vstack_api::{
    census::{Census, Health},
    metadata::{ChunkPlace, VideoStatus},
};
use vstack_chunkpaxos::Placement;
use vstack_client::MetadataClient;
use vstack_metadata::store::{Chunk, Chunks as _, Learned, NewVideo, SqliteStore, StatusChange, Videos as _};
use vstack_types::{ChunkId, NodeRef, ProcessUuid, Timestamp, VideoId};

use super::{Bench, Length};
use crate::{
    clip::Clip,
    cluster::{Cluster, Service},
    disk,
    filled::{self, placed_on},
    metrics,
    process::{cpu_seconds, signal, wait_for},
    report::{Row, Section},
    targets,
};

/// As many as the targets speak of.
const CHUNKS_FULL: u32 = 1_000_000;
const CHUNKS_QUICK: u32 = 50_000;
const CHUNKS_SMOKE: u32 = 600;
const NODES: usize = 5;
/// Copies of each.
const COPIES: usize = 3;
/// Chunks of a video: a bit over half an hour.
const CHUNKS_OF_A_VIDEO: u32 = 200;
/// Of the disk, for each copy: its head, its votes, its part of commit records.
const DISK_BYTES_PER_COPY: u64 = 6 * 1024;
/// A start may take far longer than it should: that is a finding.
const LIMIT: Duration = Duration::from_secs(900);
/// What is uploaded while it is counted.
const CLIP: Clip = Clip {
    megabytes: 4,
    megabits_per_second: 4,
};
/// Between an upload and the next.
const UPLOAD_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the count.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Whose processor time is held against the target while nothing changes.
const QUIET: &str = "metadata service and all storage nodes, nothing changes";
/// Time of a processor that counting took.
const BUSY_SECONDS: &str = "vstack_census_busy_seconds_total";

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let chunks = bench.chunks.unwrap_or(match bench.length {
        Length::Full => CHUNKS_FULL,
        Length::Quick => CHUNKS_QUICK,
        Length::Smoke => CHUNKS_SMOKE,
    });
    bench.require_free(u64::from(chunks) * COPIES as u64 * DISK_BYTES_PER_COPY)?;
    let mut section = Section::new(
        "census",
        format!(
            "{chunks} chunks, {COPIES} copies of each, on {NODES} nodes that are started anew, {} rounds",
            Bench::ROUNDS
        ),
    );
    section.note("chunks are of 2 MiB with a vote and its decision each; payloads are holes in the files (sparse test data), everything else is as a cluster leaves it");
    let nodes = NODES.to_string();
    let arguments = ["--nodes", &nodes];
    let cluster = Cluster::start(&bench.binary, &bench.directory, &arguments).await?;
    let disks = disks(&cluster).await?;
    let data = cluster.data();
    let mut directory = cluster.stop();
    let all = Everything::on(&disks, chunks);
    fill(&data, all, &bench.stop).await?;
    disk::settle().await?;
    let mut found = Found::default();
    for _ in 0..Bench::ROUNDS {
        let cluster = Cluster::start_on(&bench.binary, directory, &arguments, LIMIT).await?;
        round(bench, &cluster, u64::from(chunks), &mut found).await?;
        directory = cluster.stop();
    }
    tell(&mut section, &found, chunks >= CHUNKS_FULL);
    Ok(section)
}

/// Where the data of each node is, by its disk.
async fn disks(cluster: &Cluster) -> anyhow::Result<Vec<(NodeRef, PathBuf)>> {
    let registered = cluster.metadata(cluster.member_http()?)?.nodes().await?;
    let mut disks = Vec::new();
    for service in cluster.nodes()? {
        let node = registered.iter().find(|node| node.node_url == service.url);
        let disk = node.and_then(|node| node.disk_uuid).map(NodeRef::first);
        let acceptor = disk.with_context(|| format!("{} is not registered", service.name))?;
        let data = cluster.data().join("nodes").join(&service.name);
        ensure!(data.is_dir(), "there is no {}", data.display());
        disks.push((acceptor, data));
    }
    Ok(disks)
}

/// What the cluster is filled with: a function of the number of a chunk.
#[derive(Debug, Clone)]
struct Everything {
    videos: Vec<VideoId>,
    nodes: Vec<(NodeRef, PathBuf)>,
    chunks: u32,
}

impl Everything {
    fn on(nodes: &[(NodeRef, PathBuf)], chunks: u32) -> Self {
        Self {
            videos: (0..chunks.div_ceil(CHUNKS_OF_A_VIDEO))
                .map(|_| VideoId::generate())
                .collect(),
            nodes: nodes.to_vec(),
            chunks,
        }
    }

    fn sequences(&self, video: usize) -> u32 {
        let before = u32::try_from(video)
            .unwrap_or(u32::MAX)
            .saturating_mul(CHUNKS_OF_A_VIDEO);
        self.chunks.saturating_sub(before).min(CHUNKS_OF_A_VIDEO)
    }

    /// Every one of the nodes gets as many.
    fn placement(&self, video: usize, sequence: u32) -> Placement {
        let first = video + sequence as usize;
        let node = |n: usize| self.nodes[(first + n) % self.nodes.len()].0;
        placed_on((0..COPIES).map(node).collect())
    }

    fn of_video(&self, number: usize) -> impl Iterator<Item = (ChunkId, u32, Placement)> {
        let video = self.videos[number];
        let chunk = move |sequence| {
            (
                ChunkId::of_video(video, sequence),
                sequence,
                self.placement(number, sequence),
            )
        };
        (0..self.sequences(number)).map(chunk)
    }

    fn of_node(&self, node: NodeRef) -> impl Iterator<Item = (ChunkId, Placement)> {
        let all = (0..self.videos.len()).flat_map(|video| self.of_video(video));
        let here = all.filter(move |(_, _, placement)| placement.names(node));
        here.map(|(id, _, placement)| (id, placement))
    }
}

/// The nodes, one after the other, and the database.
async fn fill(data: &Path, all: Everything, stop: &CancellationToken) -> anyhow::Result<()> {
    let (nodes, owner, stop) = (all.clone(), ProcessUuid::random(), stop.clone());
    let filled = tokio::task::spawn_blocking(move || {
        nodes.nodes.iter().try_for_each(|(node, path)| {
            let filled = filled::fill_with(path, owner, &stop, |me| {
                assert_eq!(me, *node, "the disk is another one by now");
                nodes.of_node(me)
            })?;
            // Five nodes that read their whole disks side by side are not what is measured here.
            filled.write_checkpoint()
        })
    });
    filled.await.context("filling ended badly")??;
    let store = SqliteStore::open(&data.join("metadata.db")).await?;
    for (number, video) in all.videos.iter().enumerate() {
        let at = Timestamp(1);
        let new = NewVideo {
            id: *video,
            title: format!("film {number}"),
            duration_sec: 10.0 * f64::from(all.sequences(number)),
            owner: None,
            override_mode: None,
            created_at: at,
        };
        store.create_video(new).await?;
        let chunk = |(id, sequence_num, placement)| Chunk {
            id,
            place: Some(ChunkPlace {
                sequence_num,
                segment: sequence_num,
                independent: true,
                start_sec: 10.0 * f64::from(sequence_num),
                duration_sec: 10.0,
            }),
            placement,
        };
        let chunks: Vec<Chunk> = all.of_video(number).map(chunk).collect();
        let learned = store.learn(*video, chunks).await?;
        ensure!(
            matches!(learned, Learned::Known { .. }),
            "chunks were not learned: {learned:?}"
        );
        let active = StatusChange {
            from: VideoStatus::Uploading,
            to: VideoStatus::Active,
            trash_until: None,
            reason: None,
            owner_silent_since: None,
            at,
        };
        ensure!(
            store.change_status(*video, active).await?,
            "a video was not made active"
        );
    }
    Ok(())
}

/// What rounds showed.
#[derive(Debug, Default)]
struct Found {
    first: Vec<f64>,
    quiet: Vec<f64>,
    nodes_quiet: Vec<f64>,
    counted_after: Vec<f64>,
    counting: Vec<f64>,
    everything: Vec<f64>,
}

impl Found {
    /// Of all that count: the metadata service and the storage nodes it asks, round by round.
    fn quiet_together(&self) -> Vec<f64> {
        let rounds = self.quiet.iter().zip(&self.nodes_quiet);
        rounds.map(|(service, nodes)| service + nodes).collect()
    }
}

async fn round(bench: &Bench, cluster: &Cluster, chunks: u64, found: &mut Found) -> anyhow::Result<()> {
    let service = cluster.service("metadata")?;
    let pid = service.pid.context("the metadata service does not run")?;
    let metadata = cluster.metadata(cluster.http().clone())?;
    // Who is just up is not counted yet: the service is started anew, beside nodes that answer.
    signal(pid, Signal::KILL)?;
    let began = Instant::now();
    until(&metadata, |census| {
        census.health == Health::Healthy && census.tally.whole >= chunks
    })
    .await?;
    found.first.push(began.elapsed().as_secs_f64());
    let pid = cluster
        .service("metadata")?
        .pid
        .context("the metadata service does not run")?;
    // Counting pauses after it was busy, the longer the more it counted.
    let length = match bench.length {
        Length::Full => Duration::from_secs(150),
        Length::Quick if chunks > u64::from(CHUNKS_QUICK) => Duration::from_secs(150),
        Length::Quick => Duration::from_secs(20),
        Length::Smoke => Duration::from_secs(2),
    };
    let nodes = node_pids(cluster)?;
    let (before, began) = (spent(&nodes)?, Instant::now());
    found.quiet.push(share(pid, length).await?);
    found
        .nodes_quiet
        .push(100.0 * (spent(&nodes)? - before) / began.elapsed().as_secs_f64());
    // Every upload changes what three nodes hold.
    let clip = CLIP.make(cluster.scratch(), "clip.mp4").await?;
    found
        .counted_after
        .push(counted_after(cluster, &metadata, &clip).await?);
    let (before, began) = (counting(cluster, &service.url).await?, Instant::now());
    // It was counted just now, and is over when it was counted again: a whole turn of counting and waiting at least.
    let spent_before = cpu_seconds(pid)?;
    let mut counted = 0.0;
    while began.elapsed() < length || (counted <= 0.0 && bench.length != Length::Smoke) {
        ensure!(
            began.elapsed() < LIMIT,
            "nothing was counted while uploads changed what nodes hold"
        );
        cluster.upload(&clip).await?;
        tokio::time::sleep((length / 20).min(UPLOAD_EVERY)).await;
        counted = counting(cluster, &service.url).await? - before;
    }
    let seconds = began.elapsed().as_secs_f64();
    found.counting.push(100.0 * counted / seconds);
    found
        .everything
        .push(100.0 * (cpu_seconds(pid)? - spent_before) / seconds);
    Ok(())
}

/// Seconds from the end of an upload until everything it brought is counted, and whole.
async fn counted_after(cluster: &Cluster, metadata: &MetadataClient, clip: &Path) -> anyhow::Result<f64> {
    let before = metadata.census().await?.tally.whole;
    let video = cluster.upload(clip).await?;
    let ended = Instant::now();
    let manifest = metadata.manifest(video).await?;
    let whole = before + u64::from(manifest.total_chunks) + u64::from(manifest.init.is_some());
    until(metadata, |census| {
        census.health == Health::Healthy && census.tally.whole >= whole
    })
    .await?;
    Ok(ended.elapsed().as_secs_f64())
}

/// Processes of the storage nodes.
fn node_pids(cluster: &Cluster) -> anyhow::Result<Vec<u32>> {
    let pid = |node: Service| node.pid.with_context(|| format!("{} does not run", node.name));
    cluster.nodes()?.into_iter().map(pid).collect()
}

/// Seconds of a processor that processes took together since they started.
fn spent(pids: &[u32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| cpu_seconds(*pid)).sum()
}

/// Seconds of a processor that counting took since the service started.
async fn counting(cluster: &Cluster, url: &str) -> anyhow::Result<f64> {
    let seconds = metrics::value(cluster.http().transport(), url, BUSY_SECONDS).await?;
    seconds.with_context(|| format!("the metadata service tells no {BUSY_SECONDS}"))
}

/// Waits for a count.
async fn until(metadata: &MetadataClient, is_so: impl Fn(&Census) -> bool) -> anyhow::Result<()> {
    let counted = async || {
        // Whoever asks all the time takes of what is measured.
        tokio::time::sleep(LOOK_EVERY).await;
        let census = metadata.census().await.ok()?;
        is_so(&census).then_some(())
    };
    wait_for("everything to be counted", LIMIT, counted).await
}

/// Processor time of a process for `length`, in percent of one core.
async fn share(pid: u32, length: Duration) -> anyhow::Result<f64> {
    let (before, began) = (cpu_seconds(pid)?, Instant::now());
    tokio::time::sleep(length).await;
    let seconds = began.elapsed().as_secs_f64();
    Ok(100.0 * (cpu_seconds(pid)? - before) / seconds)
}

fn tell(section: &mut Section, found: &Found, full: bool) {
    let together = found.quiet_together();
    let rows = [
        (
            "from the start of the metadata service until all is counted",
            "s",
            &found.first,
        ),
        (
            "metadata service, all it does, nothing changes",
            "% of a core",
            &found.quiet,
        ),
        (
            "storage nodes together, all they do, nothing changes",
            "% of a core",
            &found.nodes_quiet,
        ),
        (
            "all of these together (counts, heartbeats, scrub), nothing changes",
            "% of a core",
            &together,
        ),
        (
            "from the end of an upload until it is counted as whole",
            "s",
            &found.counted_after,
        ),
        (
            "counting alone, with an upload every few seconds",
            "% of a core",
            &found.counting,
        ),
        (
            "metadata service, all it does, with an upload every few seconds",
            "% of a core",
            &found.everything,
        ),
    ];
    for (what, unit, rounds) in rows {
        section.rows.push(Row::new(what.to_owned(), unit, rounds.clone()));
    }
    if full {
        section.judge_rounds(targets::CENSUS_FIRST, "", &found.first);
        section.judge_rounds(targets::CENSUS_SHARE, QUIET, &together);
        // What nodes do then is mostly to store what is uploaded.
        section.judge_rounds(targets::CENSUS_SHARE, "metadata service, uploads", &found.everything);
    } else {
        section.note(format!(
            "targets are for {CHUNKS_FULL} chunks, and are not measured with fewer"
        ));
        section.judge(targets::CENSUS_FIRST, "", None);
        section.judge(targets::CENSUS_SHARE, "", None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_take_is_held_against_the_target_too() {
        let found = Found {
            quiet: vec![1.0, 1.5, 1.25],
            nodes_quiet: vec![1.0, 1.0, 1.0],
            ..Found::default()
        };
        let mut section = Section::new("census", "");
        tell(&mut section, &found, true);
        let verdict = section.verdicts.iter().find(|verdict| verdict.at == QUIET);
        let (measured, reached) = verdict.map(|verdict| (verdict.measured, verdict.reached)).unwrap();
        assert_eq!((measured, reached), (Some(2.25), false));
    }
}
