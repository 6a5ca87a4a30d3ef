//! What was learned since: for those who keep count of everything, and read only what is new.

use vstack_types::VideoId;

use super::{Answer, Chunk};

/// News about chunks, in the order in which they came. A chunk that changed twice is told once, as it is now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Chunks of videos that live, with their decided placements.
    pub chunks: Vec<(VideoId, Chunk)>,
    /// Videos of which the chunks are to go.
    pub gone: Vec<VideoId>,
    /// Where to go on.
    pub up_to: u64,
    /// There may be more.
    pub more: bool,
}

/// Calls about news.
pub trait Feed: Send + Sync + 'static {
    /// What came after `after`, about `limit` chunks of it; from the beginning, what there is.
    fn changes(&self, after: u64, limit: u32) -> Answer<'_, Changes>;
}
