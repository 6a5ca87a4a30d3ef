//! What keeps hosts running: starts them, starts again what ended, and mends everything in the end.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    dice::Dice,
    doubles, harm,
    hosts::{HostId, METADATA, NodeHost},
    network::Weather,
    power,
    processes::{End, start_metadata, start_node, start_uploader, stop_node},
    struck::Kind,
    world::World,
};

/// Starts `host` if nothing runs there.
pub(crate) async fn restart(world: Arc<World>, host: HostId) {
    boxed_start(world, host).await;
}

/// Another machine joins, when the plan says so.
pub(crate) async fn join(world: Arc<World>) {
    let Some(after) = world.plan.joins_after else { return };
    sleep(after).await;
    let n = world.plan.nodes + 1;
    let dice = world.dice(&format!("disk {n}"));
    let node = HostId::node(n);
    world.hosts().nodes.insert(node, NodeHost::new(dice));
    world.tally.strikes(Kind::NodeJoined);
    world.happened(format!("{node} joins"));
    restart(world, node).await;
}

pub(crate) fn restart_later(world: &Arc<World>, host: HostId, down: Duration) {
    let world = Arc::clone(world);
    tokio::spawn(async move {
        sleep(down).await;
        boxed_start(world, host).await;
    });
}

/// Boxed, because what does not start is started again.
fn boxed_start(world: Arc<World>, host: HostId) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { start(&world, host).await })
}

/// Starts what should run on `host` and does not.
async fn start(world: &Arc<World>, host: HostId) {
    // The machine may have been taken away since it was to be started again.
    if world.runs(host) || !world.everybody().contains(&host) {
        return;
    }
    let has_no_power = |world: &World| world.hosts().nodes.get(&host).is_some_and(|node| node.disk.is_down());
    if has_no_power(world) {
        // It is started again by who gives it power.
        return;
    }
    // How many faults of its disk came true.
    let struck = |world: &World| {
        let hosts = world.hosts();
        hosts
            .nodes
            .get(&host)
            .map(|node| node.planned.saturating_sub(node.disk.planned()))
    };
    let before = struck(world);
    let started = if host == METADATA {
        start_metadata(world);
        Ok(())
    } else if before.is_some() {
        start_node(world, host).await
    } else {
        start_uploader(world, host).await
    };
    match started {
        Err(why) if struck(world) > before || world.is_full(host) => {
            world.tally.strikes(Kind::NotStarted);
            world.happened(format!("{host} does not start: {why}"));
            restart_later(world, host, Duration::from_secs(2));
        }
        Err(why) => world.violate(format!("{host} does not start: {why}")),
        Ok(()) => {
            if let Err(what) = world.check_start(host) {
                world.violate(format!("as {host} starts: {what}"));
            }
        }
    }
}

/// Starts everything once.
pub(crate) async fn start_all(world: &Arc<World>) {
    for host in world.everybody() {
        start(world, host).await;
    }
}

/// Cuts off the nodes whose disks lost power in the middle of a change.
fn end_without_power(world: &Arc<World>, dice: &mut Dice) -> Vec<HostId> {
    let nodes: Vec<_> = {
        let hosts = world.hosts();
        let down = hosts.nodes.iter().filter(|(_, host)| host.disk.is_down());
        down.map(|(node, _)| *node).collect()
    };
    for node in &nodes {
        let seed = dice.seed();
        // One that lost power as it started never ran.
        if !stop_node(world, *node, End::PowerCut(seed))
            && let Some(host) = world.hosts().nodes.get(node)
        {
            power::cut(&host.disk, seed, &world.tally);
        }
    }
    nodes
}

/// Starts again what ended by itself, as a supervisor does, and what lost power, for ever.
pub(crate) async fn supervise(world: Arc<World>) {
    let mut dice = world.dice("supervisor");
    loop {
        sleep(Duration::from_secs(1)).await;
        for node in end_without_power(&world, &mut dice) {
            restart_later(&world, node, dice.millis(200, 10_000));
        }
        for host in world.everybody() {
            if world.ended_by_itself(host) {
                start(&world, host).await;
            }
        }
    }
}

/// Nothing goes wrong any more: the network is whole, clocks are right, everything runs.
pub(crate) async fn heal(world: &Arc<World>) {
    world.happened("nothing goes wrong any more");
    {
        let mut network = world.network();
        network.unblock_all();
        network.weather = Weather::default();
    }
    {
        let hosts = world.hosts();
        for host in hosts.nodes.values() {
            host.skew.set_ms(0);
            host.disk.forget_faults();
            host.disk.set_capacity(None);
        }
        hosts.uploaders.values().for_each(|host| host.skew.set_ms(0));
        hosts.metadata.skew.set_ms(0);
    }
    end_without_power(world, &mut world.dice("healer"));
    harm::replace(world);
    doubles::remove(world);
    start_all(world).await;
}
