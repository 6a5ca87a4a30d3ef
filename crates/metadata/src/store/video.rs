//! Videos and their groups.

use vstack_api::metadata::{RedundancyMode, VideoStatus};
use vstack_types::{NodeRef, ProcessUuid, Timestamp, VideoId};

use super::Answer;

/// Most groups of one video: its nodes changed so often that something else is wrong.
pub const GROUPS_MAX: usize = 1_024;

/// What was noted so much later than now, in milliseconds, was noted by a clock that was set back since.
pub const NOTED_AHEAD_MS: i64 = 60_000;

/// The same of when the next pass of a reaping is due: no wait between two is nearly as long.
pub const PASS_AHEAD_MS: i64 = 3_600_000;

/// The process that sends a video's chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// It alone may use round 0.
    pub process: ProcessUuid,
    /// When it last said that it works on this video.
    pub last_seen: Timestamp,
}

/// Whether the chunks of a video are to be taken off the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reap {
    /// No: it lives.
    NotDue,
    /// Not yet: it was deleted, and may be restored until then.
    Trashed {
        /// When it was deleted.
        since: Timestamp,
        /// Due from then on.
        until: Timestamp,
    },
    /// Yes, from a moment on.
    Due {
        /// Passes made.
        attempts: u32,
        /// The last pass left nothing: when the next finds nothing, the work is done.
        confirms: bool,
        /// When to try next.
        next_at: Timestamp,
    },
    /// Nothing is left of them.
    Done,
}

/// A video.
#[derive(Debug, Clone, PartialEq)]
pub struct Video {
    /// Its id.
    pub id: VideoId,
    /// For people.
    pub title: String,
    /// Seconds; 0 while unknown.
    pub duration_sec: f64,
    /// Where it stands.
    pub status: VideoStatus,
    /// None when a script sends its chunks.
    pub owner: Option<Owner>,
    /// When a script last worked on it, or created it.
    pub touched_at: Timestamp,
    /// Rises with every change of what its manifest says.
    pub version: u64,
    /// RFC 6381; empty while unknown.
    pub codecs: String,
    /// Pixels, as shown; 0 while unknown.
    pub width: u32,
    /// Pixels, as shown; 0 while unknown.
    pub height: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// Views counted.
    pub view_count: u64,
    /// Redundancy asked for by hand.
    pub override_mode: Option<RedundancyMode>,
    /// Why it failed.
    pub fail_reason: Option<String>,
    /// Whether its chunks are to go.
    pub reap: Reap,
}

/// A video to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewVideo {
    /// Its id, made by the caller.
    pub id: VideoId,
    /// For people.
    pub title: String,
    /// Seconds; 0 while unknown.
    pub duration_sec: f64,
    /// None when a script sends its chunks.
    pub owner: Option<ProcessUuid>,
    /// In which form it is to be kept, when somebody said.
    pub override_mode: Option<RedundancyMode>,
    /// Now.
    pub created_at: Timestamp,
}

impl NewVideo {
    /// The video as it begins: uploading, version 1, nothing known beyond what was given.
    pub fn begin(self) -> Video {
        Video {
            id: self.id,
            title: self.title,
            duration_sec: self.duration_sec,
            status: VideoStatus::Uploading,
            owner: self.owner.map(|process| Owner {
                process,
                last_seen: self.created_at,
            }),
            touched_at: self.created_at,
            version: 1,
            codecs: String::new(),
            width: 0,
            height: 0,
            created_at: self.created_at,
            view_count: 0,
            override_mode: self.override_mode,
            fail_reason: None,
            reap: Reap::NotDue,
        }
    }
}

/// What a list of videos is ordered by. Videos equal in it stand in the order of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// Age.
    CreatedAt,
    /// Title, whatever its case.
    Title,
    /// Views.
    ViewCount,
    /// Length.
    Duration,
}

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub key: SortKey,
    /// Highest, newest or last first.
    pub descending: bool,
}

/// Which videos to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoQuery {
    /// Only those that stand here.
    pub status: VideoStatus,
    /// Only those whose title contains this, whatever the case.
    pub text: Option<String>,
    /// In this order.
    pub sort: Sort,
    /// At most so many.
    pub limit: u32,
    /// Without the first so many.
    pub offset: u64,
}

/// A video in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The video.
    pub video: Video,
    /// Chunks learned, without the init segment.
    pub chunk_count: u32,
    /// Bytes of one copy of everything learned.
    pub size_bytes: u64,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoPage {
    /// In the order asked for.
    pub videos: Vec<Listing>,
    /// How many there are on all pages.
    pub total: u64,
}

/// A step from one status to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusChange {
    /// Only when it stands here.
    pub from: VideoStatus,
    /// Where it shall stand. A video that fails or is deleted becomes due for reaping.
    pub to: VideoStatus,
    /// A video that is deleted becomes due only then, and may be restored until it is.
    pub trash_until: Option<Timestamp>,
    /// Why it failed; kept.
    pub reason: Option<String>,
    /// Only when its owner was last seen before this; of one without, when it was last touched.
    pub owner_silent_since: Option<Timestamp>,
    /// Now.
    pub at: Timestamp,
}

/// What is known of a video once it is whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Chunks there must be: 0 to this, without gaps, and an init segment.
    pub total_chunks: u32,
    /// Seconds.
    pub duration_sec: f64,
    /// RFC 6381.
    pub codecs: String,
    /// Pixels, as shown.
    pub width: u32,
    /// Pixels, as shown.
    pub height: u32,
}

/// What came of completing a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionOutcome {
    /// It is active now.
    Completed,
    /// It stood here and not at `uploading`; nothing changed.
    Stands(VideoStatus),
    /// The init segment was not learned.
    InitMissing,
    /// Other chunks than the ones that must be there were learned.
    ChunksMissing {
        /// How many were learned.
        learned: u32,
    },
    /// No such video.
    Unknown,
}

/// The acceptors of the first placements of the chunks from `from_seq` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// First sequence number it is for.
    pub from_seq: u32,
    /// In placement order.
    pub members: Vec<NodeRef>,
}

/// What came of inserting a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupOutcome {
    /// This one stands: the one given, or the one that was there first.
    Stands(Group),
    /// Chunks from `from_seq` on belong to a later group or were learned already: their acceptors are fixed.
    Behind,
    /// The video takes no chunks any more.
    Closed(VideoStatus),
    /// It has [`GROUPS_MAX`] groups.
    TooMany,
    /// No such video.
    Unknown,
}

/// A video whose chunks are to be taken off the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReapJob {
    /// Whose.
    pub video: VideoId,
    /// Passes made.
    pub attempts: u32,
    /// The last pass left nothing.
    pub confirms: bool,
}

/// Calls about videos and groups.
pub trait Videos: Send + Sync + 'static {
    /// Inserts a video.
    fn create_video(&self, new: NewVideo) -> Answer<'_, ()>;
    /// One video.
    fn video(&self, id: VideoId) -> Answer<'_, Option<Video>>;
    /// A page of videos.
    fn list_videos(&self, query: VideoQuery) -> Answer<'_, VideoPage>;
    /// Changes the status if it is what the change expects; says whether it did.
    fn change_status(&self, id: VideoId, change: StatusChange) -> Answer<'_, bool>;
    /// Makes an uploading video active if everything that must be there was learned.
    fn complete_video(&self, id: VideoId, completion: Completion) -> Answer<'_, CompletionOutcome>;
    /// Counts a view; says whether there is such a video.
    fn count_view(&self, id: VideoId) -> Answer<'_, bool>;
    /// Sets or clears the redundancy asked for by hand; says whether there is such a video.
    fn set_override(&self, id: VideoId, mode: Option<RedundancyMode>) -> Answer<'_, bool>;
    /// Notes that `owner` still works on those of `videos` that are its own and uploading.
    fn owner_alive(&self, owner: ProcessUuid, videos: Vec<VideoId>, at: Timestamp) -> Answer<'_, ()>;
    /// Uploading videos whose owners were last seen before `before`, the most silent first.
    fn silent_owners(&self, before: Timestamp, limit: u32) -> Answer<'_, Vec<VideoId>>;
    /// Notes that somebody works on an uploading video without an owner.
    fn touch_video(&self, id: VideoId, at: Timestamp) -> Answer<'_, ()>;
    /// Uploading videos without an owner that were last touched before `before`, the longest untouched first.
    fn untouched(&self, before: Timestamp, limit: u32) -> Answer<'_, Vec<VideoId>>;
    /// Sets right what was noted by a clock that was set back since, so that nothing waits until it is that late again: an
    /// owner was seen, a video touched and a pass is due now, and the trash is kept for as long from now as it was to be
    /// from then. Gives of how many videos something was.
    fn clock_is_right(&self, now: Timestamp) -> Answer<'_, u64>;
    /// Reaping that is due, the longest due first.
    fn due_reaps(&self, now: Timestamp, limit: u32) -> Answer<'_, Vec<ReapJob>>;
    /// Sets how reaping stands after a pass, if it still stands as `job` says; says whether it did.
    fn set_reap(&self, job: ReapJob, reap: Reap) -> Answer<'_, bool>;
    /// Restores a deleted video of which the reaping did not begin; says whether it is active now.
    fn restore(&self, id: VideoId) -> Answer<'_, bool>;
    /// Has the reaping of deleted videos begin that could be restored until `now`, or of `purged` alone, whether or not;
    /// gives how many there were.
    fn empty_trash(&self, now: Timestamp, purged: Option<VideoId>) -> Answer<'_, u64>;
    /// Has the reaping of a failed or deleted video begin anew at `at`, however far it came; says whether it is one. One
    /// that may be restored is none.
    fn reap_again(&self, id: VideoId, at: Timestamp) -> Answer<'_, bool>;
    /// Inserts a group, unless one for the same `from_seq` is there: then that one stands.
    fn insert_group(&self, video: VideoId, group: Group) -> Answer<'_, GroupOutcome>;
    /// The groups of a video, by `from_seq`; at most [`GROUPS_MAX`].
    fn groups(&self, video: VideoId) -> Answer<'_, Vec<Group>>;
}
