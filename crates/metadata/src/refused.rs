//! Nodes that ask to take part and may not, and why: for who wonders why a node that runs is not there. Pure.

use std::{collections::BTreeMap, time::Duration};

use vstack_api::metadata::RefusedNode;
use vstack_types::Monotonic;

/// A node that may not asks again every ten seconds at the least; who asks no more is gone.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// So many at most: only who knows the cluster secret is in it, and still.
const KEPT_MAX: usize = 100;

/// Those that asked lately, by their URL.
#[derive(Debug, Default)]
pub(crate) struct RefusedNodes(BTreeMap<String, (Monotonic, RefusedNode)>);

impl RefusedNodes {
    /// One asked, and may not.
    pub(crate) fn note(&mut self, refused: RefusedNode, now: Monotonic) {
        self.forget_old(now);
        if self.0.len() < KEPT_MAX || self.0.contains_key(&refused.node_url) {
            self.0.insert(refused.node_url.clone(), (now, refused));
        }
    }

    /// It was accepted.
    pub(crate) fn forget(&mut self, url: &str) {
        self.0.remove(url);
    }

    /// By their URLs.
    pub(crate) fn list(&mut self, now: Monotonic) -> Vec<RefusedNode> {
        self.forget_old(now);
        self.0.values().map(|(_, refused)| refused.clone()).collect()
    }

    fn forget_old(&mut self, now: Monotonic) {
        self.0.retain(|_, (asked, _)| now.since(*asked) < KEPT_FOR);
    }
}

#[cfg(test)]
mod tests {
    use vstack_api::WallTime;
    use vstack_types::Timestamp;

    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    fn refused(node: usize, why: &str) -> RefusedNode {
        RefusedNode {
            node_id: format!("node-{node}"),
            node_url: format!("http://host:{node}"),
            why: why.to_owned(),
            asked_at: WallTime(Timestamp(0)),
        }
    }

    #[test]
    fn who_asks_and_may_not_is_named_until_it_may_or_asks_no_more() {
        let mut nodes = RefusedNodes::default();
        nodes.note(refused(1, "its label is taken"), at(0));
        nodes.note(refused(2, "it went back"), at(20));
        nodes.note(refused(1, "it runs twice"), at(20));
        assert_eq!(
            nodes.list(at(40)),
            [refused(1, "it runs twice"), refused(2, "it went back")]
        );
        nodes.forget("http://host:1");
        assert_eq!(nodes.list(at(49)), [refused(2, "it went back")]);
        assert_eq!(nodes.list(at(50)), []);
        for node in 0..2 * KEPT_MAX {
            nodes.note(refused(node, "no"), at(60));
        }
        assert_eq!(nodes.list(at(60)).len(), KEPT_MAX);
    }
}
