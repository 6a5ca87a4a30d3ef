//! The census says what is so: what it calls whole is there, what it calls lost is nowhere, and it leaves nothing out.
//!
//! How many losses a chunk survives is found here by trying every set of nodes, and not as the census does it.

use std::collections::{BTreeMap, BTreeSet};

use vstack_api::census::Census;
use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{ChunkId, Digest, NodeRef, NodeUuid};

use super::{bytes::vouched, register::Seen};
use crate::{
    calls::short,
    disks::READABLE,
    hosts::{Hosts, RunningNode},
};

/// How each chunk stands that the census calls anything but whole.
pub(crate) fn named(census: &Census) -> BTreeMap<&ChunkId, &str> {
    let chunks = census.videos.iter().flat_map(|video| &video.chunks);
    chunks.map(|chunk| (&chunk.chunk_id, chunk.standing.as_str())).collect()
}

/// The items that `placement` assigns to each of its nodes, in both halves of a move.
pub(crate) fn assigned(placement: &Placement) -> BTreeMap<NodeRef, BTreeSet<Digest>> {
    let mut assigned = BTreeMap::<NodeRef, BTreeSet<Digest>>::new();
    for layout in std::iter::once(&placement.layout).chain(&placement.prev) {
        for node in layout.nodes() {
            let items = placement.items_of(layout, node);
            assigned.entry(node).or_default().extend(items);
        }
    }
    assigned
}

/// How many items give the chunk, and how many losses of nodes it is to survive. None while it is moved from copies to
/// shards or back: then items are of two kinds.
fn wanted(placement: &Placement, copies: usize) -> Option<(usize, u32)> {
    let (needed, spare) = match (&placement.layout, &placement.prev) {
        (Layout::Replicated { .. }, None | Some(Layout::Replicated { .. })) => (1, copies.saturating_sub(1)),
        (Layout::Coded { data, shards, .. }, None) => {
            // On fewer nodes than shards no placement survives more than one that spreads them evenly.
            let (data, nodes) = (usize::from(*data), placement.layout.nodes().len());
            return Some((data, survives(data, &even(shards.len(), nodes))?));
        }
        _ => return None,
    };
    Some((needed, u32::try_from(spare).unwrap_or(u32::MAX)))
}

/// So many items on so many nodes, as evenly as can be.
pub(crate) fn even(items: usize, nodes: usize) -> Vec<usize> {
    let mut of_nodes = vec![0; nodes];
    (0..items)
        .zip((0..nodes).cycle())
        .for_each(|(_, node)| of_nodes[node] += 1);
    of_nodes
}

/// After the loss of how many nodes, whichever they are, `needed` items are left of those that each node has; none when
/// they are not there even now.
pub(crate) fn survives(needed: usize, per_node: &[usize]) -> Option<u32> {
    let is_too_much = |lost: &u32| {
        let left = per_node
            .iter()
            .enumerate()
            .filter(|(at, _)| *lost & (1_u32 << *at) == 0);
        left.map(|(_, items)| items).sum::<usize>() < needed
    };
    let sets = 0..1_u32 << per_node.len();
    let fewest = sets.filter(is_too_much).map(u32::count_ones).min();
    fewest.unwrap_or_default().checked_sub(1)
}

/// The word for a chunk of which each node has so many items; none while items are of two kinds.
pub(crate) fn word(placement: &Placement, copies: usize, per_node: &[usize]) -> Option<&'static str> {
    let (needed, wanted) = wanted(placement, copies)?;
    Some(match survives(needed, per_node) {
        None => "lost",
        Some(survives) if survives >= wanted => "whole",
        Some(0) => "endangered",
        Some(_) => "under_replicated",
    })
}

/// The process on the disk that `node` names, when it is known for certain what is on that disk.
fn known(hosts: &Hosts, node: NodeRef) -> Option<&RunningNode> {
    hosts.acceptor(node).filter(|_| !hosts.is_suspect(node.uuid))
}

/// Whether `chunk`, which is called whole, is: as many copies as wanted, nobody among its nodes who votes no more, and
/// nobody who knows only of earlier placements. Of nodes that do not run nothing else is known than what was counted.
///
/// # Errors
/// The promise that was broken.
pub(crate) fn is_whole(
    hosts: &Hosts,
    (chunk, placement): (&ChunkId, &Placement),
    copies: usize,
    is_mute: impl Fn(NodeUuid) -> bool,
) -> Result<(), String> {
    let assigned = assigned(placement);
    let held = assigned.iter().map(|(node, items)| match known(hosts, *node) {
        None => items.len(),
        Some(running) => {
            let has = |item: &&Digest| running.reader.has_item(chunk, **item).expect(READABLE);
            items.iter().filter(has).count()
        }
    });
    let held: Vec<usize> = held.collect();
    let called = format!("the census calls {} whole, which is {placement:?}", short(chunk));
    match word(placement, copies, &held) {
        None | Some("whole") => {}
        Some(word) => {
            return Err(format!(
                "{called}, and its nodes have {held:?} of its items: it is {word}"
            ));
        }
    }
    let running = || assigned.keys().filter_map(|node| hosts.acceptor(*node));
    if let Some(mute) = running().find(|running| is_mute(running.me.uuid)) {
        return Err(format!("{called}, and {} votes no more", mute.me));
    }
    // Of more than are wanted, one may have been away.
    if placement.prev.is_some() || assigned.len() != copies {
        return Ok(());
    }
    for running in assigned.keys().filter_map(|node| known(hosts, *node)) {
        let accepted = running.reader.register(chunk).expect(READABLE).accepted;
        let version = accepted.map(|vote| vote.placement.version);
        if version < Some(placement.version) {
            return Err(format!(
                "{called}, and the register of {} is at {version:?}",
                running.me
            ));
        }
    }
    Ok(())
}

/// Whether `chunk`, which is called lost, is: nobody whose disk was never harmed, nor given up, has what he vouched for.
///
/// # Errors
/// The promise that was broken.
pub(crate) fn is_lost(
    hosts: &Hosts,
    seen: &Seen,
    (chunk, placement): (&ChunkId, &Placement),
    copies: usize,
) -> Result<(), String> {
    let held = assigned(placement).into_iter().map(|(node, items)| {
        let Some(running) = known(hosts, node).filter(|_| !hosts.given_up.contains(&node.uuid)) else {
            return 0;
        };
        let has =
            |item: &&Digest| vouched(seen, node, **item) && running.reader.has_item(chunk, **item).expect(READABLE);
        items.iter().filter(has).count()
    });
    let held: Vec<usize> = held.collect();
    match word(placement, copies, &held) {
        None | Some("lost") => Ok(()),
        Some(_) => Err(format!(
            "the census calls {} lost, which is {placement:?}, and its nodes have {held:?} of its items",
            short(chunk)
        )),
    }
}

/// Whether `census` was made of all that is placed, both halves of every move.
///
/// # Errors
/// The promise that was broken.
pub(crate) fn is_of_all<'a>(
    census: &Census,
    placements: impl ExactSizeIterator<Item = &'a Placement>,
) -> Result<(), String> {
    let Some(told) = census.nodes.iter().map(|node| node.placed).sum::<Option<u64>>() else {
        // Not everything was learned yet.
        return Ok(());
    };
    let chunks = placements.len() as u64;
    let items = placements.flat_map(assigned).map(|(_, items)| items.len() as u64);
    let items: u64 = items.sum();
    if (census.tally.chunks, told) == (chunks, items) {
        return Ok(());
    }
    Err(format!(
        "the census is of {} chunks and expects {told} items of nodes, and there are {chunks} with {items}",
        census.tally.chunks
    ))
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Shard;

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn replicated(nodes: &[u8]) -> Layout {
        Layout::Replicated {
            nodes: nodes.iter().map(|n| node(*n)).collect(),
        }
    }

    fn coded(nodes: &[u8]) -> Layout {
        let shard = |(index, n): (u8, &u8)| Shard {
            index,
            node: node(*n),
            sha256: Digest::of(&[index]),
        };
        Layout::Coded {
            data: 3,
            parity: 2,
            shards: (0..).zip(nodes).map(shard).collect(),
        }
    }

    fn placed(layout: Layout, prev: Option<Layout>) -> Placement {
        Placement {
            version: 2,
            size: 100,
            sha256: Digest::of(b"chunk"),
            layout,
            prev,
            back: false,
        }
    }

    #[test]
    fn a_chunk_stands_by_what_the_worst_losses_leave() {
        let copies = placed(replicated(&[1, 2, 3]), None);
        let of_copies = |held: &[usize]| word(&copies, 3, held);
        assert_eq!(of_copies(&[1, 1, 1]), Some("whole"));
        assert_eq!(of_copies(&[1, 0, 1]), Some("under_replicated"));
        assert_eq!(of_copies(&[0, 0, 1]), Some("endangered"));
        assert_eq!(of_copies(&[0, 0, 0]), Some("lost"));
        assert_eq!(of_copies(&[]), Some("lost"));
        let shards = placed(coded(&[1, 1, 2, 2, 3]), None);
        assert_eq!(word(&shards, 3, &[2, 2, 1]), Some("whole"), "as even as it can be");
        let uneven = placed(coded(&[1, 1, 1, 2, 3]), None);
        assert_eq!(word(&uneven, 3, &[3, 1, 1]), Some("endangered"), "three on one node");
        assert_eq!(word(&shards, 3, &[1, 1, 1]), Some("endangered"));
        assert_eq!(word(&shards, 3, &[1, 1, 0]), Some("lost"));
        let apart = placed(coded(&[1, 2, 3, 4, 5]), None);
        assert_eq!(word(&apart, 3, &[1; 5]), Some("whole"));
        let between = placed(coded(&[1, 2, 3, 4, 5]), Some(replicated(&[1, 2, 3])));
        assert_eq!(word(&between, 3, &[2, 2, 2, 1, 1]), None);
    }

    #[test]
    fn both_halves_of_a_move_are_assigned_each_item_once() {
        let moved = placed(replicated(&[2, 3, 4]), Some(replicated(&[1, 2, 3])));
        let items = assigned(&moved);
        assert_eq!(items.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4].map(node));
        assert!(items.values().all(|items| items.len() == 1));
        let shards = assigned(&placed(coded(&[1, 1, 2, 2, 3]), None));
        assert_eq!(shards.values().map(BTreeSet::len).collect::<Vec<_>>(), [2, 2, 1]);
    }
}
