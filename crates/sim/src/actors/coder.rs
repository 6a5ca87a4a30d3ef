//! Moves chunks from replicas to coded layouts, as a rival of the metadata service does: fetches a chunk, makes its shards,
//! puts each on its node as an item, proposes the move and, if nothing comes between, settles it. What is left under way
//! the metadata service ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use vstack_chunkpaxos::{Change, Layout, Placement, Shard};
use vstack_client::NodeClient;
use vstack_types::{ChunkId, Digest, NodeRef, VideoId};

use super::{proposals::changed, rivals::urls};
use crate::{
    dice::Dice,
    disks::READABLE,
    hosts::HostId,
    ledger::{Deletion, Known},
    shards::{Unread, decode, encode},
    world::World,
};

/// In lists of events.
const WHO: &str = "the coder";
/// For one item, there or back.
const ITEM_TIMEOUT: Duration = Duration::from_secs(3);

/// Moves one chunk after the other, for ever.
pub(crate) async fn code(world: Arc<World>) {
    if !world.plan.codes {
        return;
    }
    let mut dice = world.dice("coder");
    let nodes = NodeClient::new(world.outsider(HostId::rival(7)));
    loop {
        sleep(dice.millis(1_000, 6_000)).await;
        let Some((video, chunk, current)) = replicated(&world, &mut dice) else {
            continue;
        };
        let Some(bytes) = fetch(&world, &nodes, &chunk, &current).await else {
            continue;
        };
        let Some(layout) = coded(&world, &mut dice, &bytes) else {
            continue;
        };
        expect(&world, &chunk, &layout);
        bring(&world, &nodes, &chunk, &current, &layout, &bytes).await;
        let mut change = Change::Move { to: layout };
        let mut current = current;
        // Some turn back at once, and some leave it to others to end it.
        for next in [None, Some(Change::Settle), Some(Change::TurnBack)] {
            if let Some(next) = next {
                if dice.chance(30) {
                    continue;
                }
                change = next;
            }
            match changed(&world, &nodes, WHO, (video, &chunk), &current, change.clone()).await {
                Some(placement) => current = placement,
                None => break,
            }
        }
    }
}

/// A chunk of a film that is whole, kept in replicas.
fn replicated(world: &World, dice: &mut Dice) -> Option<(VideoId, ChunkId, Placement)> {
    let (ledger, observer) = (world.ledger(), world.observer());
    let films = ledger.films.iter();
    let whole = films.filter(|(_, film)| film.known == Known::Completed && film.deletion == Deletion::None);
    let chunks: Vec<_> = whole
        .flat_map(|(video, film)| film.chunks.iter().map(|(chunk, _)| (*video, chunk)))
        .filter_map(|(video, chunk)| {
            let current = observer.registers.get(chunk)?.current()?;
            let settled = current.prev.is_none() && matches!(current.layout, Layout::Replicated { .. });
            settled.then(|| (video, chunk.clone(), current.clone()))
        })
        .collect();
    dice.pick(&chunks).cloned()
}

/// A coded layout of the chunk `bytes` on the nodes that run, on as many as there are up to five.
fn coded(world: &World, dice: &mut Dice, bytes: &Bytes) -> Option<Layout> {
    let mut there: Vec<NodeRef> = {
        let hosts = world.hosts();
        let running = hosts.running_nodes().map(|(_, running)| running.me);
        running.filter(|node| !hosts.harmed.contains(&node.uuid)).collect()
    };
    let mut nodes = Vec::new();
    while nodes.len() < 5 && !there.is_empty() {
        nodes.push(there.swap_remove(dice.index(there.len())));
    }
    let (data, parity, places) = match nodes.as_slice() {
        [a, b, c] => (3, 2, vec![*a, *a, *b, *b, *c]),
        [_, _, _, _] => (2, 2, nodes),
        [_, _, _, _, _] => (3, 2, nodes),
        _ => return None,
    };
    let shards = (0..).zip(places).zip(encode(bytes, data, parity));
    let shards = shards.map(|((index, node), shard)| Shard {
        index,
        node,
        sha256: Digest::of(&shard),
    });
    Some(Layout::Coded {
        data,
        parity,
        shards: shards.collect(),
    })
}

/// From now on the shards of `layout` may be found under the chunk, and under their own names.
fn expect(world: &World, chunk: &ChunkId, layout: &Layout) {
    let Layout::Coded { shards, .. } = layout else { return };
    let mut ledger = world.ledger();
    for shard in shards {
        ledger.may_be_coded(chunk, shard.index.into(), shard.sha256);
    }
}

/// The chunk itself, from whoever has all of it or from shards that are enough.
async fn fetch(world: &World, nodes: &NodeClient, chunk: &ChunkId, placement: &Placement) -> Option<Bytes> {
    let urls = urls(world);
    let get = async |node: NodeRef, item: Digest| {
        let holder = urls.holder(node)?;
        timeout(ITEM_TIMEOUT, nodes.item(&holder, chunk, item)).await.ok()?.ok()
    };
    for layout in std::iter::once(&placement.layout).chain(&placement.prev) {
        match layout {
            Layout::Replicated { nodes } => {
                for node in nodes {
                    if let Some(item) = get(*node, placement.sha256).await {
                        return Some(item.into_bytes());
                    }
                }
            }
            Layout::Coded { data, parity, shards } => {
                let mut found = BTreeMap::new();
                for shard in shards {
                    if found.len() < usize::from(*data)
                        && let Some(item) = get(shard.node, shard.sha256).await
                    {
                        found.insert(shard.index, item.into_bytes());
                    }
                }
                let found: Vec<_> = found.into_iter().collect();
                let size = usize::try_from(placement.size).unwrap_or(usize::MAX);
                match decode(&found, (*data, *parity), size, placement.sha256) {
                    Ok(bytes) => return Some(bytes),
                    Err(Unread::Few) => {}
                    Err(Unread::Another) => world.violate(format!(
                        "the shards of {chunk}, each as it should be, give another chunk"
                    )),
                }
            }
            Layout::Deleted { .. } => {}
        }
    }
    None
}

/// Puts on its node every item of `layout` that is not there.
async fn bring(
    world: &World,
    nodes: &NodeClient,
    chunk: &ChunkId,
    placement: &Placement,
    layout: &Layout,
    bytes: &Bytes,
) {
    let items: Vec<(NodeRef, Digest, Bytes)> = match layout {
        Layout::Replicated { nodes } => {
            let whole = nodes.iter().map(|node| (*node, placement.sha256, bytes.clone()));
            whole.collect()
        }
        Layout::Coded { data, parity, shards } => {
            let made = encode(bytes, *data, *parity);
            let shards = shards.iter().zip(made);
            shards.map(|(shard, bytes)| (shard.node, shard.sha256, bytes)).collect()
        }
        Layout::Deleted { .. } => return,
    };
    let urls = urls(world);
    for (node, item, bytes) in items {
        let lacks = world
            .hosts()
            .acceptor(node)
            .is_some_and(|there| !there.reader.has_item(chunk, item).expect(READABLE));
        if let Some(holder) = urls.holder(node).filter(|_| lacks) {
            let _may_be_away = timeout(ITEM_TIMEOUT, nodes.put_item(&holder, chunk, item, bytes)).await;
        }
    }
}
