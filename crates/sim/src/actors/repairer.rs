//! Makes whole what a lost or damaged disk held: moves each chunk that still names it to disks that are there, and ends
//! the moves, through the real driver, for ever. It ends also what [`super::coder`] left under way, whoever's film it
//! was, by bringing the shards without which nobody could.
//!
//! In the end it ends every move, whoever began it, and has every copy brought that is missing: see [`Duty`].
//!
//! It stands in for the planner of the metadata service where chunks are kept in shards, which that does not repair yet,
//! and knows what that will know: the last decision, which disks are lost, which run.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer, Refusal};
use vstack_client::NodeClient;
use vstack_types::{ChunkId, NodeRef, ProcessUuid, VideoId};

use super::{
    coder::{bring, fetch},
    proposals::proposed,
    restorer::restore,
    rivals::{learn, urls},
};
use crate::{
    disks::READABLE,
    ending::is_beyond_repair,
    hosts::{HostId, Hosts},
    world::World,
};

/// Between two rounds over everything.
const ROUND_EVERY: Duration = Duration::from_secs(4);
/// For one change.
const DEADLINE: Duration = Duration::from_secs(12);

/// What is made whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// What was lost with a disk, and what shards are involved in.
    Losses,
    /// That, every move that is under way, every chunk on fewer nodes than there could be, and every copy that is
    /// missing ([`super::restorer`]).
    Everything,
}

/// See the module.
pub(crate) async fn repair(world: Arc<World>, duty: Duty) {
    let nodes = NodeClient::new(world.outsider(HostId::rival(9)));
    loop {
        sleep(ROUND_EVERY).await;
        let films = world.ledger().films.clone();
        for (video, film) in films {
            let row = world.store.video(video).await;
            let active = row.is_ok_and(|row| row.is_some_and(|row| row.status == VideoStatus::Active));
            for (chunk, _) in film.chunks {
                // Each try would take its whole time, and with many of them the others wait for too long.
                if duty == Duty::Everything && is_beyond_repair(&world.hosts(), &world.observer(), &chunk) {
                    continue;
                }
                if world.plan.codes {
                    assist(&world, &nodes, &chunk).await;
                }
                if active && let Some((current, change)) = needed(&world, &chunk, duty) {
                    mend(&world, &nodes, (video, &chunk), current, change).await;
                }
                if active && duty == Duty::Everything {
                    restore(&world, &nodes, &chunk).await;
                }
                if active {
                    catch_up(&world, &nodes, (video, &chunk)).await;
                }
            }
        }
    }
}

/// Has the learner told of a later version than it knows: whoever decided that may have died before he told.
async fn catch_up(world: &World, nodes: &NodeClient, (video, chunk): (VideoId, &ChunkId)) {
    let Some(current) = world
        .observer()
        .registers
        .get(chunk)
        .and_then(|seen| seen.current())
        .cloned()
    else {
        return;
    };
    match world.store.chunk(chunk.clone()).await {
        Ok(Some((_, known))) if known.placement.version < current.version => {}
        _ => return,
    }
    let initial = current.nodes();
    let read = Proposer::new(ProcessUuid::random(), initial.clone(), Change::Read);
    let outcome = proposed(world, nodes, &urls(world), (chunk, &initial), read, DEADLINE).await;
    if let Ok(Outcome::Decided(vote)) = outcome {
        world.noted(format!(
            "{chunk}: the learner hears of version {}",
            vote.placement.version
        ));
        learn(world, video, chunk, vote.placement).await;
    }
}

/// Whether shards are involved.
pub(crate) fn is_coded(placement: &Placement) -> bool {
    let mut layouts = std::iter::once(&placement.layout).chain(&placement.prev);
    layouts.any(|layout| matches!(layout, Layout::Coded { .. }))
}

/// Brings what nodes lack to vote for the newest value of `chunk`, where shards are involved and it is under way: nodes
/// cannot make shards of what they have yet.
async fn assist(world: &World, nodes: &NodeClient, chunk: &ChunkId) {
    let newest = {
        let hosts = world.hosts();
        let registers = hosts
            .running_nodes()
            .map(|(_, node)| node.reader.register(chunk).expect(READABLE));
        let accepted = registers.filter_map(|register| Some((register.accepted?, register.decided)));
        accepted.max_by_key(|(vote, decided)| (vote.ballot, *decided))
    };
    let Some((vote, decided)) = newest else { return };
    let value = vote.placement;
    if !is_coded(&value) || (decided && value.prev.is_none()) || !lacks(world, chunk, &value) {
        return;
    }
    if let Some(bytes) = fetch(world, nodes, chunk, &value).await {
        bring(world, nodes, chunk, &value, &value.layout, &bytes).await;
    }
}

/// Whether a node that runs does not have what `value` is to place there.
fn lacks(world: &World, chunk: &ChunkId, value: &Placement) -> bool {
    let hosts = world.hosts();
    hosts.running_nodes().any(|(_, node)| {
        let items = value.items_of(&value.layout, node.me);
        items
            .iter()
            .any(|item| !node.reader.has_item(chunk, *item).expect(READABLE))
    })
}

/// Whether fewer than `copies` replicas are placed, and more nodes are there to have one.
pub(crate) fn is_thin(hosts: &Hosts, current: &Placement, copies: usize) -> bool {
    let running = hosts.running_nodes().map(|(_, running)| running.me);
    let there = running.filter(|node| !hosts.is_given_up(node.uuid)).count();
    match &current.layout {
        Layout::Replicated { nodes } => nodes.len() < copies.min(there),
        Layout::Coded { .. } | Layout::Deleted { .. } => false,
    }
}

/// What is to be done about `chunk`, if anything.
fn needed(world: &World, chunk: &ChunkId, duty: Duty) -> Option<(Placement, Change)> {
    let current = world.observer().registers.get(chunk)?.current().cloned()?;
    let hosts = world.hosts();
    let lost = |node: &NodeRef| hosts.harmed.contains(&node.uuid);
    let copies = match &current.layout {
        Layout::Replicated { nodes } if duty == Duty::Losses => nodes.len(),
        Layout::Replicated { nodes } => nodes.len().max(world.plan.copies),
        Layout::Coded { .. } | Layout::Deleted { .. } => world.plan.copies,
    };
    if !current.quorum(|node| !lost(&node)) {
        return None;
    }
    let change = match &current.prev {
        _ if current.layout.is_deleted() => return None,
        None if !current.layout.nodes().iter().any(lost) && !is_thin(&hosts, &current, copies) => return None,
        // Nothing was lost, and others will end it.
        Some(_) if duty == Duty::Losses && hosts.harmed.is_empty() && !is_coded(&current) => return None,
        None => {
            let kept: Vec<_> = current.layout.nodes().into_iter().filter(|node| !lost(node)).collect();
            let mut to = kept.clone();
            let running = hosts.running_nodes().map(|(_, running)| running.me);
            to.extend(running.filter(|node| !lost(node) && !kept.contains(node)));
            to.truncate(copies);
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
    if let Change::Move { to } = &change
        && is_coded(&current)
    {
        // Nobody has all of it.
        let Some(bytes) = fetch(world, nodes, chunk, &current).await else {
            return world.noted(format!("{chunk} cannot be made of its shards now"));
        };
        bring(world, nodes, chunk, &current, to, &bytes).await;
    }
    let first = current.nodes();
    let proposer = Proposer::new(ProcessUuid::random(), current.nodes(), change)
        .expecting(current.version)
        .knowing(current);
    match proposed(world, nodes, &urls(world), (chunk, &first), proposer, DEADLINE).await {
        Ok(Outcome::Decided(vote)) => {
            world.noted(format!("{chunk} is mended: version {}", vote.placement.version));
            learn(world, video, chunk, vote.placement).await;
        }
        Ok(Outcome::Nothing) => world.noted(format!("{chunk}: nothing to mend")),
        Ok(Outcome::Refused(Refusal::NotEnough)) => {
            // Who missed the move and has its part by now vouches for it once he heard that it was decided: a read
            // tells him.
            world.noted(format!("{chunk} is told of again"));
            let read = Proposer::new(ProcessUuid::random(), first.clone(), Change::Read);
            let _next_round = proposed(world, nodes, &urls(world), (chunk, &first), read, DEADLINE).await;
        }
        Ok(Outcome::Refused(refusal)) => world.noted(format!("{chunk} is not mended: {refusal}")),
        Err(error) => world.noted(format!("{chunk} is not mended: {error}")),
    }
}
