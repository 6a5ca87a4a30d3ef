//! The same state with its acceptors renamed. The protocol knows no difference between acceptors but what layouts say,
//! so a model may take states that differ by a renaming for one.

use std::collections::{BTreeMap, BTreeSet};

use vstack_types::NodeRef;

use crate::{
    acceptor::Register,
    message::{Request, Vote},
    placement::{Layout, Placement},
    proposal::Change,
    proposer::{Phase, Promise, Proposer},
};

type Name<'a> = &'a dyn Fn(NodeRef) -> NodeRef;

impl Layout {
    /// With every node renamed, and in order of the new names. A coded layout stays as it is: which node has which
    /// shard is part of its meaning, so only renamings that move the shards along with their nodes may be used with it.
    #[must_use]
    pub fn renamed(&self, name: Name<'_>) -> Self {
        let sorted = |nodes: &[NodeRef]| {
            let mut nodes: Vec<_> = nodes.iter().map(|node| name(*node)).collect();
            nodes.sort_unstable();
            nodes
        };
        match self {
            Self::Replicated { nodes } => Self::Replicated { nodes: sorted(nodes) },
            Self::Deleted { nodes } => Self::Deleted { nodes: sorted(nodes) },
            Self::Coded { .. } => self.clone(),
        }
    }
}

impl Placement {
    /// With every node renamed.
    #[must_use]
    pub fn renamed(&self, name: Name<'_>) -> Self {
        Self {
            layout: self.layout.renamed(name),
            prev: self.prev.as_ref().map(|prev| prev.renamed(name)),
            ..self.clone()
        }
    }
}

impl Vote {
    /// With every node renamed.
    #[must_use]
    pub fn renamed(&self, name: Name<'_>) -> Self {
        Self {
            ballot: self.ballot,
            placement: self.placement.renamed(name),
        }
    }
}

impl Register {
    /// With every node renamed.
    #[must_use]
    pub fn renamed(&self, name: Name<'_>) -> Self {
        Self {
            accepted: self.accepted.as_ref().map(|vote| vote.renamed(name)),
            ..*self
        }
    }
}

impl Request {
    /// With every node renamed.
    #[must_use]
    pub fn renamed(&self, name: Name<'_>) -> Self {
        match self {
            Self::Put0 { ballot, placement } => Self::Put0 {
                ballot: *ballot,
                placement: placement.renamed(name),
            },
            Self::Accept { ballot, placement } => Self::Accept {
                ballot: *ballot,
                placement: placement.renamed(name),
            },
            Self::Decided { ballot, placement } => Self::Decided {
                ballot: *ballot,
                placement: placement.renamed(name),
            },
            Self::Prepare { .. } | Self::Read => self.clone(),
        }
    }
}

impl Change {
    /// With every node renamed.
    #[must_use]
    pub fn renamed(&self, name: Name<'_>) -> Self {
        match self {
            Self::Move { to } => Self::Move { to: to.renamed(name) },
            other => other.clone(),
        }
    }
}

impl Proposer {
    /// With every node renamed.
    #[must_use]
    pub fn renamed(&self, name: Name<'_>) -> Self {
        let all = |nodes: &BTreeSet<NodeRef>| nodes.iter().map(|node| name(*node)).collect::<BTreeSet<_>>();
        let mut initial: Vec<_> = self.initial.iter().map(|node| name(*node)).collect();
        initial.sort_unstable();
        Self {
            initial,
            change: self.change.renamed(name),
            known: self.known.as_ref().map(|known| known.renamed(name)),
            completed_by: all(&self.completed_by),
            phase: match &self.phase {
                Phase::Waiting => Phase::Waiting,
                Phase::Done => Phase::Done,
                Phase::Prepare {
                    asked,
                    pending,
                    promises,
                } => Phase::Prepare {
                    asked: all(asked),
                    pending: all(pending),
                    promises: promises
                        .iter()
                        .map(|(node, promise)| (name(*node), promise.renamed(name)))
                        .collect::<BTreeMap<_, _>>(),
                },
                Phase::Accept {
                    placement,
                    wished,
                    copies,
                    pending,
                    accepted,
                } => Phase::Accept {
                    placement: placement.renamed(name),
                    wished: *wished,
                    copies: copies.iter().map(|(node, missing)| (name(*node), *missing)).collect(),
                    pending: all(pending),
                    accepted: all(accepted),
                },
            },
            ..self.clone()
        }
    }
}

impl Promise {
    fn renamed(&self, name: Name<'_>) -> Self {
        Self {
            accepted: self.accepted.as_ref().map(|vote| vote.renamed(name)),
            ..*self
        }
    }
}
