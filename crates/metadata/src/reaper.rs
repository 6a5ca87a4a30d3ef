//! Takes the chunks of failed and deleted videos off the nodes, and fails uploads whose owners fell silent.
//!
//! A pass over a video asks every trusted node for its registers of that video, so that chunks nobody told about are
//! found too, and proposes the deletion of each that is left: of a placement once it is decided, or of the chance
//! that one ever will be. Passes repeat, with backoff, until one finds nothing on any node. All state is in the
//! store, so a restart goes on where the last pass ended. What cannot be deleted now never holds up the rest.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, future::join_all, stream};
use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::{Change, Outcome, Placement, Proposer, Refusal, Request, Vote};
use vstack_client::{ClientError, NodeUrls, propose};
use vstack_types::{ChunkId, NodeRef, ProcessUuid, Timestamp, VideoId, limits::VIDEO_CHUNKS_MAX};

use crate::{
    app::{App, Shared, group_of},
    consensus::sequence_of,
    registry,
    store::{Group, Node, Reap, ReapJob, StatusChange, StoreError},
};

/// When the reaper looks, tries again and gives up.
#[derive(Debug, Clone, Copy)]
pub struct ReaperPace {
    /// Between looks for work; news of a failure or deletion wakes it at once.
    pub look_every: Duration,
    /// Between a pass that dealt with everything it found and the one that confirms it: what was on its way to a
    /// node then has arrived.
    pub confirm_after: Duration,
    /// Wait after the first pass that left something; doubles with each.
    pub retry_first: Duration,
    /// Longest wait.
    pub retry_max: Duration,
    /// Time for one chunk.
    pub chunk_deadline: Duration,
    /// A node that has been silent for so long is no longer waited for; should it return, an audit finds what it
    /// still has.
    pub give_up_nodes_after: Duration,
}

impl Default for ReaperPace {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(2),
            confirm_after: Duration::from_secs(10),
            retry_first: Duration::from_secs(2),
            retry_max: Duration::from_secs(120),
            chunk_deadline: Duration::from_secs(15),
            give_up_nodes_after: Duration::from_secs(24 * 3_600),
        }
    }
}

/// Videos worked on at once, and per video chunks; playback and uploads come first.
const VIDEOS_AT_ONCE: usize = 4;
const CHUNKS_AT_ONCE: usize = 8;
/// Chunks of a video dealt with in one pass; the next pass takes the rest.
const PASS_CHUNKS_MAX: usize = 4_096;
const JOBS_PER_LOOK: u32 = 16;
const SILENT_PER_LOOK: u32 = 256;
const PAGE: usize = 1_000;
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an upload whose owner fell silent failed.
const OWNER_SILENT: &str = "the uploader stopped answering";

/// Works until the service stops.
pub(crate) async fn run(app: Shared) {
    let started = app.now();
    loop {
        if let Err(error) = look(&app, started).await {
            tracing::warn!(%error, "the reaper could not work; it tries again");
        }
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = app.reap_now.notified() => {}
            () = tokio::time::sleep(app.pace.look_every) => {}
        }
    }
}

async fn look(app: &App, started: Timestamp) -> Result<(), StoreError> {
    fail_silent(app, started).await?;
    let jobs = app.store.due_reaps(app.now(), JOBS_PER_LOOK).await?;
    let work = stream::iter(jobs).for_each_concurrent(VIDEOS_AT_ONCE, |job| async move {
        if let Err(error) = reap(app, job).await {
            tracing::warn!(video = %job.video, %error, "a pass over a video's chunks ended early; it is tried again");
        }
    });
    tokio::select! {
        () = app.shutdown.cancelled() => {}
        () = work => {}
    }
    Ok(())
}

/// Fails the uploads of owners that have not been heard of for too long. While this service was down nobody could
/// be heard: they all get the whole time again from its start.
async fn fail_silent(app: &App, started: Timestamp) -> Result<(), StoreError> {
    let (now, patience) = (app.now(), app.settings.owner_timeout());
    if now.since(started) < patience {
        return Ok(());
    }
    let before = Timestamp(
        now.0
            .saturating_sub(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX)),
    );
    for video in app.store.silent_owners(before, SILENT_PER_LOOK).await? {
        let change = StatusChange {
            from: VideoStatus::Uploading,
            to: VideoStatus::Failed,
            reason: Some(OWNER_SILENT.to_owned()),
            at: now,
        };
        if app.store.change_status(video, change).await? {
            tracing::info!(%video, "upload failed: {OWNER_SILENT}");
            app.tell_status(video, VideoStatus::Failed, Some(OWNER_SILENT.to_owned()));
        }
    }
    Ok(())
}

/// Chunks of a video that are not known to be deleted everywhere, with what helps to find their acceptors.
#[derive(Default)]
struct Survey {
    left: BTreeMap<ChunkId, Left>,
    /// Every node that is waited for answered, and there was room for everything.
    complete: bool,
}

#[derive(Default)]
struct Left {
    /// Decided, as was learned.
    learned: Option<Placement>,
    /// Bytes of the chunk, for copies between nodes.
    size: u64,
    /// Nodes that have a register of it not known there to be deleted.
    seen_at: Vec<NodeRef>,
}

async fn reap(app: &App, job: ReapJob) -> Result<(), StoreError> {
    let nodes = app.store.nodes().await?;
    let groups = app.store.groups(job.video).await?;
    let mut survey = survey(app, job.video, &nodes).await?;
    survey.left.retain(|chunk, left| {
        let askable = left.learned.is_some() || first_acceptors(&groups, job.video, chunk).is_some();
        if !askable {
            tracing::warn!(video = %job.video, %chunk, "a register of no group of the video is left alone");
        }
        askable
    });
    let found = survey.left.len();
    let urls = registry::node_urls(&nodes);
    let deletions: Vec<_> = survey
        .left
        .iter()
        .map(|(chunk, left)| delete(app, &urls, &groups, job.video, chunk, left))
        .collect();
    let deleted = stream::iter(deletions)
        .buffer_unordered(CHUNKS_AT_ONCE)
        .filter(|deleted| std::future::ready(*deleted))
        .count()
        .await;
    discard_staged(app, job.video, &nodes).await;
    let next = next_step(job, &survey, deleted, app.now(), &app.pace);
    if next == Reap::Done {
        let forgotten = app.store.forget_chunks(job.video).await?;
        tracing::info!(video = %job.video, chunks = forgotten, "nothing is left of the video on any node");
    } else if found > 0 {
        tracing::info!(video = %job.video, found, deleted, attempt = job.attempts + 1, "deleting chunks");
    }
    app.store.set_reap(job.video, next).await
}

/// What follows a pass.
fn next_step(job: ReapJob, survey: &Survey, deleted: usize, now: Timestamp, pace: &ReaperPace) -> Reap {
    let attempts = job.attempts.saturating_add(1);
    let due = |wait: Duration| Reap::Due {
        attempts,
        next_at: now.plus(wait),
    };
    let found = survey.left.len();
    if found == 0 && survey.complete {
        return if job.attempts == 0 {
            due(pace.confirm_after)
        } else {
            Reap::Done
        };
    }
    if found > 0 && deleted == found {
        return due(if survey.complete {
            pace.confirm_after
        } else {
            pace.retry_first
        });
    }
    due(pace
        .retry_first
        .saturating_mul(1 << job.attempts.min(16))
        .min(pace.retry_max))
}

async fn survey(app: &App, video: VideoId, nodes: &[Node]) -> Result<Survey, StoreError> {
    let mut survey = Survey {
        left: BTreeMap::new(),
        complete: true,
    };
    let mut after = None;
    loop {
        let page = app
            .store
            .video_chunks(video, after, u32::try_from(PAGE).unwrap_or(u32::MAX))
            .await?;
        let Some(last) = page.last() else { break };
        after = Some(last.place.map(|place| place.sequence_num));
        for chunk in page.into_iter().filter(|chunk| !chunk.placement.layout.is_deleted()) {
            let left = Left {
                size: chunk.placement.size,
                learned: Some(chunk.placement),
                seen_at: Vec::new(),
            };
            survey.left.insert(chunk.id, left);
        }
    }
    let now = app.now();
    let trusted: Vec<_> = nodes
        .iter()
        .filter(|node| node.trusted && node.acceptor.is_some())
        .collect();
    let answers = join_all(trusted.iter().map(|node| registers_of(app, &node.url, video))).await;
    for (node, answer) in trusted.into_iter().zip(answers) {
        let registers = match answer {
            Ok(registers) => registers,
            Err(error) => {
                let silence = node.last_heartbeat.map_or(Duration::MAX, |last| now.since(last));
                survey.complete &= silence > app.pace.give_up_nodes_after;
                tracing::debug!(%video, node = node.label, %error, "a node's registers could not be listed");
                continue;
            }
        };
        for (chunk, size) in registers {
            let left = survey.left.entry(chunk).or_default();
            left.size = left.size.max(size);
            left.seen_at.extend(node.acceptor);
        }
    }
    let mut dropped = 0;
    while survey.left.len() > PASS_CHUNKS_MAX {
        survey.left.pop_last();
        dropped += 1;
    }
    survey.complete &= dropped == 0;
    for (chunk, left) in &mut survey.left {
        if left.learned.is_none() {
            left.learned = app.store.chunk(chunk.clone()).await?.map(|(_, known)| known.placement);
        }
    }
    Ok(survey)
}

/// Registers of `video` at a node that are not known there to be deleted, with the size of what they place.
async fn registers_of(app: &App, url: &str, video: VideoId) -> Result<Vec<(ChunkId, u64)>, ClientError> {
    let silent = || ClientError::Timeout { url: url.to_owned() };
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..=VIDEO_CHUNKS_MAX / PAGE {
        let page = app.nodes.registers(url, Some(video), cursor.as_deref(), PAGE);
        let page = tokio::time::timeout(PAGE_TIMEOUT, page)
            .await
            .map_err(|_elapsed| silent())??;
        for entry in page.registers {
            // A register that was only ever asked to promise places nothing, here or elsewhere by its own doing.
            let places = !matches!(entry.layout.as_str(), "deleted" | "none");
            if places || (entry.layout == "deleted" && !entry.decided) {
                let size = vstack_api::auth::header_bytes::decode(&entry.encoded)
                    .and_then(|bytes| vstack_chunkpaxos::Register::decode(&bytes).ok())
                    .and_then(|register| register.accepted)
                    .map_or(0, |vote| vote.placement.size);
                found.push((entry.id, size));
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
    Err(ClientError::BadAnswer {
        url: url.to_owned(),
        reason: "more registers than a video can have".to_owned(),
    })
}

/// The nodes of a chunk's first placement: those of its group. Nobody may guess them; none when its group is not
/// known.
fn first_acceptors(groups: &[Group], video: VideoId, chunk: &ChunkId) -> Option<Vec<NodeRef>> {
    let sequence = sequence_of(chunk).filter(|sequence| *chunk == ChunkId::of_video(video, *sequence));
    let of_our_form = sequence.is_some() || *chunk == ChunkId::init_of_video(video);
    let group = if of_our_form || groups.len() == 1 {
        group_of(groups, sequence)
    } else {
        None
    };
    group.map(|group| group.members.clone())
}

/// Has the deletion of one chunk decided, and told to those who can be reached.
async fn delete(app: &App, urls: &NodeUrls, groups: &[Group], video: VideoId, chunk: &ChunkId, left: &Left) -> bool {
    let first = first_acceptors(groups, video, chunk);
    let Some(initial) = first.or_else(|| left.learned.as_ref().map(Placement::nodes)) else {
        return false;
    };
    match run_change(app, urls, chunk, left, &initial, Change::Delete).await {
        Some(Outcome::Decided(vote)) if vote.placement.layout.is_deleted() => {
            tell_others(app, urls, chunk, left, &vote).await;
            match app.store.learn_deleted(chunk.clone(), vote.placement.clone()).await {
                Ok(true) => app.tell_placement(video, chunk, &vote.placement),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%chunk, %error, "a deletion could not be written down");
                    return false;
                }
            }
            true
        }
        Some(Outcome::Refused(Refusal::Joint(_))) => {
            // A move was under way: end it, one way or the other. The next pass deletes.
            let settled = run_change(app, urls, chunk, left, &initial, Change::Settle).await;
            if let Some(Outcome::Refused(Refusal::NotEnough)) = settled {
                run_change(app, urls, chunk, left, &initial, Change::TurnBack).await;
            }
            false
        }
        _ => false,
    }
}

/// Tells nodes that have a register of the chunk but are no acceptors of it any more, since it was moved away from
/// them: the proposer tells only those the decision names.
async fn tell_others(app: &App, urls: &NodeUrls, chunk: &ChunkId, left: &Left, vote: &Vote) {
    let news = Request::Decided {
        ballot: vote.ballot,
        placement: vote.placement.clone(),
    };
    for node in left.seen_at.iter().filter(|node| !vote.placement.layout.names(**node)) {
        if let Some(holder) = urls.holder(*node) {
            let told = app.nodes.paxos(&holder, chunk, &news);
            let _the_next_pass_finds_it_again = tokio::time::timeout(PAGE_TIMEOUT, told).await;
        }
    }
}

async fn run_change(
    app: &App,
    urls: &NodeUrls,
    chunk: &ChunkId,
    left: &Left,
    initial: &[NodeRef],
    change: Change,
) -> Option<Outcome> {
    let mut proposer = Proposer::new(ProcessUuid::random(), initial.to_vec(), change);
    if let Some(learned) = &left.learned {
        proposer = proposer.knowing(learned.clone());
    }
    match propose(&app.nodes, urls, chunk, proposer, app.pace.chunk_deadline).await {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            tracing::debug!(%chunk, %error, "a chunk could not be dealt with; it is tried again");
            None
        }
    }
}

/// Deletes bytes of the video that no register names. Nodes drop such bytes by themselves after their staging time;
/// this only saves the space sooner, so its failures do not matter.
async fn discard_staged(app: &App, video: VideoId, nodes: &[Node]) {
    for node in nodes.iter().filter(|node| node.trusted) {
        let page = app.nodes.chunks(&node.url, Some(video), None, PAGE);
        let Ok(Ok(page)) = tokio::time::timeout(PAGE_TIMEOUT, page).await else {
            continue;
        };
        for item in page.chunks.into_iter().filter(|item| !item.placed) {
            let url = format!("{}/chunk/{}", node.url, item.id);
            let _saves_space_only = app
                .nodes
                .http()
                .transport()
                .delete(url)
                .timeout(PAGE_TIMEOUT)
                .send()
                .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_go_on_until_two_in_a_row_have_nothing_to_do() {
        let pace = ReaperPace::default();
        let now = Timestamp(1_000_000);
        let step = |attempts, found: u32, deleted, complete| {
            let left = (0..found)
                .map(|n| (format!("c{n}").parse().unwrap(), Left::default()))
                .collect();
            let job = ReapJob {
                video: VideoId::from_bytes([1; 16]),
                attempts,
            };
            next_step(job, &Survey { left, complete }, deleted, now, &pace)
        };
        let due = |attempts, seconds| Reap::Due {
            attempts,
            next_at: now.plus(Duration::from_secs(seconds)),
        };
        assert_eq!(step(0, 0, 0, true), due(1, 10), "the first look never is the last");
        assert_eq!(step(0, 3, 3, true), due(1, 10));
        assert_eq!(step(1, 0, 0, true), Reap::Done);
        assert_eq!(step(1, 0, 0, false), due(2, 4), "a node has not been heard");
        assert_eq!(step(4, 3, 2, true), due(5, 32));
        assert_eq!(step(u32::MAX, 3, 0, true), due(u32::MAX, 120));
        assert_eq!(step(2, 3, 3, false), due(3, 2));
    }
}
