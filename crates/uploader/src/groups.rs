//! Which nodes the next chunks go to. Pure: [`GroupKeeper`] says when to ask for a new group and what an answer means,
//! [`crate::grouping`] asks.
//!
//! A group is asked for from the next sequence number on and before any chunk from there on is sent; the chunks before
//! keep theirs for ever. Once such a request may have been granted, no chunk from there on is sent before the answer is
//! known: its acceptors are those of the group that stands, and a vote of any others decides nothing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;
use vstack_api::{ErrorCode, metadata::CodedForm};
use vstack_client::{ClientError, Holder};
use vstack_erasure::Shape;
use vstack_types::NodeUuid;

use crate::parcel::shape_for;

/// How long a node that failed is avoided.
const AVOID_FOR: Duration = Duration::from_secs(30);
/// Time between two requests for a group of one upload.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What a failed request for a group says of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// There is no new one.
    Refused,
    /// There may be one: the same request is to be repeated.
    Unknown,
}

/// What `error` says, when `repeated` an earlier request for the same group failed with [`Failed::Unknown`].
///
/// Too few nodes are found before the group that stands is looked for, so that it is the answer to a first request only.
pub fn failed(error: &ClientError, repeated: bool) -> Failed {
    match error {
        ClientError::NoSecret => Failed::Refused,
        ClientError::Refused { body, .. } if body.code == ErrorCode::TooFewNodes && !repeated => Failed::Refused,
        ClientError::Refused {
            status: 400..=428 | 430..=499,
            ..
        } => Failed::Refused,
        _ => Failed::Unknown,
    }
}

/// The nodes that were named for chunks.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// In the order the placement names them.
    pub holders: Vec<Holder>,
    /// In which chunks are to be coded; none for copies.
    pub form: Option<CodedForm>,
}

/// See the module.
#[derive(Debug)]
pub struct GroupKeeper {
    current: Arc<Vec<Holder>>,
    /// In which its chunks are coded; none for copies.
    form: Option<CodedForm>,
    /// Copies a chunk should have.
    usual: usize,
    suspects: BTreeMap<NodeUuid, Instant>,
    /// Whom the current group was asked to avoid.
    avoided: Vec<NodeUuid>,
    asked: Option<Instant>,
}

impl GroupKeeper {
    /// The group of the first chunk; `copies` are wanted of each.
    pub fn new(first: Named, copies: usize) -> Self {
        Self {
            usual: copies.max(first.holders.len()),
            current: Arc::new(first.holders),
            form: first.form,
            suspects: BTreeMap::new(),
            avoided: Vec::new(),
            asked: None,
        }
    }

    /// The nodes of the chunk about to be sent.
    pub fn current(&self) -> Arc<Vec<Holder>> {
        Arc::clone(&self.current)
    }

    /// The code of a chunk of so many bytes, about to be sent; none for copies.
    pub fn shape_for(&self, bytes: usize) -> Option<Shape> {
        // All of the group are the chunk's first acceptors: more than there are shards for cannot be.
        shape_for(self.form, bytes).filter(|shape| self.current.len() <= shape.total())
    }

    /// The current group is smaller than it should be.
    pub fn is_thin(&self) -> bool {
        self.current.len() < self.usual
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
        if vstack_types::planted!("nodes that fail are left out without asking") {
            Arc::make_mut(&mut self.current).retain(|holder| !avoid.contains(&holder.node.uuid));
        }
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
    pub fn replace(&mut self, avoided: Vec<NodeUuid>, group: Named) {
        self.avoided = avoided;
        self.form = group.form;
        self.current = Arc::new(group.holders);
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

    fn named(nodes: &[u8]) -> Named {
        Named {
            holders: holders(nodes),
            form: None,
        }
    }

    #[test]
    fn only_a_definite_refusal_leaves_the_old_group() {
        let refused = |code: ErrorCode| ClientError::Refused {
            status: code.status(),
            body: vstack_api::ErrorBody {
                detail: String::new(),
                code,
            },
        };
        let url = || "http://m".to_owned();
        let reason = url;
        let table = [
            (ClientError::Timeout { url: url() }, false, Failed::Unknown),
            (ClientError::Unauthentic { url: url() }, false, Failed::Unknown),
            (
                ClientError::Unreachable {
                    url: url(),
                    reason: reason(),
                },
                false,
                Failed::Unknown,
            ),
            (
                ClientError::BadAnswer {
                    url: url(),
                    reason: reason(),
                },
                false,
                Failed::Unknown,
            ),
            (refused(ErrorCode::Unavailable), false, Failed::Unknown),
            (refused(ErrorCode::Internal), false, Failed::Unknown),
            (refused(ErrorCode::TooMany), false, Failed::Unknown),
            (refused(ErrorCode::Conflict), false, Failed::Refused),
            (refused(ErrorCode::Conflict), true, Failed::Refused),
            (refused(ErrorCode::TooFewNodes), false, Failed::Refused),
            (refused(ErrorCode::TooFewNodes), true, Failed::Unknown),
        ];
        for (error, repeated, expected) in table {
            assert_eq!(failed(&error, repeated), expected, "{error:?} {repeated}");
        }
    }

    #[test]
    fn a_group_is_thin_below_what_is_wanted_or_was_had() {
        assert!(!GroupKeeper::new(named(&[1, 2, 3]), 3).is_thin());
        assert!(GroupKeeper::new(named(&[1, 2]), 3).is_thin());
        let mut keeper = GroupKeeper::new(named(&[1, 2, 3]), 0);
        keeper.replace(vec![], named(&[1, 3]));
        assert!(keeper.is_thin());
    }

    #[test]
    fn a_failing_member_is_avoided_for_a_while_and_then_welcome_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let bad = NodeUuid::from_bytes([2; 16]);
        let mut keeper = GroupKeeper::new(named(&[1, 2, 3]), 3);
        assert_eq!(keeper.wants_new(at(0)), None);
        keeper.suspect(bad, at(1));
        assert_eq!(keeper.wants_new(at(1)), Some(vec![bad]));
        assert_eq!(
            keeper.wants_new(at(2)),
            None,
            "not asked again while the answer may be on its way"
        );
        keeper.replace(vec![bad], named(&[1, 3, 4]));
        assert_eq!(*keeper.current(), holders(&[1, 3, 4]));
        keeper.suspect(bad, at(7));
        assert_eq!(keeper.wants_new(at(10)), None, "it is avoided already");
        assert_eq!(keeper.wants_new(at(40)), Some(vec![]));
        keeper.replace(vec![], named(&[1, 2, 3]));
        assert_eq!(keeper.wants_new(at(50)), None);
    }
}
