//! Chunks.

use std::sync::atomic::Ordering;

use vstack_api::metadata::VideoStatus;
use vstack_chunkpaxos::Placement;
use vstack_types::{ChunkId, VideoId};

use super::{MemoryStore, place_key, ready};
use crate::store::{Answer, Chunk, Chunks, Footprint, Learned, StoredMode, Totals};

impl Chunks for MemoryStore {
    fn learn(&self, video: VideoId, chunks: Vec<Chunk>) -> Answer<'_, Learned> {
        ready(Ok(self.tables().learn(video, chunks)))
    }

    fn learn_deleted(&self, chunk: ChunkId, placement: Placement) -> Answer<'_, bool> {
        let mut tables = self.tables();
        let Some((video, known)) = tables.chunks.get_mut(&chunk) else {
            return ready(Ok(false));
        };
        if known.placement.version >= placement.version {
            return ready(Ok(false));
        }
        // The size and digest stay those of the chunk: a tombstone need not know them.
        known.placement = Placement {
            size: known.placement.size,
            sha256: known.placement.sha256,
            ..placement
        };
        let video = *video;
        tables.news.of_chunk(&chunk);
        tables.bump(video, true);
        ready(Ok(true))
    }

    fn chunk(&self, id: ChunkId) -> Answer<'_, Option<(VideoId, Chunk)>> {
        ready(Ok(self.tables().chunks.get(&id).cloned()))
    }

    fn video_chunks(&self, video: VideoId, after: Option<Option<u32>>, limit: u32) -> Answer<'_, Vec<Chunk>> {
        let tables = self.tables();
        let chunks = tables
            .chunks_of(video)
            .filter(|chunk| after.is_none_or(|after| place_key(chunk) > after));
        let chunks: Vec<Chunk> = chunks.take(limit as usize).cloned().collect();
        self.chunks_read.fetch_add(chunks.len() as u64, Ordering::Relaxed);
        ready(Ok(chunks))
    }

    fn chunk_count(&self, video: VideoId) -> Answer<'_, u64> {
        let tables = self.tables();
        let chunks = tables.chunks_of(video);
        let are_there = chunks.filter(|chunk| !chunk.placement.layout.is_deleted());
        ready(Ok(are_there.count() as u64))
    }

    fn forget_chunks(&self, video: VideoId) -> Answer<'_, u64> {
        let mut tables = self.tables();
        let ended = tables
            .videos
            .get(&video)
            .is_some_and(|video| matches!(video.status, VideoStatus::Failed | VideoStatus::Deleted));
        if !ended {
            return ready(Ok(0));
        }
        let before = tables.chunks.len();
        tables.chunks.retain(|_, (of, _)| *of != video);
        tables.places.retain(|(of, _), _| *of != video);
        ready(Ok((before - tables.chunks.len()) as u64))
    }

    fn under_replicated(&self, copies: u32) -> Answer<'_, u64> {
        let tables = self.tables();
        let thin = tables.chunks.values().filter(|(video, chunk)| {
            let footprint = Footprint::of(&chunk.placement);
            let active = tables
                .videos
                .get(video)
                .is_some_and(|video| video.status == VideoStatus::Active);
            active && footprint.mode == StoredMode::Replication && footprint.copies < copies
        });
        ready(Ok(thin.count() as u64))
    }

    fn totals(&self) -> Answer<'_, Totals> {
        let tables = self.tables();
        let mut totals = Totals {
            held: tables.held_totals(),
            ..Totals::default()
        };
        let active = |id: &VideoId| {
            tables
                .videos
                .get(id)
                .is_some_and(|video| video.status == VideoStatus::Active)
        };
        totals.active_videos = tables.videos.keys().filter(|id| active(id)).count() as u64;
        for (video, chunk) in tables.chunks.values() {
            let footprint = Footprint::of(&chunk.placement);
            let mode = match footprint.mode {
                StoredMode::Replication => &mut totals.replicated,
                StoredMode::ErasureCoding => &mut totals.coded,
                StoredMode::Deleted => continue,
            };
            mode.chunks += 1;
            mode.logical_bytes += chunk.placement.size;
            totals.placed_bytes += footprint.placed_bytes;
            if active(video) && chunk.place.is_some() {
                totals.active_chunks += 1;
                totals.active_replicas += u64::from(footprint.copies);
            }
        }
        ready(Ok(totals))
    }
}
