//! How long it takes until another node gives what a dead one does not: a node is killed (its connections are reset) or
//! stopped (a black hole) under a loop of fetches by the smart client's core, while `vstack play` plays the same video.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use vstack_api::metadata::ManifestChunk;
use vstack_client::{HttpClient, Timeouts};
use vstack_player::{ChunkSource, FetchSettings};
use vstack_types::VideoId;

use super::Bench;
use crate::{
    clip::Clip,
    cluster::{Cluster, Service},
    measure::{Spread, percentile},
    process,
    report::{Row, Section},
    rescue::{Fetch, failovers, most_asked},
    tap::{Event, Tap},
    targets::{self, Target},
};

/// As many transfers at a time as a player has.
const FETCHERS: usize = 4;
/// Pause of a fetcher between two chunks: together they ask for a few hundred a second and leave the processor room.
const PAUSE: Duration = Duration::from_millis(20);
/// Before the fault: enough to have settled on a node.
const WARM: Duration = Duration::from_millis(1500);
/// What counts as lately when the node is chosen that is asked most.
const RECENT: Duration = Duration::from_millis(500);
/// After the fault: more than any limit on a transfer.
const WINDOW: Duration = Duration::from_secs(5);
/// More than pass in a round; when it is full the round is void.
const EVENTS_MAX: usize = 1 << 16;
const CLIP: Clip = Clip {
    megabytes: 100,
    megabits_per_second: 20,
};
/// How long the player may take to write its report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);

/// What is done to a node.
#[derive(Debug, Clone, Copy)]
struct Fault {
    name: &'static str,
    signal: Signal,
    target: Target,
}

const FAULTS: [Fault; 2] = [
    Fault {
        name: "reset (SIGKILL)",
        signal: Signal::KILL,
        target: targets::FAILOVER_RESET,
    },
    Fault {
        name: "black hole (SIGSTOP)",
        signal: Signal::STOP,
        target: targets::FAILOVER_BLACK_HOLE,
    },
];

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let about = format!(
        "time to the first byte from another node, {FETCHERS} fetchers of the smart client's core and `vstack play` beside \
         them, {} rounds of each fault",
        Bench::ROUNDS
    );
    let mut section = Section::new("failover", about);
    let clip = CLIP.make(&bench.directory, "failover.mp4").await?;
    for fault in FAULTS {
        let mut rounds = Vec::new();
        for _ in 0..Bench::ROUNDS {
            rounds.push(round(bench, &clip, fault).await?);
        }
        tell(&mut section, fault, &rounds);
    }
    section.note(
        "measured at relays before the nodes: from the fault, or from the request to the dead node when that came later, \
         until another node's first byte of the same chunk; the worst of all rounds is judged",
    );
    section.note("a transfer whose last bytes were already in the kernel when the node died needs no failover");
    Ok(section)
}

fn tell(section: &mut Section, fault: Fault, rounds: &[Seen]) {
    let row = |name: &str, unit, values| Row::new(format!("{}: {name}", fault.name), unit, values);
    let worst: Vec<f64> = rounds
        .iter()
        .filter_map(|round| Spread::of(&round.failovers).map(|spread| spread.max))
        .collect();
    let medians: Vec<f64> = rounds
        .iter()
        .filter_map(|round| percentile(&round.failovers, 50.0))
        .collect();
    let counts = |of: fn(&Seen) -> f64| rounds.iter().map(of).collect::<Vec<_>>();
    section
        .rows
        .push(row("longest failover of the round", "s", worst.clone()));
    section.rows.push(row("median failover of the round", "s", medians));
    section.rows.push(row(
        "chunks that failed over",
        "chunks",
        counts(|round| round.failovers.len() as f64),
    ));
    section.rows.push(row(
        "longest fetch of a whole chunk",
        "s",
        counts(|round| round.longest_fetch),
    ));
    section.rows.push(row(
        "fetches that failed",
        "chunks",
        counts(|round| round.failed as f64),
    ));
    section.rows.push(row(
        "vstack play: rebuffering events",
        "events",
        counts(|round| round.rebuffering),
    ));
    if worst.len() < rounds.len() {
        section.note(format!(
            "{}: in {} rounds no fetch needed the dead node",
            fault.name,
            rounds.len() - worst.len()
        ));
    }
    section.judge(fault.target, "worst", Spread::of(&worst).map(|spread| spread.max));
}

/// What a round showed.
struct Seen {
    /// In seconds.
    failovers: Vec<f64>,
    /// In seconds, of those that ended after the fault.
    longest_fetch: f64,
    failed: usize,
    rebuffering: f64,
}

/// On a cluster of its own, whose supervisor leaves the dead node dead.
async fn round(bench: &Bench, clip: &Path, fault: Fault) -> anyhow::Result<Seen> {
    let cluster = Cluster::start(&bench.binary, &bench.directory, &["--no-restart"]).await?;
    let video = cluster.upload(clip).await?;
    cluster.wait_copied(video).await?;
    let nodes = cluster.nodes()?;
    let (sender, mut receiver) = mpsc::channel(EVENTS_MAX);
    let taps = taps(&nodes, &sender).await?;
    let chunks = tapped_chunks(&cluster, video, &nodes, &taps).await?;
    let stop = CancellationToken::new();
    let _stops_when_dropped = stop.clone().drop_guard();
    let source = source(&stop)?;
    let mut player = cluster.tool(&["play", &video.to_string(), "--json", "--quiet"])?;
    let player = tokio::process::Command::from({
        player.stdout(Stdio::piped()).stderr(Stdio::null());
        player
    })
    .kill_on_drop(true)
    .spawn()?;
    let fetching = CancellationToken::new();
    let mut fetchers = fetchers(&source, &chunks, &fetching);
    tokio::time::sleep(WARM).await;

    let mut events = drain(&mut receiver);
    let recent = Instant::now() - RECENT;
    let lately = events.iter().filter(|event| event.at >= recent);
    let victim = most_asked(lately, nodes.len()).context("nothing was fetched before the fault")?;
    let pid = nodes[victim].pid.context("the node does not run")?;
    let at = Instant::now();
    process::signal(pid, fault.signal)?;
    let frozen = matches!(fault.signal, Signal::STOP).then_some(Frozen(pid));
    tokio::time::sleep(WINDOW).await;

    fetching.cancel();
    let mut fetches = Vec::new();
    while let Some(done) = fetchers.join_next().await {
        fetches.extend(done.context("a fetcher ended badly")?);
    }
    ensure!(sender.capacity() > 0, "more passed than could be noted");
    events.extend(drain(&mut receiver));
    let rebuffering = stop_player(player).await?;
    drop(frozen);
    let after = fetches.iter().filter(|fetch| fetch.ended >= at);
    Ok(Seen {
        failovers: failovers(&events, &fetches, victim, at)
            .iter()
            .map(Duration::as_secs_f64)
            .collect(),
        longest_fetch: after
            .map(|fetch| (fetch.ended - fetch.started).as_secs_f64())
            .fold(0.0, f64::max),
        failed: fetches.iter().filter(|fetch| !fetch.arrived).count(),
        rebuffering,
    })
}

/// A process that was stopped: it goes on when this is dropped, or it could not be ended either.
struct Frozen(u32);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _gone_is_as_good = process::signal(self.0, Signal::CONT);
    }
}

async fn taps(nodes: &[Service], events: &mpsc::Sender<Event>) -> anyhow::Result<Vec<Tap>> {
    let mut taps = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let target: SocketAddr = node
            .url
            .trim_start_matches("http://")
            .parse()
            .context("a node's address")?;
        taps.push(Tap::before(index, target, events.clone()).await?);
    }
    Ok(taps)
}

/// The chunks of a video, to be had through the taps.
async fn tapped_chunks(
    cluster: &Cluster,
    video: VideoId,
    nodes: &[Service],
    taps: &[Tap],
) -> anyhow::Result<Arc<[ManifestChunk]>> {
    let mut manifest = cluster.metadata(cluster.http().clone())?.manifest(video).await?;
    for chunk in &mut manifest.chunks {
        for url in &mut chunk.replicas {
            let index = nodes
                .iter()
                .position(|node| node.url == *url)
                .context("a replica that is no node")?;
            url.clone_from(&taps[index].url);
        }
    }
    ensure!(manifest.chunks.len() > 2 * FETCHERS, "the video has too few chunks");
    Ok(manifest.chunks.into())
}

/// Without a cache: every fetch goes to a node.
fn source(stop: &CancellationToken) -> anyhow::Result<ChunkSource> {
    let settings = FetchSettings {
        parallel_max: FETCHERS,
        cache_bytes: 0,
        ..FetchSettings::default()
    };
    Ok(ChunkSource::start(
        HttpClient::new(None, Timeouts::default())?,
        settings,
        stop.clone(),
    ))
}

fn fetchers(source: &ChunkSource, chunks: &Arc<[ManifestChunk]>, until: &CancellationToken) -> JoinSet<Vec<Fetch>> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut fetchers = JoinSet::new();
    for _ in 0..FETCHERS {
        let (source, chunks, until, next) = (source.clone(), Arc::clone(chunks), until.clone(), Arc::clone(&next));
        fetchers.spawn(async move {
            let mut fetches = Vec::new();
            while !until.is_cancelled() {
                let chunk = &chunks[next.fetch_add(1, Ordering::Relaxed) % chunks.len()];
                let started = Instant::now();
                let arrived = source.chunk(chunk).await.is_ok();
                fetches.push(Fetch {
                    chunk: chunk.chunk_id.to_string(),
                    started,
                    ended: Instant::now(),
                    arrived,
                });
                tokio::time::sleep(PAUSE).await;
            }
            fetches
        });
    }
    fetchers
}

fn drain(receiver: &mut mpsc::Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| receiver.try_recv().ok()).collect()
}

/// Interrupts the player and reads its rebuffering events.
async fn stop_player(player: tokio::process::Child) -> anyhow::Result<f64> {
    let pid = player.id().context("the player has ended by itself")?;
    process::signal(pid, Signal::INT)?;
    let output = tokio::time::timeout(REPORT_TIMEOUT, player.wait_with_output())
        .await
        .context("no report of the player")??;
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("`vstack play --json` gave no JSON")?;
    report["buffer_stats"]["rebuffering_events"]
        .as_f64()
        .context("the report has no rebuffering_events")
}
