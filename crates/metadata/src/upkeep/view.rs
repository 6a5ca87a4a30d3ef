//! The last count and the repairs as `GET /census` and `GET /repairs` tell them.

mod videos;

use std::collections::{BTreeMap, BTreeSet};

use vstack_api::{
    WallTime,
    census::{Census, HarmedCopies, Health, NodeCounted, Orphan, Repair, Repairs, Tally, Waiting, ZonesCounted},
};
use vstack_types::{NodeRef, VideoId};
use vstack_upkeep::{
    plan::Stuck,
    report::{self, VideoReport},
};

pub(crate) use self::videos::of_video;
use super::{Summary, Upkeep, counting::word, mending::Mended};
use crate::{
    app::App,
    events::Repairing,
    registry::ByDisk,
    store::{Node, StoreError},
};

/// Videos that are told of by name.
const VIDEOS_MAX: usize = 100;
/// Chunks of all of them that are: when very many are not whole, nobody reads them all.
const CHUNKS_MAX: usize = 2_000;
/// Reasons to wait that are told.
const WAITS_MAX: usize = 20;
const fn tally(tally: &report::Tally) -> Tally {
    Tally {
        chunks: tally.chunks(),
        whole: tally.whole,
        uncounted: tally.uncounted,
        under_replicated: tally.under,
        endangered: tally.endangered,
        out_of_reach: tally.out_of_reach,
        lost: tally.lost,
    }
}

/// Whether what was counted last still says how things are.
fn is_current(app: &App, summary: &Summary) -> bool {
    summary.attendance == app.upkeep.attendance() && app.clock.monotonic() <= summary.valid_until
}

/// The worst of what is known, and never `healthy` while something is not.
const fn health(tally: &report::Tally, heard: bool, complete: bool, explained: bool) -> Health {
    if !heard {
        // Who was not heard since the start may only be late.
        Health::Counting
    } else if tally.lost > 0 {
        Health::Lost
    } else if tally.out_of_reach > 0 {
        Health::OutOfReach
    } else if tally.endangered > 0 {
        Health::Endangered
    } else if tally.under > 0 {
        Health::UnderReplicated
    } else if !explained {
        Health::Unexplained
    } else if complete {
        Health::Healthy
    } else {
        Health::Counting
    }
}

/// How everything that is stored stands by a count, `complete` or not, in one word.
fn standing_of(app: &App, summary: &Summary, complete: bool) -> Health {
    let explained = !app.upkeep.strays.any_unexplained();
    health(&summary.report.tally, summary.attendance.complete, complete, explained)
}

/// The same by the last count, for who asks for nothing else.
pub(crate) fn stored_health(app: &App) -> Health {
    let summary = app.upkeep.summary();
    standing_of(app, &summary, summary.complete && is_current(app, &summary))
}

/// The census as it was last made; of the videos that are not whole, without the first `offset`, the worst first.
pub(crate) async fn census(app: &App, offset: usize) -> Result<Census, StoreError> {
    let summary = app.upkeep.summary();
    let registered = app.known_nodes().await?;
    let mut not_whole: Vec<(VideoId, &VideoReport)> = summary
        .report
        .videos
        .iter()
        .map(|(video, report)| (*video, report))
        .collect();
    let complete = summary.complete && is_current(app, &summary);
    let worst = |report: &VideoReport| report.named.first().map(|(standing, _)| *standing);
    not_whole.sort_by_key(|(video, report)| (worst(report), *video));
    let mut videos = Vec::new();
    let mut room = CHUNKS_MAX;
    for (video, report) in not_whole.iter().skip(offset).take(VIDEOS_MAX) {
        if room == 0 {
            break;
        }
        let worst = report.named.iter().take(room);
        let named = videos::named(app, *video, &report.tally, worst).await?;
        room -= named.as_ref().map_or(0, |video| video.chunks.len());
        videos.extend(named);
    }
    Ok(Census {
        health: standing_of(app, &summary, complete),
        complete,
        at: WallTime(summary.at.unwrap_or(app.now())),
        tally: tally(&summary.report.tally),
        videos,
        videos_not_whole: not_whole.len() as u64,
        nodes: nodes(app, &summary, &registered),
        orphans: orphans(app, &registered),
        waits: waits(&summary, &registered),
        zones: summary.zones.map(|zones| ZonesCounted {
            there: zones.there as u64,
            copies: app.settings.replication_factor as u64,
            crowded_chunks: zones.crowded,
        }),
        processor_percent: app.upkeep.processor_percent(),
    })
}

/// The label of a node that is registered, or its disk and incarnation.
fn label(by_disk: &ByDisk<'_>, node: NodeRef) -> String {
    let known = by_disk.get(node.uuid).filter(|known| known.acceptor == Some(node));
    match known {
        Some(known) => known.label.clone(),
        // As it is named in commands.
        None if node == NodeRef::first(node.uuid) => node.uuid.to_string(),
        None => node.to_string(),
    }
}

/// What somebody has to do something about, the most chunks first.
fn waits(summary: &Summary, registered: &[Node]) -> Vec<Waiting> {
    let by_disk = ByDisk::new(registered);
    let told = |(stuck, chunks): (&Stuck, &u64)| {
        let (mut nodes, why): (Vec<String>, &str) = match stuck {
            Stuck::Awaits(nodes) => (
                nodes.iter().map(|node| label(&by_disk, *node)).collect(),
                "too few of the nodes that decide about them are there: bring one of these back, or, if their disks are \
                 gone for good, say so with `vstack remove`",
            ),
            Stuck::NowhereToGo => (
                Vec::new(),
                "there is no other node that could take a copy: add one, or make room (disks that are nearly full are \
                 given nothing)",
            ),
        };
        nodes.sort();
        Waiting {
            chunks: *chunks,
            nodes,
            why: why.to_owned(),
        }
    };
    let mut waits: Vec<Waiting> = summary.stuck.iter().map(told).collect();
    waits.sort_by_key(|waiting| std::cmp::Reverse(waiting.chunks));
    waits.truncate(WAITS_MAX);
    waits
}

fn orphans(app: &App, registered: &[Node]) -> Vec<Orphan> {
    let by_disk = ByDisk::new(registered);
    let kept = app.upkeep.strays.kept().into_iter();
    let orphans = kept.map(|(node, kept)| Orphan {
        video_id: kept.chunk.video(),
        chunk_id: kept.chunk,
        node: label(&by_disk, node),
        why: kept.why,
        explained: kept.explained,
    });
    orphans.collect()
}

fn nodes(app: &App, summary: &Summary, registered: &[Node]) -> Vec<NodeCounted> {
    let by_disk = ByDisk::new(registered);
    let placed = summary.placed.as_ref();
    let named = placed.into_iter().flat_map(BTreeMap::keys).copied();
    let registered = registered.iter().filter_map(|node| node.acceptor);
    let all: BTreeSet<NodeRef> = summary.nodes.keys().copied().chain(registered).chain(named).collect();
    let more_unexplained = app.upkeep.strays.with_more_unexplained();
    let told = |node: NodeRef| {
        let counted = summary.nodes.get(&node).cloned().unwrap_or_default();
        let placed = placed.map(|placed| placed.get(&node).copied().unwrap_or_default());
        NodeCounted {
            node: label(&by_disk, node),
            counted_at: counted.at.map(WallTime),
            items: counted.items,
            placed: placed.map(|placed| placed.items),
            placed_bytes: placed.unwrap_or_default().bytes,
            orphans: counted.orphans,
            more_unexplained: more_unexplained.contains(&node),
            trouble: counted.trouble,
            stays_because: app.upkeep.stays_because(node),
        }
    };
    let mut nodes: Vec<NodeCounted> = all.into_iter().map(told).collect();
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    nodes
}

/// What is being mended, and was.
pub(crate) async fn repairs(app: &App) -> Result<Repairs, StoreError> {
    let registered = app.known_nodes().await?;
    let by_disk = ByDisk::new(&registered);
    let progress = app.upkeep.mending.progress();
    let summary = app.upkeep.summary();
    let harmed = summary.harmed;
    let now = app.now();
    let repair = |mended: Mended| Repair {
        chunk_id: mended.chunk,
        video_id: mended.video,
        what: mended.what.to_owned(),
        why: word(mended.why).to_owned(),
        reason: match mended.what {
            "even_out" => "so that nodes hold their share".to_owned(),
            _ => mended.reason.text(|node| label(&by_disk, node)),
        },
        to: mended.to.iter().map(|node| label(&by_disk, *node)).collect(),
        began: WallTime(mended.began),
        took_sec: mended.took.map(|took| took.as_secs_f64()),
        elapsed_sec: mended.took.is_none().then(|| now.since(mended.began).as_secs_f64()),
        bytes: mended.bytes,
        failed: mended.failed,
    };
    Ok(Repairs {
        enabled: app.settings.repairs,
        waiting: app.upkeep.plan().len() as u64,
        running: progress.running.into_iter().map(repair).collect(),
        recent: progress.recent.into_iter().map(repair).collect(),
        done: progress.done,
        done_bytes: progress.done_bytes,
        failures: progress.failures,
        rate_bytes_per_second: app.settings.repair_rate,
        uneven: summary.uneven as u64,
        harmed: HarmedCopies {
            found: harmed.totals.found,
            repaired: harmed.totals.repaired,
            ended: harmed.totals.ended,
            open: harmed.open,
            beyond_repair: harmed.beyond_repair,
        },
        hurried: app.upkeep.is_hurried(),
    })
}

impl Upkeep {
    /// What [`repairs`] tells, in sums.
    pub(crate) fn repairing(&self) -> Repairing {
        let progress = self.mending.progress();
        Repairing {
            waiting: self.plan().len() as u64,
            running: progress.running.len() as u64,
            done: progress.done,
            done_bytes: progress.done_bytes,
            failures: progress.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unknown_is_called_healthy() {
        let of = |set: fn(&mut report::Tally), heard, complete| {
            let mut tally = report::Tally {
                whole: 5,
                ..report::Tally::default()
            };
            set(&mut tally);
            let unexplained = health(&tally, heard, complete, false);
            let explained = health(&tally, heard, complete, true);
            let is_well = matches!(explained, Health::Healthy | Health::Counting) && heard;
            assert_eq!(unexplained, if is_well { Health::Unexplained } else { explained });
            explained
        };
        assert_eq!(of(|_| {}, true, true), Health::Healthy);
        assert_eq!(of(|_| {}, true, false), Health::Counting);
        assert_eq!(of(|_| {}, false, true), Health::Counting);
        // The worst of what is known, however complete.
        for complete in [false, true] {
            assert_eq!(of(|it| it.under = 1, true, complete), Health::UnderReplicated);
            assert_eq!(
                of(|it| (it.under, it.endangered) = (1, 1), true, complete),
                Health::Endangered
            );
            assert_eq!(
                of(|it| (it.endangered, it.out_of_reach) = (1, 1), true, complete),
                Health::OutOfReach
            );
            assert_eq!(
                of(|it| (it.out_of_reach, it.lost) = (1, 1), true, complete),
                Health::Lost
            );
            assert_eq!(
                of(|it| it.lost = 1, false, complete),
                Health::Counting,
                "who is there is not known"
            );
        }
    }
}
