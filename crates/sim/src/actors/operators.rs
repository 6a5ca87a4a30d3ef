//! An operator who empties nodes and thinks better of it, and hurries what evens nodes out, while everything goes on.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_client::MetadataClient;

use crate::{
    hosts::{HostId, METADATA, NodeHost, USERS},
    struck::Kind,
    world::World,
};

/// Between two tries in the end.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Drains a node, takes that back or has nodes evened out now and then, for ever.
pub(crate) async fn operate(world: Arc<World>) {
    if !world.plan.operates {
        return;
    }
    let mut dice = world.dice("operator of nodes");
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    loop {
        sleep(dice.millis(3_000, 15_000)).await;
        let nodes = staying(&world);
        let Some(node) = dice.pick(&nodes).map(ToString::to_string) else {
            continue;
        };
        let done = match dice.below(4) {
            0 | 1 => metadata.drain_node(&node).await.map(|_| {
                world.tally.strikes(Kind::NodeDrained);
                format!("{node} is drained")
            }),
            2 => metadata
                .activate_node(&node)
                .await
                .map(|_| format!("{node} is to stay")),
            _ => metadata.rebalance().await.map(|_| "nodes are evened out".to_owned()),
        };
        match done {
            Ok(what) => world.happened(what),
            Err(error) => world.noted(format!("the operator is not heard: {error}")),
        }
    }
}

/// All nodes but those that somebody takes out for good ([`super::removers`]).
fn staying(world: &World) -> Vec<HostId> {
    let hosts = world.hosts();
    let goes = |host: &NodeHost| host.me.is_some_and(|me| hosts.given_up.contains(&me.uuid));
    let nodes = hosts.nodes.iter().filter(|(_, host)| !goes(host));
    nodes.map(|(node, _)| *node).collect()
}

/// Takes back that nodes are to be emptied, until that is heard.
pub(crate) async fn take_back(world: &Arc<World>) {
    if !world.plan.operates {
        return;
    }
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    for node in staying(world) {
        loop {
            match metadata.activate_node(&node.to_string()).await {
                Ok(_) => break,
                // It was never registered.
                Err(error) if error.status() == Some(404) => break,
                Err(error) => world.noted(format!("{node} cannot be kept yet: {error}")),
            }
            sleep(AGAIN_AFTER).await;
        }
    }
}
