//! What a placement comes to on the disks there are.

use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{ChunkId, NodeRef};

use crate::{disks::READABLE, hosts::Hosts};

/// Whether shards are involved.
pub(crate) fn is_coded(placement: &Placement) -> bool {
    let mut layouts = std::iter::once(&placement.layout).chain(&placement.prev);
    layouts.any(|layout| matches!(layout, Layout::Coded { .. }))
}

/// Whether fewer than `copies` replicas are placed, and more nodes are there to have one.
pub(crate) fn is_thin(hosts: &Hosts, current: &Placement, copies: usize) -> bool {
    let running = hosts.running_nodes().map(|(_, running)| running.me);
    let there = running.filter(|node| !hosts.is_given_up(node.uuid)).count();
    match &current.layout {
        Layout::Replicated { nodes } => nodes.len() < copies.min(there),
        Layout::Coded { .. } | Layout::Deleted { .. } => false,
    }
}

/// What is wrong with the copy or the shards of `chunk` that `current` places on `node`; none when nothing is.
pub(crate) fn missing(hosts: &Hosts, chunk: &ChunkId, current: &Placement, node: NodeRef) -> Option<String> {
    let Some(running) = hosts.acceptor(node) else {
        return Some(format!("{node} does not run"));
    };
    let mut items = current.items_of(&current.layout, node).into_iter();
    if let Some(item) = items.find(|item| !running.reader.has_item(chunk, *item).expect(READABLE)) {
        return Some(format!("{node} has no item {item}"));
    }
    // Bytes that no register names are dropped after a while.
    let register = running.reader.register(chunk).expect(READABLE);
    let knows = register.accepted.is_some_and(|vote| vote.placement == *current);
    (!knows || register.damaged).then(|| format!("{node} does not know that it keeps version {}", current.version))
}
