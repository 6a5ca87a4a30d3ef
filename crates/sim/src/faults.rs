//! What goes wrong, one fault after the other, while the time of trouble lasts.
//!
//! To add a fault: a variant of [`Fault`], its line in [`draw`], what it does in [`strike`], and the [`Kind`] it counts as
//! when it takes effect. What it breaks is mended by [`heal`](crate::supervisor::heal), or the history cannot end well.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_engine::{Disk as _, Fault as DiskFault};

use crate::{
    dice::Dice,
    hosts::{HostId, METADATA},
    processes::{End, stop_metadata, stop_node, stop_uploader},
    struck::Kind,
    supervisor::restart_later,
    world::World,
};

/// Something that goes wrong, and for how long.
#[derive(Debug, Clone)]
enum Fault {
    /// A node's process ends, and starts again later.
    NodeEnds { node: HostId, end: End, down: Duration },
    /// A few changes of its disk from now a node loses power, in the middle of that change; or the change fails, or
    /// finds no space.
    DiskFails {
        node: HostId,
        changes: u64,
        fault: DiskFault,
    },
    /// A disk takes long, for a while.
    DiskSlow {
        node: HostId,
        percent: u32,
        lasts: Duration,
    },
    /// All nodes lose power at once.
    AllNodesEnd { seed: u64, down: Duration },
    /// The metadata service ends, and starts again later.
    MetadataEnds { down: Duration },
    /// An uploader ends, and starts again later.
    UploaderEnds { uploader: HostId, down: Duration },
    /// A host hears nobody, is heard by nobody, or both.
    CutOff {
        host: HostId,
        hears: bool,
        is_heard: bool,
        lasts: Duration,
    },
    /// Two groups of hosts do not hear each other, or one of them not the other.
    Split {
        side: Vec<HostId>,
        both_ways: bool,
        lasts: Duration,
    },
    /// A disk has no room left, for a while.
    DiskFull { node: HostId, lasts: Duration },
    /// A host's wall clock is set.
    ClockSet { host: HostId, ms: i64 },
}

fn draw(world: &World, dice: &mut Dice) -> Option<Fault> {
    let (nodes, uploaders): (Vec<_>, Vec<_>) = {
        let hosts = world.hosts();
        (
            hosts.nodes.keys().copied().collect(),
            hosts.uploaders.keys().copied().collect(),
        )
    };
    let node = *dice.pick(&nodes)?;
    let down = dice.millis(200, 15_000);
    Some(match dice.below(100) {
        0..20 => Fault::DiskFails {
            node,
            changes: dice.between(1, 12),
            fault: [
                DiskFault::PowerCut,
                DiskFault::PowerCut,
                DiskFault::Error,
                DiskFault::Full,
            ][dice.index(4)],
        },
        20..25 => Fault::DiskSlow {
            node,
            percent: [5, 30, 100][dice.index(3)],
            lasts: dice.millis(1_000, 15_000),
        },
        25..40 => {
            let end = if dice.chance(60) {
                End::PowerCut(dice.seed())
            } else {
                End::Kill
            };
            Fault::NodeEnds { node, end, down }
        }
        40..45 => Fault::AllNodesEnd {
            seed: dice.seed(),
            down,
        },
        45..55 => Fault::MetadataEnds { down },
        55..65 => Fault::UploaderEnds {
            uploader: *dice.pick(&uploaders)?,
            down,
        },
        65..72 => {
            let mut side = world.everybody();
            side.retain(|_| dice.chance(50));
            Fault::Split {
                side,
                both_ways: dice.chance(50),
                lasts: dice.millis(500, 20_000),
            }
        }
        72..76 => Fault::DiskFull {
            node,
            lasts: dice.millis(500, 15_000),
        },
        76..90 => {
            let host = match dice.below(4) {
                0 => METADATA,
                1 => *dice.pick(&uploaders)?,
                _ => node,
            };
            let (hears, is_heard) = [(false, false), (true, false), (false, true)][dice.index(3)];
            let lasts = dice.millis(500, 20_000);
            Fault::CutOff {
                host,
                hears,
                is_heard,
                lasts,
            }
        }
        _ => {
            let uploader = dice.pick(&uploaders).copied().unwrap_or(METADATA);
            let host = *dice.pick(&[METADATA, uploader, node, node])?;
            let ms = i64::try_from(dice.below(40_000)).unwrap_or(0) - 20_000;
            Fault::ClockSet { host, ms }
        }
    })
}

/// Lets one thing after the other go wrong, for ever.
pub(crate) async fn trouble(world: Arc<World>) {
    let mut dice = world.dice("faults");
    let every = u64::try_from(world.plan.fault_every.as_millis()).unwrap_or(1_000);
    loop {
        sleep(dice.millis(every / 4, every * 2)).await;
        if let Some(fault) = draw(&world, &mut dice) {
            strike(&world, fault);
        }
    }
}

fn strike(world: &Arc<World>, fault: Fault) {
    match fault {
        Fault::NodeEnds { node, end, down } => {
            if stop_node(world, node, end) {
                world.tally.strikes(match end {
                    End::Kill => Kind::NodeKilled,
                    End::PowerCut(_) => Kind::NodeLostPower,
                });
                restart_later(world, node, down);
            }
        }
        Fault::DiskFails { node, changes, fault } => {
            world.happened(format!("the disk of {node} is to fail: {fault:?} in {changes} changes"));
            if let Some(host) = world.hosts().nodes.get_mut(&node) {
                host.disk.plan(host.disk.changes() + changes, fault);
                host.planned += 1;
            }
        }
        Fault::DiskSlow { node, percent, lasts } => {
            world.happened(format!("the disk of {node} is slow"));
            world.slow_disk(node, percent);
            let world = Arc::clone(world);
            tokio::spawn(async move {
                sleep(lasts).await;
                world.slow_disk(node, 0);
            });
        }
        Fault::AllNodesEnd { seed, down } => {
            let nodes: Vec<_> = world.hosts().nodes.keys().copied().collect();
            let mut ended = 0;
            for (node, seed) in nodes.into_iter().zip(seed..) {
                if stop_node(world, node, End::PowerCut(seed)) {
                    ended += 1;
                    restart_later(world, node, down);
                }
            }
            if ended > 1 {
                world.tally.strikes(Kind::AllLostPower);
            }
        }
        Fault::MetadataEnds { down } => {
            if stop_metadata(world) {
                world.tally.strikes(Kind::MetadataKilled);
                restart_later(world, METADATA, down);
            }
        }
        Fault::UploaderEnds { uploader, down } => match stop_uploader(world, uploader) {
            Ok(true) => {
                world.tally.strikes(Kind::UploaderKilled);
                restart_later(world, uploader, down);
            }
            Ok(false) => {}
            Err(error) => world.violate(format!("the simulation's own disk failed: {error}")),
        },
        Fault::CutOff {
            host,
            hears,
            is_heard,
            lasts,
        } => cut_off(world, host, (hears, is_heard), lasts),
        Fault::Split { side, both_ways, lasts } => split(world, side, both_ways, lasts),
        Fault::DiskFull { node, lasts } => fill(world, node, lasts),
        Fault::ClockSet { host, ms } => {
            world.happened(format!("the clock of {host} is {ms} ms off"));
            let hosts = world.hosts();
            let skew = match (hosts.nodes.get(&host), hosts.uploaders.get(&host)) {
                (Some(node), _) => &node.skew,
                (None, Some(uploader)) => &uploader.skew,
                (None, None) => &hosts.metadata.skew,
            };
            skew.set_ms(ms);
            match ms {
                0 => {}
                1.. => world.tally.strikes(Kind::ClockAhead),
                _ => world.tally.strikes(Kind::ClockBehind),
            }
        }
    }
}

fn cut_off(world: &Arc<World>, host: HostId, (hears, is_heard): (bool, bool), lasts: Duration) {
    world.happened(format!("{host} is cut off: hears {hears}, is heard {is_heard}"));
    let others: Vec<_> = world.everybody().into_iter().filter(|other| *other != host).collect();
    world.tally.strikes(match (hears, is_heard) {
        (false, true) => Kind::Deaf,
        (true, false) => Kind::Mute,
        _ => Kind::CutOff,
    });
    for other in &others {
        let mut network = world.network();
        if !hears {
            network.block(*other, host);
        }
        if !is_heard {
            network.block(host, *other);
        }
    }
    let world = Arc::clone(world);
    tokio::spawn(async move {
        sleep(lasts).await;
        world.happened(format!("{host} is back on the network"));
        for other in others {
            world.network().unblock(host, other);
        }
    });
}

/// What `side` says is not heard outside of it; nor, both ways, the other way round.
fn split(world: &Arc<World>, side: Vec<HostId>, both_ways: bool, lasts: Duration) {
    world.happened(format!("{side:?} split off, both ways: {both_ways}"));
    let others: Vec<_> = world
        .everybody()
        .into_iter()
        .filter(|host| !side.contains(host))
        .collect();
    let links: Vec<_> = side
        .iter()
        .flat_map(|one| others.iter().map(|other| (*one, *other)))
        .collect();
    if !links.is_empty() {
        world
            .tally
            .strikes(if both_ways { Kind::Split } else { Kind::SplitOneWay });
    }
    for (one, other) in &links {
        let mut network = world.network();
        network.block(*one, *other);
        if both_ways {
            network.block(*other, *one);
        }
    }
    let world = Arc::clone(world);
    tokio::spawn(async move {
        sleep(lasts).await;
        world.happened("the split is mended");
        for (one, other) in links {
            world.network().unblock(one, other);
        }
    });
}

/// The disk of `node` has room for nothing more, until somebody makes some.
fn fill(world: &Arc<World>, node: HostId, lasts: Duration) {
    let Some(disk) = world.hosts().nodes.get(&node).map(|host| host.disk.clone()) else {
        return;
    };
    let Ok(usage) = disk.usage() else { return };
    world.happened(format!("the disk of {node} is full"));
    disk.set_capacity(Some(usage.used_bytes));
    let world = Arc::clone(world);
    tokio::spawn(async move {
        sleep(lasts).await;
        world.happened(format!("the disk of {node} has room again"));
        disk.set_capacity(None);
    });
}
