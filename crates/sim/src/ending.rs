//! The end of a history: nothing goes wrong any more, so everything acknowledged must become whole again, and of what
//! failed or was deleted nothing may stay.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::Placement;
use vstack_client::{MetadataClient, NodeClient};
use vstack_types::VideoId;

use crate::{
    actors::readers::{Watched, read},
    hosts::{Hosts, METADATA, USERS},
    ledger::{Deletion, FilmRecord, Known},
    world::World,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Returns when everything is as it should be.
pub(crate) async fn until_whole(world: &Arc<World>) {
    while whole(world).await.is_err() {
        sleep(LOOK_EVERY).await;
    }
}

/// Whether everything is as it should be in the end.
///
/// # Errors
/// What is not.
pub(crate) async fn whole(world: &Arc<World>) -> Result<(), String> {
    let films = world.ledger().films.clone();
    for (video, film) in films {
        let status = match world.store.video(video).await {
            Ok(row) => row.map(|row| row.status),
            Err(error) => return Err(error.to_string()),
        };
        match status {
            Some(VideoStatus::Active) => is_whole(world, video, &film).await?,
            Some(VideoStatus::Uploading) => return Err(format!("{video} is still being uploaded")),
            Some(VideoStatus::Failed | VideoStatus::Deleted) | None => is_gone(world, video, &film)?,
        }
        if film.known == Known::Completed && film.deletion == Deletion::None && status != Some(VideoStatus::Active) {
            return Err(format!("{video} was completed and is {status:?}"));
        }
    }
    Ok(())
}

/// Whether `placement` lost its majority with the disks that were harmed: replicas on two disks do not survive the
/// loss of one. Such a register stays as it is, and what is left of it is for `vstack salvage`.
fn is_beyond_repair(hosts: &Hosts, placement: &Placement) -> bool {
    !placement.quorum(|node| !hosts.harmed.contains(&node.uuid))
}

/// A majority of each chunk's nodes have its bytes, and people can read it.
async fn is_whole(world: &Arc<World>, video: VideoId, film: &FilmRecord) -> Result<(), String> {
    {
        let (hosts, observer) = (world.hosts(), world.observer());
        for (chunk, _) in &film.chunks {
            let Some(current) = observer.registers.get(chunk).and_then(|seen| seen.current()) else {
                return Err(format!("nothing is decided about {chunk}"));
            };
            if is_beyond_repair(&hosts, current) {
                return Ok(());
            }
            let nodes = current.layout.nodes();
            if let Some(lost) = nodes.iter().find(|node| hosts.harmed.contains(&node.uuid)) {
                return Err(format!("{chunk} is still placed on {lost}, which was lost"));
            }
            let holds = |node: &&vstack_types::NodeRef| {
                let items = current.items_of(&current.layout, **node);
                hosts
                    .acceptor(**node)
                    .is_some_and(|running| items.iter().all(|item| running.reader.has_item(chunk, *item)))
            };
            let held = nodes.iter().filter(holds).count();
            if held <= nodes.len() / 2 {
                return Err(format!("{chunk} is whole on {held} of {} nodes", nodes.len()));
            }
        }
    }
    let http = world.outsider(USERS);
    let (metadata, nodes) = (
        MetadataClient::new(http.clone(), &METADATA.url()),
        NodeClient::new(http),
    );
    match read(&metadata, &nodes, video, &film.chunks).await? {
        Watched::Whole => Ok(()),
        Watched::Missing(what) => Err(format!("{video} cannot be read: {what}")),
    }
}

/// No node has bytes of it, or could still vote for any.
fn is_gone(world: &World, video: VideoId, film: &FilmRecord) -> Result<(), String> {
    let hosts = world.hosts();
    for (id, node) in hosts.running_nodes() {
        for (chunk, bytes) in &film.chunks {
            let register = node.reader.register(chunk);
            if let Some(vote) = &register.accepted
                && is_beyond_repair(&hosts, &vote.placement)
            {
                continue;
            }
            if node.reader.has_item(chunk, vstack_types::Digest::of(bytes)) {
                return Err(format!("{id} still has bytes of {chunk} of {video}"));
            }
            if register
                .accepted
                .is_some_and(|vote| !vote.placement.layout.is_deleted())
            {
                return Err(format!("{id} still has a register of {chunk} that places it"));
            }
        }
    }
    Ok(())
}
