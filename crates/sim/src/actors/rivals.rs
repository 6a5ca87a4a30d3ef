//! Rival proposers: they read, complete, move, settle and turn back registers of whole films, and abort what is not
//! decided, through the real driver. What they have decided they tell the learner, as the service that moves chunks does.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer};
use vstack_client::{NodeClient, NodeUrls};
use vstack_metadata::store::Chunk;
use vstack_types::{ChunkId, NodeRef, ProcessUuid, VideoId};

use super::proposals::proposed;
use crate::{
    dice::Dice,
    hosts::HostId,
    ledger::{Deletion, Known},
    world::World,
};

/// How long a rival tries.
const DEADLINE: Duration = Duration::from_secs(12);

/// What a rival is about to do.
struct Plan {
    video: VideoId,
    chunk: ChunkId,
    initial: Vec<NodeRef>,
    current: Option<Placement>,
    change: Change,
}

/// Proposes one thing after the other, for ever.
pub(crate) async fn rival(world: Arc<World>, number: u8) {
    let mut dice = world.dice(&format!("rival {number}"));
    let nodes = NodeClient::new(world.outsider(HostId::rival(number)));
    loop {
        sleep(dice.millis(800, 8_000)).await;
        let Some(plan) = plan(&world, &mut dice).await else {
            continue;
        };
        world.noted(format!("r{number} wants {} of {}", name(&plan.change), plan.chunk));
        let mut proposer = Proposer::new(ProcessUuid::random(), plan.initial.clone(), plan.change.clone());
        // Half of them know what the learner knows, as a worker of the metadata service does.
        if dice.chance(50)
            && let Ok(Some((_, known))) = world.store.chunk(plan.chunk.clone()).await
        {
            proposer = proposer.knowing(known.placement);
        }
        if let Some(current) = &plan.current {
            proposer = proposer.expecting(current.version);
        }
        let (urls, register) = (some_urls(&world, &mut dice), (&plan.chunk, &plan.initial[..]));
        let outcome = proposed(&world, &nodes, &urls, register, proposer, DEADLINE).await;
        world.noted(format!("r{number}: {}", ending(&outcome)));
        if let Ok(Outcome::Decided(vote)) = outcome {
            learn(&world, plan.video, &plan.chunk, vote.placement).await;
        }
    }
}

/// What is wanted, in words.
pub(super) const fn name(change: &Change) -> &'static str {
    match change {
        Change::Read => "a read",
        Change::Create { .. } => "the creation",
        Change::Abort => "the abortion",
        Change::Delete => "the deletion",
        Change::Move { .. } => "a move",
        Change::Settle => "the settling",
        Change::Renew => "the renewal",
        Change::TurnBack => "the turning back",
    }
}

/// What came of it, in words.
pub(super) fn ending<E: std::fmt::Display>(outcome: &Result<Outcome, E>) -> String {
    match outcome {
        Ok(Outcome::Decided(vote)) => format!("decided, version {}", vote.placement.version),
        Ok(Outcome::Nothing) => "nothing".to_owned(),
        Ok(Outcome::Refused(refusal)) => format!("refused: {refusal}"),
        Err(error) => error.to_string(),
    }
}

/// Where every node is reached.
pub(crate) fn urls(world: &World) -> NodeUrls {
    let hosts = world.hosts();
    let known = hosts
        .nodes
        .iter()
        .filter(|(_, host)| host.copy.is_none())
        .filter_map(|(id, host)| Some((host.me?.uuid, id.url())));
    known.collect()
}

/// The same, and perhaps a copy of a disk in place of the disk.
fn some_urls(world: &World, dice: &mut Dice) -> NodeUrls {
    let with_copy = dice.chance(30);
    let hosts = world.hosts();
    let used = hosts.nodes.iter().filter(|(_, host)| with_copy || host.copy.is_none());
    used.filter_map(|(id, host)| Some((host.me?.uuid, id.url()))).collect()
}

async fn plan(world: &World, dice: &mut Dice) -> Option<Plan> {
    let films: Vec<_> = {
        let ledger = world.ledger();
        let wanted = ledger
            .films
            .iter()
            .filter(|(_, film)| film.deletion != Deletion::Acknowledged);
        wanted
            .map(|(video, film)| (*video, film.known, film.chunks.clone()))
            .collect()
    };
    let (video, known, chunks) = dice.pick(&films)?;
    let (chunk, _) = dice.pick(chunks)?;
    let initial = first_nodes(world, *video, chunk).await?;
    let current = {
        let observer = world.observer();
        observer.registers.get(chunk).and_then(|seen| seen.current()).cloned()
    };
    let change = match &current {
        _ if dice.chance(15) => Change::Read,
        None if dice.chance(10) => Change::Abort,
        None => Change::Read,
        // What is not known to be completed may have to go soon: it is only read.
        Some(_) if *known != Known::Completed => Change::Read,
        Some(_) if dice.chance(10) => Change::Renew,
        Some(current) if current.prev.is_none() => Change::Move {
            to: target(world, dice, current)?,
        },
        Some(_) if dice.chance(70) => Change::Settle,
        Some(_) => Change::TurnBack,
    };
    Some(Plan {
        video: *video,
        chunk: chunk.clone(),
        initial,
        current: current.filter(|_| dice.chance(70)),
        change,
    })
}

/// The first acceptors of a chunk that somebody sent. Before that its group may still be replaced, and nobody has any
/// business with it.
pub(super) async fn first_nodes(world: &World, video: VideoId, chunk: &ChunkId) -> Option<Vec<NodeRef>> {
    let groups = world.store.groups(video).await.ok()?;
    let digits = chunk.as_str().rsplit_once("-chunk-").map(|(_, digits)| digits);
    let sequence = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let group = groups.into_iter().rev().find(|group| group.from_seq <= sequence)?;
    let sent = world
        .observer()
        .registers
        .get(chunk)
        .is_some_and(|seen| seen.was_sent());
    sent.then_some(group.members)
}

/// As many nodes as now, others as far as there are any.
fn target(world: &World, dice: &mut Dice, current: &Placement) -> Option<Layout> {
    // Who moves shards has to bring the bytes.
    if matches!(current.layout, Layout::Coded { .. }) {
        return None;
    }
    let mut nodes: Vec<NodeRef> = {
        let hosts = world.hosts();
        let used = hosts.nodes.values().filter(|host| host.copy.is_none());
        let named = used.filter_map(|host| host.me);
        // Who is taken out is given nothing any more, by nobody.
        named.filter(|node| !hosts.given_up.contains(&node.uuid)).collect()
    };
    let copies = current.layout.nodes().len();
    let mut to = Vec::new();
    while to.len() < copies && !nodes.is_empty() {
        to.push(nodes.swap_remove(dice.index(nodes.len())));
    }
    (!to.is_empty()).then_some(Layout::Replicated { nodes: to })
}

/// The learner hears of it, if the service and its database are there.
pub(crate) async fn learn(world: &World, video: VideoId, chunk: &ChunkId, placement: Placement) {
    let Ok(Some((_, known))) = world.store.chunk(chunk.clone()).await else {
        return;
    };
    let news = Chunk {
        id: chunk.clone(),
        place: known.place,
        placement,
    };
    let _may_be_closed = world.store.learn(video, vec![news]).await;
}
