//! The registry.

use vstack_types::NodeUuid;

use super::{MemoryStore, ready};
use crate::store::{Answer, Node, NodeBeat, Nodes};

impl Nodes for MemoryStore {
    fn nodes(&self) -> Answer<'_, Vec<Node>> {
        ready(Ok(self.tables().nodes.values().cloned().collect()))
    }

    fn node(&self, label: String) -> Answer<'_, Option<Node>> {
        ready(Ok(self.tables().nodes.get(&label).cloned()))
    }

    fn put_node(&self, mut node: Node) -> Answer<'_, ()> {
        let mut tables = self.tables();
        let disk = |node: &Node| node.acceptor.map(|acceptor| acceptor.uuid);
        if let Some(known) = tables
            .nodes
            .values()
            .find(|known| disk(&node).is_some() && disk(known) == disk(&node))
        {
            node.log_seq = node.log_seq.max(known.log_seq);
        }
        tables.nodes.retain(|label, known| {
            let same_disk = disk(&node).is_some() && disk(known) == disk(&node);
            *label != node.label && known.url != node.url && !same_disk
        });
        tables.nodes.insert(node.label.clone(), node);
        ready(Ok(()))
    }

    fn beat(&self, label: String, beat: NodeBeat) -> Answer<'_, Option<Node>> {
        let mut tables = self.tables();
        let Some(node) = tables.nodes.get_mut(&label) else {
            return ready(Ok(None));
        };
        node.disk_percent = beat.disk_percent;
        node.chunk_count = beat.chunk_count;
        node.log_seq = node.log_seq.max(beat.log_seq.unwrap_or(0));
        node.last_heartbeat = node.last_heartbeat.max(Some(beat.at));
        ready(Ok(Some(node.clone())))
    }

    fn trust(&self, label: String, disk: NodeUuid) -> Answer<'_, bool> {
        let mut tables = self.tables();
        let node = tables.nodes.get_mut(&label);
        let node = node.filter(|node| node.acceptor.is_some_and(|acceptor| acceptor.uuid == disk) && !node.went_back);
        ready(Ok(node.map(|node| node.trusted = true).is_some()))
    }

    fn distrust(&self, disk: NodeUuid) -> Answer<'_, Option<Node>> {
        let mut tables = self.tables();
        let this = |node: &&mut Node| node.acceptor.is_some_and(|acceptor| acceptor.uuid == disk);
        let node = tables.nodes.values_mut().find(this).map(|node| {
            node.trusted = false;
            node.went_back = true;
            node.clone()
        });
        ready(Ok(node))
    }
}
