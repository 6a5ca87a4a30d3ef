//! The end of a history: nothing goes wrong any more, so everything acknowledged must become whole again, and of what
//! failed or was deleted nothing may stay.
//!
//! It is looked at twice: when people can have everything again ([`Demand::Majority`]), and when all of it is there
//! ([`Demand::Everything`]). The services do that by themselves, once they are told which disks do not come back. Then the
//! census has to say of every chunk what is on the disks, byte for byte ([`crate::told`]), and what is left to be done is to be
//! done ([`crate::closing`]).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::{Layout, Placement, ShardSet};
use vstack_client::{MetadataClient, NodeClient};
use vstack_types::{ChunkId, Digest, NodeRef, NodeUuid, VideoId};

use crate::{
    actors::{
        readers::{Watched, read},
        rivals::urls,
    },
    disks::READABLE,
    history::WHOLE_WITHIN,
    hosts::{Hosts, METADATA, USERS},
    ledger::{Deletion, FilmRecord, Known},
    observer::Observer,
    placed::{is_coded, is_thin, missing},
    shards::encode,
    world::World,
};

/// For one copy or shard.
const ITEM_TIMEOUT: Duration = Duration::from_secs(3);
/// More often no chunk of a history is salvaged.
const SALVAGES_MAX: u32 = 20;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// When a film that can be watched counts as whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// A majority of each chunk's nodes have their copies, or as many shards as it takes to read it. An uploader that
    /// lives makes the other copies, and nobody yet those that a script left out or a move went on without.
    Majority,
    /// Each chunk is at rest and has as many copies as it is to have and there are nodes for; each of them, or each
    /// shard, is on its node, which knows that it is to keep it, and is as it was sent; and the metadata service knows
    /// where.
    Everything,
}

/// Returns when everything is as it should be.
pub(crate) async fn until_whole(world: &Arc<World>, demand: Demand) {
    while whole(world, demand).await.is_err() {
        sleep(LOOK_EVERY).await;
    }
}

/// What keeps a history from its end.
pub(crate) async fn why_not_whole(world: &Arc<World>) -> String {
    for demand in [Demand::Majority, Demand::Everything] {
        if let Err(why) = whole(world, demand).await {
            return why;
        }
    }
    "an upload never ends".to_owned()
}

/// Whether everything is as it should be in the end.
///
/// # Errors
/// What is not.
async fn whole(world: &Arc<World>, demand: Demand) -> Result<(), String> {
    let films = world.ledger().films.clone();
    for (video, film) in films {
        let status = match world.store.video(video).await {
            Ok(row) => row.map(|row| row.status),
            Err(error) => return Err(error.to_string()),
        };
        match status {
            Some(VideoStatus::Active) => is_whole(world, (video, &film), demand).await?,
            Some(VideoStatus::Uploading) => return Err(format!("{video} is still being uploaded")),
            Some(VideoStatus::Failed | VideoStatus::Deleted) | None => is_gone(world, video, &film)?,
        }
        if film.known == Known::Completed && film.deletion == Deletion::None && status != Some(VideoStatus::Active) {
            return Err(format!("{video} was completed and is {status:?}"));
        }
    }
    Ok(())
}

/// The placement of `chunk`, and those that nodes accepted.
fn placements(hosts: &Hosts, observer: &Observer, chunk: &ChunkId) -> impl Iterator<Item = Placement> {
    let accepted = hosts
        .running_nodes()
        .filter_map(move |(_, node)| node.reader.register(chunk).expect(READABLE).accepted);
    let current = observer.registers.get(chunk).and_then(|seen| seen.current()).cloned();
    accepted.map(|vote| vote.placement).chain(current)
}

/// Whether the placement of `chunk`, or another that a node accepted, lost its majority with the disks that were harmed:
/// replicas on two disks do not survive the loss of one. Such a register stays as it is, for people to decide about.
pub(crate) fn is_beyond_repair(hosts: &Hosts, observer: &Observer, chunk: &ChunkId) -> bool {
    placements(hosts, observer, chunk).any(|placement| !placement.quorum(|node| !hosts.is_gone(node.uuid)))
}

/// The same by what an operator said, too: the metadata service may take that for the end of `chunk`, whether or not a disk
/// that it was to do without is there.
pub(crate) fn may_be_given_up(hosts: &Hosts, observer: &Observer, chunk: &ChunkId) -> bool {
    placements(hosts, observer, chunk).any(|placement| !placement.quorum(|node| !hosts.is_given_up(node.uuid)))
}

/// Whether nothing could be decided about `chunk` without `disk`. About what is deleted nothing has to be.
pub(crate) fn needs(hosts: &Hosts, observer: &Observer, chunk: &ChunkId, disk: NodeUuid) -> bool {
    let placements = placements(hosts, observer, chunk);
    let mut stored = placements.filter(|placement| !placement.layout.is_deleted());
    stored.any(|placement| !placement.quorum(|node| node.uuid != disk && !hosts.is_gone(node.uuid)))
}

/// Every chunk is where it should be, as far as is demanded, and people can read the film.
async fn is_whole(world: &Arc<World>, (video, film): (VideoId, &FilmRecord), demand: Demand) -> Result<(), String> {
    let http = world.outsider(USERS);
    let (metadata, nodes) = (
        MetadataClient::new(http.clone(), &METADATA.url()),
        NodeClient::new(http),
    );
    let mut beyond_repair = false;
    for (chunk, sent) in &film.chunks {
        let stands = in_place_of(world, chunk).await;
        let stands = stands.as_ref().unwrap_or(chunk);
        let Some(current) = placed(world, stands, demand)? else {
            if demand == Demand::Everything && is_to_be_salvaged(world, chunk, sent) {
                return Err(format!("{chunk} lost its majority, and was not salvaged"));
            }
            beyond_repair = true;
            continue;
        };
        if demand == Demand::Everything {
            is_learned(world, stands, &current).await?;
            is_as_sent(world, &nodes, (stands, sent), &current).await?;
        }
    }
    match read(world, &metadata, &nodes, (video, &film.chunks)).await? {
        Watched::Whole => Ok(()),
        Watched::Missing(_) if beyond_repair => Ok(()),
        Watched::Missing(what) => Err(format!("{video} cannot be read: {what}")),
    }
}

/// The chunk that was salvaged from `chunk` and stands in its place.
async fn in_place_of(world: &World, chunk: &ChunkId) -> Option<ChunkId> {
    for times in 1..=SALVAGES_MAX {
        let id = chunk.salvaged(times)?;
        if let Ok(Some(_)) = world.store.chunk(id.clone()).await {
            return Some(id);
        }
    }
    None
}

/// Whether the last placement of `chunk` lost its majority, and one of its nodes has its bytes.
fn is_to_be_salvaged(world: &World, chunk: &ChunkId, sent: &Bytes) -> bool {
    let (hosts, observer) = (world.hosts(), world.observer());
    let current = observer.registers.get(chunk).and_then(|seen| seen.current());
    let Some(current) = current.filter(|current| !current.quorum(|node| !hosts.is_gone(node.uuid))) else {
        return false;
    };
    let running = hosts.running_nodes().map(|(_, node)| node);
    let named: Vec<_> = running.filter(|node| current.names(node.me)).collect();
    let has = |item: Digest| {
        named
            .iter()
            .any(|node| node.reader.has_item(chunk, item).expect(READABLE))
    };
    let sources = current.sources();
    let is_enough = |set: ShardSet| {
        let items = set.of.iter().filter(|shard| has(shard.sha256));
        let indexes: BTreeSet<u8> = items.map(|shard| shard.index).collect();
        indexes.len() >= usize::from(set.data)
    };
    has(Digest::of(sent)) || sources.shards.is_some_and(is_enough)
}

/// Where `chunk` is, as far as is demanded; none when it is beyond repair.
fn placed(world: &World, chunk: &ChunkId, demand: Demand) -> Result<Option<Placement>, String> {
    let (hosts, observer) = (world.hosts(), world.observer());
    let Some(current) = observer.registers.get(chunk).and_then(|seen| seen.current()) else {
        return Err(format!("nothing is decided about {chunk}"));
    };
    if is_beyond_repair(&hosts, &observer, chunk) {
        return Ok(None);
    }
    if current.prev.is_some() && (demand == Demand::Everything || is_coded(current)) {
        return Err(format!("{chunk} is still on its way"));
    }
    let nodes = current.layout.nodes();
    if let Some(lost) = nodes.iter().find(|node| hosts.is_gone(node.uuid)) {
        return Err(format!("{chunk} is still placed on {lost}, which was lost"));
    }
    if let Some(removed) = nodes.iter().find(|node| hosts.removed.contains(&node.uuid)) {
        return Err(format!("{chunk} is still placed on {removed}, which was taken out"));
    }
    match demand {
        Demand::Majority => has_majority(&hosts, chunk, current)?,
        Demand::Everything if is_thin(&hosts, current, world.plan.copies) => {
            return Err(format!("{chunk} has {} copies, and more could be", nodes.len()));
        }
        Demand::Everything => {
            let mut missing = nodes.iter().filter_map(|node| missing(&hosts, chunk, current, *node));
            if let Some(what) = missing.next() {
                return Err(format!("{chunk} is not whole: {what}"));
            }
        }
    }
    Ok(Some(current.clone()))
}

fn has_majority(hosts: &Hosts, chunk: &ChunkId, current: &Placement) -> Result<(), String> {
    let nodes = current.layout.nodes();
    let held_by = |node: NodeRef| {
        let items = current.items_of(&current.layout, node).into_iter();
        let has = |item: &Digest| {
            hosts
                .acceptor(node)
                .is_some_and(|there| there.reader.has_item(chunk, *item).expect(READABLE))
        };
        (items.len(), items.filter(has).count())
    };
    let held = nodes.iter().map(|node| held_by(*node));
    let (whole, items) = held.fold((0, 0), |(whole, items), (all, there)| {
        (whole + usize::from(all == there), items + there)
    });
    if whole <= nodes.len() / 2 {
        return Err(format!("{chunk} is whole on {whole} of {} nodes", nodes.len()));
    }
    match &current.layout {
        Layout::Coded { data, .. } if items < usize::from(*data) => {
            Err(format!("{items} shards of {chunk} are there, {data} are needed"))
        }
        _ => Ok(()),
    }
}

async fn is_learned(world: &World, chunk: &ChunkId, current: &Placement) -> Result<(), String> {
    match world.store.chunk(chunk.clone()).await {
        Ok(Some((_, known))) if known.placement == *current => Ok(()),
        Ok(known) => {
            let known = known.map(|(_, known)| known.placement.version);
            let decided = current.version;
            Err(format!(
                "version {decided} of {chunk} is decided, and the metadata service knows {known:?}"
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Every node gives what `current` places there, and that is `sent`, or a shard of it.
async fn is_as_sent(
    world: &World,
    nodes: &NodeClient,
    (chunk, sent): (&ChunkId, &Bytes),
    current: &Placement,
) -> Result<(), String> {
    let copies: Vec<(NodeRef, Bytes)> = match &current.layout {
        Layout::Coded { data, parity, shards } => {
            let right = encode(sent, *data, *parity);
            let mut listed = shards.iter().zip(&right);
            // A node may still have the right one besides.
            if let Some((wrong, _)) = listed.find(|(shard, right)| shard.sha256 != Digest::of(right)) {
                return Err(format!(
                    "what is listed as shard {} of {chunk} is none of it",
                    wrong.index
                ));
            }
            shards.iter().map(|shard| shard.node).zip(right).collect()
        }
        layout => layout.nodes().into_iter().map(|node| (node, sent.clone())).collect(),
    };
    let urls = urls(world);
    for (node, bytes) in copies {
        let Some(holder) = urls.holder(node) else {
            return Err(format!("nobody knows where {node} is"));
        };
        match timeout(ITEM_TIMEOUT, nodes.item(&holder, chunk, Digest::of(&bytes))).await {
            Ok(Ok(given)) if *given.bytes() == bytes => {}
            Ok(Ok(_)) => return Err(format!("{node} gives other bytes for {chunk} than were sent")),
            Ok(Err(error)) => return Err(format!("{node} does not give {chunk}: {error}")),
            Err(_elapsed) => return Err(format!("{node} does not give {chunk} in time")),
        }
    }
    Ok(())
}

/// No node has bytes of it, or could still vote for any.
fn is_gone(world: &World, video: VideoId, film: &FilmRecord) -> Result<(), String> {
    let (hosts, ledger) = (world.hosts(), world.ledger());
    // Bytes that nobody ever voted for go by themselves, after their staging time.
    let staging_lasts = world.plan.pace.staging_ttl > WHOLE_WITHIN;
    for (id, node) in hosts.running_nodes() {
        for (chunk, _) in &film.chunks {
            let register = node.reader.register(chunk).expect(READABLE);
            let sent = ledger.contents.get(chunk).into_iter().flatten();
            // Nobody asks a disk that was adopted for bytes that it had under another name either.
            let adopted = hosts.adopted.contains(&node.me.uuid);
            let may_stay = register.accepted.is_none() && (staging_lasts || adopted);
            if !may_stay
                && sent
                    .into_iter()
                    .any(|item| node.reader.has_item(chunk, *item).expect(READABLE))
            {
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
