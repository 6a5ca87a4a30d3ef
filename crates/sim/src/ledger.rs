//! What was sent and what was acknowledged, by whom it counts for: the people outside.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tokio::time::Instant;
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
    /// When it was first asked for its deletion, of one that stood and is kept for a while then; none once it is restored.
    pub trashed: Option<Instant>,
    /// Somebody ends its chunks one by one.
    pub condemned: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub films: BTreeMap<VideoId, FilmRecord>,
    /// All byte strings ever sent under an id.
    pub contents: BTreeMap<ChunkId, BTreeSet<Digest>>,
    /// All shards ever made, under their own names.
    fragments: BTreeMap<ChunkId, BTreeSet<Digest>>,
    /// Those of them that are none of their chunk: somebody's memory failed.
    forged: BTreeSet<Digest>,
    /// What stands under an id, as a commit was answered to somebody.
    committed: BTreeMap<ChunkId, Digest>,
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
            trashed: None,
            condemned: false,
        };
        self.films.insert(video, record);
    }

    /// Bytes with this digest may be found under `chunk`.
    pub(crate) fn may_hold(&mut self, chunk: &ChunkId, sha256: Digest) {
        self.contents.entry(chunk.clone()).or_default().insert(sha256);
    }

    /// A shard with this digest may be found under `fragment`.
    fn may_be_shard(&mut self, fragment: ChunkId, sha256: Digest) {
        self.fragments.entry(fragment).or_default().insert(sha256);
    }

    /// The shard with this index may be found under `chunk` with this digest, under its own name too.
    pub(crate) fn may_be_coded(&mut self, chunk: &ChunkId, index: usize, sha256: Digest) {
        self.may_hold(chunk, sha256);
        if let Ok(fragment) = format!("{chunk}-frag-{index}").parse() {
            self.may_be_shard(fragment, sha256);
        }
    }

    /// The same of one that is none of the chunk.
    pub(crate) fn forge(&mut self, chunk: &ChunkId, index: usize, sha256: Digest) {
        self.may_be_coded(chunk, index, sha256);
        self.forged.insert(sha256);
    }

    /// Whether this shard is none of its chunk.
    pub(crate) fn is_forged(&self, sha256: Digest) -> bool {
        self.forged.contains(&sha256)
    }

    /// What was sent of the film of `chunk`, with this digest; none where it is not known to stand there.
    pub(crate) fn stands_as(&self, chunk: &ChunkId, sha256: Digest) -> Option<&Bytes> {
        let film = self.films.get(&chunk.video()?)?;
        let mut sent = film.chunks.iter().map(|(_, bytes)| bytes);
        sent.find(|bytes| Digest::of(bytes) == sha256)
    }

    /// All byte strings ever sent under the id of a chunk or of a fragment.
    pub(crate) fn sent_under(&self, id: &ChunkId) -> Option<&BTreeSet<Digest>> {
        self.contents.get(id).or_else(|| self.fragments.get(id))
    }

    /// Whether different bytes were sent under `chunk`, so that who asks for the id alone may be given either.
    pub(crate) fn is_contested(&self, chunk: &ChunkId) -> bool {
        self.contents.get(chunk).is_some_and(|sent| sent.len() > 1)
    }

    /// A commit of these bytes was acknowledged.
    ///
    /// # Errors
    /// When one of other bytes was before.
    pub(crate) fn commit(&mut self, chunk: &ChunkId, sha256: Digest) -> Result<(), String> {
        let stands = *self.committed.entry(chunk.clone()).or_insert(sha256);
        if stands == sha256 {
            return Ok(());
        }
        Err(format!("{chunk} was committed with {stands}, and then with {sha256}"))
    }

    /// It turned out which of the bytes sent under `chunk` are those of the film.
    pub(crate) fn settle(&mut self, video: VideoId, chunk: &ChunkId, bytes: Bytes) {
        let film = self.films.get_mut(&video);
        let of = film.and_then(|film| film.chunks.iter_mut().find(|(id, _)| id == chunk));
        if let Some((_, stands)) = of {
            *stands = bytes;
        }
    }

    /// What somebody learned about a film.
    pub(crate) fn learn(&mut self, video: VideoId, known: Known) {
        if let Some(film) = self.films.get_mut(&video) {
            film.known = known;
        }
    }

    /// It is about to be asked for the deletion of a film that stands, and is kept for a while then.
    pub(crate) fn trash(&mut self, video: VideoId) {
        if let Some(film) = self.films.get_mut(&video) {
            film.trashed = Some(Instant::now());
        }
    }

    /// It is about to be asked to restore a film: until that is answered, it may stand or not.
    pub(crate) fn reconsider(&mut self, video: VideoId) {
        if let Some(film) = self.films.get_mut(&video) {
            film.deletion = Deletion::Asked;
        }
    }

    /// A film was restored: it stands as before.
    pub(crate) fn restore(&mut self, video: VideoId) {
        if let Some(film) = self.films.get_mut(&video) {
            (film.deletion, film.trashed) = (Deletion::None, None);
        }
    }

    /// The chunks of a film are about to be ended one by one: nobody can count on it any more.
    pub(crate) fn condemn(&mut self, video: VideoId) {
        if let Some(film) = self.films.get_mut(&video) {
            film.condemned = true;
        }
        self.delete(video, Deletion::Asked);
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
