//! How actors propose: by the real driver, and what it reports is held to what was decided before it began.

use std::time::Duration;

use vstack_chunkpaxos::{Change, Outcome, Placement, Proposer};
use vstack_client::{NodeClient, NodeUrls, ProposeError, propose};
use vstack_types::{ChunkId, NodeRef, ProcessUuid, VideoId};

use super::rivals::{ending, learn, name, urls};
use crate::{calls::short, invariants::outcomes, world::World};

/// For one change.
const DEADLINE: Duration = Duration::from_secs(12);

/// One change of a register, wanted by `who` knows where it is; gives what was decided, after the learner heard of it.
pub(super) async fn changed(
    world: &World,
    nodes: &NodeClient,
    who: &str,
    (video, chunk): (VideoId, &ChunkId),
    current: &Placement,
    change: Change,
) -> Option<Placement> {
    world.noted(format!("{who} wants of {chunk}: {}", name(&change)));
    let proposer = Proposer::new(ProcessUuid::random(), current.nodes(), change)
        .expecting(current.version)
        .knowing(current.clone());
    let register = (chunk, &current.nodes()[..]);
    let outcome = proposed(world, nodes, &urls(world), register, proposer, DEADLINE).await;
    world.noted(format!("{who}: {}", ending(&outcome)));
    match outcome {
        Ok(Outcome::Decided(vote)) => {
            learn(world, video, chunk, vote.placement.clone()).await;
            Some(vote.placement)
        }
        _ => None,
    }
}

/// As [`propose`], by a proposer that begins at the nodes `initial`.
pub(super) async fn proposed(
    world: &World,
    nodes: &NodeClient,
    urls: &NodeUrls,
    (chunk, initial): (&ChunkId, &[NodeRef]),
    proposer: Proposer,
    deadline: Duration,
) -> Result<Outcome, ProposeError> {
    let known = {
        let observer = world.observer();
        observer.registers.get(chunk).and_then(|seen| seen.current()).cloned()
    };
    let outcome = propose(nodes, urls, chunk, proposer, deadline).await?;
    let checked = {
        let observer = world.observer();
        outcomes::check(known.as_ref(), observer.registers.get(chunk), initial, &outcome)
    };
    if let Err(what) = checked {
        world.violate(format!("{}: {what}", short(chunk)));
    }
    Ok(outcome)
}
