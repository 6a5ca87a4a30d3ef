//! Changes of form, as they are seen by who looks now and then.

use std::collections::BTreeMap;

use vstack_api::redundancy::Keepings;
use vstack_types::VideoId;

/// Changes of form that were seen: at least as many there were.
#[derive(Debug, Default)]
pub struct Changes {
    coded: BTreeMap<VideoId, u64>,
    pub chunks: u64,
}

impl Changes {
    pub fn note(&mut self, keepings: &Keepings) {
        for keeping in &keepings.videos {
            if keeping.replicated_chunks + keeping.coded_chunks == 0 {
                // A service that was started again has not counted it yet.
                continue;
            }
            let before = self.coded.insert(keeping.video_id, keeping.coded_chunks);
            self.chunks += before.map_or(0, |before| before.abs_diff(keeping.coded_chunks));
        }
    }

    /// Chunks that are shards, of those that may be either, by the last that was told of each film.
    pub fn coded(&self) -> u64 {
        self.coded.values().sum()
    }
}
