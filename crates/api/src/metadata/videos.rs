//! Bodies of the calls about videos: their life, their manifests and their views.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, ProcessUuid, VideoId};

use crate::{WallTime, metadata::RedundancyMode};

/// Where a video stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VideoStatus {
    /// Chunks are still coming.
    Uploading,
    /// It can be played, whole.
    Active,
    /// It will never be whole.
    Failed,
    /// It was taken out.
    Deleted,
}

impl VideoStatus {
    /// The word in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uploading => "uploading",
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Deleted => "deleted",
        }
    }
}

impl std::str::FromStr for VideoStatus {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Uploading, Self::Active, Self::Failed, Self::Deleted]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(())
    }
}

/// `POST /video`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateVideo {
    /// 1 to 500 characters.
    pub title: String,
    /// Seconds; 0 while unknown.
    #[serde(default)]
    pub duration_sec: f64,
    /// The process that will send the chunks, when it is one of ours: it alone may use round 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub owner: Option<ProcessUuid>,
    /// In which form it is to be kept, from its first chunk on. The policy decides when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub redundancy_mode: Option<RedundancyMode>,
}

/// The answer to [`CreateVideo`].
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VideoCreated {
    /// The new video.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// Where its chunks are announced.
    pub upload_url: String,
}

/// One video of `GET /videos`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VideoInfo {
    /// Which.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// For people.
    pub title: String,
    /// Seconds.
    pub duration_sec: f64,
    /// Where it stands.
    pub status: VideoStatus,
    /// Chunks decided.
    pub total_chunks: u32,
    /// Bytes of one copy.
    pub size_bytes: u64,
    /// Views counted.
    pub view_count: u64,
    /// When it was created.
    pub created_at: WallTime,
    /// Of one that was deleted: until when `POST /video/{id}/restore` brings it back. None for good once its bytes are
    /// given up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restorable_until: Option<WallTime>,
    /// Nodes that may be lost, whichever they are, with every chunk still readable: by copies and shards that the last
    /// count found at nodes that answer. None before all of it was counted, and when a chunk cannot be read now.
    #[serde(default)]
    pub failures_survived: Option<u32>,
    /// All of it was counted.
    #[serde(default)]
    pub survival_counted: bool,
}

/// `GET /video/{id}/survival`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VideoSurvival {
    /// Which video.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// Nodes that may be lost, whichever they are, with every chunk still readable: of those that answer now. None when a
    /// chunk cannot be read now, or there is none.
    pub failures_survived: Option<u32>,
    /// By copies and shards that the last count found where they are. Before all of it was counted, some seconds after it
    /// came, by where decisions place them.
    pub survival_counted: bool,
}

/// What the videos of a library survive, by the last count. Only active ones: what was deleted and can be restored is
/// looked after, and not told here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LibrarySurvival {
    /// Nodes that may be lost, whichever they are, with every chunk still readable of every video that was counted and can
    /// be read: as few as any of them survives. None where there is no such video.
    pub failures_survived: Option<u32>,
    /// Videos that survive no more than that.
    pub videos: u64,
    /// Videos of which a chunk cannot be read now.
    pub unreadable_videos: u64,
    /// Videos of which not everything was counted yet.
    pub uncounted_videos: u64,
}

/// `PATCH /video/{id}/status`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SetStatus {
    /// The new one.
    pub status: VideoStatus,
}

/// The answer to [`SetStatus`] and to `DELETE /video/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StatusSet {
    /// Which video.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// Its status now.
    pub status: VideoStatus,
    /// See [`VideoInfo::restorable_until`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restorable_until: Option<WallTime>,
}

/// The init segment in a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ManifestInit {
    /// Its register.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// Bytes.
    pub size_bytes: u64,
    /// `sha256:<hex>`.
    pub checksum: String,
    /// Node URLs that hold it.
    pub replicas: Vec<String>,
    /// Their ids, in the same order.
    pub replica_ids: Vec<String>,
}

/// One chunk in a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ManifestChunk {
    /// Its register.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// From 0, without gaps.
    pub sequence_num: u32,
    /// Bytes.
    pub size_bytes: u64,
    /// `sha256:<hex>`.
    pub checksum: String,
    /// How it is kept.
    pub redundancy_mode: RedundancyMode,
    /// Node URLs that hold all of it.
    pub replicas: Vec<String>,
    /// Their ids, in the same order.
    pub replica_ids: Vec<String>,
    /// Where its shards are, of a coded chunk, also while it becomes one or ceases to be one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fragments: Option<Fragments>,
    /// Index of its segment, from 0.
    pub segment: u32,
    /// When its first frame is shown, in seconds.
    pub start_sec: f64,
    /// How long it plays, in seconds.
    pub duration_sec: f64,
    /// It begins with a keyframe.
    pub independent: bool,
}

/// Where the shards of a coded chunk are. Any `data_shards` of them with different indexes give the chunk, by the code of
/// docs/erasure.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fragments {
    /// Shards that are needed to read the chunk. Those with the first indexes, one after the other, are the chunk.
    pub data_shards: u8,
    /// Shards beyond those.
    pub parity_shards: u8,
    /// Bytes of each.
    pub size_bytes: u64,
    /// By index. While shards are moved, one may be named at two nodes.
    pub shards: Vec<Fragment>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fragment {
    /// `{chunk_id}-frag-{index}`: what its node is asked for under `/chunk/`.
    pub fragment_id: String,
    /// Place in the code, from 0.
    pub fragment_index: u8,
    /// `sha256:<hex>` of the shard's own bytes.
    pub checksum: String,
    /// Who holds it.
    pub node_url: String,
    /// That node's id.
    pub node_id: String,
}

/// `GET /manifest/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// Which video.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// For people.
    pub title: String,
    /// Seconds.
    pub duration_sec: f64,
    /// Length of `chunks`.
    pub total_chunks: u32,
    /// Nominal, in seconds.
    pub chunk_duration_sec: u32,
    /// Most bytes a chunk has.
    pub chunk_size_bytes: u64,
    /// When the video was created.
    pub created_at: WallTime,
    /// Where it stands.
    pub status: VideoStatus,
    /// Rises with every change of what follows.
    pub version: u64,
    /// RFC 6381 codecs of the tracks, for a `codecs` parameter; empty when unknown.
    #[serde(default)]
    pub codecs: String,
    /// Pixels, as shown; 0 when unknown.
    #[serde(default)]
    pub width: u32,
    /// Pixels, as shown; 0 when unknown.
    #[serde(default)]
    pub height: u32,
    /// To be given to a decoder before any chunk; none for videos whose chunks are not CMAF.
    pub init: Option<ManifestInit>,
    /// In playing order.
    pub chunks: Vec<ManifestChunk>,
}

/// `GET /video/{id}/popularity`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Popularity {
    /// Which video.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// Views counted.
    pub view_count: u64,
}

/// The answer to `POST /video/{id}/view`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ViewCounted {
    /// `success`.
    pub status: String,
    /// For people.
    pub message: String,
}
