//! Where the merged stream of messages has gaps: nodes that are not listened to at the moment and why, and messages
//! that went by. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vstack_types::{NodeRef, NodeUuid};

/// An event `gap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Gap {
    pub node: NodeRef,
    /// Its label.
    pub node_id: String,
    #[serde(flatten)]
    pub what: What,
}

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum What {
    /// From here on the node is not listened to.
    Began { reason: String },
    /// It is again.
    Ended,
    /// So many of its messages went by too fast to be shown.
    Missed { missed: u64 },
}

/// The nodes that are not listened to.
#[derive(Debug, Default)]
pub(crate) struct Unheard(BTreeMap<NodeUuid, Gap>);

impl Unheard {
    /// A node is not listened to; gives what is to be told, if that is news.
    pub(crate) fn began(&mut self, node: NodeRef, label: &str, reason: String) -> Option<Gap> {
        let gap = Gap {
            node,
            node_id: label.to_owned(),
            what: What::Began { reason },
        };
        let before = self.0.insert(node.uuid, gap.clone());
        (before.as_ref() != Some(&gap)).then_some(gap)
    }

    /// A node is listened to, or is no more of the cluster; gives what is to be told, if that is news.
    pub(crate) fn ended(&mut self, node: NodeUuid) -> Option<Gap> {
        let gap = self.0.remove(&node)?;
        Some(Gap {
            what: What::Ended,
            ..gap
        })
    }

    /// Ends the gaps of all but `nodes`.
    pub(crate) fn retain(&mut self, nodes: &BTreeSet<NodeUuid>) -> Vec<Gap> {
        let gone: Vec<_> = self.0.keys().filter(|node| !nodes.contains(node)).copied().collect();
        gone.into_iter().filter_map(|node| self.ended(node)).collect()
    }

    /// Those that last.
    pub(crate) fn all(&self) -> Vec<Gap> {
        self.0.values().cloned().collect()
    }

    /// Nobody is listened to any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    #[test]
    fn a_gap_is_told_at_its_beginning_at_its_end_and_when_its_reason_is_another() {
        let mut unheard = Unheard::default();
        let mut began = |reason: &str| unheard.began(node(1), "node-1", reason.to_owned());
        let told = began("it is away").expect("news");
        assert_eq!(
            serde_json::to_value(&told).unwrap(),
            serde_json::json!({ "node": node(1), "node_id": "node-1", "state": "began", "reason": "it is away" })
        );
        assert_eq!(began("it is away"), None);
        assert!(began("it answers 503").is_some());
        assert_eq!(unheard.all().len(), 1);
        assert_eq!(unheard.ended(node(1).uuid).map(|gap| gap.what), Some(What::Ended));
        assert_eq!(unheard.ended(node(1).uuid), None);
    }

    #[test]
    fn who_left_the_cluster_is_missed_no_more() {
        let mut unheard = Unheard::default();
        for n in 1..=2 {
            unheard.began(node(n), "a node", "it is away".to_owned());
        }
        let ended = unheard.retain(&[node(2).uuid].into());
        assert_eq!(ended.iter().map(|gap| gap.node).collect::<Vec<_>>(), [node(1)]);
        assert_eq!(unheard.all()[0].node, node(2));
    }
}
