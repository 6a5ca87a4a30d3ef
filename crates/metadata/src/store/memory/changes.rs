//! News.

use std::collections::BTreeMap;

use vstack_types::{ChunkId, VideoId};

use super::{MemoryStore, ready};
use crate::store::{Answer, Changes, Feed, Reap};

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Chunk(ChunkId),
    Gone(VideoId),
}

/// Every change by its number; of each chunk only the last.
#[derive(Default)]
pub(super) struct News {
    last: u64,
    all: BTreeMap<u64, What>,
    of_chunks: BTreeMap<ChunkId, u64>,
}

impl News {
    pub(super) fn of_chunk(&mut self, chunk: &ChunkId) {
        self.last += 1;
        if let Some(before) = self.of_chunks.insert(chunk.clone(), self.last) {
            self.all.remove(&before);
        }
        self.all.insert(self.last, What::Chunk(chunk.clone()));
    }

    pub(super) fn gone(&mut self, video: VideoId) {
        self.last += 1;
        self.all.insert(self.last, What::Gone(video));
    }
}

impl Feed for MemoryStore {
    fn changes(&self, after: u64, limit: u32) -> Answer<'_, Changes> {
        let tables = self.tables();
        let mut changes = Changes {
            up_to: tables.news.last.max(after),
            ..Changes::default()
        };
        let mut counted = 0;
        for (number, what) in tables.news.all.range(after + 1..) {
            match what {
                What::Gone(video) => changes.gone.push(*video),
                What::Chunk(id) => {
                    let Some((video, chunk)) = tables.chunks.get(id) else {
                        continue;
                    };
                    counted += 1;
                    if tables
                        .videos
                        .get(video)
                        .is_some_and(|video| matches!(video.reap, Reap::NotDue | Reap::Trashed { .. }))
                    {
                        changes.chunks.push((*video, chunk.clone()));
                    }
                    if counted >= limit {
                        (changes.up_to, changes.more) = (*number, true);
                        break;
                    }
                }
            }
        }
        ready(Ok(changes))
    }
}
