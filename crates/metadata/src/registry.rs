//! What is known about the storage nodes. Pure: moments are arguments.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use vstack_api::{
    WallTime,
    metadata::{NodeInfo, NodeRole, NodeStatus, NodeSummary},
    redundancy::HeldBytes,
};
use vstack_client::NodeUrls;
use vstack_placement::{Candidate, Liveness};
use vstack_types::{NodeRef, NodeUuid, Timestamp};

use crate::store::{HEARTBEAT_AHEAD_MS, HeldTotals, Node};

/// A URL as it is compared and kept: without a slash at its end.
pub fn normal_url(url: &str) -> &str {
    url.trim().trim_end_matches('/')
}

/// A heartbeat that lies further ahead was noted by a clock that was set back since, and says nothing.
const AHEAD_MAX: Duration = Duration::from_millis(HEARTBEAT_AHEAD_MS.unsigned_abs());

/// For how long nothing was heard of a node at `now`; none of one that was never heard of.
fn silence(node: &Node, now: Timestamp) -> Option<Duration> {
    let last = node.last_heartbeat.filter(|last| last.since(now) <= AHEAD_MAX);
    last.map(|last| now.since(last))
}

/// How a node is doing at `now`: degraded after half of `node_timeout` in silence, down after all of it.
pub fn status(node: &Node, now: Timestamp, node_timeout: Duration) -> NodeStatus {
    match silence(node, now) {
        Some(silence) if silence <= node_timeout / 2 => NodeStatus::Healthy,
        Some(silence) if silence <= node_timeout => NodeStatus::Degraded,
        Some(_) | None => NodeStatus::Down,
    }
}

/// Whether a node that nothing shows to belong to the cluster was silent for so long that nobody waits for it. What is
/// remembered of its disk has the last word.
pub fn is_missed_by_nobody(node: &Node, now: Timestamp, patience: Duration) -> bool {
    let belongs = node.trusted || node.went_back || node.log_seq > 0 || node.role != NodeRole::Active;
    !belongs && silence(node, now).is_none_or(|silence| silence >= patience)
}

/// A node as `GET /nodes/all` shows it.
pub fn info(node: &Node, now: Timestamp, node_timeout: Duration) -> NodeInfo {
    NodeInfo {
        node_url: node.url.clone(),
        node_id: node.label.clone(),
        last_heartbeat: node.last_heartbeat.map(WallTime),
        disk_usage_percent: node.disk_percent,
        chunk_count: node.chunk_count,
        status: status(node, now, node_timeout),
        version: node.version.clone(),
        public_url: node.public_url.clone(),
        disk_uuid: node.acceptor.map(|acceptor| acceptor.uuid),
        incarnation: node.acceptor.map_or(0, |acceptor| acceptor.incarnation.0),
        trusted: node.trusted,
        zone: node.zone.clone(),
        damaged_chunks: 0,
        role: node.role,
    }
}

/// How many nodes are in which state.
pub fn summary(nodes: &[Node], now: Timestamp, node_timeout: Duration) -> NodeSummary {
    let mut summary = NodeSummary::default();
    // Who never showed to belong to the cluster says nothing about its health.
    for node in nodes.iter().filter(|node| node.trusted || node.log_seq > 0) {
        match status(node, now, node_timeout) {
            NodeStatus::Healthy => summary.healthy += 1,
            NodeStatus::Degraded => summary.degraded += 1,
            NodeStatus::Down => summary.down += 1,
        }
    }
    summary
}

/// What nodes told that they hold, as `GET /storage/overhead` shows it.
pub fn held(totals: &HeldTotals) -> HeldBytes {
    HeldBytes {
        item_bytes: totals.item_bytes,
        allocated_bytes: totals.allocated_bytes,
        nodes: totals.nodes,
        nodes_told: totals.told,
        as_of: totals.as_of.map(WallTime),
    }
}

/// The nodes as placement sees them. Nobody counts on the votes of those whose disks are `mute`, nor of who is to go for
/// good and is not there: nothing new goes there.
pub fn candidates(nodes: &[Node], mute: &BTreeSet<NodeRef>, now: Timestamp, node_timeout: Duration) -> Vec<Candidate> {
    let candidate = |node: &Node| {
        let acceptor = node.acceptor?;
        let liveness = match status(node, now, node_timeout) {
            NodeStatus::Healthy => Liveness::Healthy,
            NodeStatus::Degraded => Liveness::Degraded,
            NodeStatus::Down => Liveness::Down,
        };
        let is_mute = mute.contains(&acceptor)
            || match node.role {
                NodeRole::Active | NodeRole::Draining => false,
                NodeRole::Removing => liveness == Liveness::Down,
                NodeRole::Sealed | NodeRole::Removed => true,
            };
        Some(Candidate {
            node: acceptor,
            zone: node.zone.clone(),
            disk_percent: node.disk_percent,
            disk_free: node.disk_free,
            liveness,
            trusted: node.trusted,
            leaving: is_mute || node.role.is_leaving(),
            mute: is_mute,
        })
    };
    nodes.iter().filter_map(candidate).collect()
}

/// Where the trusted nodes are reached by services.
pub fn node_urls(nodes: &[Node]) -> NodeUrls {
    let trusted = nodes.iter().filter(|node| node.trusted);
    trusted
        .filter_map(|node| Some((node.acceptor?.uuid, node.url.clone())))
        .collect()
}

/// Looks nodes up by any URL they are known under.
pub fn by_url<'a>(nodes: &'a [Node], url: &str) -> Option<&'a Node> {
    let url = normal_url(url);
    nodes
        .iter()
        .find(|node| node.url == url)
        .or_else(|| nodes.iter().find(|node| node.public_url == url))
}

/// Looks nodes up by their disk.
pub struct ByDisk<'a>(HashMap<NodeUuid, &'a Node>);

impl<'a> ByDisk<'a> {
    /// Over these.
    pub fn new(nodes: &'a [Node]) -> Self {
        Self(
            nodes
                .iter()
                .filter_map(|node| Some((node.acceptor?.uuid, node)))
                .collect(),
        )
    }

    /// The node with this disk.
    pub fn get(&self, disk: NodeUuid) -> Option<&'a Node> {
        self.0.get(&disk).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);
    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn heard(seconds_ago: Option<i64>) -> Node {
        Node {
            label: "a".into(),
            url: "http://host:1".into(),
            public_url: "http://host:1".into(),
            acceptor: None,
            log_seq: 0,
            process: None,
            zone: String::new(),
            version: "1".into(),
            last_heartbeat: seconds_ago.map(|seconds| Timestamp(NOW.0 - seconds * 1_000)),
            disk_percent: 0.0,
            disk_free: None,
            chunk_count: 0,
            trusted: false,
            went_back: false,
            role: NodeRole::Active,
        }
    }

    #[test]
    fn silence_makes_a_node_degraded_then_down() {
        let after = |seconds| status(&heard(Some(seconds)), NOW, TIMEOUT);
        assert_eq!(
            [0, 15, 16, 30, 31].map(after),
            [
                NodeStatus::Healthy,
                NodeStatus::Healthy,
                NodeStatus::Degraded,
                NodeStatus::Degraded,
                NodeStatus::Down
            ]
        );
        assert_eq!(status(&heard(None), NOW, TIMEOUT), NodeStatus::Down);
        assert_eq!(after(-10), NodeStatus::Healthy, "clocks drift");
        assert_eq!(after(-100), NodeStatus::Down, "the clock was set back");
    }

    #[test]
    fn a_node_that_never_proved_itself_is_missed_for_a_while() {
        let day = Duration::from_secs(86_400);
        let is_missed = |node: &Node| !is_missed_by_nobody(node, NOW, day);
        assert_eq!(
            [Some(86_399), Some(86_400), None, Some(-100)].map(|silent| is_missed(&heard(silent))),
            [true, false, false, false]
        );
        let long_silent = heard(Some(1_000_000));
        let belongs = [
            Node {
                trusted: true,
                ..long_silent.clone()
            },
            Node {
                log_seq: 1,
                ..long_silent.clone()
            },
            Node {
                went_back: true,
                ..long_silent.clone()
            },
            Node {
                role: NodeRole::Draining,
                ..long_silent
            },
        ];
        assert!(belongs.iter().all(is_missed));
    }

    #[test]
    fn no_votes_are_counted_on_that_will_not_come() {
        let acceptor = NodeRef::first(NodeUuid::from_bytes([1; 16]));
        let candidate = |role, seconds_ago, mute: &BTreeSet<NodeRef>| {
            let node = Node {
                acceptor: Some(acceptor),
                disk_free: Some(7),
                role,
                ..heard(Some(seconds_ago))
            };
            candidates(&[node], mute, NOW, TIMEOUT).remove(0)
        };
        let nobody = BTreeSet::new();
        let flags = |role, seconds_ago| {
            let candidate = candidate(role, seconds_ago, &nobody);
            (candidate.leaving, candidate.mute)
        };
        assert_eq!(flags(NodeRole::Active, 90), (false, false));
        assert_eq!(flags(NodeRole::Draining, 90), (true, false), "it may be back");
        assert_eq!(flags(NodeRole::Removing, 0), (true, false));
        assert_eq!(flags(NodeRole::Removing, 90), (true, true));
        assert_eq!(flags(NodeRole::Sealed, 0), (true, true));
        let lost_votes = candidate(NodeRole::Active, 0, &[acceptor].into());
        assert!(lost_votes.leaving && lost_votes.mute);
        assert_eq!(lost_votes.disk_free, Some(7));
    }
}
