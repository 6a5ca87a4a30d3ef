//! Chunks that take the place of others, whose registers lost their majority for good.

use vstack_types::{ChunkId, NodeRef, VideoId};

use super::{Answer, Chunk, Learned};

/// A chunk that is to take another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvage {
    /// Its register, which nobody used before.
    pub chunk: ChunkId,
    /// In whose place it is to stand.
    pub of: ChunkId,
    /// Whose they are.
    pub video: VideoId,
    /// Its first acceptors, in placement order. Two proposers that knew different ones could decide twice.
    pub members: Vec<NodeRef>,
}

/// Calls about salvage.
pub trait Salvages: Send + Sync + 'static {
    /// Writes a salvage down, before any of its acceptors hears of it; gives what stands: this one, or the one that was
    /// written down first under the same id.
    fn begin_salvage(&self, salvage: Salvage) -> Answer<'_, Salvage>;
    /// The salvage that makes this chunk.
    fn salvage(&self, chunk: ChunkId) -> Answer<'_, Option<Salvage>>;
    /// The salvages of this chunk, in the order of their ids. There are as many as times its new acceptors were lost
    /// before they decided.
    fn salvages_of(&self, of: ChunkId) -> Answer<'_, Vec<Salvage>>;
    /// Has `chunk`, which is decided, stand in the place of `of`, as [`super::Chunks::learn`] learns: with the same
    /// answers, and a conflict when `of` does not stand there any more.
    fn finish_salvage(&self, of: ChunkId, chunk: Chunk) -> Answer<'_, Learned>;
}
