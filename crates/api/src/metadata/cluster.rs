//! Bodies of the cluster's own calls, about uploads: who takes the chunks, what was decided, and how an upload ends.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, NodeRef, NodeUuid, ProcessUuid, VideoId};

/// (cluster) `POST /video/{id}/group`: asks for the nodes of the chunks from `from_seq` on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RequestGroup {
    /// Only the owner of the video may ask.
    #[schema(value_type = String)]
    pub owner: ProcessUuid,
    /// First sequence number the group is for; the init segment counts as the first group's.
    pub from_seq: u32,
    /// Nodes its owner could not reach.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub avoid: Vec<NodeUuid>,
}

/// A group: the acceptors of the first placements of a run of chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// First sequence number it is for.
    pub from_seq: u32,
    /// In the order the placement names them.
    pub members: Vec<GroupMember>,
    /// The chunks are to be coded from the start, in this form. None for copies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub coded: Option<CodedForm>,
}

/// A form of chunks that are kept as shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodedForm {
    /// Shards that are needed to read.
    pub data_shards: u8,
    /// Shards beyond those.
    pub parity_shards: u8,
    /// Smaller chunks are kept as copies, in bytes.
    pub chunk_bytes_min: u64,
}

/// A member of a [`Group`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupMember {
    /// The acceptor.
    #[schema(value_type = String)]
    pub node: NodeRef,
    /// How services reach it.
    pub url: String,
}

/// (cluster) `POST /video/{id}/decided`: tells the learner what was decided, in a batch.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DecidedBatch {
    /// Only the owner of the video may tell; a video that failed or was deleted meanwhile answers 409.
    #[schema(value_type = String)]
    pub owner: ProcessUuid,
    /// What was decided.
    pub chunks: Vec<DecidedChunk>,
}

/// One decision in a [`DecidedBatch`], with the chunk's place in the video.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DecidedChunk {
    /// Which register.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// Base64url of the encoded placement.
    pub placement: String,
    /// `None` for the init segment.
    pub place: Option<ChunkPlace>,
}

/// Where in a video a chunk belongs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChunkPlace {
    /// From 0.
    pub sequence_num: u32,
    /// Index of its segment, from 0.
    pub segment: u32,
    /// When its first frame is shown, in seconds.
    pub start_sec: f64,
    /// How long it plays, in seconds.
    pub duration_sec: f64,
    /// It begins with a keyframe.
    pub independent: bool,
}

/// (cluster) `POST /video/{id}/complete`: everything is decided and told; the video becomes active in one step.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CompleteVideo {
    /// Only the owner of the video may say so.
    #[schema(value_type = String)]
    pub owner: ProcessUuid,
    /// Chunks there must be, without gaps, besides the init segment.
    pub total_chunks: u32,
    /// Seconds.
    pub duration_sec: f64,
    /// RFC 6381.
    pub codecs: String,
    /// Pixels, as shown.
    pub width: u32,
    /// Pixels, as shown.
    pub height: u32,
}

/// (cluster) `POST /owners/{process}/alive`: this process still works on its videos. Silence past
/// `OWNER_TIMEOUT` fails those that are not complete.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OwnerAlive {
    /// Videos in the works.
    #[schema(value_type = Vec<String>)]
    pub videos: Vec<VideoId>,
}

/// (cluster) `POST /video/{id}/fail`: it will never be whole; its chunks are collected.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FailVideo {
    /// Why, for people.
    pub reason: String,
}
