//! Which nodes the next chunks go to. Pure: [`GroupKeeper`] says when to ask for a new group, the pipeline asks.
//!
//! A group is asked for from the next sequence number on and before any chunk from there on is sent; the chunks before
//! keep theirs for ever.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use vstack_client::Holder;
use vstack_types::NodeUuid;

/// How long a node that failed is avoided.
const AVOID_FOR: Duration = Duration::from_secs(30);
/// Time between two requests for a group of one upload.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct GroupKeeper {
    current: Arc<Vec<Holder>>,
    suspects: BTreeMap<NodeUuid, Instant>,
    /// Whom the current group was asked to avoid.
    avoided: Vec<NodeUuid>,
    asked: Option<Instant>,
}

impl GroupKeeper {
    /// The group of the first chunk.
    pub fn new(first: Vec<Holder>) -> Self {
        Self {
            current: Arc::new(first),
            suspects: BTreeMap::new(),
            avoided: Vec::new(),
            asked: None,
        }
    }

    /// The nodes of the chunk about to be sent.
    pub fn current(&self) -> Arc<Vec<Holder>> {
        Arc::clone(&self.current)
    }

    /// `node` failed a request.
    pub fn suspect(&mut self, node: NodeUuid, now: Instant) {
        self.suspects.insert(node, now);
    }

    /// Whom to avoid in a new group, when it is time to ask for one: a member fails, or one that failed has had time to
    /// come back.
    pub fn wants_new(&mut self, now: Instant) -> Option<Vec<NodeUuid>> {
        self.suspects
            .retain(|_, since| now.saturating_duration_since(*since) < AVOID_FOR);
        let avoid: Vec<_> = self.suspects.keys().copied().collect();
        let too_soon = self
            .asked
            .is_some_and(|asked| now.saturating_duration_since(asked) < ASK_EVERY);
        if avoid == self.avoided || too_soon {
            return None;
        }
        self.asked = Some(now);
        Some(avoid)
    }

    /// The answer to what [`Self::wants_new`] asked for.
    pub fn replace(&mut self, avoided: Vec<NodeUuid>, group: Vec<Holder>) {
        self.avoided = avoided;
        self.current = Arc::new(group);
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeRef;

    use super::*;

    fn holders(nodes: &[u8]) -> Vec<Holder> {
        let holder = |n: &u8| Holder {
            node: NodeRef::first(NodeUuid::from_bytes([*n; 16])),
            url: String::new(),
        };
        nodes.iter().map(holder).collect()
    }

    #[test]
    fn a_failing_member_is_avoided_for_a_while_and_then_welcome_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let bad = NodeUuid::from_bytes([2; 16]);
        let mut keeper = GroupKeeper::new(holders(&[1, 2, 3]));
        assert_eq!(keeper.wants_new(at(0)), None);
        keeper.suspect(bad, at(1));
        assert_eq!(keeper.wants_new(at(1)), Some(vec![bad]));
        assert_eq!(
            keeper.wants_new(at(2)),
            None,
            "not asked again while the answer may be on its way"
        );
        keeper.replace(vec![bad], holders(&[1, 3, 4]));
        assert_eq!(*keeper.current(), holders(&[1, 3, 4]));
        keeper.suspect(bad, at(7));
        assert_eq!(keeper.wants_new(at(10)), None, "it is avoided already");
        assert_eq!(keeper.wants_new(at(40)), Some(vec![]));
        keeper.replace(vec![], holders(&[1, 2, 3]));
        assert_eq!(keeper.wants_new(at(50)), None);
    }
}
