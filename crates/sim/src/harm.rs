//! What is done to a disk for good: bytes that were synced change, all is lost, or an earlier moment is put back.
//!
//! At most one disk of a history is harmed, because more than one lost disk is more than replicas stand. It is
//! entered in [`crate::hosts::Hosts::harmed`], and nothing else is excused. Damage is done while the node is down: what
//! is read again within a day is not looked at again, so damage under a running node shows only later.
//!
//! In the end the operator replaces it ([`replace`]), and what was on it is made whole. Of a disk that is lost he says so,
//! in the end or, some of them, while things still go wrong; then what lost its majority is salvaged in the midst of it.
//!
//! Where no disk was harmed, a copy may rot in the end, on a disk that stays in use ([`rot_late`]).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::sleep;
use vstack_client::MetadataClient;
use vstack_engine::{AdoptError, Adoption, BoxedDisk, MemDisk};
use vstack_types::{Clock as _, Digest, NodeUuid};

use crate::{
    actors::readers::scrub,
    clock::{SimClock, Skew},
    dice::Dice,
    disks::READABLE,
    ending::needs,
    hosts::{HostId, METADATA, RunningNode, USERS},
    ledger::{Deletion, Known},
    processes::{End, stop_node},
    rot::{Rot, Rotted, copy, is_ripe, opened, places, rot_copy},
    struck::Kind,
    supervisor::restart,
    world::World,
};

/// Copies looked at for one that was synced for certain.
const VICTIMS_LOOKED_AT: usize = 10;

/// What becomes of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Some of what was synced changes: see [`crate::rot`].
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
    sleep(dice.millis(5_000, 15_000) * world.plan.stretch).await;
    let nodes: Vec<_> = world.hosts().nodes.keys().copied().collect();
    let Some(node) = dice.pick(&nodes).copied() else {
        return;
    };
    let disk = uuid(&world, node);
    let done = match harm {
        Harm::Rot => rot(&world, &mut dice, node).await,
        Harm::Wiped => wipe(&world, node, dice.seed()),
        Harm::WentBack => go_back(&world, &mut dice, node).await,
    };
    if done.is_some() {
        if harm == Harm::Wiped {
            world.tally.strikes(Kind::DiskLost);
        }
        sleep(dice.millis(200, 6_000)).await;
        restart(Arc::clone(&world), node).await;
    }
    if harm == Harm::Rot {
        // What is read is found out, and what was found out is known after a restart.
        scrub(&world, node).await;
        stop_node(&world, node, End::Kill);
        restart(Arc::clone(&world), node).await;
        scrub(&world, node).await;
    }
    // Some operators know at once that a disk does not come back, others wait for the end.
    if harm == Harm::Wiped
        && let (Some(()), Some(lost)) = (done, disk)
        && dice.chance(50)
    {
        sleep(dice.millis(1_000, 15_000)).await;
        if say_lost(&world, lost).await {
            world.tally.strikes(Kind::DiskGivenUp);
        }
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

/// Waits until there is something that can rot, stops the node and lets it.
async fn rot(world: &Arc<World>, dice: &mut Dice, node: HostId) -> Option<()> {
    let disk = world.hosts().nodes.get(&node)?.disk.clone();
    while !is_ripe(&disk) || !world.runs(node) {
        sleep(Duration::from_secs(1)).await;
    }
    let me = uuid(world, node)?;
    stop_node(world, node, End::Kill);
    excuse(world, me);
    let Rotted { rot, kind, what } = crate::rot::rot(&disk, dice)?;
    world.tally.strikes(kind);
    world.hosts().rotten.insert(me, rot);
    world.happened(format!("{node}: {what}"));
    Some(())
}

/// Gives the machine an empty disk.
pub(crate) fn wipe(world: &Arc<World>, node: HostId, seed: u64) -> Option<()> {
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
    world.tally.strikes(Kind::DiskWentBack);
    Some(())
}

/// Has the disk go on under another name, with the bytes it has and without its votes, as `vstack node adopt` does.
fn adopt(world: &Arc<World>, node: HostId, seed: u64) {
    stop_node(world, node, End::PowerCut(seed));
    let Some(disk) = world.hosts().nodes.get(&node).map(|host| host.disk.clone()) else {
        return;
    };
    let (bytes, now) = (
        world.plan.pace.superblock_bytes,
        SimClock::start(world.begun, Skew::default()).wall(),
    );
    let new = NodeUuid::random();
    match Adoption::look(disk.clone(), bytes, now).and_then(|found| found.adopt(new)) {
        Ok(name) if name == new => {
            world.tally.strikes(Kind::DiskAdopted);
            world.happened(format!("the disk of {node} is {name} from now on"));
        }
        Ok(name) => return world.violate(format!("the disk of {node} was adopted and is still {name}")),
        // A fresh one, of which no start has come so far as to give it a name.
        Err(AdoptError::NoDisk | AdoptError::Nothing) => world.happened(format!("the disk of {node} has no name yet")),
        Err(error) => return world.violate(format!("the disk of {node} cannot be adopted: {error}")),
    }
    let voted = opened(BoxedDisk::new(copy(&disk)), bytes)
        .map(|reader| reader.list_registers(0, usize::MAX, None).expect(READABLE).entries);
    match voted.as_deref() {
        Ok([]) => {}
        Ok([register, ..]) => world.violate(format!("{node} was adopted, and has a vote for {}", register.id)),
        Err(error) => world.violate(format!("{node} was adopted, and its disk is refused: {error}")),
    }
    let mut hosts = world.hosts();
    hosts.adopted.insert(new);
    hosts.rotten.insert(new, Rot::More);
}

/// Notes that the disk of `node` gave up its name since it was started last, as its cluster asks one to that lost votes: what
/// was damaged on it still is.
pub(crate) fn note_renewal(world: &Arc<World>, node: HostId, running: &RunningNode) {
    let mut hosts = world.hosts();
    let before = hosts.nodes.get(&node).and_then(|host| host.me);
    let Some(old) = before.filter(|old| running.report.retired.contains(&old.uuid)) else {
        return;
    };
    if !hosts.harmed.contains(&old.uuid) {
        drop(hosts);
        return world.violate(format!("the disk of {node} was whole, and gave up its name {old}"));
    }
    hosts.adopted.insert(running.me.uuid);
    hosts.rotten.insert(running.me.uuid, Rot::More);
    world.tally.strikes(Kind::DiskRenewed);
}

/// The operator puts an empty disk into the machine whose disk was harmed, or keeps the bytes that are on it.
pub(crate) fn replace(world: &Arc<World>) {
    let harmed: Vec<_> = {
        let hosts = world.hosts();
        let of = |host: &crate::hosts::NodeHost| host.me.is_some_and(|me| hosts.harmed.contains(&me.uuid));
        let nodes = hosts.nodes.iter().filter(|(_, host)| of(host));
        nodes.map(|(node, _)| *node).collect()
    };
    let mut dice = world.dice("operator");
    for node in harmed {
        if dice.chance(50) {
            adopt(world, node, dice.seed());
        } else {
            world.tally.strikes(Kind::DiskReplaced);
            wipe(world, node, 0);
        }
        if let Some(host) = world.hosts().nodes.get_mut(&node) {
            host.me = None;
        }
    }
}

/// The operator says that the disks that were harmed do not come back.
pub(crate) async fn give_up(world: &Arc<World>) {
    let harmed: Vec<NodeUuid> = world.hosts().harmed.iter().copied().collect();
    for disk in harmed {
        say_lost(world, disk).await;
    }
}

/// The operator says that `disk` does not come back, as `vstack remove` does, until he is heard; whether it was ever
/// registered.
async fn say_lost(world: &Arc<World>, disk: NodeUuid) -> bool {
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    // He may be heard, and not told so.
    world.hosts().given_up.insert(disk);
    loop {
        match metadata.remove_node(&disk.to_string()).await {
            Ok(_) => {
                world.happened(format!("{disk} is given up"));
                return true;
            }
            Err(error) if error.status() == Some(404) => return false,
            Err(error) => world.noted(format!("{disk} cannot be given up yet: {error}")),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Once everything else is over a byte of a copy changes, on a disk that nobody harmed and that stays in use: whoever
/// keeps count has to find the copy damaged, and to have it made whole where it is. Everything can be decided without it.
pub(crate) async fn rot_late(world: &Arc<World>) {
    if !world.hosts().harmed.is_empty() {
        return;
    }
    let mut dice = world.dice("late rot");
    if !dice.chance(75) {
        return;
    }
    let victims = victims(world);
    let victim = (0..VICTIMS_LOOKED_AT).find_map(|_| {
        let victim = dice.pick(&victims)?;
        places(&victim.disk, &victim.item).map(|_| victim)
    });
    let Some(victim) = victim else { return };
    stop_node(world, victim.node, End::Kill);
    if let Some(what) = rot_copy(&victim.disk, &victim.item, &mut dice) {
        excuse(world, victim.me);
        world.hosts().rotten.insert(victim.me, Rot::Byte);
        world.hosts().kept.insert(victim.me);
        world.tally.strikes(Kind::RotCopy);
        world.happened(format!("{}: {what}", victim.node));
    }
    restart(Arc::clone(world), victim.node).await;
}

/// A copy on a disk that could rot.
struct Victim {
    node: HostId,
    me: NodeUuid,
    disk: MemDisk,
    item: Bytes,
}

/// The copies of films that can be watched, of which there are others, on disks without which everything can be decided.
fn victims(world: &World) -> Vec<Victim> {
    let (hosts, ledger, observer) = (world.hosts(), world.ledger(), world.observer());
    let is_spare = |disk: NodeUuid| {
        let mut chunks = observer.registers.keys();
        !chunks.any(|chunk| needs(&hosts, &observer, chunk, disk))
    };
    let spare: Vec<NodeUuid> = hosts
        .running_nodes()
        .map(|(_, node)| node.me.uuid)
        .filter(|disk| is_spare(*disk))
        .collect();
    let films = ledger.films.values();
    let watched = films.filter(|film| film.known == Known::Completed && film.deletion == Deletion::None);
    let mut victims = Vec::new();
    for (chunk, item) in watched.flat_map(|film| &film.chunks) {
        let current = observer.registers.get(chunk).and_then(|seen| seen.current());
        let Some(current) = current.filter(|current| current.prev.is_none()) else {
            continue;
        };
        let sha256 = Digest::of(item);
        let has = |node: &RunningNode| {
            let items = current.items_of(&current.layout, node.me);
            items.contains(&sha256) && node.reader.has_item(chunk, sha256).expect(READABLE)
        };
        let holders: Vec<_> = hosts.running_nodes().filter(|(_, node)| has(node)).collect();
        if holders.len() < 2 {
            continue;
        }
        for (node, running) in holders {
            let host = hosts.nodes.get(&node).filter(|_| spare.contains(&running.me.uuid));
            victims.extend(host.map(|host| Victim {
                node,
                me: running.me.uuid,
                disk: host.disk.clone(),
                item: item.clone(),
            }));
        }
    }
    victims
}
