//! Makes whole what a lost or damaged disk held: moves each chunk that still names it to disks that are there, and ends
//! the moves, through the real driver, for ever.
//!
//! It stands in for the planner of the metadata service and knows what that will know: the last decision, which disks
//! are lost, which run.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer};
use vstack_client::{NodeClient, propose};
use vstack_types::{ChunkId, NodeRef, ProcessUuid, VideoId};

use super::rivals::{learn, urls};
use crate::{hosts::HostId, world::World};

/// Between two rounds over everything.
const ROUND_EVERY: Duration = Duration::from_secs(4);
/// For one change.
const DEADLINE: Duration = Duration::from_secs(12);

/// See the module.
pub(crate) async fn repair(world: Arc<World>) {
    let nodes = NodeClient::new(world.outsider(HostId::rival(9)));
    loop {
        sleep(ROUND_EVERY).await;
        for (video, chunk) in stored(&world).await {
            if let Some((current, change)) = needed(&world, &chunk) {
                mend(&world, &nodes, (video, &chunk), current, change).await;
            }
        }
    }
}

/// Chunks of active videos.
async fn stored(world: &World) -> Vec<(VideoId, ChunkId)> {
    if world.hosts().harmed.is_empty() {
        return Vec::new();
    }
    let films = world.ledger().films.clone();
    let mut chunks = Vec::new();
    for (video, film) in films {
        if let Ok(Some(row)) = world.store.video(video).await
            && row.status == VideoStatus::Active
        {
            chunks.extend(film.chunks.into_iter().map(|(chunk, _)| (video, chunk)));
        }
    }
    chunks
}

/// What is to be done about `chunk`, if anything.
fn needed(world: &World, chunk: &ChunkId) -> Option<(Placement, Change)> {
    let current = world.observer().registers.get(chunk)?.current().cloned()?;
    let hosts = world.hosts();
    let lost = |node: &NodeRef| hosts.harmed.contains(&node.uuid);
    if !current.quorum(|node| !lost(&node)) {
        return None;
    }
    let change = match &current.prev {
        _ if current.layout.is_deleted() => return None,
        None if !current.layout.nodes().iter().any(lost) => return None,
        None => {
            let kept: Vec<_> = current.layout.nodes().into_iter().filter(|node| !lost(node)).collect();
            let mut to = kept.clone();
            let running = hosts.running_nodes().map(|(_, running)| running.me);
            to.extend(running.filter(|node| !lost(node) && !kept.contains(node)));
            to.truncate(current.layout.nodes().len());
            Change::Move {
                to: Layout::Replicated { nodes: to },
            }
        }
        // What was turned back once can only be ended; and so can what can be ended.
        Some(_) if current.back || !current.layout.nodes().iter().any(lost) => Change::Settle,
        Some(_) => Change::TurnBack,
    };
    Some((current, change))
}

async fn mend(
    world: &World,
    nodes: &NodeClient,
    (video, chunk): (VideoId, &ChunkId),
    current: Placement,
    change: Change,
) {
    let proposer = Proposer::new(ProcessUuid::random(), current.nodes(), change)
        .expecting(current.version)
        .knowing(current);
    match propose(nodes, &urls(world), chunk, proposer, DEADLINE).await {
        Ok(Outcome::Decided(vote)) => {
            world.noted(format!("{chunk} is mended: version {}", vote.placement.version));
            learn(world, video, chunk, vote.placement).await;
        }
        Ok(Outcome::Nothing) => world.noted(format!("{chunk}: nothing to mend")),
        Ok(Outcome::Refused(refusal)) => world.noted(format!("{chunk} is not mended: {refusal}")),
        Err(error) => world.noted(format!("{chunk} is not mended: {error}")),
    }
}
