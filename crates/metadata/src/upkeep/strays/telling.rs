//! Tells a node that a chunk was moved away from it while it was not there.

use tokio::time::timeout;
use vstack_chunkpaxos::{Change, Outcome, Placement, Proposer, Reply, Request};
use vstack_client::Holder;
use vstack_types::{ChunkId, ProcessUuid, VideoId};

use super::PAGE_WITHIN;
use crate::{app::App, commit::learned, reaper::Asked, store::Chunk};

/// Tells a node where a chunk is that was moved away from it.
pub(super) async fn told(app: &App, asked: &Asked, at: &Holder, video: VideoId, known: Chunk) -> Result<(), String> {
    let vote = match run(app, asked, &known, Change::Read).await? {
        Outcome::Decided(vote) => vote,
        Outcome::Nothing => return Err("its nodes know nothing of it".to_owned()),
        Outcome::Refused(refusal) => return Err(refusal.to_string()),
    };
    if vote.placement.version > known.placement.version {
        learn(app, video, &known, &vote.placement).await?;
    }
    if vote.placement.names(at.node) {
        // It was placed there meanwhile: the next count expects it.
        return Ok(());
    }
    let news = Request::Decided {
        ballot: vote.ballot,
        placement: vote.placement.clone(),
    };
    send(app, at, &known.id, &news).await?;
    match send(app, at, &known.id, &Request::Read).await? {
        Reply::State {
            accepted: Some(last), ..
        } if last.ballot > vote.ballot => renew(app, asked, at, known, &vote.placement).await,
        _ => {
            tracing::info!(chunk = %known.id, node = %at.node, "a node was told that a chunk is elsewhere by now");
            Ok(())
        }
    }
}

/// A node accepted a move that nobody completed, and takes no older news: where its chunk is is decided once more.
async fn renew(app: &App, asked: &Asked, at: &Holder, known: Chunk, current: &Placement) -> Result<(), String> {
    let known = Chunk {
        placement: current.clone(),
        ..known
    };
    match run(app, asked, &known, Change::Renew).await? {
        Outcome::Decided(vote) => {
            let news = Request::Decided {
                ballot: vote.ballot,
                placement: vote.placement,
            };
            send(app, at, &known.id, &news).await?;
            tracing::info!(chunk = %known.id, node = %at.node, "a node that had accepted a move was told that there is none");
            Ok(())
        }
        Outcome::Nothing => Err("its nodes know nothing of it".to_owned()),
        Outcome::Refused(refusal) => Err(refusal.to_string()),
    }
}

async fn run(app: &App, asked: &Asked, known: &Chunk, change: Change) -> Result<Outcome, String> {
    let is_read = change == Change::Read;
    // Its video lives.
    let mut proposer = Proposer::new(ProcessUuid::random(), known.placement.nodes(), change).sparing();
    if !is_read {
        proposer = proposer
            .expecting(known.placement.version)
            .knowing(known.placement.clone());
    }
    let proposed = app
        .propose(&asked.urls, &known.id, proposer, app.pace.decided_within)
        .await;
    proposed.map_err(|error| error.to_string())
}

async fn learn(app: &App, video: VideoId, known: &Chunk, placement: &Placement) -> Result<(), String> {
    let news = Chunk {
        placement: placement.clone(),
        ..known.clone()
    };
    learned(app, video, vec![news]).await.map_err(|error| error.to_string())
}

async fn send(app: &App, to: &Holder, chunk: &ChunkId, request: &Request) -> Result<Reply, String> {
    match timeout(PAGE_WITHIN, app.nodes.paxos(to, chunk, request)).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("its node did not answer in time".to_owned()),
    }
}
