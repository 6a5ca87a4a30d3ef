//! How videos are kept.

use std::ops::Bound;

use vstack_api::metadata::VideoStatus;
use vstack_types::VideoId;

use super::{MemoryStore, ready};
use crate::store::{Answer, Keeping, Keepings, Watched};

impl Keepings for MemoryStore {
    fn watched(&self, after: Option<VideoId>, limit: u32) -> Answer<'_, Vec<Watched>> {
        let tables = self.tables();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let videos = tables.videos.range((from, Bound::Unbounded)).map(|(_, video)| video);
        let active = videos.filter(|video| video.status == VideoStatus::Active);
        let watched = active.take(limit as usize).map(|video| Watched {
            video: video.id,
            created_at: video.created_at,
            view_count: video.view_count,
            override_mode: video.override_mode,
            turns: tables.turns.get(&video.id).copied().unwrap_or_default(),
            keeping: tables.keepings.get(&video.id).copied(),
        });
        ready(Ok(watched.collect()))
    }

    fn note_keepings(&self, keepings: Vec<(VideoId, Keeping)>) -> Answer<'_, ()> {
        let mut tables = self.tables();
        for (video, keeping) in keepings {
            if tables.videos.contains_key(&video) {
                tables.keepings.insert(video, keeping);
            }
        }
        ready(Ok(()))
    }

    fn is_migration_paused(&self) -> Answer<'_, bool> {
        ready(Ok(self.tables().migration_paused))
    }

    fn pause_migration(&self, paused: bool) -> Answer<'_, ()> {
        self.tables().migration_paused = paused;
        ready(Ok(()))
    }
}
