//! What the census says in the end: once everything is whole it has to call each chunk what it is by the bytes on the disks,
//! read anew.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_api::census::Health;
use vstack_client::MetadataClient;
use vstack_engine::{BoxedDisk, Reader, Which};
use vstack_types::{ChunkId, Digest, Monotonic, NodeRef};

use crate::{
    actors::auditors,
    ending::is_beyond_repair,
    hosts::{METADATA, USERS},
    invariants::census,
    rot,
    world::World,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Returns when the census says of everything what is so; whether that is that all is whole.
pub(crate) async fn until_told(world: &Arc<World>) -> bool {
    loop {
        if let Ok(all_whole) = told(world).await {
            return all_whole;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What the census says that is not so.
pub(crate) async fn why_not_told(world: &Arc<World>) -> String {
    let told = told(world).await;
    told.err().unwrap_or_else(|| "it does by now".to_owned())
}

/// Whether the census was made of everything, and calls each chunk what it is by the bytes that are on disks. Where all is
/// as it should be, which is what is given, it is `healthy`, and nothing waits for anybody.
///
/// # Errors
/// What it says that is not so.
async fn told(world: &Arc<World>) -> Result<bool, String> {
    let metadata = MetadataClient::new(world.outsider(USERS), &METADATA.url());
    let counted = metadata.census().await.map_err(|error| error.to_string())?;
    let Some(placed) = auditors::placed(world).await else {
        return Err("the database does not answer".to_owned());
    };
    census::is_of_all(&counted, placed.values())?;
    let disks = disks(world)?;
    let (hosts, observer, named) = (world.hosts(), world.observer(), census::named(&counted));
    // Whether those can be counted that lost the majority of their nodes is nobody's to say.
    let is_for_people = |chunk: &ChunkId| is_beyond_repair(&hosts, &observer, chunk);
    let all_decide = !placed.keys().any(is_for_people);
    if !counted.complete && all_decide {
        return Err(format!("it is not complete: {:?}", counted.tally));
    }
    let mut all_whole = all_decide;
    for (chunk, placement) in placed.iter().filter(|(chunk, _)| !is_for_people(chunk)) {
        let assigned = census::assigned(placement);
        let held = assigned.iter().map(|(node, items)| {
            let has = |item: &&Digest| disks.get(node).is_some_and(|disk| holds(disk, chunk, **item));
            items.iter().filter(has).count()
        });
        let held: Vec<usize> = held.collect();
        let Some(is) = census::word(placement, world.plan.copies, &held) else {
            return Err(format!("{chunk} is still on its way"));
        };
        let called = named.get(chunk).copied().unwrap_or("whole");
        if called != is {
            return Err(format!(
                "it calls {chunk} {called}, which is {placement:?}, and disks have {held:?} of its items: it is {is}"
            ));
        }
        all_whole &= is == "whole";
    }
    if all_whole && (counted.health != Health::Healthy || !counted.waits.is_empty()) {
        return Err(format!(
            "everything is whole, and it says {:?}, and that this waits: {:?}",
            counted.health, counted.waits
        ));
    }
    Ok(all_whole)
}

/// What is on each disk in use, read anew from a copy of it.
fn disks(world: &World) -> Result<BTreeMap<NodeRef, Reader<BoxedDisk>>, String> {
    let hosts = world.hosts();
    let mut disks = BTreeMap::new();
    for (id, host) in hosts.nodes.iter().filter(|(_, host)| host.copy.is_none()) {
        let copy = BoxedDisk::new(rot::copy(&host.disk));
        let opened = rot::opened(copy, world.plan.pace.superblock_bytes);
        let reader = opened.map_err(|error| format!("the disk of {id} cannot be read: {error}"))?;
        disks.insert(reader.me(), reader);
    }
    Ok(disks)
}

/// Whether the bytes of `item` are on this disk, as they were.
fn holds(disk: &Reader<BoxedDisk>, chunk: &ChunkId, item: Digest) -> bool {
    let Ok(found) = disk.find(chunk, Which::Exact(item)) else {
        return false;
    };
    let read = disk.read(&found, None, Monotonic::default());
    read.is_ok_and(|bytes| Digest::of(&bytes) == item)
}
