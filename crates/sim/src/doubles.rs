//! Copies of disks that are started beside everything else, as another machine: of a disk that is in use, or of one that
//! was lost and has a successor. The cluster knows of records that the copy does not have, so it may never vote.
//!
//! Histories in which a disk is harmed have none: a copy would hide the harm.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    dice::Dice,
    harm::wipe,
    hosts::{HostId, NodeHost},
    processes::{End, stop_node},
    rot::copy,
    struck::Kind,
    supervisor::restart,
    world::World,
};

/// What the copy is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Double {
    /// A disk that is in use.
    Used,
    /// A disk that is lost; its machine has another.
    Retired,
}

/// The machine with the copy.
pub(crate) const COPY: HostId = HostId::node(20);

/// Between two looks at what the metadata service knows.
const LOOK_EVERY: Duration = Duration::from_millis(700);

/// Copies one disk at some time, and starts the copy when it is known to be old.
pub(crate) async fn double(world: Arc<World>) {
    let Some(double) = world.plan.double else { return };
    let mut dice = world.dice("double");
    sleep(dice.millis(3_000, 12_000) * world.plan.stretch).await;
    let nodes: Vec<_> = world.hosts().nodes.keys().copied().collect();
    let Some(node) = dice.pick(&nodes).copied() else {
        return;
    };
    while !world.runs(node) {
        sleep(LOOK_EVERY).await;
    }
    let Some((disk, log_seq)) = copied(&world, node) else {
        return;
    };
    world.happened(format!("the disk of {node} is copied at record {log_seq}"));
    while known(&world, node).await.is_none_or(|known| known <= log_seq) {
        sleep(LOOK_EVERY).await;
    }
    if double == Double::Retired {
        wipe(&world, node, dice.seed());
        restart(Arc::clone(&world), node).await;
        while known(&world, node).await.is_none() {
            sleep(LOOK_EVERY).await;
        }
        sleep(dice.millis(0, 5_000)).await;
    }
    world.tally.strikes(match double {
        Double::Used => Kind::CopyOfUsed,
        Double::Retired => Kind::CopyOfRetired,
    });
    begin(&world, &mut dice, node, disk).await;
}

async fn begin(world: &Arc<World>, dice: &mut Dice, node: HostId, disk: vstack_engine::MemDisk) {
    let label = if dice.chance(50) { node } else { COPY };
    world.happened(format!(
        "{COPY} is a machine with a copy of the disk of {node}, and calls itself {label}"
    ));
    let host = NodeHost {
        disk,
        copy: Some(label),
        ..NodeHost::new(world.dice("copied disk"))
    };
    world.hosts().nodes.insert(COPY, host);
    restart(Arc::clone(world), COPY).await;
}

/// The disk of `node` as it is now, and how far its log reaches.
fn copied(world: &World, node: HostId) -> Option<(vstack_engine::MemDisk, u64)> {
    let hosts = world.hosts();
    let host = hosts.nodes.get(&node)?;
    Some((copy(&host.disk), host.running.as_ref()?.reader.stats().log_seq))
}

/// How far the log of the disk that is in `node` now reaches, by what the metadata service knows.
async fn known(world: &World, node: HostId) -> Option<u64> {
    let me = world.hosts().nodes.get(&node)?.me?;
    let row = world.store.node(node.to_string()).await.ok()??;
    let is_lost = world.hosts().harmed.contains(&me.uuid);
    (row.acceptor == Some(me) && !is_lost).then_some(row.log_seq)
}

/// The machine with the copy is taken away.
pub(crate) fn remove(world: &Arc<World>) {
    stop_node(world, COPY, End::Kill);
    if world.hosts().nodes.remove(&COPY).is_some() {
        world.happened(format!("{COPY} is taken away"));
    }
}
