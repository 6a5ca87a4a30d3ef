//! What to propose next: the rules of phase 1's end, as pure functions of what the promises said.

use std::collections::BTreeSet;

use vstack_types::{Digest, NodeRef, planted};

use crate::{
    placement::{Layout, LayoutError, Placement},
    proposal::{Change, Refusal},
};

/// The next step of a proposer that knows what the register holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Phase 2 with this value.
    Propose(Placement),
    /// The register already is as wished.
    Already(Placement),
    /// Nothing was ever decided, and nothing was wished.
    Nothing,
    /// The wish cannot be granted.
    Refuse(Refusal),
}

/// With nothing accepted by a majority of `initial`.
pub(crate) fn on_empty(change: &Change, initial: &[NodeRef]) -> Next {
    let nodes = initial.to_vec();
    let first = |size, sha256, layout| Placement {
        version: 1,
        size,
        sha256,
        layout,
        prev: None,
        back: false,
    };
    match change {
        Change::Abort | Change::Delete => Next::Propose(first(0, Digest::of(b""), Layout::Deleted { nodes })),
        Change::Create { size, sha256 } => Next::Propose(first(*size, *sha256, Layout::Replicated { nodes })),
        Change::Read => Next::Nothing,
        Change::Move { .. } | Change::Settle | Change::Renew | Change::TurnBack => Next::Refuse(Refusal::Nothing),
    }
}

/// With `current` known to be decided. `vouching` are the nodes of its layout known to hold their items of it.
pub(crate) fn on_known(change: &Change, current: &Placement, vouching: &BTreeSet<NodeRef>) -> Next {
    if current.layout.is_deleted() {
        return match change {
            Change::Abort | Change::Delete | Change::Read => Next::Already(current.clone()),
            _ => Next::Refuse(Refusal::Deleted),
        };
    }
    if current.is_first_coded() && gives_up(change) {
        return Next::Propose(gone(current));
    }
    match (change, &current.prev) {
        (Change::Read, _) | (Change::Settle, None) => Next::Already(current.clone()),
        (Change::Renew, _) => Next::Propose(current.clone()),
        (Change::Create { size, sha256 }, _) if *size == current.size && *sha256 == current.sha256 => {
            Next::Already(current.clone())
        }
        (Change::Create { .. } | Change::Abort, _) => Next::Refuse(Refusal::Taken(Box::new(current.clone()))),
        (Change::Delete, None) => Next::Propose(gone(current)),
        (Change::Move { to }, None) if *to == current.layout => Next::Already(current.clone()),
        (Change::Move { to }, None) if planted!("acceptors change without a joint, on what is undecided") => {
            Next::Propose(successor(current, to.clone(), None, false))
        }
        (Change::Move { to }, None) if to.is_deleted() => Next::Refuse(Refusal::Layout(LayoutError::Deleted)),
        (Change::Move { to }, None) if let Err(error) = to.check() => Next::Refuse(Refusal::Layout(error)),
        (Change::Move { to }, None) => {
            Next::Propose(successor(current, to.clone(), Some(current.layout.clone()), false))
        }
        (Change::TurnBack, None) => Next::Refuse(Refusal::Settled),
        (Change::Settle, Some(_))
            if current.back && !enough(current, vouching) && planted!("turning back needs enough too") =>
        {
            Next::Refuse(Refusal::NotEnough)
        }
        (Change::Settle, Some(_)) if current.back || enough(current, vouching) => {
            Next::Propose(successor(current, current.layout.clone(), None, false))
        }
        (Change::Settle, Some(_)) => Next::Refuse(Refusal::NotEnough),
        (Change::Delete, Some(_)) if planted!("a joint is deleted on one half") => Next::Propose(gone(current)),
        (Change::TurnBack, Some(_)) if planted!("a move cannot be turned back") => Next::Refuse(Refusal::Settled),
        (Change::TurnBack, Some(prev)) if planted!("a joint is cancelled straight to the old set") => {
            Next::Propose(successor(current, prev.clone(), None, false))
        }
        (Change::TurnBack, Some(prev)) if !current.back || planted!("a turning back is turned back") => {
            Next::Propose(successor(current, prev.clone(), Some(current.layout.clone()), true))
        }
        (Change::TurnBack | Change::Delete | Change::Move { .. }, Some(_)) => {
            Next::Refuse(Refusal::Joint(Box::new(current.clone())))
        }
    }
}

/// With `found` accepted by somebody, perhaps decided and perhaps not.
///
/// Of everything but a coded first version the answer is none: a value that may have been decided is completed before
/// anything follows it. A coded first version may be impossible to complete, because who accepted it holds a shard
/// and not the chunk. Nobody was told that it is stored before it is settled, and its acceptors do not change, so it
/// can be given up in one step, as if it were decided.
pub(crate) fn on_undecided(change: &Change, found: &Placement) -> Option<Next> {
    let may = found.is_first_coded() && gives_up(change);
    (may && !planted!("a coded first version is completed before it is given up")).then(|| Next::Propose(gone(found)))
}

const fn gives_up(change: &Change) -> bool {
    matches!(change, Change::Abort | Change::Delete | Change::TurnBack)
}

fn gone(current: &Placement) -> Placement {
    let nodes = current.layout.nodes();
    successor(current, Layout::Deleted { nodes }, None, false)
}

fn successor(current: &Placement, layout: Layout, prev: Option<Layout>, back: bool) -> Placement {
    Placement {
        version: current.version + 1,
        size: current.size,
        sha256: current.sha256,
        layout,
        prev,
        back,
    }
}

/// Whether `vouching` hold so much of the new layout that the old one may go: after the loss of any one of them it
/// can still be read.
pub(crate) fn enough(joint: &Placement, vouching: &BTreeSet<NodeRef>) -> bool {
    if planted!("a move is settled without its quorum") {
        return true;
    }
    if planted!("a plain majority settles a coded placement") {
        let nodes = joint.layout.nodes();
        return nodes.iter().filter(|node| vouching.contains(node)).count() > nodes.len() / 2;
    }
    match &joint.layout {
        Layout::Replicated { nodes } | Layout::Deleted { nodes } => {
            nodes.iter().filter(|node| vouching.contains(node)).count() > nodes.len() / 2
        }
        Layout::Coded { data, shards, .. } => {
            let held_by = |node| shards.iter().filter(|shard| shard.node == node).count();
            let counts = || {
                joint
                    .layout
                    .nodes()
                    .into_iter()
                    .filter(|node| vouching.contains(node))
                    .map(held_by)
            };
            if planted!("enough counts shards, not nodes") {
                return counts().sum::<usize>() > usize::from(*data);
            }
            counts().sum::<usize>() >= usize::from(*data) + counts().max().unwrap_or(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;
    use crate::placement::Shard;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn coded(on: &[u8], data: u8) -> Placement {
        let shards: Vec<_> = (0u8..)
            .zip(on)
            .map(|(index, n)| Shard {
                index,
                node: node(*n),
                sha256: Digest::of(&[index]),
            })
            .collect();
        let parity = u8::try_from(on.len()).unwrap() - data;
        Placement {
            version: 2,
            size: 10,
            sha256: Digest::of(b"x"),
            layout: Layout::Coded { data, parity, shards },
            prev: Some(Layout::Replicated {
                nodes: vec![node(1), node(2), node(3)],
            }),
            back: false,
        }
    }

    #[test]
    fn a_coded_layout_settles_when_one_more_loss_leaves_it_readable() {
        let of = |nodes: &[u8]| nodes.iter().map(|n| node(*n)).collect::<BTreeSet<_>>();
        let five = coded(&[1, 2, 3, 4, 5], 3);
        assert!(enough(&five, &of(&[1, 2, 3, 4])));
        assert!(!enough(&five, &of(&[1, 2, 3])));
        let three = coded(&[1, 1, 2, 2, 3], 3);
        assert!(enough(&three, &of(&[1, 2, 3])));
        assert!(!enough(&three, &of(&[1, 2])));
    }

    #[test]
    fn a_coded_first_version_settles_or_is_given_up() {
        let everyone: BTreeSet<_> = (1..=5).map(node).collect();
        let first = Placement {
            version: 1,
            prev: Some(Layout::nothing()),
            ..coded(&[1, 2, 3, 4, 5], 3)
        };
        assert_eq!(first.check(), Ok(()));
        let few: BTreeSet<_> = (1..=3).map(node).collect();
        assert!(
            first.quorum(|node| few.contains(&node)),
            "the half without acceptors decides by itself"
        );
        assert_eq!(
            on_known(&Change::Settle, &first, &few),
            Next::Refuse(Refusal::NotEnough)
        );
        let Next::Propose(settled) = on_known(&Change::Settle, &first, &everyone) else {
            panic!("settles")
        };
        assert_eq!(
            (settled.version, settled.prev, settled.layout),
            (2, None, first.layout.clone())
        );
        for change in [Change::TurnBack, Change::Delete, Change::Abort] {
            let Next::Propose(gone) = on_known(&change, &first, &few) else {
                panic!("is given up")
            };
            assert!(gone.layout.is_deleted() && gone.prev.is_none() && gone.version == 2);
            assert_eq!(gone.layout.nodes(), first.layout.nodes());
            assert_eq!(on_undecided(&change, &first), Some(Next::Propose(gone)));
        }
        assert_eq!(on_undecided(&Change::Settle, &first), None);
        assert_eq!(on_undecided(&Change::Delete, &coded(&[1, 2, 3, 4, 5], 3)), None);
    }

    #[test]
    fn what_is_renewed_stays_as_it_is() {
        let joint = coded(&[1, 2, 3, 4, 5], 3);
        let settled = Placement {
            prev: None,
            ..joint.clone()
        };
        for current in [joint, settled] {
            let next = on_known(&Change::Renew, &current, &BTreeSet::new());
            assert_eq!(next, Next::Propose(current));
        }
        assert_eq!(on_empty(&Change::Renew, &[node(1)]), Next::Refuse(Refusal::Nothing));
    }

    #[test]
    fn nothing_moves_to_a_deletion_nor_to_a_layout_that_cannot_be() {
        let settled = Placement {
            prev: None,
            ..coded(&[1, 2, 3], 2)
        };
        let nodes = |of: &[u8]| of.iter().map(|n| node(*n)).collect::<Vec<_>>();
        let Layout::Coded { mut shards, .. } = settled.layout.clone() else {
            panic!("is coded")
        };
        shards.reverse();
        let impossible = [
            (
                Layout::Deleted {
                    nodes: nodes(&[1, 2, 3]),
                },
                LayoutError::Deleted,
            ),
            (Layout::nothing(), LayoutError::Deleted),
            (Layout::Replicated { nodes: vec![] }, LayoutError::Empty),
            (
                Layout::Replicated {
                    nodes: nodes(&[1, 2, 1]),
                },
                LayoutError::Repeated,
            ),
            (
                Layout::Replicated {
                    nodes: (0..200).map(node).collect(),
                },
                LayoutError::TooLarge,
            ),
            (
                Layout::Coded {
                    data: 2,
                    parity: 1,
                    shards,
                },
                LayoutError::Shards,
            ),
        ];
        for (to, error) in impossible {
            assert_eq!(
                on_known(&Change::Move { to }, &settled, &BTreeSet::new()),
                Next::Refuse(Refusal::Layout(error))
            );
        }
    }

    #[test]
    fn only_legal_steps_follow_a_known_placement() {
        let everyone: BTreeSet<_> = (1..=5).map(node).collect();
        let joint = coded(&[1, 2, 3, 4, 5], 3);
        assert!(matches!(
            on_known(&Change::Delete, &joint, &everyone),
            Next::Refuse(Refusal::Joint(_))
        ));
        let Next::Propose(settled) = on_known(&Change::Settle, &joint, &everyone) else {
            panic!("settles")
        };
        assert_eq!((settled.version, &settled.prev), (3, &None));
        let Next::Propose(back) = on_known(&Change::TurnBack, &joint, &everyone) else {
            panic!("turns back")
        };
        assert!(back.back && back.prev.as_ref() == Some(&joint.layout) && Some(&back.layout) == joint.prev.as_ref());
        assert!(matches!(
            on_known(&Change::TurnBack, &back, &everyone),
            Next::Refuse(Refusal::Joint(_))
        ));
        assert!(matches!(
            on_known(&Change::Settle, &back, &BTreeSet::new()),
            Next::Propose(_)
        ));
        let Next::Propose(deleted) = on_known(&Change::Delete, &settled, &everyone) else {
            panic!("deletes")
        };
        assert!(matches!(
            on_known(
                &Change::Create {
                    size: 10,
                    sha256: Digest::of(b"x")
                },
                &deleted,
                &everyone
            ),
            Next::Refuse(Refusal::Deleted)
        ));
        assert!(matches!(
            on_known(&Change::Delete, &deleted, &everyone),
            Next::Already(_)
        ));
    }
}
