//! Salvage.

use vstack_api::metadata::VideoStatus;
use vstack_types::{ChunkId, Timestamp};

use super::{MemoryStore, Tables, place_key, ready};
use crate::store::{Answer, Chunk, Learned, Reap, Salvage, Salvages};

impl Tables {
    fn finish_salvage(&mut self, of: &ChunkId, chunk: Chunk) -> Learned {
        if self.chunks.get(&chunk.id).is_some_and(|(_, known)| *known == chunk) {
            return Learned::Known { changed: 0 };
        }
        let Some((id, known)) = self.chunks.get(of).cloned() else {
            return Learned::Conflict(chunk.id);
        };
        let Some((status, reap)) = self.videos.get(&id).map(|video| (video.status, video.reap)) else {
            return Learned::Unknown;
        };
        let trashed = matches!(reap, Reap::Trashed { .. });
        if !matches!(status, VideoStatus::Uploading | VideoStatus::Active) && !trashed {
            self.restart_reap(id, Timestamp(0));
            return Learned::Closed(status);
        }
        if self.chunks.contains_key(&chunk.id) || known.placement.sha256 != chunk.placement.sha256 {
            return Learned::Conflict(chunk.id);
        }
        let chunk = Chunk {
            place: known.place,
            ..chunk
        };
        self.chunks.remove(of);
        self.places.insert((id, place_key(&chunk)), chunk.id.clone());
        self.news.of_chunk(&chunk.id);
        self.chunks.insert(chunk.id.clone(), (id, chunk));
        self.bump(id, true);
        Learned::Known { changed: 1 }
    }
}

impl Salvages for MemoryStore {
    fn begin_salvage(&self, salvage: Salvage) -> Answer<'_, Salvage> {
        let mut tables = self.tables();
        let stands = tables.salvages.entry(salvage.chunk.clone()).or_insert(salvage);
        ready(Ok(stands.clone()))
    }

    fn salvage(&self, chunk: ChunkId) -> Answer<'_, Option<Salvage>> {
        ready(Ok(self.tables().salvages.get(&chunk).cloned()))
    }

    fn salvages_of(&self, of: ChunkId) -> Answer<'_, Vec<Salvage>> {
        let tables = self.tables();
        let all = tables.salvages.values().filter(|salvage| salvage.of == of);
        ready(Ok(all.cloned().collect()))
    }

    fn finish_salvage(&self, of: ChunkId, chunk: Chunk) -> Answer<'_, Learned> {
        ready(Ok(self.tables().finish_salvage(&of, chunk)))
    }
}
