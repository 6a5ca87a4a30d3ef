//! A machine whose memory fails: it makes a shard that is none of its chunk, and has it listed in the place of the right
//! one. Nobody who compares bytes with their digest finds anything; an audit does, and has the right one made.
//!
//! One shard of a chunk at a time, and only where no disk is lost besides: the others have to give the chunk.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use vstack_chunkpaxos::{Change, Layout, Placement};
use vstack_client::NodeClient;
use vstack_types::{ChunkId, Digest, NodeRef, VideoId};

use super::{proposals::changed, rivals::urls};
use crate::{
    dice::Dice,
    hosts::HostId,
    ledger::{Deletion, Known},
    shards::encode,
    struck::Kind,
    world::World,
};

/// In lists of events.
const WHO: &str = "the forger";
/// For the shard, there and back.
const ITEM_TIMEOUT: Duration = Duration::from_secs(3);
/// Tries in the end, when hardly anything comes between.
const TRIES_LATE: u32 = 5;

/// A wrong shard, and the layout that lists it.
struct Forgery {
    video: VideoId,
    chunk: ChunkId,
    current: Placement,
    index: usize,
    node: NodeRef,
    item: Bytes,
    to: Layout,
}

/// Forges one shard after the other, for ever.
pub(crate) async fn forge(world: Arc<World>) {
    if !world.plan.forges {
        return;
    }
    let mut dice = world.dice("forger");
    let nodes = NodeClient::new(world.outsider(HostId::rival(9)));
    loop {
        sleep(dice.millis(4_000, 15_000)).await;
        if let Some(forgery) = drawn(&world, &mut dice) {
            carry_out(&world, &nodes, forgery).await;
        }
    }
}

/// Once everything is well one more is forged, if there are any shards; whether one is listed.
pub(crate) async fn forge_late(world: &Arc<World>) -> bool {
    if !world.plan.forges {
        return false;
    }
    let mut dice = world.dice("late forger");
    let nodes = NodeClient::new(world.outsider(HostId::rival(9)));
    for _ in 0..TRIES_LATE {
        let Some(forgery) = drawn(world, &mut dice) else {
            return false;
        };
        if carry_out(world, &nodes, forgery).await {
            return true;
        }
    }
    false
}

/// Some shard of some chunk of a film that can be watched, of which no other is wrong.
fn drawn(world: &World, dice: &mut Dice) -> Option<Forgery> {
    let coded: Vec<(VideoId, ChunkId, Bytes, Placement)> = {
        let (ledger, observer) = (world.ledger(), world.observer());
        let films = ledger.films.iter();
        let whole = films.filter(|(_, film)| film.known == Known::Completed && film.deletion == Deletion::None);
        let chunks = whole.flat_map(|(video, film)| film.chunks.iter().map(|(chunk, bytes)| (*video, chunk, bytes)));
        chunks
            .filter_map(|(video, chunk, bytes)| {
                let current = observer.registers.get(chunk)?.current()?;
                let Layout::Coded { shards, .. } = &current.layout else {
                    return None;
                };
                let is_right = !shards.iter().any(|shard| ledger.is_forged(shard.sha256));
                let stands = current.prev.is_none() && is_right && current.sha256 == Digest::of(bytes);
                stands.then(|| (video, chunk.clone(), bytes.clone(), current.clone()))
            })
            .collect()
    };
    let (video, chunk, bytes, current) = dice.pick(&coded).cloned()?;
    let Layout::Coded { data, parity, shards } = &current.layout else {
        return None;
    };
    let index = dice.index(shards.len());
    let mut wrong = encode(&bytes, *data, *parity).get(index)?.to_vec();
    // The first byte of each is one of the chunk, or made of some; the last ones may only fill a shard up.
    *wrong.first_mut()? ^= 1;
    let item = Bytes::from(wrong);
    let mut listed = shards.clone();
    let forged = listed.get_mut(index)?;
    forged.sha256 = Digest::of(&item);
    let node = forged.node;
    let to = Layout::Coded {
        data: *data,
        parity: *parity,
        shards: listed,
    };
    Some(Forgery {
        video,
        chunk,
        current,
        index,
        node,
        item,
        to,
    })
}

/// Brings the wrong shard to its node and has it listed; whether it is. What is not settled here the metadata service ends.
async fn carry_out(world: &World, nodes: &NodeClient, forgery: Forgery) -> bool {
    let Forgery {
        video,
        chunk,
        current,
        index,
        node,
        item,
        to,
    } = forgery;
    let sha256 = Digest::of(&item);
    world.ledger().forge(&chunk, index, sha256);
    let Some(holder) = urls(world).holder(node) else {
        return false;
    };
    let put = nodes.put_item(&holder, &chunk, sha256, item);
    if !matches!(timeout(ITEM_TIMEOUT, put).await, Ok(Ok(()))) {
        return false;
    }
    let register = (video, &chunk);
    let Some(joint) = changed(world, nodes, WHO, register, &current, Change::Move { to }).await else {
        return false;
    };
    world.tally.strikes(Kind::ShardForged);
    world.happened(format!("shard {index} of {chunk} is listed wrongly"));
    let _may_be_left_to_others = changed(world, nodes, WHO, register, &joint, Change::Settle).await;
    true
}
