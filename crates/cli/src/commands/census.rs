//! `vstack census`.

use std::{
    collections::{BTreeMap, HashSet},
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_api::{
    census::{Census, ChunkStanding, Health, Orphan, Tally, VideoCensus, VideoStanding, Waiting, ZonesCounted},
    metadata::{NodeInfo, NodeRole},
};
use vstack_client::{ClientError, MetadataClient};
use vstack_types::VideoId;

use super::{Cluster, by_zone};
use crate::output::{self, out};

/// Chunks named of one video, unless asked for all.
const NAMED: usize = 10;

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// Only this one; every chunk of it that is not whole is named.
    #[arg(value_name = "VIDEO_ID")]
    video: Option<VideoId>,
    /// Name every video and chunk that is not whole, not only the first ten chunks of a video.
    #[arg(long)]
    all: bool,
    /// Wait until everything is counted and whole, for so many seconds at most, also for a service that restarts
    /// meanwhile.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=WAIT_MAX))]
    wait: Option<u64>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Seconds that somebody may want to wait: a year.
const WAIT_MAX: u64 = 365 * 24 * 3600;
/// Chunks asked for at once.
const PAGE: usize = 2_000;
/// Between two looks while it is waited.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// For people, where the metadata service mends nothing.
pub(super) const REPAIRS_OFF: &str = "switched off by REPAIRS=false: what is not whole is only counted, and stays so";

/// What is shown with a census, and asked for apart; none of it is known where nobody says it.
#[derive(Debug, Default, Serialize)]
struct Besides {
    repairs_enabled: Option<bool>,
    /// Nodes that take chunks, by zone; those without one under an empty name.
    zone_nodes: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    census: &'a Census,
    #[serde(flatten)]
    besides: &'a Besides,
}

/// Shows how whole everything is that is stored. Exit code 1 when something is not, or is not known.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let metadata = options.cluster.metadata()?;
    let health = match options.video {
        Some(video) => of_one(&metadata, video, &options, &stop).await?,
        None => of_all(&metadata, &options, &stop).await?,
    };
    Ok(if health.is_some_and(Health::is_well) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// None when it was stopped before there was anything to show.
async fn of_all(
    metadata: &MetadataClient,
    options: &Options,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Health>> {
    let census = once_whole(options, stop, async || metadata.census().await, |census| census.health).await?;
    let Some(mut census) = census else { return Ok(None) };
    if options.all {
        // Where it is stopped, as many are named as are known by then.
        let named = stop.run_until_cancelled(name_all(metadata, &mut census)).await;
        named.transpose()?;
    }
    let besides = stop.run_until_cancelled(besides(metadata)).await.unwrap_or_default();
    let told = Told {
        census: &census,
        besides: &besides,
    };
    print(options, &told, |told| show(told, options.all))?;
    Ok(Some(census.health))
}

async fn of_one(
    metadata: &MetadataClient,
    video: VideoId,
    options: &Options,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Health>> {
    let ask = async || metadata.census_of_video(video, 0, PAGE).await;
    let census = once_whole(options, stop, ask, |census| census.health).await?;
    let Some(mut census) = census else { return Ok(None) };
    let named = stop.run_until_cancelled(name_chunks(metadata, &mut census.video)).await;
    named.transpose()?;
    print(options, &census, show_one)?;
    Ok(Some(census.health))
}

/// Asks until everything is whole, for as long as somebody wants to wait. What was known last when it is stopped.
async fn once_whole<T>(
    options: &Options,
    stop: &CancellationToken,
    ask: impl AsyncFn() -> Result<T, ClientError>,
    health: impl Fn(&T) -> Health,
) -> Result<Option<T>, ClientError> {
    let until = tokio::time::Instant::now() + Duration::from_secs(options.wait.unwrap_or_default());
    let mut last = None;
    loop {
        let Some(asked) = stop.run_until_cancelled(ask()).await else {
            return Ok(last);
        };
        let is_over = tokio::time::Instant::now() >= until;
        match asked {
            Ok(census) if is_over || health(&census).is_well() => return Ok(Some(census)),
            Ok(census) => last = Some(census),
            // As everything that waits does.
            Err(error) if !is_over && error.is_transient() => {}
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(last),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn besides(metadata: &MetadataClient) -> Besides {
    let (repairs, nodes) = tokio::join!(metadata.repairs(), metadata.nodes());
    Besides {
        repairs_enabled: repairs.ok().map(|repairs| repairs.enabled),
        zone_nodes: nodes.ok().and_then(|nodes| zone_nodes(&nodes)),
    }
}

/// Nodes that take chunks, by zone; none where no such node has one.
fn zone_nodes(nodes: &[NodeInfo]) -> Option<BTreeMap<String, Vec<String>>> {
    let take_chunks = nodes
        .iter()
        .filter(|node| node.trusted && node.role == NodeRole::Active);
    let owned = |labels: Vec<&str>| labels.into_iter().map(str::to_owned).collect();
    let zones = by_zone(take_chunks)?.into_iter();
    Some(zones.map(|(zone, labels)| (zone.to_owned(), owned(labels))).collect())
}

fn print<T: Serialize>(options: &Options, census: &T, show: impl Fn(&T)) -> anyhow::Result<()> {
    if options.json {
        output::json(census)?;
    } else {
        show(census);
    }
    Ok(())
}

/// Asks for the videos and chunks that were left out. Where things change meanwhile, some may still be missing.
async fn name_all(metadata: &MetadataClient, census: &mut Census) -> Result<(), ClientError> {
    let mut known: HashSet<VideoId> = census.videos.iter().map(|video| video.video_id).collect();
    while (census.videos.len() as u64) < census.videos_not_whole {
        let more = metadata.census_from(census.videos.len()).await?.videos;
        let new: Vec<VideoStanding> = more.into_iter().filter(|video| known.insert(video.video_id)).collect();
        if new.is_empty() {
            break;
        }
        census.videos.extend(new);
    }
    for video in &mut census.videos {
        name_chunks(metadata, video).await?;
    }
    Ok(())
}

async fn name_chunks(metadata: &MetadataClient, video: &mut VideoStanding) -> Result<(), ClientError> {
    while (video.chunks.len() as u64) < video.tally.chunks - video.tally.whole {
        let more = metadata
            .census_of_video(video.video_id, video.chunks.len(), PAGE)
            .await?;
        if more.video.chunks.is_empty() {
            break;
        }
        video.chunks.extend(more.video.chunks);
    }
    Ok(())
}

/// How everything stands, in as few words as there are.
pub(super) const fn word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Counting => "counting",
        Health::Unexplained => "unexplained",
        Health::UnderReplicated => "under-replicated",
        Health::Endangered => "endangered",
        Health::OutOfReach => "out of reach",
        Health::Lost => "lost",
    }
}

const fn meaning(health: Health) -> &'static str {
    match health {
        Health::Healthy => "everything was counted, and is as it should be",
        Health::Counting => "nothing is known to be wrong, and not everything is counted",
        Health::Unexplained => "everything known is as it should be, and nodes keep chunks that nothing known explains",
        Health::UnderReplicated => "some chunks survive fewer losses than they should",
        Health::Endangered => "some chunks do not survive the next loss of a node",
        Health::OutOfReach => "some chunks cannot be read until nodes return",
        Health::Lost => "some chunks cannot be read any more",
    }
}

/// What to do about chunks that nothing known explains.
const UNEXPLAINED: &str = "The metadata service's database may be an older one, and these the only trace of films that it \
                           knows nothing of: if there is a newer one, start the service with that. They are kept; \
                           `vstack orphans --give-up` gives them up.";

fn show(Told { census, besides }: &Told<'_>, all: bool) {
    out!("{}: {}", word(census.health), meaning(census.health));
    out!("{}", tallied(&census.tally));
    if besides.repairs_enabled == Some(false) {
        out!("repairs are {REPAIRS_OFF}");
    }
    out!(
        "as of {}; counting takes {:.1} % of a processor\n",
        census.at,
        census.processor_percent
    );
    let mut table = output::table(&["NODE", "COUNTED", "ITEMS", "PLACED", "MB", "ORPHANS", ""]);
    for node in &census.nodes {
        table.add_row([
            output::plain(&node.node),
            node.counted_at.map_or("never".to_owned(), |at| at.to_string()),
            node.items.to_string(),
            node.placed.map_or("?".to_owned(), |placed| placed.to_string()),
            format!("{:.1}", node.placed_bytes as f64 / 1e6),
            node.orphans.to_string(),
            node.trouble
                .as_ref()
                .or(node.stays_because.as_ref())
                .map(|why| output::plain(why))
                .unwrap_or_default(),
        ]);
    }
    out!("{table}");
    if let Some(zones) = census.zones {
        out!("\n{}", in_zones(zones));
    }
    if let Some(zones) = &besides.zone_nodes {
        out!("{}", named_zones(zones));
    }
    for waiting in &census.waits {
        out!("\n{}", waits(waiting));
    }
    for video in &census.videos {
        show_video(video, all);
    }
    let untold = census.videos_not_whole.saturating_sub(census.videos.len() as u64);
    if untold > 0 {
        out!("\nand {untold} more videos");
    }
    show_orphans(&census.orphans, all, census.health);
}

fn show_one(census: &VideoCensus) {
    out!("{}: {}", word(census.health), meaning(census.health));
    out!("{}", tallied(&census.video.tally));
    out!("as of {}", census.at);
    show_video(&census.video, true);
    show_orphans(&census.orphans, true, census.health);
}

fn tallied(tally: &Tally) -> String {
    format!(
        "{} chunks: {} whole, {} not counted, {} under-replicated, {} endangered, {} out of reach, {} lost",
        tally.chunks,
        tally.whole,
        tally.uncounted,
        tally.under_replicated,
        tally.endangered,
        tally.out_of_reach,
        tally.lost
    )
}

/// How far zones are respected.
fn in_zones(zones: ZonesCounted) -> String {
    let ZonesCounted {
        there,
        copies,
        crowded_chunks,
    } = zones;
    let enough = if there < copies {
        format!("{there} zones for {copies} copies: the loss of one zone may take several copies of a chunk")
    } else {
        format!("{there} zones for {copies} copies")
    };
    let crowded = match crowded_chunks {
        0 => return enough,
        1 => "1 chunk has".to_owned(),
        chunks => format!("{chunks} chunks have"),
    };
    format!(
        "{enough}; {crowded} more copies or shards in one zone than necessary, so that the loss of that zone would cost more \
         than it has to: some are moved to other zones once nothing is to be repaired"
    )
}

/// `zones: a (2 nodes), b (1 node); without one: storage-node-4`.
fn named_zones(zones: &BTreeMap<String, Vec<String>>) -> String {
    let counted = |(zone, nodes): (&String, &Vec<String>)| {
        let nodes = match nodes.len() {
            1 => "1 node".to_owned(),
            nodes => format!("{nodes} nodes"),
        };
        format!("{} ({nodes})", output::plain(zone))
    };
    let named = zones.iter().filter(|(zone, _)| !zone.is_empty());
    let named: Vec<String> = named.map(counted).collect();
    let without = zones.get("").map_or_else(String::new, |nodes| {
        let nodes: Vec<String> = nodes.iter().map(|node| output::plain(node)).collect();
        format!("; without one, though others have one: {}", nodes.join(", "))
    });
    format!("zones: {}{without}", named.join(", "))
}

/// What somebody has to do something about.
fn waits(waiting: &Waiting) -> String {
    let nodes: Vec<String> = waiting.nodes.iter().map(|node| output::plain(node)).collect();
    let awaited = match &nodes[..] {
        [] => String::new(),
        nodes => format!(" for {}", nodes.join(", ")),
    };
    let chunks = if waiting.chunks == 1 {
        "1 chunk waits".to_owned()
    } else {
        format!("{} chunks wait", waiting.chunks)
    };
    format!("{chunks}{awaited}: {}", output::plain(&waiting.why))
}

fn show_orphans(orphans: &[Orphan], all: bool, health: Health) {
    if health == Health::Unexplained {
        out!("\n{UNEXPLAINED}");
    }
    if orphans.is_empty() {
        return;
    }
    out!("\nKept where nobody expects it:");
    let shown = if all { orphans.len() } else { NAMED };
    for orphan in orphans.iter().take(shown) {
        out!(
            "  {} on {}: {}",
            orphan.chunk_id,
            output::plain(&orphan.node),
            output::plain(&orphan.why)
        );
    }
    if orphans.len() > shown {
        out!("  and {} more; --all names them", orphans.len() - shown);
    }
}

fn show_video(video: &VideoStanding, all: bool) {
    out!("\n{}  {}", video.video_id, output::plain(&video.title));
    let shown = if all { video.chunks.len() } else { NAMED };
    for chunk in video.chunks.iter().take(shown) {
        out!(
            "  {:<17} {:<16} {}",
            timecode(chunk),
            chunk.standing.replace('_', " "),
            chunk.chunk_id
        );
    }
    let named = video.chunks.len().min(shown) as u64;
    let more = (video.tally.chunks - video.tally.whole).saturating_sub(named);
    if more > 0 {
        out!("  and {more} more");
    }
}

/// When a chunk is shown: `0:01:10-0:01:20`.
fn timecode(chunk: &ChunkStanding) -> String {
    let (Some(start), Some(end)) = (chunk.start_sec, chunk.end_sec) else {
        return "all of it".to_owned();
    };
    format!("{}-{}", clock(start), clock(end))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hours of a film")]
fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_named_by_when_it_is_shown() {
        let chunk = |times: Option<(f64, f64)>| ChunkStanding {
            chunk_id: "c".parse().expect("an id"),
            standing: "lost".to_owned(),
            sequence_num: times.map(|_| 7),
            start_sec: times.map(|(start, _)| start),
            end_sec: times.map(|(_, end)| end),
        };
        assert_eq!(timecode(&chunk(Some((70.0, 79.96)))), "0:01:10-0:01:20");
        assert_eq!(timecode(&chunk(Some((3_599.4, 7_260.0)))), "0:59:59-2:01:00");
        assert_eq!(timecode(&chunk(None)), "all of it");
    }

    #[test]
    fn it_is_said_what_the_loss_of_a_zone_costs() {
        let counted = |there, crowded_chunks| {
            in_zones(ZonesCounted {
                there,
                copies: 3,
                crowded_chunks,
            })
        };
        assert_eq!(counted(3, 0), "3 zones for 3 copies");
        assert!(counted(2, 0).contains("the loss of one zone may take several copies"));
        assert!(counted(3, 1).contains("; 1 chunk has more copies or shards in one zone than necessary"));
        assert!(counted(3, 7).contains("; 7 chunks have more copies or shards in one zone than necessary"));
    }

    #[test]
    fn zones_are_named_with_their_nodes_and_who_has_none() {
        let zones = |all: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
            let owned = |labels: &[&str]| labels.iter().map(ToString::to_string).collect();
            all.iter()
                .map(|&(zone, labels)| (zone.to_owned(), owned(labels)))
                .collect()
        };
        assert_eq!(
            named_zones(&zones(&[("b", &["n3"]), ("a", &["n1", "n2"])])),
            "zones: a (2 nodes), b (1 node)"
        );
        assert_eq!(
            named_zones(&zones(&[("a", &["n1"]), ("", &["n2", "n3"])])),
            "zones: a (1 node); without one, though others have one: n2, n3"
        );
    }
}
