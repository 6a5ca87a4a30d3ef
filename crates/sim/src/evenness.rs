//! The very end of a history: everything is whole and told so, and what is left to do is to even nodes out. That ends, in
//! as many zones as can be and with shares as equal as the planner promises, and the service says that it has ended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_client::MetadataClient;
use vstack_metadata::store::Node;
use vstack_types::NodeRef;

use crate::{
    actors::auditors,
    hosts::{METADATA, USERS},
    invariants::shares::Shares,
    world::World,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Returns when nodes are even.
pub(crate) async fn until_even(world: &Arc<World>) {
    while even(world).await.is_err() {
        sleep(LOOK_EVERY).await;
    }
}

/// What is not.
pub(crate) async fn why_not_even(world: &Arc<World>) -> String {
    let even = even(world).await;
    even.err().unwrap_or_else(|| "they are by now".to_owned())
}

/// Whether every copy is where it should be, and the service has nothing more to move.
///
/// # Errors
/// What is not so.
async fn even(world: &Arc<World>) -> Result<(), String> {
    let Some(placed) = auditors::placed(world).await else {
        return Err("the database does not answer".to_owned());
    };
    let shares = Shares::of(taking_part(world).await?, placed.values());
    for (chunk, placement) in &placed {
        if placement.prev.is_some() {
            return Err(format!("{chunk} is still on its way"));
        }
        shares.check(chunk, placement)?;
    }
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    let counted = metadata.census().await.map_err(|error| error.to_string())?;
    let told = counted.zones.map(|zones| (zones.there, zones.crowded_chunks));
    let zones = (world.plan.zones > 0).then_some((shares.zones() as u64, 0));
    if told != zones {
        return Err(format!(
            "zones and crowded chunks are {zones:?}, and the census says {told:?}"
        ));
    }
    let repairs = metadata.repairs().await.map_err(|error| error.to_string())?;
    if repairs.uneven > 0 || repairs.hurried {
        return Err(format!(
            "{} chunks are to be moved yet, hurried: {}",
            repairs.uneven, repairs.hurried
        ));
    }
    Ok(())
}

/// Nodes that chunks may be moved to, each with its zone.
pub(crate) async fn taking_part(world: &World) -> Result<BTreeMap<NodeRef, String>, String> {
    let registered = world.store.nodes().await.map_err(|error| error.to_string())?;
    let hosts = world.hosts();
    let takes_part = |node: &Node| {
        let acceptor = node.acceptor.filter(|_| node.trusted && !node.role.is_leaving())?;
        let votes = !hosts.acceptor(acceptor)?.reader.votes_lost();
        votes.then(|| (acceptor, node.zone.clone()))
    };
    Ok(registered.iter().filter_map(takes_part).collect())
}
