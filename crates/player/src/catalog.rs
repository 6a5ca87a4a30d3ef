//! A manifest, checked and put into the words of the playback core.

use std::time::Duration;

use vstack_api::metadata::{Manifest, ManifestChunk, ManifestInit, RedundancyMode};
use vstack_playback::{NodeUrl, PieceId, Plan, PlanPiece};
use vstack_types::{ChunkId, Digest, VideoId, limits::VIDEO_CHUNKS_MAX};

/// Largest chunk that is taken, in bytes. Clusters may be set to larger chunks than the usual 2 MiB; this bounds what
/// a wrong manifest can make us allocate.
const PIECE_BYTES_MAX: u64 = 64 * 1024 * 1024;

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
    pub(crate) fn of_chunk(chunk: &ManifestChunk) -> Result<Self, CatalogError> {
        if chunk.redundancy_mode != RedundancyMode::Replication {
            return Err(entry(
                &chunk.chunk_id,
                "it is kept as shards, which this version does not read",
            ));
        }
        Self::new(&chunk.chunk_id, chunk.size_bytes, &chunk.checksum)
    }

    pub(crate) fn of_init(init: &ManifestInit) -> Result<Self, CatalogError> {
        Self::new(&init.chunk_id, init.size_bytes, &init.checksum)
    }

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

fn entry(chunk: &ChunkId, reason: &'static str) -> CatalogError {
    CatalogError::Entry {
        chunk: chunk.clone(),
        reason,
    }
}

/// Replica URLs as the core names nodes.
pub(crate) fn nodes(replicas: &[String]) -> Vec<NodeUrl> {
    replicas.iter().map(|url| NodeUrl::new(url)).collect()
}

/// The pieces of one video.
#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    pub(crate) video: VideoId,
    init: Option<Source>,
    chunks: Vec<Source>,
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
        let init = manifest.init.as_ref().map(Source::of_init).transpose()?;
        let chunks: Vec<Source> = manifest.chunks.iter().map(Source::of_chunk).collect::<Result<_, _>>()?;
        let plan = Plan {
            video_id: manifest.video_id,
            init: manifest.init.as_ref().map(|init| PlanPiece {
                bytes: init.size_bytes,
                replicas: nodes(&init.replicas),
                segment: 0,
                duration: Duration::ZERO,
            }),
            chunks: manifest
                .chunks
                .iter()
                .zip(0_u32..)
                .map(plan_piece)
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

    pub(crate) fn source(&self, piece: PieceId) -> Option<&Source> {
        match piece {
            PieceId::Init => self.init.as_ref(),
            PieceId::Chunk(index) => self.chunks.get(index as usize),
        }
    }

    /// Who holds our pieces by a newer manifest. Pieces whose bytes are others by now are left out: what was begun is
    /// played to its end as it was.
    pub(crate) fn holders(&self, manifest: &Manifest) -> Vec<(PieceId, Vec<NodeUrl>)> {
        let init = manifest.init.iter().filter_map(|init| {
            let same = Source::of_init(init).ok().as_ref() == self.init.as_ref();
            same.then(|| (PieceId::Init, nodes(&init.replicas)))
        });
        let chunks = manifest
            .chunks
            .iter()
            .zip(&self.chunks)
            .zip(0_u32..)
            .filter_map(|((chunk, ours), index)| {
                let same = Source::of_chunk(chunk).ok().as_ref() == Some(ours);
                same.then(|| (PieceId::Chunk(index), nodes(&chunk.replicas)))
            });
        init.chain(chunks).collect()
    }
}

fn plan_piece((chunk, index): (&ManifestChunk, u32)) -> Result<PlanPiece, CatalogError> {
    if chunk.sequence_num != index {
        return Err(entry(&chunk.chunk_id, "it is out of order"));
    }
    let duration = Duration::try_from_secs_f64(chunk.duration_sec)
        .map_err(|_| entry(&chunk.chunk_id, "its duration is negative or no number"))?;
    Ok(PlanPiece {
        bytes: chunk.size_bytes,
        replicas: nodes(&chunk.replicas),
        segment: chunk.segment,
        duration,
    })
}
