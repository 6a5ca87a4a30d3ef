//! What was sent and what was acknowledged, by whom it counts for: the people outside.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vstack_types::{ChunkId, Digest, VideoId};

/// What its sender knows of a film.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing final.
    UnderWay,
    /// It was said to be completed.
    Completed,
    /// It was said to have failed.
    Failed,
}

/// What is known of its deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// Nobody asked.
    None,
    /// Somebody asked, and does not know what came of it.
    Asked,
    /// It was acknowledged.
    Acknowledged,
}

/// A film that was sent.
#[derive(Debug, Clone)]
pub(crate) struct FilmRecord {
    /// Its init segment and chunks.
    pub chunks: Vec<(ChunkId, Bytes)>,
    pub known: Known,
    pub deletion: Deletion,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub films: BTreeMap<VideoId, FilmRecord>,
    /// All byte strings ever sent under an id.
    pub contents: BTreeMap<ChunkId, BTreeSet<Digest>>,
}

impl Ledger {
    /// A film is on its way.
    pub(crate) fn sent(&mut self, video: VideoId, chunks: Vec<(ChunkId, Bytes)>) {
        for (chunk, bytes) in &chunks {
            self.may_hold(chunk, Digest::of(bytes));
        }
        let record = FilmRecord {
            chunks,
            known: Known::UnderWay,
            deletion: Deletion::None,
        };
        self.films.insert(video, record);
    }

    /// Bytes with this digest may be found under `chunk`.
    pub(crate) fn may_hold(&mut self, chunk: &ChunkId, sha256: Digest) {
        self.contents.entry(chunk.clone()).or_default().insert(sha256);
    }

    /// What somebody learned about a film.
    pub(crate) fn learn(&mut self, video: VideoId, known: Known) {
        if let Some(film) = self.films.get_mut(&video) {
            film.known = known;
        }
    }

    /// What somebody did to a film.
    pub(crate) fn delete(&mut self, video: VideoId, deletion: Deletion) {
        if let Some(film) = self.films.get_mut(&video)
            && film.deletion != Deletion::Acknowledged
        {
            film.deletion = deletion;
        }
    }
}
