//! How actors propose: by the real driver, and what it reports is held to what was decided before it began.

use std::time::Duration;

use vstack_chunkpaxos::{Outcome, Proposer};
use vstack_client::{NodeClient, NodeUrls, ProposeError, propose};
use vstack_types::{ChunkId, NodeRef};

use crate::{calls::short, invariants::outcomes, world::World};

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
