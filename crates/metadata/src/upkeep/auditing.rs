//! Audits: whether all shards of a chunk give it, whichever of them are taken.
//!
//! Nodes compare what they have with the digests that are listed, and so does whoever reads. What nobody compares with the
//! chunk again is what is listed: a machine with bad memory may have made it. One chunk at a time is looked at, when there
//! is nothing else to do, or once it is overdue: there may always be something else. Nodes make it of its shards alone,
//! until each of them was used; only where that fails all that can be had are read here, and it is found out which are none
//! of it. Those are noted in the census, and are harm like any other from then on: made anew, or named as lost where too few
//! are left. Where there are too many sets to try them all, a chunk may be in doubt: nobody calls it whole until an audit,
//! of other sets, finds out. What cannot be had is no finding: while a node is missing, what the others have is proven, and
//! no more.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::sleep;
use vstack_chunkpaxos::{Layout, Placement, Shard};
use vstack_client::ShardAt;
use vstack_erasure::{ReedSolomon, Shape};
use vstack_service::aside;
use vstack_types::{ChunkId, Digest, VideoId};
use vstack_upkeep::{
    audit::{self, Pace, Round},
    census::{Part, Row},
};

use super::{
    diagnosis::{Diagnosis, diagnose},
    mender::Mender,
    mending::is_idle,
    shards::{Unproven, drawn},
};
use crate::{app::App, registry, store::StoreError};

/// Between looks for something to audit, while there is nothing, or something else to do.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What could not be found out is tried again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// A chunk to be audited.
struct Due {
    video: VideoId,
    part: Part,
    id: ChunkId,
    /// Of its placement.
    version: u32,
    /// How many it has.
    shards: u8,
    /// From now to the next.
    pause: Duration,
}

/// Works until the service stops.
pub(super) async fn run(app: &App) {
    let every = app.settings.audit_every();
    if every.is_zero() {
        tracing::info!("AUDIT_EVERY=0: whether shards give their chunks is not looked at");
        return;
    }
    let mut round = begun(app).await;
    let mut pace = Pace::new(every, app.clock.monotonic());
    loop {
        let wait = tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            wait = next(app, &mut round, &mut pace) => wait.unwrap_or_else(|wait| wait.min(LOOK_EVERY.min(every))),
        };
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

/// A round that begins with what was harmed when this service stopped last: what was called wrong then is looked at once
/// more, in case that it is not.
async fn begun(app: &App) -> Round {
    let mut round = Round::default();
    match app.store.harms().await {
        Ok(book) => {
            let harmed = book.open.iter().map(|harm| (harm.video, harm.part));
            let wrong = book.wrong.iter().map(|wrong| (wrong.video, wrong.part));
            let chunks: BTreeSet<(VideoId, Part)> = harmed.chain(wrong).collect();
            for (video, part) in chunks {
                round.again(video, part, app.clock.monotonic());
            }
        }
        Err(error) => tracing::warn!(%error, "what was found harmed before is audited when its turn comes"),
    }
    round
}

/// Audits the next chunk, if its time has come; gives how long to wait for the one after, or else for its time.
async fn next(app: &App, round: &mut Round, pace: &mut Pace) -> Result<Duration, Duration> {
    let due = due(app, round, pace)?;
    let began = app.clock.monotonic();
    let found = look(app, &due).await.unwrap_or_else(|error| {
        tracing::warn!(chunk = %due.id, %error, "a chunk could not be audited; it is tried again");
        Diagnosis::Unknown
    });
    conclude(app, round, &due, &found);
    Ok(due.pause.saturating_sub(app.clock.monotonic().since(began)))
}

/// The next chunk; if there is none now, how long to wait at most.
fn due(app: &App, round: &mut Round, pace: &mut Pace) -> Result<Due, Duration> {
    let summary = app.upkeep.summary();
    // Everything is learned, and who is there is known.
    let is_counted = summary.at.is_some() && app.upkeep.everybody_was_heard();
    if !is_counted {
        return Err(LOOK_EVERY);
    }
    let kept = &summary.report.kept;
    let (chunks, now) = (audit::chunks(kept), app.clock.monotonic());
    let wait = pace.wait(is_idle(app), chunks, now);
    if !wait.is_zero() {
        return Err(wait);
    }
    let state = app.upkeep.state();
    let (video, row) = round.next(&state.census, kept, now, drawn).ok_or(LOOK_EVERY)?;
    Ok(Due {
        video,
        part: row.part,
        id: state.census.id(video, row.part),
        version: row.version,
        shards: u8::try_from(row.of_layout().count()).unwrap_or(u8::MAX),
        pause: pace.looked_at(chunks, audit::bytes_read(row), now),
    })
}

async fn look(app: &App, due: &Due) -> Result<Diagnosis, StoreError> {
    let nodes = app.known_nodes().await?;
    let known = app.store.chunk(due.id.clone()).await?;
    let is_as_counted = |chunk: &Placement| chunk.version == u64::from(due.version);
    let Some((video, chunk)) = known.filter(|(_, chunk)| is_as_counted(&chunk.placement)) else {
        return Ok(Diagnosis::Unknown);
    };
    let mender = Mender {
        app,
        video,
        chunk,
        urls: registry::node_urls(&nodes),
        nodes,
        besides: Vec::new(),
    };
    Ok(mender.audit().await)
}

/// Notes what was found, and has it mended.
fn conclude(app: &App, round: &mut Round, due: &Due, found: &Diagnosis) {
    app.upkeep.metrics.audited(found.word());
    let key = (due.video, due.part);
    let mut state = app.upkeep.state();
    let is_news = match found {
        Diagnosis::Wrong(wrong) => state.note_wrong(key, due.version, wrong),
        Diagnosis::Lost => state.note_wrong(key, due.version, &(0..due.shards).collect::<Vec<u8>>()),
        Diagnosis::Doubtful => state.note_doubt(key, due.version),
        Diagnosis::Sound => state.note_wrong(key, due.version, &[]),
        // Nothing is found of what could not be had.
        Diagnosis::Partly | Diagnosis::Unknown => false,
    };
    let is_open = is_open(found, state.census.row(due.video, due.part), due.version);
    drop(state);
    if is_open {
        round.again(due.video, due.part, app.clock.monotonic() + AGAIN_AFTER);
    }
    if !is_news {
        return;
    }
    let chunk = &due.id;
    match found {
        Diagnosis::Wrong(shards) => tracing::error!(%chunk, ?shards, "these of its shards are none of the chunk"),
        Diagnosis::Lost => tracing::error!(%chunk, "no set of its shards gives the chunk: it is lost"),
        Diagnosis::Doubtful => {
            tracing::error!(%chunk, "of very many sets of its shards none that was tried gives the chunk")
        }
        Diagnosis::Sound | Diagnosis::Partly | Diagnosis::Unknown => {
            tracing::info!(%chunk, "its shards give the chunk after all")
        }
    }
    app.upkeep.count_now.notify_one();
}

/// Whether a chunk is to be looked at again before the round comes by, by what was `found` of this version of it, and as it
/// stands by now.
fn is_open(found: &Diagnosis, row: Option<&Row>, version: u32) -> bool {
    match found {
        Diagnosis::Sound => false,
        // A node may be missing for longer than a round takes, and each chunk would be looked at twice meanwhile: whatever
        // it has is looked at when the round comes by. But what is harmed, or in doubt, is to be known soon.
        Diagnosis::Partly => row.is_some_and(|row| row.doubtful || !row.wrong().is_empty()),
        // It was moved meanwhile, and what was found may be so where it is now.
        Diagnosis::Wrong(_) | Diagnosis::Lost => row.is_none_or(|row| row.version != version || row.joint),
        // It may be had then, or other sets may say more.
        Diagnosis::Doubtful | Diagnosis::Unknown => true,
    }
}

impl Mender<'_> {
    /// Whether all shards of the chunk give it.
    async fn audit(&self) -> Diagnosis {
        let Placement {
            size, sha256, layout, ..
        } = &self.chunk.placement;
        let Layout::Coded { data, parity, shards } = layout else {
            return Diagnosis::Unknown;
        };
        let attendance = self.app.upkeep.attendance();
        let up = shards.iter().filter(|shard| attendance.up.contains(&shard.node));
        let up: Vec<Shard> = up.copied().collect();
        let needed = usize::from(*data);
        let (Ok(shape), true) = (Shape::new(*data, *parity), up.len() >= needed) else {
            return Diagnosis::Unknown;
        };
        match self.prove(*data, *parity, &up).await {
            Ok(()) if up.len() == shards.len() => return Diagnosis::Sound,
            Ok(()) => return Diagnosis::Partly,
            Err(Unproven { failed, .. }) => {
                tracing::debug!(chunk = %self.chunk.id, why = failed.why, "its shards did not give the chunk");
                // A node that could not be asked says nothing of shards.
                if !failed.of_this_alone {
                    return Diagnosis::Unknown;
                }
            }
        }
        let listed: Vec<Digest> = shards.iter().map(|shard| shard.sha256).collect();
        let of_chunk = (usize::try_from(*size).unwrap_or(usize::MAX), *sha256);
        let draw = drawn();
        let again = async || {
            let at_hand: Vec<ShardAt> = up.iter().filter_map(|shard| self.located(shard)).collect();
            let mut have = self.had(at_hand, shards.len()).await;
            // The same sets are tried, in whichever order they came.
            have.sort_unstable_by_key(|(index, _)| *index);
            let listed = listed.clone();
            let found = aside(move || diagnose(&ReedSolomon::new(shape), of_chunk, &listed, &have, draw)).await;
            found.unwrap_or(Diagnosis::Unknown)
        };
        // Of bytes that were got and calculated with twice: a bit that turned in memory does not make a shard wrong.
        let found = again().await;
        if matches!(found, Diagnosis::Wrong(_) | Diagnosis::Lost) && again().await != found {
            return Diagnosis::Unknown;
        }
        if matches!(found, Diagnosis::Wrong(_)) && vstack_types::planted!("a wrong shard is reported as sound") {
            return Diagnosis::Sound;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use vstack_upkeep::census::Census;

    use super::*;
    use crate::upkeep::fixtures::{VIDEO, counted, node, placed};

    const PART: Part = Part::Chunk(0);

    /// One chunk, a shard on each of five nodes, of which all told.
    fn film() -> Census {
        let shard = |index: u8| Shard {
            index,
            node: node(index + 1),
            sha256: Digest::of(&[index]),
        };
        let layout = Layout::Coded {
            data: 3,
            parity: 2,
            shards: (0..5).map(shard).collect(),
        };
        let there: &[u8] = &[1, 2, 3, 4, 5];
        counted(&[(placed(Digest::of(b"chunk"), layout), there)], 5)
    }

    /// A node may be missing for weeks.
    #[test]
    fn what_is_proven_of_the_nodes_that_are_there_waits_for_the_next_round() {
        let is_open = |found: &Diagnosis, census: &Census| super::is_open(found, census.row(VIDEO, PART), 1);
        let census = film();
        assert!(!is_open(&Diagnosis::Partly, &census));
        assert!(!is_open(&Diagnosis::Sound, &census));
        assert!(is_open(&Diagnosis::Unknown, &census));
        assert!(is_open(&Diagnosis::Doubtful, &census));
        let found = Diagnosis::Wrong(vec![1]);
        assert!(!is_open(&found, &census) && super::is_open(&found, census.row(VIDEO, PART), 2));
        // Unless something is the matter with it.
        let (mut doubtful, mut harmed) = (film(), film());
        assert!(doubtful.note_doubt(VIDEO, PART, 1));
        assert!(harmed.note_wrong(VIDEO, PART, 1, &[4]));
        for census in [doubtful, harmed] {
            assert!(is_open(&Diagnosis::Partly, &census));
            assert!(!is_open(&Diagnosis::Sound, &census));
        }
    }
}
