//! The registry.

use std::collections::BTreeMap;

use vstack_api::metadata::{DamageTold, DamagedChunk, NodeRole};
use vstack_types::{NodeUuid, Timestamp};

use super::{MemoryStore, Tables, ready};
use crate::{
    admission::Refusal,
    store::{Answer, DAMAGED_MAX, Decide, DiskLog, HEARTBEAT_AHEAD_MS, HeldTotals, Known, Node, NodeBeat, Nodes},
};

fn disk(node: &Node) -> Option<NodeUuid> {
    node.acceptor.map(|acceptor| acceptor.uuid)
}

impl Tables {
    /// With what is remembered of its disk.
    fn whole(&self, node: &Node) -> Node {
        let log = disk(node).and_then(|disk| self.disks.get(&disk)).copied();
        let log = log.unwrap_or_default();
        Node {
            log_seq: log.log_seq,
            went_back: log.went_back,
            role: log.role,
            ..node.clone()
        }
    }

    fn whole_nodes(&self) -> Vec<Node> {
        self.nodes.values().map(|node| self.whole(node)).collect()
    }

    /// What nodes told that they hold.
    pub(super) fn held_totals(&self) -> HeldTotals {
        let mut totals = HeldTotals::default();
        let registered = self.nodes.values().filter_map(disk);
        for disk in registered.filter(|disk| self.disks.contains_key(disk)) {
            totals.add(self.held.get(&disk).copied());
        }
        totals
    }

    fn put_node(&mut self, node: Node) -> Node {
        self.nodes.retain(|label, known| {
            let same_disk = disk(&node).is_some() && disk(known) == disk(&node);
            *label != node.label && known.url != node.url && !same_disk
        });
        if let Some(disk) = disk(&node).filter(|disk| node.trusted || node.log_seq > 0 || self.disks.contains_key(disk))
        {
            let log = self.disks.entry(disk).or_default();
            log.log_seq = log.log_seq.max(node.log_seq);
            log.went_back = node.went_back;
        }
        let whole = self.whole(&node);
        self.nodes.insert(node.label.clone(), node);
        whole
    }
}

impl Nodes for MemoryStore {
    fn nodes(&self) -> Answer<'_, Vec<Node>> {
        ready(Ok(self.tables().whole_nodes()))
    }

    fn node(&self, label: String) -> Answer<'_, Option<Node>> {
        let tables = self.tables();
        ready(Ok(tables.nodes.get(&label).map(|node| tables.whole(node))))
    }

    fn register_node(&self, disk: Option<NodeUuid>, decide: Decide) -> Answer<'_, Result<Node, Refusal>> {
        let mut tables = self.tables();
        let known = Known {
            nodes: &tables.whole_nodes(),
            disk: disk.and_then(|disk| tables.disks.get(&disk)).copied(),
        };
        let decided = decide(known);
        ready(Ok(decided.map(|node| tables.put_node(node))))
    }

    fn beat(&self, label: String, beat: NodeBeat) -> Answer<'_, Option<Node>> {
        let mut tables = self.tables();
        let Some(node) = tables.nodes.get_mut(&label) else {
            return ready(Ok(None));
        };
        let another_disk = beat.disk.is_some() && beat.disk != disk(node);
        let another_process = beat.process.is_some() && beat.process != node.process;
        if another_disk || another_process {
            return ready(Ok(None));
        }
        node.disk_percent = beat.disk_percent;
        node.disk_free = beat.disk_free;
        node.chunk_count = beat.chunk_count;
        let last = node
            .last_heartbeat
            .filter(|last| last.0 <= beat.at.0 + HEARTBEAT_AHEAD_MS);
        node.last_heartbeat = last.max(Some(beat.at));
        let node = node.clone();
        if let (Some(disk), Some(log_seq @ 1..)) = (beat.disk, beat.log_seq) {
            let log = tables.disks.entry(disk).or_default();
            log.log_seq = log.log_seq.max(log_seq);
        }
        let remembered = beat.disk.filter(|disk| tables.disks.contains_key(disk));
        if let (Some(disk), Some(held)) = (remembered, beat.held) {
            tables.held.insert(disk, (held, beat.at));
        }
        ready(Ok(Some(tables.whole(&node))))
    }

    fn trust(&self, label: String, disk: NodeUuid) -> Answer<'_, bool> {
        let mut tables = self.tables();
        let went_back = tables.disks.get(&disk).is_some_and(|log| log.went_back);
        let node = tables.nodes.get_mut(&label);
        let node = node.filter(|node| node.acceptor.is_some_and(|acceptor| acceptor.uuid == disk) && !went_back);
        let is_trusted = node.map(|node| node.trusted = true).is_some();
        if is_trusted {
            tables.disks.entry(disk).or_default();
        }
        ready(Ok(is_trusted))
    }

    fn distrust(&self, disk: NodeUuid) -> Answer<'_, Option<Node>> {
        let mut tables = self.tables();
        if let Some(log) = tables.disks.get_mut(&disk) {
            log.went_back = true;
        }
        let this = |node: &&mut Node| node.acceptor.is_some_and(|acceptor| acceptor.uuid == disk);
        let node = tables.nodes.values_mut().find(this).map(|node| {
            node.trusted = false;
            node.clone()
        });
        ready(Ok(node.map(|node| tables.whole(&node))))
    }

    fn set_role(&self, disk: NodeUuid, role: NodeRole) -> Answer<'_, Option<Node>> {
        let mut tables = self.tables();
        if tables
            .nodes
            .values()
            .any(|node| node.trusted && self::disk(node) == Some(disk))
        {
            tables.disks.entry(disk).or_default();
        }
        let may_change = |log: &&mut DiskLog| match log.role {
            NodeRole::Removed => false,
            NodeRole::Sealed => role == NodeRole::Removed,
            NodeRole::Removing => true,
            NodeRole::Active | NodeRole::Draining => role != NodeRole::Sealed,
        };
        if let Some(log) = tables.disks.get_mut(&disk).filter(may_change) {
            log.role = role;
            if matches!(role, NodeRole::Active | NodeRole::Draining) {
                tables.given_up.remove(&disk);
            }
        }
        let this = |node: &&Node| self::disk(node) == Some(disk);
        let node = tables.nodes.values().find(this).cloned();
        let node = node.map(|node| tables.whole(&node));
        if role == NodeRole::Removed {
            tables.nodes.retain(|_, node| self::disk(node) != Some(disk));
            tables.damaged.remove(&disk);
        }
        ready(Ok(node))
    }

    fn give_up(&self, disk: NodeUuid, at: Option<Timestamp>) -> Answer<'_, ()> {
        let mut tables = self.tables();
        let at = at.filter(|_| tables.disks.contains_key(&disk));
        match at {
            Some(at) => drop(tables.given_up.insert(disk, at)),
            None => drop(tables.given_up.remove(&disk)),
        }
        ready(Ok(()))
    }

    fn given_up(&self) -> Answer<'_, BTreeMap<NodeUuid, Timestamp>> {
        ready(Ok(self.tables().given_up.clone()))
    }

    fn forget_stranger(&self, label: String, disk: Option<NodeUuid>) -> Answer<'_, bool> {
        let mut tables = self.tables();
        let is_remembered = disk.is_some_and(|disk| tables.disks.contains_key(&disk));
        let this = |node: &Node| !node.trusted && self::disk(node) == disk;
        let is_stranger = !is_remembered && tables.nodes.get(&label).is_some_and(this);
        if is_stranger {
            tables.nodes.remove(&label);
        }
        ready(Ok(is_stranger))
    }

    fn roles(&self) -> Answer<'_, BTreeMap<NodeUuid, NodeRole>> {
        let tables = self.tables();
        let given = tables.disks.iter().filter(|(_, log)| log.role != NodeRole::Active);
        ready(Ok(given.map(|(disk, log)| (*disk, log.role)).collect()))
    }

    fn note_damage(&self, disk: NodeUuid, told: DamageTold) -> Answer<'_, ()> {
        let mut tables = self.tables();
        let known = tables.damaged.entry(disk).or_default();
        if told.anew {
            known.clear();
        }
        for chunk in told.whole {
            known.remove(&chunk);
        }
        for chunk in told.damaged {
            if (known.len() as u64) < DAMAGED_MAX {
                known.insert(chunk);
            }
        }
        ready(Ok(()))
    }

    fn damaged(&self, disk: NodeUuid, limit: u64) -> Answer<'_, Vec<DamagedChunk>> {
        let tables = self.tables();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let chunks = tables.damaged.get(&disk).into_iter().flatten();
        ready(Ok(chunks.take(limit).cloned().collect()))
    }

    fn damaged_counts(&self) -> Answer<'_, BTreeMap<NodeUuid, u64>> {
        let tables = self.tables();
        let counts = tables.damaged.iter().map(|(disk, chunks)| (*disk, chunks.len() as u64));
        ready(Ok(counts.filter(|(_, count)| *count > 0).collect()))
    }
}
