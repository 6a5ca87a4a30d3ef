//! How videos are kept: what was decided, and what that followed from.

use vstack_api::metadata::RedundancyMode;
use vstack_redundancy::{Decision, Heat};
use vstack_types::{Timestamp, VideoId};

use super::Answer;

/// Most in one call.
pub const KEEPINGS_MAX: usize = 4_096;

/// What is known of a video's keeping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keeping {
    /// Decided last.
    pub decision: Decision,
    /// Its views.
    pub heat: Heat,
    /// Views that are in it.
    pub heat_views: u64,
}

/// A video that is there to be watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watched {
    /// Which.
    pub video: VideoId,
    /// When it was created.
    pub created_at: Timestamp,
    /// Views counted.
    pub view_count: u64,
    /// Asked for by hand.
    pub override_mode: Option<RedundancyMode>,
    /// None before anything was decided.
    pub keeping: Option<Keeping>,
}

/// Calls about how videos are kept.
pub trait Keepings: Send + Sync + 'static {
    /// Active videos in the order of their ids: the first `limit` after `after`.
    fn watched(&self, after: Option<VideoId>, limit: u32) -> Answer<'_, Vec<Watched>>;
    /// Notes what was decided, all or none; of videos that are gone nothing. At most [`KEEPINGS_MAX`].
    fn note_keepings(&self, keepings: Vec<(VideoId, Keeping)>) -> Answer<'_, ()>;
    /// Whether somebody asked for nothing to be brought into another form.
    fn is_migration_paused(&self) -> Answer<'_, bool>;
    /// Notes that somebody did, or does no longer.
    fn pause_migration(&self, paused: bool) -> Answer<'_, ()>;
}
