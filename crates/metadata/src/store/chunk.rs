//! Chunks: what was learned about where they are.

use vstack_api::metadata::{ChunkPlace, VideoStatus};
use vstack_chunkpaxos::{Layout, Placement};
use vstack_types::{ChunkId, VideoId};

use super::{Answer, HeldTotals};

/// Most chunks told in one call. A batch of this size is one transaction of a few milliseconds.
pub const LEARN_CHUNKS_MAX: usize = 4_096;

/// A chunk and its decided placement.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Its register.
    pub id: ChunkId,
    /// Its place in the video; none for the init segment.
    pub place: Option<ChunkPlace>,
    /// Decided.
    pub placement: Placement,
}

/// In which form bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoredMode {
    /// Whole copies.
    Replication,
    /// Shards.
    ErasureCoding,
    /// No more.
    Deleted,
}

impl StoredMode {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replication => "replication",
            Self::ErasureCoding => "erasure_coding",
            Self::Deleted => "deleted",
        }
    }
}

/// What a placement takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// The form it is going to have, or has.
    pub mode: StoredMode,
    /// Nodes that are to hold some of it; while joint, those of both halves.
    pub copies: u32,
    /// Bytes that it places on all of them together, in whichever form.
    pub placed_bytes: u64,
}

impl Footprint {
    /// The footprint of `placement`.
    pub fn of(placement: &Placement) -> Self {
        let mode = match placement.layout {
            Layout::Replicated { .. } => StoredMode::Replication,
            Layout::Coded { .. } => StoredMode::ErasureCoding,
            Layout::Deleted { .. } => StoredMode::Deleted,
        };
        if mode == StoredMode::Deleted {
            return Self {
                mode,
                copies: 0,
                placed_bytes: 0,
            };
        }
        // Every item a node must keep counts once on it, also when both halves of a joint name it.
        let nodes = placement.nodes();
        let mut placed_bytes = 0_u64;
        for node in &nodes {
            let mut counted = Vec::new();
            for layout in std::iter::once(&placement.layout).chain(&placement.prev) {
                let item_bytes = match layout {
                    Layout::Coded { data, .. } => placement.size.div_ceil(u64::from((*data).max(1))),
                    Layout::Replicated { .. } | Layout::Deleted { .. } => placement.size,
                };
                for item in placement.items_of(layout, *node) {
                    if !counted.contains(&item) {
                        counted.push(item);
                        placed_bytes = placed_bytes.saturating_add(item_bytes);
                    }
                }
            }
        }
        Self {
            mode,
            copies: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
            placed_bytes,
        }
    }
}

/// What came of telling the learner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// Everything is known now.
    Known {
        /// How many were news.
        changed: usize,
    },
    /// The video takes no chunks any more; nothing was learned, and its reaping began anew, since there is something
    /// of it again.
    Closed(VideoStatus),
    /// This chunk is another video's, or another chunk stands in its place, or another placement of the same
    /// version was learned before; nothing was learned.
    Conflict(ChunkId),
    /// No such video.
    Unknown,
}

/// What is stored in one form, or is going to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModeTotals {
    /// Chunks, init segments too.
    pub chunks: u64,
    /// Bytes of one copy.
    pub logical_bytes: u64,
}

/// Sums over everything learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Videos that can be played, whole.
    pub active_videos: u64,
    /// Their chunks, without init segments.
    pub active_chunks: u64,
    /// Node-and-chunk pairs the placements of those name.
    pub active_replicas: u64,
    /// Stored as copies, of all videos.
    pub replicated: ModeTotals,
    /// Stored as shards, of all videos.
    pub coded: ModeTotals,
    /// Bytes that decisions place on all nodes together, in both forms.
    pub placed_bytes: u64,
    /// What nodes told that they hold.
    pub held: HeldTotals,
}

impl Totals {
    /// Bytes of one copy of everything.
    pub const fn logical_bytes(&self) -> u64 {
        self.replicated.logical_bytes.saturating_add(self.coded.logical_bytes)
    }

    /// Bytes of items that all nodes together hold, as they told. Where one did not, that is not known, and nothing stands
    /// for it.
    pub const fn physical_bytes(&self) -> Option<u64> {
        if self.held.is_known() {
            Some(self.held.item_bytes)
        } else {
            None
        }
    }

    /// Bytes that all nodes together take of their filesystems, as they told.
    pub const fn disk_bytes(&self) -> Option<u64> {
        if self.held.is_known() {
            Some(self.held.allocated_bytes)
        } else {
            None
        }
    }
}

/// Calls about chunks.
pub trait Chunks: Send + Sync + 'static {
    /// Learns decided placements of chunks of an uploading or active video, all or none: at most
    /// [`LEARN_CHUNKS_MAX`]. A placement replaces one of a lower version only; a chunk's place never changes.
    fn learn(&self, video: VideoId, chunks: Vec<Chunk>) -> Answer<'_, Learned>;
    /// Learns that a known chunk was deleted; says whether that was news. Works on a video of any status.
    fn learn_deleted(&self, chunk: ChunkId, placement: Placement) -> Answer<'_, bool>;
    /// One chunk and its video.
    fn chunk(&self, id: ChunkId) -> Answer<'_, Option<(VideoId, Chunk)>>;
    /// Chunks of a video in playing order, the init segment first, from the one after `after` on; `after` is a
    /// place as [`Chunk::place`] has it, and none for the beginning.
    fn video_chunks(&self, video: VideoId, after: Option<Option<u32>>, limit: u32) -> Answer<'_, Vec<Chunk>>;
    /// How many chunks of a video are known that are not deleted, the init segment too.
    fn chunk_count(&self, video: VideoId) -> Answer<'_, u64>;
    /// Forgets the chunks of a failed or deleted video; gives how many.
    fn forget_chunks(&self, video: VideoId) -> Answer<'_, u64>;
    /// Chunks of active videos, init segments too, that are placed as whole copies on fewer than `copies` nodes.
    fn under_replicated(&self, copies: u32) -> Answer<'_, u64>;
    /// Sums.
    fn totals(&self) -> Answer<'_, Totals>;
}
