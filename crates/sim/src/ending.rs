//! The end of a history: nothing goes wrong any more, so everything acknowledged must become whole again, and of what
//! failed or was deleted nothing may stay.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::{Layout, Shard};
use vstack_client::{MetadataClient, NodeClient};
use vstack_types::{ChunkId, VideoId};

use crate::{
    actors::{
        readers::{Watched, read},
        repairer::is_coded,
    },
    history::WHOLE_WITHIN,
    hosts::{Hosts, METADATA, USERS},
    ledger::{Deletion, FilmRecord, Known},
    observer::Observer,
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

/// Whether the placement of `chunk`, or another that a node accepted, lost its majority with the disks that were harmed:
/// replicas on two disks do not survive the loss of one. Such a register stays as it is, for people to decide about.
fn is_beyond_repair(hosts: &Hosts, observer: &Observer, chunk: &ChunkId) -> bool {
    let accepted = hosts
        .running_nodes()
        .filter_map(|(_, node)| node.reader.register(chunk).accepted);
    let current = observer.registers.get(chunk).and_then(|seen| seen.current()).cloned();
    let mut placements = accepted.map(|vote| vote.placement).chain(current);
    placements.any(|placement| !placement.quorum(|node| !hosts.harmed.contains(&node.uuid)))
}

/// A majority of each chunk's nodes have its bytes, as was acknowledged, and people can read it. Copies beyond that are
/// made by an uploader while it lives, and by nobody yet when a script left them out.
async fn is_whole(world: &Arc<World>, video: VideoId, film: &FilmRecord) -> Result<(), String> {
    let mut beyond_repair = false;
    {
        let (hosts, observer) = (world.hosts(), world.observer());
        for (chunk, _) in &film.chunks {
            let Some(current) = observer.registers.get(chunk).and_then(|seen| seen.current()) else {
                return Err(format!("nothing is decided about {chunk}"));
            };
            if is_beyond_repair(&hosts, &observer, chunk) {
                beyond_repair = true;
                continue;
            }
            if is_coded(current) && current.prev.is_some() {
                return Err(format!("{chunk} is still on its way to shards or from them"));
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
            if let Layout::Coded { data, shards, .. } = &current.layout {
                let good = |shard: &&Shard| {
                    let there = hosts.acceptor(shard.node);
                    there.is_some_and(|running| running.reader.has_item(chunk, shard.sha256))
                };
                let good = shards.iter().filter(good).count();
                if good < usize::from(*data) {
                    return Err(format!("{good} shards of {chunk} are there, {data} are needed"));
                }
            }
        }
    }
    let http = world.outsider(USERS);
    let (metadata, nodes) = (
        MetadataClient::new(http.clone(), &METADATA.url()),
        NodeClient::new(http),
    );
    match read(world, &metadata, &nodes, (video, &film.chunks)).await? {
        Watched::Whole => Ok(()),
        Watched::Missing(_) if beyond_repair => Ok(()),
        Watched::Missing(what) => Err(format!("{video} cannot be read: {what}")),
    }
}

/// No node has bytes of it, or could still vote for any.
fn is_gone(world: &World, video: VideoId, film: &FilmRecord) -> Result<(), String> {
    let (hosts, ledger, observer) = (world.hosts(), world.ledger(), world.observer());
    // Bytes that nobody ever voted for go by themselves, after their staging time.
    let staging_lasts = world.plan.pace.staging_ttl > WHOLE_WITHIN;
    for (id, node) in hosts.running_nodes() {
        for (chunk, _) in &film.chunks {
            if is_beyond_repair(&hosts, &observer, chunk) {
                continue;
            }
            let register = node.reader.register(chunk);
            let sent = ledger.contents.get(chunk).into_iter().flatten();
            // Nobody asks a disk that was adopted for bytes that it had under another name either.
            let adopted = hosts.adopted.contains(&node.me.uuid);
            let may_stay = register.accepted.is_none() && (staging_lasts || adopted);
            if !may_stay && sent.into_iter().any(|item| node.reader.has_item(chunk, *item)) {
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
