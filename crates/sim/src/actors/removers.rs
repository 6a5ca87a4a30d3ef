//! An operator who takes a node out for good while everything goes on. The services alone empty it, seal its disk and forget
//! it, and it stays forgotten: some find the machine before it is taken away, and start it once more.
//!
//! There are always enough others, so it ends once nothing goes wrong any more, but where a disk was harmed and chunks are
//! lost with it: then the node is kept after all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_api::metadata::NodeRole;
use vstack_client::MetadataClient;
use vstack_types::{ChunkId, NodeUuid};

use super::auditors;
use crate::{
    dice::Dice,
    hosts::{HostId, METADATA, NodeHost, USERS},
    invariants::removals,
    processes::{End, stop_node},
    struck::Kind,
    supervisor::restart,
    world::World,
};

/// Between two looks at whether it is out: soon after, its chunks are made anew elsewhere, whether or not they were to be.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two tries to be heard.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// So long after the trouble it is out: who did not take copies in the midst of it is given none for ten minutes.
const OUT_WITHIN: Duration = Duration::from_secs(700);
/// So long after the trouble it is given up where a disk was harmed.
const PATIENCE: Duration = Duration::from_secs(240);

/// Takes a node out at some time, and ends when its machine is gone, or is to stay after all.
pub(crate) async fn remove(world: Arc<World>) {
    if !world.plan.removes {
        return;
    }
    let mut dice = world.dice("who takes a node out");
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    sleep(dice.millis(5_000, 25_000) * world.plan.stretch).await;
    let Some((node, disk)) = chosen(&world, &mut dice) else {
        return;
    };
    world.hosts().given_up.insert(disk);
    // Some have it emptied first, others leave that to who takes it out.
    if dice.chance(50) {
        drain(&world, &metadata, node).await;
        sleep(dice.millis(5_000, 20_000)).await;
    }
    let before = placed_on(&world, disk).await;
    if !is_taken_out(&world, &metadata, (node, disk)).await {
        return;
    }
    let now = placed_on(&world, disk).await;
    // What is lost is no reason to keep a disk.
    let is_harmed = !world.hosts().harmed.is_empty();
    if !is_harmed && let Err(what) = removals::was_empty(disk, &before, &now) {
        world.violate(what);
    }
    world.tally.strikes(Kind::NodeRemoved);
    world.happened(format!("{node} is taken out"));
    world.hosts().removed.insert(disk);
    // A disk that was not there to be sealed could yet vote, and nobody counts on that.
    if is_sealed(&world, node) && dice.chance(60) {
        stop_node(&world, node, End::Kill);
        restart(Arc::clone(&world), node).await;
        sleep(dice.millis(4_000, 12_000)).await;
    }
    stop_node(&world, node, End::Kill);
    world.hosts().nodes.remove(&node);
    world.happened(format!("{node} is taken away"));
}

/// A node that runs, and its disk, to which nothing was done.
fn chosen(world: &World, dice: &mut Dice) -> Option<(HostId, NodeUuid)> {
    let nodes: Vec<(HostId, NodeUuid)> = {
        let hosts = world.hosts();
        let running = hosts.running_nodes().map(|(node, running)| (node, running.me.uuid));
        running.filter(|(_, disk)| !hosts.is_suspect(*disk)).collect()
    };
    dice.pick(&nodes).copied()
}

async fn drain(world: &World, metadata: &MetadataClient, node: HostId) {
    match metadata.drain_node(&node.to_string()).await {
        Ok(_) => {
            world.tally.strikes(Kind::NodeDrained);
            world.happened(format!("{node} is drained"));
        }
        Err(error) => world.noted(format!("{node} may be drained: {error}")),
    }
}

/// Versions of the chunks that are placed on `disk`, by what the metadata service was told.
async fn placed_on(world: &World, disk: NodeUuid) -> BTreeMap<ChunkId, u64> {
    let placed = auditors::placed(world).await.unwrap_or_default();
    let names_it = placed
        .into_iter()
        .filter(|(_, placement)| placement.nodes().iter().any(|node| node.uuid == disk));
    names_it.map(|(chunk, placement)| (chunk, placement.version)).collect()
}

/// Asks for `disk` to be taken out until it is; whether it is. Where it was harmed, others see to it.
async fn is_taken_out(world: &World, metadata: &MetadataClient, (node, disk): (HostId, NodeUuid)) -> bool {
    loop {
        let roles = world.store.roles().await.unwrap_or_default();
        match roles.get(&disk).copied().unwrap_or_default() {
            NodeRole::Removed => return true,
            NodeRole::Removing | NodeRole::Sealed => {}
            NodeRole::Active | NodeRole::Draining => match metadata.remove_node(&disk.to_string()).await {
                Ok(_) => world.happened(format!("{node} is to be taken out")),
                Err(error) => {
                    world.noted(format!("{node} may be to be taken out: {error}"));
                    sleep(AGAIN_AFTER).await;
                }
            },
        }
        let (is_harmed, are_harmed) = {
            let hosts = world.hosts();
            (hosts.harmed.contains(&disk), !hosts.harmed.is_empty())
        };
        if is_harmed {
            return false;
        }
        let patience = if are_harmed { PATIENCE } else { OUT_WITHIN };
        if world.elapsed() > world.plan.trouble + patience {
            if are_harmed {
                keep(world, metadata, node).await;
            } else {
                let why = stays_because(metadata, node).await;
                world.violate(format!(
                    "{node} was to be taken out, and is not {} s after nothing went wrong any more: {why}",
                    patience.as_secs()
                ));
            }
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Why the metadata service says that a node is still there.
async fn stays_because(metadata: &MetadataClient, node: HostId) -> String {
    let counted = metadata
        .census()
        .await
        .map_or_else(|_| Vec::new(), |census| census.nodes);
    let label = node.to_string();
    let why = counted.into_iter().find(|counted| counted.node == label);
    why.and_then(|counted| counted.stays_because)
        .unwrap_or_else(|| "nobody says why".to_owned())
}

/// Has a node stay after all, unless it is too late for that.
async fn keep(world: &World, metadata: &MetadataClient, node: HostId) {
    loop {
        match metadata.activate_node(&node.to_string()).await {
            Ok(_) => return world.happened(format!("{node} is to stay after all")),
            Err(error) if matches!(error.status(), Some(404 | 409)) => {
                return world.noted(format!("{node} cannot be kept any more: {error}"));
            }
            Err(error) => world.noted(format!("{node} cannot be kept yet: {error}")),
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Whether the disk of `node` is there and votes no more.
fn is_sealed(world: &World, node: HostId) -> bool {
    let hosts = world.hosts();
    let running = hosts.nodes.get(&node).and_then(NodeHost::alive);
    running.is_some_and(|running| running.reader.is_sealed())
}
