//! A manifest, checked and put into the words of the playback core.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use bytes::Bytes;
use vstack_api::metadata::{Fragments, Manifest, ManifestChunk, ManifestInit};
use vstack_erasure::{ReedSolomon, Shape};
use vstack_playback::{Holders, NodeUrl, Part, PieceId, Plan, PlanPiece};
use vstack_types::{
    ChunkId, Digest, Hashed, VideoId,
    limits::{LAYOUT_NODES_MAX, VIDEO_CHUNKS_MAX},
};

/// Largest chunk that is taken, in bytes. Clusters may be set to larger chunks than the usual 2 MiB; this bounds what
/// a wrong manifest can make us allocate.
const PIECE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Shards of a chunk that a manifest names at most: those of both halves of a move.
const SHARDS_NAMED_MAX: usize = 2 * LAYOUT_NODES_MAX;

/// Why a manifest cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Nothing in it.
    #[error("the video has no chunks")]
    Empty,
    /// More chunks than a video may have.
    #[error("the manifest names more than {VIDEO_CHUNKS_MAX} chunks")]
    TooMany,
    /// A field that cannot be.
    #[error("the manifest entry of {chunk} cannot be used: {reason}")]
    Entry {
        /// Whose.
        chunk: ChunkId,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What is fetched, and how it is known to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) chunk: ChunkId,
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

impl Source {
    fn new(chunk: &ChunkId, bytes: u64, checksum: &str) -> Result<Self, CatalogError> {
        if bytes == 0 || bytes > PIECE_BYTES_MAX {
            return Err(entry(chunk, "its size is 0 or more than 64 MiB"));
        }
        let digest = checksum
            .parse()
            .map_err(|_| entry(chunk, "its checksum is no SHA-256"))?;
        Ok(Self {
            chunk: chunk.clone(),
            bytes,
            digest,
        })
    }
}

/// A piece as the manifest has it: what it is, and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// All of it.
    pub(crate) whole: Source,
    /// None where it is kept as copies.
    coded: Option<Coded>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Coded {
    shape: Shape,
    /// By index.
    shards: BTreeMap<u8, Source>,
    at: Vec<(u8, NodeUrl)>,
}

impl Stored {
    pub(crate) fn of_init(init: &ManifestInit) -> Result<Self, CatalogError> {
        Ok(Self {
            whole: Source::new(&init.chunk_id, init.size_bytes, &init.checksum)?,
            coded: None,
        })
    }

    pub(crate) fn of_chunk(chunk: &ManifestChunk) -> Result<Self, CatalogError> {
        let whole = Source::new(&chunk.chunk_id, chunk.size_bytes, &chunk.checksum)?;
        // While its form changes it can be had in both, and whole is simpler.
        let coded = match &chunk.fragments {
            Some(fragments) if chunk.replicas.is_empty() => Some(Coded::read(&whole, fragments)?),
            _ => None,
        };
        Ok(Self { whole, coded })
    }

    /// Who has it, given who has all of it.
    pub(crate) fn holders(&self, replicas: &[String]) -> Holders {
        match &self.coded {
            None => Holders::Whole(replicas.iter().map(|url| NodeUrl::new(url)).collect()),
            Some(coded) => Holders::Shards {
                needed: coded.shape.data(),
                bytes: coded
                    .shape
                    .shard_len(usize::try_from(self.whole.bytes).unwrap_or(usize::MAX)) as u64,
                at: coded.at.clone(),
            },
        }
    }

    /// What a part of it is; none when it has no such part.
    pub(crate) fn part(&self, part: Part) -> Option<&Source> {
        match part {
            Part::Whole => Some(&self.whole),
            Part::Shard(index) => self.coded.as_ref()?.shards.get(&index),
        }
    }

    /// The piece, verified, made of parts that are, each by itself.
    pub(crate) fn joined(&self, mut parts: Vec<(Part, Bytes)>) -> Result<Bytes, CatalogError> {
        if let Some(at) = parts.iter().position(|(part, _)| *part == Part::Whole) {
            return Ok(parts.swap_remove(at).1);
        }
        let unread = |reason| entry(&self.whole.chunk, reason);
        let coded = self
            .coded
            .as_ref()
            .ok_or_else(|| unread("it is kept as copies by now"))?;
        let shards: Vec<(u8, Bytes)> = parts
            .into_iter()
            .filter_map(|(part, bytes)| match part {
                Part::Shard(index) => Some((index, bytes)),
                Part::Whole => None,
            })
            .collect();
        let size = usize::try_from(self.whole.bytes).map_err(|_| unread("it is too large for this machine"))?;
        let code = ReedSolomon::new(coded.shape);
        let read = vstack_erasure::read(&code, size, self.whole.digest, &shards);
        read.map(Hashed::into_bytes)
            .map_err(|_| unread("its shards, each as promised, do not give it"))
    }
}

impl Coded {
    fn read(whole: &Source, fragments: &Fragments) -> Result<Self, CatalogError> {
        let bad = |reason| entry(&whole.chunk, reason);
        let shape = Shape::new(fragments.data_shards, fragments.parity_shards)
            .map_err(|_| bad("no code has so many shards"))?;
        let size = usize::try_from(whole.bytes).map_err(|_| bad("it is too large for this machine"))?;
        if fragments.size_bytes != shape.shard_len(size) as u64 {
            return Err(bad("its shards have another size than its code gives them"));
        }
        if fragments.shards.len() > SHARDS_NAMED_MAX {
            return Err(bad("it names too many shards"));
        }
        let (mut shards, mut at) = (BTreeMap::new(), Vec::new());
        for fragment in &fragments.shards {
            if usize::from(fragment.fragment_index) >= shape.total() {
                return Err(bad("it names a shard that its code has not"));
            }
            let id: ChunkId = fragment.fragment_id.parse().map_err(|_| bad("a shard has no id"))?;
            let source = Source::new(&id, fragments.size_bytes, &fragment.checksum)?;
            match shards.entry(fragment.fragment_index) {
                Entry::Vacant(entry) => {
                    entry.insert(source);
                }
                Entry::Occupied(entry) if *entry.get() == source => {}
                Entry::Occupied(_) => return Err(bad("it names two shards with the same index")),
            }
            at.push((fragment.fragment_index, NodeUrl::new(&fragment.node_url)));
        }
        Ok(Self { shape, shards, at })
    }
}

fn entry(chunk: &ChunkId, reason: &'static str) -> CatalogError {
    CatalogError::Entry {
        chunk: chunk.clone(),
        reason,
    }
}

/// The pieces of one video.
#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    pub(crate) video: VideoId,
    init: Option<Stored>,
    chunks: Vec<Stored>,
}

impl Catalog {
    /// Checks a manifest; gives what to fetch and what to play.
    pub(crate) fn read(manifest: &Manifest) -> Result<(Self, Plan), CatalogError> {
        if manifest.chunks.is_empty() {
            return Err(CatalogError::Empty);
        }
        if manifest.chunks.len() > VIDEO_CHUNKS_MAX {
            return Err(CatalogError::TooMany);
        }
        let init = manifest.init.as_ref().map(Stored::of_init).transpose()?;
        let chunks: Vec<Stored> = manifest.chunks.iter().map(Stored::of_chunk).collect::<Result<_, _>>()?;
        let plan = Plan {
            video_id: manifest.video_id,
            init: manifest
                .init
                .as_ref()
                .zip(init.as_ref())
                .map(|(init, stored)| PlanPiece {
                    bytes: init.size_bytes,
                    holders: stored.holders(&init.replicas),
                    segment: 0,
                    duration: Duration::ZERO,
                }),
            chunks: manifest
                .chunks
                .iter()
                .zip(&chunks)
                .zip(0_u32..)
                .map(|((chunk, stored), index)| plan_piece(chunk, stored, index))
                .collect::<Result<_, _>>()?,
        };
        Ok((
            Self {
                video: manifest.video_id,
                init,
                chunks,
            },
            plan,
        ))
    }

    pub(crate) fn stored(&self, piece: PieceId) -> Option<&Stored> {
        match piece {
            PieceId::Init => self.init.as_ref(),
            PieceId::Chunk(index) => self.chunks.get(index as usize),
        }
    }

    /// Who holds our pieces by a newer manifest, and in which form. Pieces whose bytes are others by now are left out: what
    /// was begun is played to its end as it was.
    pub(crate) fn renew(&mut self, manifest: &Manifest) -> Vec<(PieceId, Holders)> {
        let mut renewed = Vec::new();
        if let (Some(init), Some(ours)) = (&manifest.init, &mut self.init)
            && let Ok(stored) = Stored::of_init(init)
            && stored.whole == ours.whole
        {
            renewed.push((PieceId::Init, stored.holders(&init.replicas)));
            *ours = stored;
        }
        for ((chunk, ours), index) in manifest.chunks.iter().zip(&mut self.chunks).zip(0_u32..) {
            if let Ok(stored) = Stored::of_chunk(chunk)
                && stored.whole == ours.whole
            {
                renewed.push((PieceId::Chunk(index), stored.holders(&chunk.replicas)));
                *ours = stored;
            }
        }
        renewed
    }
}

fn plan_piece(chunk: &ManifestChunk, stored: &Stored, index: u32) -> Result<PlanPiece, CatalogError> {
    if chunk.sequence_num != index {
        return Err(entry(&chunk.chunk_id, "it is out of order"));
    }
    let duration = Duration::try_from_secs_f64(chunk.duration_sec)
        .map_err(|_| entry(&chunk.chunk_id, "its duration is negative or no number"))?;
    Ok(PlanPiece {
        bytes: chunk.size_bytes,
        holders: stored.holders(&chunk.replicas),
        segment: chunk.segment,
        duration,
    })
}
