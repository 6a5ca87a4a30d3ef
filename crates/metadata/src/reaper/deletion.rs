//! Ends one chunk, and discards bytes that none names.

use std::time::Duration;

use futures_util::{StreamExt as _, future::join_all, stream};
use vstack_chunkpaxos::{Change, Outcome, Placement, Proposer, Refusal, Reply, Request, Vote, beyond::is_beyond};
use vstack_client::NodeUrls;
use vstack_types::{ChunkId, NodeRef, ProcessUuid, VideoId};

use super::{
    Asked, CHUNKS_AT_ONCE, PAGE, PAGE_TIMEOUT,
    burial::{Burial, bury},
    survey::Left,
};
use crate::{app::App, store::Node};

/// Time for discarding in one pass: what it does not get to, the nodes do by themselves.
const DISCARD_BUDGET: Duration = Duration::from_secs(10);

/// Has the deletion of one chunk decided, and told to those who can be reached; where nothing can be decided any more,
/// it is told alone.
pub(crate) async fn delete(app: &App, asked: &Asked, video: VideoId, chunk: &ChunkId, left: &Left) -> bool {
    let first = left.first.clone();
    let first = first.or_else(|| left.learned.as_ref().map(Placement::nodes));
    let urls = &asked.urls;
    let mut known = newest(app, urls, chunk, left, first.as_deref().unwrap_or_default()).await;
    let Some(initial) = first.or_else(|| known.as_ref().map(Placement::nodes)) else {
        return false;
    };
    if is_beyond(known.as_ref(), &initial, |node| asked.given_up.has(node)) {
        match bury(app, asked, chunk, known.as_ref(), &initial).await {
            Burial::Told(vote) => return is_written_down(app, video, chunk, &vote).await,
            // Others decided about it since, and can do so again.
            Burial::Alive(decided) => known = decided.map(|decided| *decided).or(known),
            Burial::NotAllAnswer => return false,
        }
    }
    match run_change(app, urls, chunk, known.as_ref(), &initial, Change::Delete).await {
        Some(Outcome::Decided(vote)) if vote.placement.layout.is_deleted() => {
            if !vstack_types::planted!("nodes without a part are not told of a deletion") {
                tell_others(app, urls, chunk, left, &vote).await;
            }
            is_written_down(app, video, chunk, &vote).await
        }
        Some(Outcome::Refused(Refusal::Joint(_))) => {
            // A move was under way: end it, one way or the other. The next pass deletes.
            let settled = run_change(app, urls, chunk, known.as_ref(), &initial, Change::Settle).await;
            if let Some(Outcome::Refused(Refusal::NotEnough)) = settled {
                run_change(app, urls, chunk, known.as_ref(), &initial, Change::TurnBack).await;
            }
            false
        }
        // Its nodes may be there and have forgotten their votes.
        None => match bury(app, asked, chunk, known.as_ref(), &initial).await {
            Burial::Told(vote) => is_written_down(app, video, chunk, &vote).await,
            Burial::Alive(_) | Burial::NotAllAnswer => false,
        },
        Some(_) => false,
    }
}

async fn is_written_down(app: &App, video: VideoId, chunk: &ChunkId, vote: &Vote) -> bool {
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

/// The newest decision to go by: what was learned, or what nodes know to be decided that are none of its acceptors. A
/// move may have been decided when the video had ended and nobody learned of it any more; then only those it went to
/// are sure to be there still.
async fn newest(app: &App, urls: &NodeUrls, chunk: &ChunkId, left: &Left, initial: &[NodeRef]) -> Option<Placement> {
    let learned = left.learned.as_ref();
    let is_acceptor = |node: &&NodeRef| learned.map_or(initial.contains(node), |placement| placement.names(**node));
    // Of what nobody learned, its first acceptors may know more than that they were those.
    let others = left
        .seen_at
        .iter()
        .filter(|node| learned.is_none() || !is_acceptor(node));
    let reads = others.filter_map(|node| urls.holder(*node)).map(async |holder| {
        let read = app.nodes.paxos(&holder, chunk, &Request::Read);
        match tokio::time::timeout(PAGE_TIMEOUT, read).await {
            Ok(Ok(Reply::State {
                accepted: Some(vote),
                decided: true,
                ..
            })) => Some(vote.placement),
            _ => None,
        }
    });
    let told = join_all(reads).await.into_iter().flatten();
    told.chain(learned.cloned()).max_by_key(|placement| placement.version)
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
    known: Option<&Placement>,
    initial: &[NodeRef],
    change: Change,
) -> Option<Outcome> {
    let mut proposer = Proposer::new(ProcessUuid::random(), initial.to_vec(), change);
    if let Some(known) = known {
        proposer = proposer.knowing(known.clone());
    }
    match app.propose(urls, chunk, proposer, app.pace.chunk_deadline).await {
        Ok(outcome) => Some(outcome),
        Err(error) => {
            tracing::debug!(%chunk, %error, "a chunk could not be dealt with; it is tried again");
            None
        }
    }
}

/// Deletes bytes of the video that no register names. Nodes drop such bytes by themselves after their staging time;
/// this only saves the space sooner, so its failures do not matter.
pub(super) async fn discard_staged(app: &App, video: VideoId, nodes: &[Node]) {
    let nodes = stream::iter(nodes.iter().filter(|node| node.trusted));
    let discarding = nodes.for_each_concurrent(CHUNKS_AT_ONCE, |node| discard_at(app, video, node));
    let _saves_space_only = tokio::time::timeout(DISCARD_BUDGET, discarding).await;
}

async fn discard_at(app: &App, video: VideoId, node: &Node) {
    let page = app.nodes.chunks(&node.url, Some(video), None, PAGE);
    let Ok(Ok(page)) = tokio::time::timeout(PAGE_TIMEOUT, page).await else {
        return;
    };
    let staged = page
        .chunks
        .into_iter()
        .filter(|item| !item.placed && item.id.video() == Some(video));
    stream::iter(staged)
        .for_each_concurrent(CHUNKS_AT_ONCE, async |item| {
            let url = format!("{}/chunk/{}", node.url, item.id);
            let http = app.nodes.http();
            let discard = http.transport().delete(&url).timeout(PAGE_TIMEOUT);
            let _saves_space_only = http.execute(&url, discard).await;
        })
        .await;
}
