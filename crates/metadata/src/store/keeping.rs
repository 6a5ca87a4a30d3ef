//! How videos are kept: what was decided, and what that followed from.

use vstack_api::metadata::RedundancyMode;
use vstack_chunkpaxos::{Layout, Placement};
use vstack_redundancy::{Changed, Decision, Heat, Mode};
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
    /// When its chunks changed their form.
    pub changed: Changed,
    /// Changes that are in it.
    pub turns: Turns,
}

/// How often chunks of a video came into either form, out of the other one. A store knows nothing of time: it counts, in the
/// transaction that learns of the change, and who looks sees that there were more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    /// Shards that became copies.
    pub to_copies: u64,
    /// Copies that became shards.
    pub to_shards: u64,
}

impl Turns {
    /// One more.
    pub(super) const fn note(&mut self, mode: Mode) {
        match mode {
            Mode::Replicated => self.to_copies += 1,
            Mode::Coded => self.to_shards += 1,
        }
    }
}

/// The form that a chunk came into by `news`, where it had the other one as it was `known`.
pub(super) fn turned(known: &Placement, news: &Placement) -> Option<Mode> {
    let (had, has) = (form_of_all(known)?, form_of_all(news)?);
    (had != has).then_some(has)
}

/// The form that all of a chunk has: while it is moved, that of what it is moved from. None of what is deleted, or is not
/// there yet.
const fn form_of_all(placement: &Placement) -> Option<Mode> {
    let layout = match &placement.prev {
        Some(from) if !placement.back => from,
        _ => &placement.layout,
    };
    match layout {
        Layout::Replicated { .. } => Some(Mode::Replicated),
        Layout::Coded { .. } => Some(Mode::Coded),
        Layout::Deleted { .. } => None,
    }
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
    /// How often its chunks changed their form.
    pub turns: Turns,
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

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Shard;
    use vstack_types::{Digest, NodeRef, NodeUuid};

    use super::*;

    #[test]
    fn a_chunk_has_another_form_once_its_move_has_ended_and_not_before() {
        let node = |n: u8| NodeRef::first(NodeUuid::from_bytes([n; 16]));
        let copies = || Layout::Replicated { nodes: vec![node(1)] };
        let shards = || Layout::Coded {
            data: 1,
            parity: 1,
            shards: [0, 1]
                .map(|index| Shard {
                    index,
                    node: node(index + 1),
                    sha256: Digest::of(&[index]),
                })
                .to_vec(),
        };
        let placed = |layout, prev, back| Placement {
            version: 1,
            size: 1,
            sha256: Digest::of(b"x"),
            layout,
            prev,
            back,
        };
        let is_copies = placed(copies(), None, false);
        let begun = placed(shards(), Some(copies()), false);
        let turns_back = placed(copies(), Some(shards()), true);
        let is_shards = placed(shards(), None, false);
        let first = placed(shards(), Some(Layout::nothing()), false);
        let deleted = placed(Layout::nothing(), None, false);
        let comes_back = placed(copies(), Some(shards()), false);
        for (known, news, expected) in [
            (&is_copies, &begun, None),
            (&begun, &is_shards, Some(Mode::Coded)),
            // What is between was not learned.
            (&is_copies, &is_shards, Some(Mode::Coded)),
            (&begun, &turns_back, None),
            (&turns_back, &is_copies, None),
            (&is_shards, &comes_back, None),
            (&comes_back, &is_copies, Some(Mode::Replicated)),
            (&first, &is_shards, None),
            (&is_shards, &deleted, None),
            (&is_copies, &is_copies, None),
        ] {
            assert_eq!(turned(known, news), expected, "{known:?} {news:?}");
        }
    }
}
