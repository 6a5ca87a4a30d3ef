//! How many nodes videos may lose: by what was counted, and before that by where decisions place their chunks. Pure.

use vstack_api::metadata::LibrarySurvival;
use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{NodeRef, VideoId};
use vstack_upkeep::{
    report::Report,
    standing::{self, Form, Reach, Seen},
};

/// What is known of one video.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Survival {
    /// Nodes that may be lost, whichever they are, with every chunk still readable; none when one cannot be read now, and
    /// where that is not known.
    pub failures_survived: Option<u32>,
    /// All of it was counted.
    pub counted: bool,
}

/// By the last count, of a video that has so many chunks, its init segment too. Of a part of them nothing is said: the
/// others may survive less.
pub fn of_video(report: &Report, video: VideoId, chunks: u64) -> Survival {
    let Some(kept) = report.kept.get(&video) else {
        return Survival::default();
    };
    let is_all = chunks > 0 && kept.copies.chunks + kept.shards.chunks >= chunks;
    let not_whole = report.videos.get(&video);
    if !is_all || not_whole.is_some_and(|not_whole| not_whole.tally.uncounted > 0) {
        return Survival::default();
    }
    Survival {
        failures_survived: kept.survives,
        counted: true,
    }
}

/// By where decisions place its chunks, at nodes that are up, of a video that was not counted yet.
pub fn placed<'a>(placements: impl IntoIterator<Item = &'a Placement>, is_up: impl Fn(NodeRef) -> bool) -> Option<u32> {
    let of_chunk = |placement: &Placement| {
        let there = of_layout(&placement.layout, &is_up);
        // As a census has it: while a chunk is moved either half may be read.
        let prev = placement.prev.as_ref();
        prev.map_or(there, |prev| there.max(of_layout(prev, &is_up)))
    };
    placements.into_iter().map(of_chunk).min().flatten()
}

fn of_layout(layout: &Layout, is_up: impl Fn(NodeRef) -> bool) -> Option<u32> {
    let members = layout.nodes();
    let item = |node: NodeRef| standing::Copy {
        node: (0..)
            .zip(&members)
            .find_map(|(number, member)| (*member == node).then_some(number))
            .unwrap_or_default(),
        reach: if is_up(node) { Reach::Up } else { Reach::Silent },
        seen: Seen::Whole,
    };
    let items: Vec<standing::Copy> = match layout {
        Layout::Replicated { nodes } => nodes.iter().copied().map(item).collect(),
        Layout::Coded { shards, .. } => shards.iter().map(|shard| item(shard.node)).collect(),
        Layout::Deleted { .. } => Vec::new(),
    };
    standing::survives(Form::of(layout), &items)
}

/// What so many active videos survive, by the last count, which may know these of them.
pub fn of_library(report: &Report, known: impl IntoIterator<Item = VideoId>, active: u64) -> LibrarySurvival {
    let mut library = LibrarySurvival::default();
    let mut counted = 0;
    for video in known {
        let survival = of_video(report, video, 1);
        if !survival.counted {
            continue;
        }
        counted += 1;
        match (survival.failures_survived, library.failures_survived) {
            (None, _) => library.unreadable_videos += 1,
            (Some(nodes), Some(fewest)) if nodes > fewest => {}
            (Some(nodes), Some(fewest)) if nodes == fewest => library.videos += 1,
            (Some(nodes), _) => {
                library.failures_survived = Some(nodes);
                library.videos = 1;
            }
        }
    }
    library.uncounted_videos = active.saturating_sub(counted);
    library
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Shard;
    use vstack_types::{Digest, NodeUuid};
    use vstack_upkeep::report::{InForm, Kept, Tally, VideoReport};

    use super::*;

    fn video(n: u8) -> VideoId {
        VideoId::from_bytes([n; 16])
    }

    /// Of each video its chunks, how many of those were not counted, and what it survives.
    fn report(videos: &[(u8, u64, u64, Option<u32>)]) -> Report {
        let mut report = Report::default();
        for (n, chunks, uncounted, survives) in videos {
            let copies = InForm {
                chunks: *chunks,
                ..InForm::default()
            };
            let kept = Kept {
                copies,
                survives: *survives,
                ..Kept::default()
            };
            report.kept.insert(video(*n), kept);
            if *uncounted > 0 {
                let tally = Tally {
                    whole: chunks - uncounted,
                    uncounted: *uncounted,
                    ..Tally::default()
                };
                let not_whole = VideoReport {
                    tally,
                    ..VideoReport::default()
                };
                report.videos.insert(video(*n), not_whole);
            }
        }
        report
    }

    #[test]
    fn what_was_not_counted_is_not_said_to_survive_anything() {
        let report = report(&[(1, 5, 0, Some(2)), (2, 5, 1, Some(1)), (3, 5, 0, None)]);
        let counted = |failures_survived| Survival {
            failures_survived,
            counted: true,
        };
        assert_eq!(of_video(&report, video(1), 5), counted(Some(2)));
        assert_eq!(of_video(&report, video(3), 5), counted(None), "it cannot be read now");
        // More chunks were learned since, some were not counted, none is known, and there is none.
        for (n, chunks) in [(1, 6), (2, 5), (4, 5), (1, 0)] {
            assert_eq!(
                of_video(&report, video(n), chunks),
                Survival::default(),
                "{n}, {chunks}"
            );
        }
    }

    #[test]
    fn a_library_survives_what_the_weakest_of_its_videos_does() {
        let all = [
            (1, 5, 0, Some(2)),
            (2, 5, 0, Some(1)),
            (3, 5, 0, Some(1)),
            (4, 5, 2, Some(0)),
            (5, 5, 0, None),
        ];
        let report = report(&all);
        let of = |known: &[u8], active| of_library(&report, known.iter().copied().map(video), active);
        let expected = LibrarySurvival {
            failures_survived: Some(1),
            videos: 2,
            unreadable_videos: 1,
            uncounted_videos: 2,
        };
        // One more came since.
        assert_eq!(of(&[1, 2, 3, 4, 5], 6), expected);
        assert_eq!(of(&[5, 4, 3, 2, 1], 6), expected);
        let one = of(&[1], 1);
        assert_eq!(
            (one.failures_survived, one.videos, one.uncounted_videos),
            (Some(2), 1, 0)
        );
        assert_eq!(of(&[], 0), LibrarySurvival::default());
    }

    #[test]
    fn before_it_is_counted_it_is_by_where_it_is_placed_at_nodes_that_are_up() {
        let node = |n: u8| NodeRef::first(NodeUuid::from_bytes([n; 16]));
        let copies = |nodes: &[u8]| Layout::Replicated {
            nodes: nodes.iter().copied().map(node).collect(),
        };
        let shards = |nodes: &[u8]| Layout::Coded {
            data: 3,
            parity: 2,
            shards: (0..)
                .zip(nodes)
                .map(|(index, n)| Shard {
                    index,
                    node: node(*n),
                    sha256: Digest::of(&[index]),
                })
                .collect(),
        };
        let placement = |layout: Layout, prev: Option<Layout>| Placement {
            version: 1,
            size: 9,
            sha256: Digest::of(b"chunk"),
            layout,
            prev,
            back: false,
        };
        let of = |placements: &[Placement], down: &[u8]| {
            let is_up = |up: NodeRef| !down.iter().any(|n| node(*n) == up);
            placed(placements, is_up)
        };
        let three = placement(copies(&[1, 2, 3]), None);
        let five = placement(shards(&[1, 2, 3, 4, 5]), None);
        // Two nodes have two shards each.
        let doubled = placement(shards(&[1, 1, 2, 2, 3]), None);
        for (all, down, expected) in [
            (vec![three.clone()], &[][..], Some(2)),
            (vec![three.clone()], &[1], Some(1)),
            (vec![three.clone()], &[1, 2, 3], None),
            (vec![five.clone()], &[], Some(2)),
            (vec![five.clone()], &[4, 5], Some(0)),
            (vec![five.clone()], &[1, 2, 3], None),
            (vec![doubled.clone()], &[], Some(1)),
            // As the worst of them.
            (vec![three.clone(), doubled, five], &[], Some(1)),
            (vec![three.clone(), placement(copies(&[9]), None)], &[9], None),
            // While it becomes copies its shards can be read still.
            (
                vec![placement(copies(&[8, 9]), Some(shards(&[1, 2, 3, 4, 5])))],
                &[9],
                Some(2),
            ),
            (Vec::new(), &[], None),
        ] {
            assert_eq!(of(&all, down), expected, "{all:?} without {down:?}");
        }
    }
}
