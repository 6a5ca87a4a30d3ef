//! Who has a piece, and what of it.

use vstack_types::Digest;

use crate::NodeUrl;

/// A shard of a piece. While one that is none of its piece is being replaced, its index is listed with two digests: those
/// are two shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// Its place in the code.
    pub index: u8,
    /// Of its own bytes.
    pub sha256: Digest,
}

/// What a transfer brings of its piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// All of it.
    Whole,
    /// This shard.
    Shard(ShardId),
}

impl Part {
    /// Which shard it is; none when it is all of the piece.
    pub const fn shard(self) -> Option<ShardId> {
        match self {
            Self::Whole => None,
            Self::Shard(id) => Some(id),
        }
    }
}

/// How a piece is kept as shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards {
    /// So many of different indexes give the piece; those with the first indexes without decoding.
    pub needed: u8,
    /// Bytes of each.
    pub bytes: u64,
    /// Each shard, and a node that has it.
    pub at: Vec<(ShardId, NodeUrl)>,
}

impl Shards {
    /// Shards of one code give something together, those of two do not.
    pub(crate) fn is_of_the_code_of(&self, other: &Self) -> bool {
        (self.needed, self.bytes) == (other.needed, other.bytes)
    }
}

/// Who has a piece. While it changes its form it can be had in both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// Each has all of it.
    pub whole: Vec<NodeUrl>,
    /// None where it is kept as copies alone.
    pub shards: Option<Shards>,
}

impl Holders {
    /// Of a piece that is kept as copies.
    pub fn copies(whole: Vec<NodeUrl>) -> Self {
        Self { whole, shards: None }
    }

    /// All nodes that are named.
    pub fn nodes(&self) -> Vec<&NodeUrl> {
        let of_shards = self.shards.iter().flat_map(|shards| &shards.at);
        self.whole.iter().chain(of_shards.map(|(_, node)| node)).collect()
    }

    /// Every shard that is listed, once for each node that has it.
    pub(crate) fn listed(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.iter().flat_map(|shards| &shards.at).map(|(id, _)| *id)
    }

    /// Whether this shard is listed, at any node.
    pub(crate) fn lists(&self, id: ShardId) -> bool {
        self.listed().any(|one| one == id)
    }

    /// Whether it is kept as shards of the same code, or in both cases not as shards.
    pub(crate) fn has_the_code_of(&self, other: &Self) -> bool {
        match (&self.shards, &other.shards) {
            (None, None) => true,
            (Some(shards), Some(others)) => shards.is_of_the_code_of(others),
            _ => false,
        }
    }

    /// Others have it, too. Shards of another code are left out.
    pub(crate) fn add(&mut self, others: Self) {
        for node in others.whole {
            if !self.whole.contains(&node) {
                self.whole.push(node);
            }
        }
        let Some(more) = others.shards else { return };
        let shards = self.shards.get_or_insert(Shards {
            needed: more.needed,
            bytes: more.bytes,
            at: Vec::new(),
        });
        if shards.is_of_the_code_of(&more) {
            for one in more.at {
                if !shards.at.contains(&one) {
                    shards.at.push(one);
                }
            }
        }
    }
}
