//! Takes the chunks of failed and deleted videos off the nodes.
//!
//! A pass over a video asks every trusted node for its registers of that video, so that chunks nobody told about are
//! found too, and proposes the deletion of each that is left: of a placement once it is decided, or of the chance
//! that one ever will be. Passes repeat, with backoff, until one finds nothing on any node, and one after the longest
//! request could have ended finds nothing again. All state is in the store, so a restart goes on where the last pass
//! ended. What cannot be deleted now never holds up the rest, of its video or of others.

mod burial;
mod deletion;
mod survey;

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    stream::{self, FuturesUnordered},
};
use tokio::time::Instant;
use vstack_client::NodeUrls;
use vstack_types::{ChunkId, NodeRef, Timestamp, VideoId};

pub(crate) use self::{deletion::delete, survey::Left};
use self::{
    deletion::discard_staged,
    survey::{Survey, survey},
};
use crate::{
    app::{App, Shared},
    attention::Attention,
    given_up::GivenUp,
    registry,
    store::{Node, Reap, ReapJob, StoreError},
};

/// When the reaper looks, tries again and gives up.
#[derive(Debug, Clone, Copy)]
pub struct ReaperPace {
    /// Between looks for work; news of a failure or deletion wakes it at once.
    pub look_every: Duration,
    /// Between a pass that dealt with everything it found and the one that confirms it: longer than the longest
    /// request, so that what was on its way to a node then has arrived.
    pub confirm_after: Duration,
    /// Wait after the first pass that left something; doubles with each.
    pub retry_first: Duration,
    /// Longest wait.
    pub retry_max: Duration,
    /// Time for one chunk.
    pub chunk_deadline: Duration,
    /// A node that has been silent for so long is no longer waited for; what it still has should it return stays
    /// there.
    pub give_up_nodes_after: Duration,
    /// Between looks at who is silent.
    pub listen_every: Duration,
    /// Between counts of everything that is stored, at least.
    pub count_every: Duration,
    /// Time for one decision about a chunk that is mended.
    pub decided_within: Duration,
    /// Between looks at how videos are to be kept.
    pub policy_every: Duration,
    /// What is missing of a chunk that was learned later than so long ago may only be late.
    pub settled_after: Duration,
}

impl Default for ReaperPace {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(2),
            confirm_after: Duration::from_secs(75),
            retry_first: Duration::from_secs(2),
            retry_max: Duration::from_secs(120),
            chunk_deadline: Duration::from_secs(15),
            give_up_nodes_after: Duration::from_secs(24 * 3_600),
            listen_every: Duration::from_secs(1),
            count_every: Duration::from_secs(5),
            decided_within: Duration::from_secs(20),
            policy_every: Duration::from_secs(5),
            settled_after: Duration::from_secs(30),
        }
    }
}

/// Videos worked on at once; playback and uploads come first.
pub const VIDEOS_AT_ONCE: usize = 4;
/// Chunks of one video that are ended at once. Bytes of as many are discarded at once at each node.
pub const CHUNKS_AT_ONCE: usize = 8;
/// What was promised to be kept for a while is not given up before the clock went evenly for so long.
const CLOCK_SETTLES: Duration = Duration::from_secs(300);
const JOBS_PER_LOOK: u32 = 16;
/// Time for the deletions of one pass; half of it for the nodes to list what they have.
const PASS_BUDGET: Duration = Duration::from_secs(60);
const PAGE: usize = 1_000;
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Works until the service stops.
pub(crate) async fn run(app: Shared) {
    let mut passes = FuturesUnordered::new();
    let mut busy = BTreeSet::new();
    let mut waiting = VecDeque::new();
    let mut next_look = Instant::now();
    let mut attention = Attention::begin(app.now(), app.clock.monotonic());
    loop {
        if next_look <= Instant::now() {
            next_look = Instant::now() + app.pace.look_every;
            // A clock that was just set may say anything.
            let settled = app.settings.trash_time().min(CLOCK_SETTLES);
            if attention.look(app.now(), app.clock.monotonic()) >= settled
                && let Err(error) = app.store.empty_trash(app.now(), None).await
            {
                tracing::warn!(%error, "the trash could not be emptied; it is tried again");
            }
            match app.store.due_reaps(app.now(), JOBS_PER_LOOK).await {
                Ok(jobs) => waiting = jobs.into(),
                Err(error) => tracing::warn!(%error, "the reaper could not look for work; it tries again"),
            }
        }
        waiting.retain(|job: &ReapJob| !busy.contains(&job.video));
        while busy.len() < VIDEOS_AT_ONCE
            && let Some(job) = waiting.pop_front()
        {
            busy.insert(job.video);
            passes.push(pass(&app, job));
        }
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            Some(video) = passes.next() => {
                busy.remove(&video);
            }
            () = app.reap_now.notified() => next_look = Instant::now(),
            () = tokio::time::sleep_until(next_look) => {}
        }
    }
}

/// Who is there to be asked, and who never will be again.
pub(crate) struct Asked {
    pub(crate) nodes: Vec<Node>,
    pub(crate) urls: NodeUrls,
    pub(crate) given_up: GivenUp,
    /// Whoever may know more of a chunk that lost its nodes can be asked.
    pub(crate) all_are_up: bool,
}

impl Asked {
    /// As the store has it now.
    pub(crate) async fn as_of_now(app: &App) -> Result<Self, StoreError> {
        let nodes = app.known_nodes().await?;
        let given_up = GivenUp::as_of_now(app, &nodes).await?;
        Ok(Self {
            urls: registry::node_urls(&nodes),
            all_are_up: given_up.all_others_are_up(&nodes),
            given_up,
            nodes,
        })
    }
}

async fn pass(app: &App, job: ReapJob) -> VideoId {
    if let Err(error) = reap(app, job).await {
        tracing::warn!(video = %job.video, %error, "a pass over a video's chunks ended early; it is tried again");
    }
    job.video
}

async fn reap(app: &App, job: ReapJob) -> Result<(), StoreError> {
    let asked = Asked::as_of_now(app).await?;
    let groups = app.store.groups(job.video).await?;
    let mut survey = survey(app, job.video, &asked.nodes, &groups).await?;
    survey.left.retain(|chunk, left| {
        let askable = left.learned.is_some() || left.first.is_some();
        if !askable {
            tracing::warn!(video = %job.video, %chunk, "a register of no group of the video is left alone");
        }
        askable
    });
    let found = survey.left.len();
    let deletions: Vec<_> = in_turn(&survey, job.attempts, |node| {
        asked.all_are_up && asked.given_up.has(node)
    })
    .into_iter()
    .map(|(chunk, left)| delete(app, &asked, job.video, chunk, left))
    .collect();
    // What is cut off is like a proposer that died: others go on.
    let deleted = stream::iter(deletions)
        .buffer_unordered(CHUNKS_AT_ONCE)
        .take_until(tokio::time::sleep(PASS_BUDGET))
        .filter(|deleted| std::future::ready(*deleted))
        .count()
        .await;
    discard_staged(app, job.video, &asked.nodes).await;
    let next = next_step(job, &survey, deleted, app.now(), &app.pace);
    if next == Reap::Done {
        // Before the job ends, so that a crash between the two is followed by another pass.
        let forgotten = app.store.forget_chunks(job.video).await?;
        tracing::info!(video = %job.video, chunks = forgotten, "nothing is left of the video on any node");
    } else if found > 0 {
        tracing::info!(video = %job.video, found, deleted, attempt = job.attempts + 1, "deleting chunks");
    }
    if !app.store.set_reap(job, next).await? {
        tracing::info!(video = %job.video, "more came of the video meanwhile; it is looked for anew");
    }
    Ok(())
}

/// The chunks to be dealt with in this pass: those of which a majority just answered, or is lost for good, then a few of
/// the others, in case an answer was only late. Who comes first differs from pass to pass, so that all have their turn.
fn in_turn(survey: &Survey, attempts: u32, is_given_up: impl Fn(NodeRef) -> bool) -> Vec<(&ChunkId, &Left)> {
    let decidable = |left: &Left| {
        let learned = left.learned.as_ref().map(|placement| placement.nodes());
        let acceptors = learned.or_else(|| left.first.clone());
        acceptors.is_some_and(|nodes| {
            let known = |node: &&NodeRef| survey.answered.contains(node) || is_given_up(**node);
            nodes.iter().filter(known).count() > nodes.len() / 2
        })
    };
    let (mut now, mut later): (Vec<_>, Vec<_>) = survey.left.iter().partition(|(_, left)| decidable(left));
    for turn in [&mut now, &mut later] {
        let first = (attempts as usize).saturating_mul(CHUNKS_AT_ONCE) % turn.len().max(1);
        turn.rotate_left(first);
    }
    later.truncate(CHUNKS_AT_ONCE);
    now.extend(later);
    now
}

/// What follows a pass.
fn next_step(job: ReapJob, survey: &Survey, deleted: usize, now: Timestamp, pace: &ReaperPace) -> Reap {
    let due = |wait: Duration, confirms: bool| Reap::Due {
        attempts: job.attempts.saturating_add(1),
        confirms,
        next_at: now.plus(wait),
    };
    let found = survey.left.len();
    if deleted == found && survey.complete {
        return if found == 0 && (job.confirms || vstack_types::planted!("what is on its way is not waited for")) {
            Reap::Done
        } else {
            due(pace.confirm_after, true)
        };
    }
    if found > 0 && deleted == found {
        return due(pace.retry_first, false);
    }
    let wait = pace.retry_first.saturating_mul(1 << job.attempts.min(16));
    due(wait.min(pace.retry_max), false)
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;
    use crate::{consensus::first_group, store::Group};

    fn left(chunks: u32) -> std::collections::BTreeMap<ChunkId, Left> {
        (0..chunks)
            .map(|n| (ChunkId::of_video(VIDEO, n), Left::default()))
            .collect()
    }

    const VIDEO: VideoId = VideoId::from_bytes([1; 16]);

    #[test]
    fn passes_go_on_until_a_late_one_finds_nothing_again() {
        let pace = ReaperPace::default();
        let now = Timestamp(1_000_000);
        let step = |attempts, confirms, found: u32, deleted, complete| {
            let job = ReapJob {
                video: VIDEO,
                attempts,
                confirms,
            };
            let survey = Survey {
                left: left(found),
                complete,
                ..Survey::default()
            };
            next_step(job, &survey, deleted, now, &pace)
        };
        let due = |attempts, confirms, seconds| Reap::Due {
            attempts,
            confirms,
            next_at: now.plus(Duration::from_secs(seconds)),
        };
        assert_eq!(
            step(0, false, 0, 0, true),
            due(1, true, 75),
            "the first look never is the last"
        );
        assert_eq!(step(0, false, 3, 3, true), due(1, true, 75));
        assert_eq!(step(1, true, 0, 0, true), Reap::Done);
        assert_eq!(step(1, true, 2, 2, true), due(2, true, 75), "something was on its way");
        assert_eq!(
            step(1, false, 0, 0, true),
            due(2, true, 75),
            "a retry is no confirmation: requests may still be on their way"
        );
        assert_eq!(
            step(1, true, 0, 0, false),
            due(2, false, 4),
            "a node has not been heard"
        );
        assert_eq!(step(4, true, 3, 2, true), due(5, false, 32));
        assert_eq!(step(u32::MAX, false, 3, 0, true), due(u32::MAX, false, 120));
        assert_eq!(step(2, false, 3, 3, false), due(3, false, 2));
    }

    #[test]
    fn what_can_be_decided_goes_first_and_the_rest_takes_turns() {
        let node = |n| NodeRef::first(NodeUuid::from_bytes([n; 16]));
        let group = |from_seq, members: [u8; 3]| Group {
            from_seq,
            members: members.map(node).to_vec(),
        };
        let groups = [group(0, [1, 2, 3]), group(100, [3, 4, 5])];
        let mut all = left(102);
        for (chunk, left) in &mut all {
            left.first = first_group(&groups, chunk).map(|group| group.members.clone());
        }
        let survey = Survey {
            left: all,
            answered: [3, 4].map(node).into(),
            complete: false,
        };
        let turns = |attempts| -> Vec<ChunkId> {
            let turns = in_turn(&survey, attempts, |_| false);
            turns.into_iter().map(|(chunk, _)| chunk.clone()).collect()
        };
        let ids = |numbers: &[u32]| -> Vec<ChunkId> { numbers.iter().map(|n| ChunkId::of_video(VIDEO, *n)).collect() };
        let first = turns(0);
        assert_eq!(first.len(), 2 + CHUNKS_AT_ONCE);
        assert_eq!(first[..2], ids(&[100, 101]));
        let all: BTreeSet<_> = (0..100).flat_map(turns).collect();
        assert_eq!(all.len(), 102);
    }
}
