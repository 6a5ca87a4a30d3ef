//! A manifest, checked and put into the words of the playback core.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use vstack_api::metadata::{Fragments, Manifest, ManifestChunk, ManifestInit};
use vstack_erasure::{ReedSolomon, Shape};
use vstack_playback::{Holders, NodeUrl, Part, PieceId, Plan, PlanPiece, ShardId, Shards};
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
    is_shard: bool,
}

impl Source {
    fn whole(chunk: &ChunkId, bytes: u64, checksum: &str) -> Result<Self, CatalogError> {
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
            is_shard: false,
        })
    }

    fn shard(chunk: &ChunkId, bytes: u64, checksum: &str) -> Result<Self, CatalogError> {
        let source = Self::whole(chunk, bytes, checksum)?;
        Ok(Self {
            is_shard: true,
            ..source
        })
    }

    /// What a node is asked for. Of a shard it is said which: while its chunk is moved, the node may have two of one index.
    pub(crate) fn path(&self) -> String {
        let (chunk, digest) = (&self.chunk, self.digest);
        if self.is_shard {
            format!("chunk/{chunk}?sha256={digest}")
        } else {
            format!("chunk/{chunk}")
        }
    }
}

/// A piece as the manifest has it: what it is, and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// All of it.
    pub(crate) whole: Source,
    /// None where it is kept as copies alone.
    coded: Option<Coded>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Coded {
    shape: Shape,
    shards: BTreeMap<ShardId, Source>,
    at: Vec<(ShardId, NodeUrl)>,
}

impl Stored {
    pub(crate) fn of_init(init: &ManifestInit) -> Result<Self, CatalogError> {
        Ok(Self {
            whole: Source::whole(&init.chunk_id, init.size_bytes, &init.checksum)?,
            coded: None,
        })
    }

    pub(crate) fn of_chunk(chunk: &ManifestChunk) -> Result<Self, CatalogError> {
        let whole = Source::whole(&chunk.chunk_id, chunk.size_bytes, &chunk.checksum)?;
        let coded = chunk.fragments.as_ref().map(|fragments| Coded::read(&whole, fragments));
        let coded = match coded.transpose() {
            // What is wrong with them harms nobody as long as it can be had whole.
            Err(error) if !chunk.replicas.is_empty() => {
                tracing::warn!(%error, "a chunk is read from its copies alone");
                None
            }
            coded => coded?,
        };
        Ok(Self { whole, coded })
    }

    /// Who has it, given who has all of it.
    pub(crate) fn holders(&self, replicas: &[String]) -> Holders {
        let size = usize::try_from(self.whole.bytes).unwrap_or(usize::MAX);
        Holders {
            whole: replicas.iter().map(|url| NodeUrl::new(url)).collect(),
            shards: self.coded.as_ref().map(|coded| Shards {
                needed: coded.shape.data(),
                bytes: coded.shape.shard_len(size) as u64,
                at: coded.at.clone(),
            }),
        }
    }

    /// What a part of it is; none when it has no such part.
    pub(crate) fn part(&self, part: Part) -> Option<&Source> {
        match part {
            Part::Whole => Some(&self.whole),
            Part::Shard(id) => self.coded.as_ref()?.shards.get(&id),
        }
    }

    /// Knows of its shards what another manifest says, besides.
    pub(crate) fn add(&mut self, other: Self) {
        let Some(more) = other.coded else { return };
        let coded = self.coded.get_or_insert_with(|| more.clone());
        // Which shards of a chunk there are depends on how many of them are data alone.
        if coded.shape.data() == more.shape.data() {
            coded.shape = coded.shape.max(more.shape);
            coded.shards.extend(more.shards);
        }
    }

    /// What makes the piece of shards that are here, each verified by itself: of the first of `sets` that gives it.
    pub(crate) fn join(&self, here: &[(Part, Bytes)], sets: &[Vec<ShardId>]) -> Option<Join> {
        let shard = |(part, bytes): &(Part, Bytes)| Some((part.shard()?, bytes.clone()));
        Some(Join {
            whole: self.whole.clone(),
            shape: self.coded.as_ref()?.shape,
            here: here.iter().filter_map(shard).collect(),
            sets: sets.to_vec(),
        })
    }
}

/// Shards of a piece that may give it.
#[derive(Debug)]
pub(crate) struct Join {
    whole: Source,
    shape: Shape,
    here: Vec<(ShardId, Bytes)>,
    sets: Vec<Vec<ShardId>>,
}

impl Join {
    /// The piece, verified; none where no set gives it. Takes some milliseconds for each.
    pub(crate) fn run(self) -> Option<Bytes> {
        let size = usize::try_from(self.whole.bytes).ok()?;
        let code = ReedSolomon::new(self.shape);
        let found = |id: &ShardId| {
            let of_it = self.here.iter().find(|(here, _)| here == id);
            of_it.map(|(_, bytes)| (id.index, bytes.clone()))
        };
        let joined = self.sets.iter().find_map(|set| {
            let shards: Vec<(u8, Bytes)> = set.iter().filter_map(found).collect();
            vstack_erasure::read(&code, size, self.whole.digest, &shards).ok()
        });
        if joined.is_none() {
            let (chunk, sets) = (&self.whole.chunk, self.sets.len());
            tracing::warn!(%chunk, sets, "shards, each as it is listed, do not give their chunk");
        }
        joined.map(Hashed::into_bytes)
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
            let source = Source::shard(&id, fragments.size_bytes, &fragment.checksum)?;
            let id = ShardId {
                index: fragment.fragment_index,
                sha256: source.digest,
            };
            at.push((id, NodeUrl::new(&fragment.node_url)));
            shards.insert(id, source);
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
    /// Of the manifest that says where they are.
    version: u64,
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
                version: manifest.version,
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
    /// was begun is played to its end as it was. None where ours is the newer one: of several metadata services one may be
    /// behind, and an answer late. Addresses may change within a version.
    pub(crate) fn renew(&mut self, manifest: &Manifest) -> Option<Vec<(PieceId, Holders)>> {
        if manifest.version < self.version {
            return None;
        }
        self.version = manifest.version;
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
        Some(renewed)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Of one chunk, at `node`.
    fn manifest(version: u64, node: &str) -> Manifest {
        let video = VideoId::from_bytes([7; 16]);
        let chunk = serde_json::json!({
            "chunk_id": "a", "sequence_num": 0, "size_bytes": 3, "checksum": "0".repeat(64),
            "redundancy_mode": "replication", "replicas": [node], "replica_ids": ["node"], "segment": 0,
            "start_sec": 0.0, "duration_sec": 1.0, "independent": true,
        });
        let manifest = serde_json::json!({
            "video_id": video, "title": "", "duration_sec": 1.0, "total_chunks": 1, "chunk_duration_sec": 10,
            "chunk_size_bytes": 3, "created_at": "2026-01-01T00:00:00Z", "status": "active", "version": version,
            "init": null, "chunks": [chunk],
        });
        serde_json::from_value(manifest).unwrap()
    }

    #[test]
    fn an_older_manifest_changes_nothing() {
        let (mut catalog, _) = Catalog::read(&manifest(2, "http://a:1")).unwrap();
        let mut at = |version, node| {
            let holders = catalog.renew(&manifest(version, node))?;
            let (_, first) = holders.into_iter().next()?;
            Some(first.whole)
        };
        assert_eq!(at(1, "http://b:1"), None);
        // Addresses change without the version.
        assert_eq!(at(2, "http://c:1"), Some(vec![NodeUrl::new("http://c:1")]));
        assert_eq!(at(5, "http://d:1"), Some(vec![NodeUrl::new("http://d:1")]));
        assert_eq!(at(4, "http://a:1"), None);
        assert_eq!(at(5, "http://e:1"), Some(vec![NodeUrl::new("http://e:1")]));
    }
}
