//! What is done to a disk for good: bytes that were synced change, all is lost, or an earlier moment is put back.
//!
//! At most one disk of a history is harmed, because more than one lost disk is more than replicas stand. It is
//! entered in [`crate::hosts::Hosts::harmed`], and nothing else is excused. Damage is done while the node is down: what
//! is read again within a day is not looked at again, so damage under a running node shows only later.
//!
//! In the end the operator replaces it ([`replace`]), and [`crate::actors::repairer`] makes whole what was on it.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_engine::{Disk as _, MemDisk};
use vstack_types::NodeUuid;

use crate::{
    dice::Dice,
    faults::restart,
    hosts::HostId,
    processes::{End, stop_node},
    world::World,
};

/// What becomes of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// One byte of what was synced changes.
    Rot,
    /// It comes back empty.
    Wiped,
    /// What it held at an earlier moment is put back.
    WentBack,
}

/// Harms one disk at some time, and then no other.
pub(crate) async fn harm(world: Arc<World>) {
    let Some(harm) = world.plan.harm else { return };
    let mut dice = world.dice("harm");
    sleep(dice.millis(5_000, 15_000)).await;
    let nodes: Vec<_> = world.hosts().nodes.keys().copied().collect();
    let Some(node) = dice.pick(&nodes).copied() else {
        return;
    };
    let done = match harm {
        Harm::Rot => rot(&world, &mut dice, node).await,
        Harm::Wiped => wipe(&world, node, dice.seed()),
        Harm::WentBack => go_back(&world, &mut dice, node).await,
    };
    if done.is_some() {
        sleep(dice.millis(200, 6_000)).await;
        restart(Arc::clone(&world), node).await;
    }
}

/// The disk that a node had when it last started.
fn uuid(world: &World, node: HostId) -> Option<NodeUuid> {
    Some(world.hosts().nodes.get(&node)?.me?.uuid)
}

/// What it lacks from now on is nobody's fault.
fn excuse(world: &World, disk: NodeUuid) {
    world.hosts().harmed.insert(disk);
}

/// Everything that is on `disk`, as another disk.
fn copy(disk: &MemDisk) -> MemDisk {
    let copy = MemDisk::default();
    for name in disk.list().unwrap_or_default() {
        copy.plant(&name, &disk.contents(&name));
    }
    copy
}

/// Superblocks behind which others follow: all of them was synced, and is below a mark.
fn synced(disk: &MemDisk) -> Vec<String> {
    let mut names = disk.list().unwrap_or_default();
    names.retain(|name| {
        std::path::Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "vsb")
    });
    names.sort();
    names.pop();
    names
}

/// Waits until there is something that can rot, stops the node and changes a byte.
async fn rot(world: &Arc<World>, dice: &mut Dice, node: HostId) -> Option<()> {
    let disk = world.hosts().nodes.get(&node)?.disk.clone();
    while synced(&disk).is_empty() || !world.runs(node) {
        sleep(Duration::from_secs(1)).await;
    }
    let me = uuid(world, node)?;
    stop_node(world, node, End::Kill);
    excuse(world, me);
    let name = dice.pick(&synced(&disk)).cloned()?;
    let bytes = disk.contents(&name);
    // Most of a file may be empty, and what is empty says nothing.
    let filled: Vec<_> = (0..bytes.len()).filter(|at| bytes.get(*at) != Some(&0)).collect();
    let offset = dice.pick(&filled).copied()?;
    world.happened(format!("byte {offset} of {name} of {node} rots"));
    disk.flip(&name, offset);
    Some(())
}

/// Gives the machine an empty disk.
fn wipe(world: &Arc<World>, node: HostId, seed: u64) -> Option<()> {
    let me = uuid(world, node)?;
    stop_node(world, node, End::PowerCut(seed));
    excuse(world, me);
    world.happened(format!("the disk of {node} is lost, and an empty one put in"));
    world.hosts().nodes.get_mut(&node)?.disk = MemDisk::default();
    Some(())
}

/// Copies the disk of a running node, waits until the metadata service knows of something later, and puts it back.
async fn go_back(world: &Arc<World>, dice: &mut Dice, node: HostId) -> Option<()> {
    while !world.runs(node) {
        sleep(Duration::from_secs(1)).await;
    }
    let (before, log_seq, me) = {
        let hosts = world.hosts();
        let host = hosts.nodes.get(&node)?;
        let running = host.running.as_ref()?;
        (copy(&host.disk), running.reader.stats().log_seq, running.me.uuid)
    };
    let mut known = 0;
    while known <= log_seq {
        sleep(dice.millis(500, 3_000)).await;
        if let Ok(Some(row)) = world.store.node(node.to_string()).await
            && row.acceptor.is_some_and(|acceptor| acceptor.uuid == me)
        {
            known = row.log_seq;
        }
    }
    let seed = dice.seed();
    stop_node(world, node, End::PowerCut(seed));
    excuse(world, me);
    world.happened(format!(
        "the disk of {node} goes back from record {known} to record {log_seq}"
    ));
    let mut hosts = world.hosts();
    hosts.went_back.insert(me);
    hosts.nodes.get_mut(&node)?.disk = before;
    Some(())
}

/// The operator puts an empty disk into the machine whose disk was harmed.
pub(crate) fn replace(world: &Arc<World>) {
    let harmed: Vec<_> = {
        let hosts = world.hosts();
        let of = |host: &crate::hosts::NodeHost| host.me.is_some_and(|me| hosts.harmed.contains(&me.uuid));
        let nodes = hosts.nodes.iter().filter(|(_, host)| of(host));
        nodes.map(|(node, _)| *node).collect()
    };
    for node in harmed {
        wipe(world, node, 0);
        if let Some(host) = world.hosts().nodes.get_mut(&node) {
            host.me = None;
        }
    }
}
