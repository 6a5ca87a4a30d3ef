//! Brings every copy and every shard that a decision names to its node, once nothing goes wrong any more, and tells
//! that node of the decision: by the pull from node to node, and by a read, as an uploader does with the copies that it
//! put off.
//!
//! An uploader makes the copies of its own films while it lives. What a script left out, and what a node missed of a
//! move that went on without it, nobody makes: that is for a planner of repairs in the metadata service. Until there is
//! one this is a part of the harness and not of what is simulated, and that everything is whole in the end shows that
//! it can be made whole with the calls there are, not that the services do it by themselves. It looks into the nodes
//! to know what they lack, where a planner will have to ask them.

use std::time::Duration;

use tokio::time::timeout;
use vstack_chunkpaxos::{Change, Placement, Proposer};
use vstack_client::{Holder, NodeClient};
use vstack_types::{ChunkId, NodeRef, ProcessUuid};

use super::{
    coder::{bring, fetch},
    proposals::proposed,
    repairer::is_coded,
    rivals::urls,
};
use crate::disks::READABLE;
use crate::{hosts::Hosts, world::World};

/// For one copy.
const PULL_TIMEOUT: Duration = Duration::from_secs(12);
/// For the news.
const DEADLINE: Duration = Duration::from_secs(12);

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

/// Has every node of the last decision of `chunk` have and know what that places there, as far as disks are left for it:
/// who has nothing any more is for [`super::repairer`].
pub(super) async fn restore(world: &World, nodes: &NodeClient, chunk: &ChunkId) {
    let Some((current, lacking)) = lacking(world, chunk) else {
        return;
    };
    if is_coded(&current) {
        if let Some(bytes) = fetch(world, nodes, chunk, &current).await {
            bring(world, nodes, chunk, &current, &current.layout, &bytes).await;
        }
    } else {
        let urls = urls(world);
        let holders: Vec<Holder> = current
            .nodes()
            .into_iter()
            .filter_map(|node| urls.holder(node))
            .collect();
        for to in lacking.iter().filter_map(|node| urls.holder(*node)) {
            let pull = nodes.pull(&to, chunk, current.sha256, current.size, &holders);
            let pulled = matches!(timeout(PULL_TIMEOUT, pull).await, Ok(Ok(())));
            world.noted(format!("{chunk} is brought to {}: {pulled}", to.node));
        }
    }
    // A read tells those whom the placement names.
    let initial = current.nodes();
    let read = Proposer::new(ProcessUuid::random(), initial.clone(), Change::Read).knowing(current);
    let _next_round = proposed(world, nodes, &urls(world), (chunk, &initial), read, DEADLINE).await;
}

/// The last decision, and those of its nodes that are there and have or know less than it places there.
fn lacking(world: &World, chunk: &ChunkId) -> Option<(Placement, Vec<NodeRef>)> {
    let current = world.observer().registers.get(chunk)?.current().cloned()?;
    let hosts = world.hosts();
    let mut lacking = current.layout.nodes();
    lacking.retain(|node| !hosts.harmed.contains(&node.uuid) && missing(&hosts, chunk, &current, *node).is_some());
    (!lacking.is_empty() && !current.layout.is_deleted()).then_some((current, lacking))
}
