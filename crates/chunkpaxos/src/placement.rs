//! What is agreed: ballots, layouts and placements.

use std::fmt;

use vstack_types::{Digest, NodeRef, ProcessUuid, limits::LAYOUT_NODES_MAX, planted};

use crate::choose;

/// A proposer's attempt. Ordered by round, then proposer; at most one value is ever proposed in one ballot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Strictly rising per proposer and register. Round 0 belongs to the process that created the video.
    pub round: u64,
    /// The process that proposes; a UUID made at its start.
    pub proposer: ProcessUuid,
}

impl Ballot {
    /// The owner's ballot, whose accept travels with the bytes.
    pub const fn zero(owner: ProcessUuid) -> Self {
        Self {
            round: 0,
            proposer: owner,
        }
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.round, self.proposer)
    }
}

/// One Reed-Solomon shard of a coded chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Place in the code, from 0; the data shards come first.
    pub index: u8,
    /// Who holds it.
    pub node: NodeRef,
    /// Of the shard's own bytes.
    pub sha256: Digest,
}

/// In which form a chunk lives, and on which nodes. The nodes of a layout are its acceptors; there are no others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Every node holds all of the chunk.
    Replicated {
        /// Distinct, at least one.
        nodes: Vec<NodeRef>,
    },
    /// Every shard lives on one node; a node may hold several.
    Coded {
        /// Shards needed to read.
        data: u8,
        /// Shards beyond those.
        parity: u8,
        /// `data + parity` of them, in order of their index.
        shards: Vec<Shard>,
    },
    /// Nobody holds anything, for ever. Of no nodes at all it is [`Layout::nothing`].
    Deleted {
        /// The acceptors that remember it.
        nodes: Vec<NodeRef>,
    },
}

/// Why a layout cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No acceptor could answer for it.
    #[error("a layout names at least one node")]
    Empty,
    /// More than [`LAYOUT_NODES_MAX`].
    #[error("a layout names at most {LAYOUT_NODES_MAX} nodes or shards")]
    TooLarge,
    /// The same acceptor would be counted twice.
    #[error("a layout names a node twice")]
    Repeated,
    /// Shards missing, out of order, or of an impossible code.
    #[error("a coded layout has `data` + `parity` shards, in order, with at least one data shard")]
    Shards,
    /// A deletion is a wish of its own, and no place to move to.
    #[error("a chunk is not moved to a deletion")]
    Deleted,
    /// Only a coded first version is made from nothing.
    #[error("only a coded first version is made from nothing")]
    FromNothing,
}

impl Layout {
    /// What a chunk's first version is made from: no bytes, and no acceptors, so that its half of a joint decides
    /// by itself. Only ever the `prev` of a coded first version.
    pub const fn nothing() -> Self {
        Self::Deleted { nodes: Vec::new() }
    }

    /// Whether it is [`Layout::nothing`].
    pub const fn is_nothing(&self) -> bool {
        matches!(self, Self::Deleted { nodes } if nodes.is_empty())
    }

    /// Its acceptors, each once, in the order the layout names them.
    pub fn nodes(&self) -> Vec<NodeRef> {
        match self {
            Self::Replicated { nodes } | Self::Deleted { nodes } => nodes.clone(),
            Self::Coded { shards, .. } => {
                let mut nodes = Vec::with_capacity(shards.len());
                for shard in shards {
                    if !nodes.contains(&shard.node) {
                        nodes.push(shard.node);
                    }
                }
                nodes
            }
        }
    }

    /// Whether `node` is one of its acceptors.
    pub fn names(&self, node: NodeRef) -> bool {
        match self {
            Self::Replicated { nodes } | Self::Deleted { nodes } => nodes.contains(&node),
            Self::Coded { shards, .. } => shards.iter().any(|shard| shard.node == node),
        }
    }

    /// Whether it is [`Layout::Deleted`].
    pub const fn is_deleted(&self) -> bool {
        matches!(self, Self::Deleted { .. })
    }

    /// Whether it lists another shard than `shard` of `other` under its index, of the same code.
    fn differs_from(&self, other: &Self, shard: &Shard) -> bool {
        let code = |layout: &Self| match layout {
            Self::Coded { data, parity, .. } => Some((*data, *parity)),
            Self::Replicated { .. } | Self::Deleted { .. } => None,
        };
        let Self::Coded { shards, .. } = self else { return false };
        let same = shards.iter().find(|own| own.index == shard.index);
        code(self) == code(other) && same.is_some_and(|own| own.sha256 != shard.sha256)
    }

    /// Whether it can be agreed on at all.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), LayoutError> {
        let distinct = |nodes: &[NodeRef]| {
            let mut sorted: Vec<_> = nodes.iter().map(|node| node.uuid).collect();
            sorted.sort_unstable();
            sorted.windows(2).all(|pair| pair[0] != pair[1])
        };
        match self {
            Self::Replicated { nodes } | Self::Deleted { nodes } => {
                if nodes.is_empty() {
                    Err(LayoutError::Empty)
                } else if nodes.len() > LAYOUT_NODES_MAX {
                    Err(LayoutError::TooLarge)
                } else if distinct(nodes) {
                    Ok(())
                } else {
                    Err(LayoutError::Repeated)
                }
            }
            Self::Coded { data, parity, shards } => {
                let total = usize::from(*data) + usize::from(*parity);
                let ordered = shards
                    .iter()
                    .enumerate()
                    .all(|(index, shard)| usize::from(shard.index) == index);
                if *data == 0 || shards.len() != total || !ordered {
                    Err(LayoutError::Shards)
                } else if total > LAYOUT_NODES_MAX {
                    Err(LayoutError::TooLarge)
                } else if distinct(&self.nodes()) {
                    Ok(())
                } else {
                    Err(LayoutError::Repeated)
                }
            }
        }
    }
}

/// Where a chunk can be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Who is to have all of it.
    pub whole: Vec<NodeRef>,
    /// Its shards, of one code.
    pub shards: Option<ShardSet>,
}

/// Shards of one code. While they are moved, one may be named at two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSet {
    /// Shards needed to read.
    pub data: u8,
    /// Shards beyond those.
    pub parity: u8,
    /// Those of the layout first.
    pub of: Vec<Shard>,
}

/// The value of a register: where version `version` of a chunk's placement puts it.
///
/// With `prev` it is *joint*: both layouts count. Without, it is *settled*.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placement {
    /// 1 for the first; each decided placement is made from the one before.
    pub version: u64,
    /// Length of the whole chunk, in bytes.
    pub size: u64,
    /// Of the whole chunk.
    pub sha256: Digest,
    /// Where the chunk is going to be, or is.
    pub layout: Layout,
    /// Where it still is, while joint.
    pub prev: Option<Layout>,
    /// The joint turns back to what `prev` was made from.
    pub back: bool,
}

impl Placement {
    /// The acceptors of both halves, each once.
    pub fn nodes(&self) -> Vec<NodeRef> {
        let mut nodes = self.layout.nodes();
        for node in self.prev.iter().flat_map(Layout::nodes) {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// Whether `voters` hold a quorum Q of this placement: a majority of each layout it names.
    pub fn quorum(&self, voters: impl Fn(NodeRef) -> bool) -> bool {
        let majority = |layout: &Layout| {
            let nodes = layout.nodes();
            nodes.is_empty() || nodes.iter().filter(|node| voters(**node)).count() > nodes.len() / 2
        };
        if planted!("one half of a joint decides") {
            return majority(&self.layout);
        }
        majority(&self.layout) && self.prev.as_ref().is_none_or(majority)
    }

    /// Whether it is a coded first version: decided, but nobody may be told that the chunk is stored before it is
    /// settled, because a majority of shards need not be enough to read it.
    pub fn is_first_coded(&self) -> bool {
        self.prev.as_ref().is_some_and(Layout::is_nothing)
    }

    /// Whether a move to its layout may be ended once those of whom `holds` is true hold what is theirs of it: after the
    /// loss of any one of them the chunk can still be read.
    pub fn may_settle(&self, holds: impl Fn(NodeRef) -> bool) -> bool {
        let vouching = self.layout.nodes().into_iter().filter(|node| holds(*node)).collect();
        self.back || choose::enough(self, &vouching)
    }

    /// Whether either half names `node` as an acceptor.
    pub fn names(&self, node: NodeRef) -> bool {
        self.layout.names(node) || self.prev.as_ref().is_some_and(|prev| prev.names(node))
    }

    /// Where the chunk can be had, by both halves. Where those are of different codes, shards are those of the layout.
    ///
    /// Where they list different shards under one index, the older half lists one that is none of the chunk, since there is
    /// one right one: putting that right is what the move is for. Of a coded first version whoever sent it may have left the
    /// whole chunk at its nodes besides, without a vote, when somebody else was faster.
    pub fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        if self.is_first_coded() {
            sources.whole = self.layout.nodes();
        }
        let newer = if self.back {
            self.prev.as_ref()
        } else {
            Some(&self.layout)
        };
        for layout in std::iter::once(&self.layout).chain(&self.prev) {
            match layout {
                Layout::Replicated { nodes } => {
                    let new = nodes.iter().filter(|node| !sources.whole.contains(node));
                    let new: Vec<NodeRef> = new.copied().collect();
                    sources.whole.extend(new);
                }
                Layout::Coded { data, parity, shards } => {
                    let set = sources.shards.get_or_insert_with(|| ShardSet {
                        data: *data,
                        parity: *parity,
                        of: Vec::new(),
                    });
                    if (set.data, set.parity) == (*data, *parity) {
                        let is_right = |shard: &&Shard| newer.is_none_or(|newer| !newer.differs_from(layout, shard));
                        let new = shards.iter().filter(|shard| !set.of.contains(shard));
                        let new: Vec<Shard> = new.filter(is_right).copied().collect();
                        set.of.extend(new);
                    }
                }
                Layout::Deleted { .. } => {}
            }
        }
        sources
    }

    /// Which shard of which code an item at `node` is: needed, beyond, and its index; none if it is no shard.
    pub fn shard_at(&self, node: NodeRef, item: Digest) -> Option<(u8, u8, u8)> {
        let mut layouts = std::iter::once(&self.layout).chain(&self.prev);
        layouts.find_map(|layout| {
            let Layout::Coded { data, parity, shards } = layout else {
                return None;
            };
            let shard = shards.iter().find(|shard| (shard.node, shard.sha256) == (node, item))?;
            Some((*data, *parity, shard.index))
        })
    }

    /// The digests of the items that `layout` assigns to `node`: the whole chunk for a replica, its shards for a
    /// coded one, none for anybody else.
    pub fn items_of(&self, layout: &Layout, node: NodeRef) -> Vec<Digest> {
        match layout {
            Layout::Replicated { nodes } if nodes.contains(&node) => vec![self.sha256],
            Layout::Coded { shards, .. } => shards
                .iter()
                .filter(|shard| shard.node == node)
                .map(|shard| shard.sha256)
                .collect(),
            Layout::Replicated { .. } | Layout::Deleted { .. } => Vec::new(),
        }
    }

    /// Bytes of the item `digest` of the layout: the whole chunk, or a shard, all of which have the same length.
    pub fn item_size(&self, digest: Digest) -> u64 {
        match &self.layout {
            Layout::Coded { data, shards, .. } if shards.iter().any(|shard| shard.sha256 == digest) => {
                self.size.div_ceil(u64::from(*data))
            }
            _ => self.size,
        }
    }

    /// Whether `digest` is an item that either half assigns to `node`, so that the node must keep it.
    pub fn keeps(&self, node: NodeRef, digest: Digest) -> bool {
        std::iter::once(&self.layout)
            .chain(&self.prev)
            .any(|layout| self.items_of(layout, node).contains(&digest))
    }

    /// Whether both its layouts can be agreed on.
    ///
    /// # Errors
    /// What is wrong with the first that cannot.
    pub fn check(&self) -> Result<(), LayoutError> {
        self.layout.check()?;
        match &self.prev {
            Some(prev) if prev.is_nothing() => {
                let first = self.version == 1 && !self.back && matches!(self.layout, Layout::Coded { .. });
                if first { Ok(()) } else { Err(LayoutError::FromNothing) }
            }
            Some(prev) => prev.check(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    /// Shards of a 2+1 code: of each its node, and what is listed.
    fn coded(shards: [(u8, u8); 3]) -> Layout {
        let shard = |(index, (on, what)): (u8, (u8, u8))| Shard {
            index,
            node: node(on),
            sha256: Digest::of(&[what]),
        };
        Layout::Coded {
            data: 2,
            parity: 1,
            shards: (0..).zip(shards).map(shard).collect(),
        }
    }

    fn placed(layout: Layout, prev: Option<Layout>, back: bool) -> Placement {
        Placement {
            version: 2,
            size: 10,
            sha256: Digest::of(b"chunk"),
            layout,
            prev,
            back,
        }
    }

    /// The shards it can be had from: of each its index, its node, and what is listed.
    fn shards(placement: &Placement) -> Vec<(u8, NodeRef, Digest)> {
        let shards = placement.sources().shards.expect("it has some");
        let shards = shards.of.iter();
        shards.map(|shard| (shard.index, shard.node, shard.sha256)).collect()
    }

    fn those(of: &[(u8, u8, u8)]) -> Vec<(u8, NodeRef, Digest)> {
        let named = |(index, on, what): &(u8, u8, u8)| (*index, node(*on), Digest::of(&[*what]));
        of.iter().map(named).collect()
    }

    #[test]
    fn what_a_move_puts_right_is_made_of_nothing_that_was_wrong() {
        let wrong = coded([(1, 10), (2, 99), (3, 12)]);
        let right = coded([(1, 10), (2, 11), (4, 12)]);
        // The third is only moved, and may be had where it was.
        let corrected = placed(right.clone(), Some(wrong.clone()), false);
        let expected = those(&[(0, 1, 10), (1, 2, 11), (2, 4, 12), (2, 3, 12)]);
        assert_eq!(shards(&corrected), expected);
        // Nor is it on the way back.
        let back = placed(wrong.clone(), Some(right), true);
        let expected = those(&[(0, 1, 10), (2, 3, 12), (1, 2, 11), (2, 4, 12)]);
        assert_eq!(shards(&back), expected);
        // Of what is settled nothing else is known.
        let settled = placed(wrong, None, false);
        assert_eq!(shards(&settled), those(&[(0, 1, 10), (1, 2, 99), (2, 3, 12)]));
    }

    #[test]
    fn shards_of_another_code_are_no_others() {
        let Layout::Coded { shards: of_two, .. } = coded([(1, 20), (2, 21), (3, 22)]) else {
            panic!("is coded")
        };
        let one_and_two = Layout::Coded {
            data: 1,
            parity: 2,
            shards: of_two,
        };
        let moved = placed(coded([(1, 10), (2, 11), (3, 12)]), Some(one_and_two), false);
        assert_eq!(shards(&moved), those(&[(0, 1, 10), (1, 2, 11), (2, 3, 12)]));
    }

    #[test]
    fn the_whole_chunk_may_be_where_a_coded_first_version_was_sent() {
        let first = Placement {
            version: 1,
            ..placed(coded([(1, 10), (2, 11), (2, 12)]), Some(Layout::nothing()), false)
        };
        assert_eq!(first.sources().whole, [1, 2].map(node));
        let settled = Placement { prev: None, ..first };
        assert_eq!(settled.sources().whole, []);
    }
}
