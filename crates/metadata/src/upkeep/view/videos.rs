//! Single videos in a census: which of their chunks are not whole, and when those are shown.

use std::collections::{BTreeSet, HashMap};

use vstack_api::{
    WallTime,
    census::{ChunkStanding, VideoCensus, VideoStanding},
};
use vstack_types::VideoId;
use vstack_upkeep::{census::Part, report, standing::Standing};

use super::super::counting::word;
use crate::{app::App, store::StoreError};

/// Chunks looked up in one transaction of the store.
const PAGE: u32 = 4_096;

/// Chunks of a video that follow each other, as the store has them: the init segment, then by number.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    /// The one before the first; none before the init segment.
    after: Option<Option<u32>>,
    length: u32,
}

fn runs(parts: impl Iterator<Item = Part>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut next = None;
    for part in parts.collect::<BTreeSet<_>>() {
        match runs.last_mut().filter(|run| next == Some(part) && run.length < PAGE) {
            Some(run) => run.length += 1,
            None => runs.push(Run {
                after: match part {
                    Part::Init => None,
                    Part::Chunk(sequence) => Some(sequence.checked_sub(1)),
                },
                length: 1,
            }),
        }
        next = match part {
            Part::Init => Some(Part::Chunk(0)),
            Part::Chunk(sequence) => sequence.checked_add(1).map(Part::Chunk),
        };
    }
    runs
}

/// A video by name, its chunks by when they are shown; none when it is gone since.
pub(super) async fn named(
    app: &App,
    id: VideoId,
    tally: &report::Tally,
    chunks: impl Iterator<Item = &(Standing, Part)>,
) -> Result<Option<VideoStanding>, StoreError> {
    let Some(video) = app.store.video(id).await? else {
        return Ok(None);
    };
    let mut wanted: HashMap<Part, Standing> = chunks.map(|(standing, part)| (*part, *standing)).collect();
    let mut chunks = Vec::new();
    for run in runs(wanted.keys().copied()) {
        // Only those that are wanted are read, of however many there are.
        for chunk in app.store.video_chunks(id, run.after, run.length).await? {
            let part = chunk.place.map_or(Part::Init, |place| Part::Chunk(place.sequence_num));
            let Some(standing) = wanted.remove(&part) else { continue };
            let told = ChunkStanding {
                chunk_id: chunk.id,
                standing: word(standing).to_owned(),
                sequence_num: chunk.place.map(|place| place.sequence_num),
                start_sec: chunk.place.map(|place| place.start_sec),
                end_sec: chunk.place.map(|place| place.start_sec + place.duration_sec),
            };
            chunks.push((standing, part, told));
        }
    }
    chunks.sort_by_key(|(standing, part, _)| (*standing, *part));
    Ok(Some(VideoStanding {
        video_id: id,
        title: video.title,
        tally: super::tally(tally),
        chunks: chunks.into_iter().map(|(_, _, told)| told).collect(),
    }))
}

/// One video in the last count, with at most `limit` of its chunks that are not whole, without the first `offset`; none
/// when it does not exist.
pub(crate) async fn of_video(
    app: &App,
    id: VideoId,
    offset: usize,
    limit: usize,
) -> Result<Option<VideoCensus>, StoreError> {
    let summary = app.upkeep.summary();
    let report = summary.report.videos.get(&id);
    let whole = summary.report.whole.get(&id);
    // One that was not seen yet has nothing counted.
    let tally = report.map_or_else(
        || report::Tally {
            whole: whole.copied().unwrap_or_default(),
            ..report::Tally::default()
        },
        |report| report.tally,
    );
    let not_whole = report.map_or(&[][..], |report| &report.named);
    let chunks = not_whole.iter().skip(offset).take(limit);
    let Some(video) = named(app, id, &tally, chunks).await? else {
        return Ok(None);
    };
    let complete = (report.is_some() || whole.is_some()) && summary.complete && super::is_current(app, &summary);
    let mut orphans = super::orphans(app, &app.known_nodes().await?);
    orphans.retain(|orphan| orphan.video_id == Some(id));
    let mut kept = app.upkeep.strays.kept().into_iter().map(|(_, kept)| kept);
    let explained = !kept.any(|kept| !kept.explained && kept.chunk.video() == Some(id));
    // What there was no room to name may be of this one.
    let all_is_named = app.upkeep.strays.with_more_unexplained().is_empty();
    let is_known = complete && all_is_named;
    Ok(Some(VideoCensus {
        health: super::health(&tally, summary.attendance.complete, is_known, explained),
        complete,
        at: WallTime(summary.at.unwrap_or(app.now())),
        video,
        orphans,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_looked_up() {
        let of = |parts: &[Part]| runs(parts.iter().copied());
        let run = |after, length| Run { after, length };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[Part::Chunk(0), Part::Init, Part::Chunk(1)]), [run(None, 3)]);
        assert_eq!(
            of(&[Part::Chunk(9), Part::Chunk(0), Part::Chunk(8)]),
            [run(Some(None), 1), run(Some(Some(7)), 2)]
        );
        assert_eq!(runs((5..5 + 2 * PAGE).map(Part::Chunk)).len(), 2);
    }
}
