//! Bodies of the metadata service's calls.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, Digest, NodeRef, NodeUuid, ProcessUuid, VideoId};

use crate::WallTime;

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

/// How a chunk is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedundancyMode {
    /// Whole copies.
    Replication,
    /// Reed-Solomon shards.
    ErasureCoding,
}

impl RedundancyMode {
    /// The word in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replication => "replication",
            Self::ErasureCoding => "erasure_coding",
        }
    }
}

impl std::str::FromStr for RedundancyMode {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Replication, Self::ErasureCoding]
            .into_iter()
            .find(|mode| mode.as_str() == text)
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
    /// Node URLs that hold it.
    pub replicas: Vec<String>,
    /// Their ids, in the same order.
    pub replica_ids: Vec<String>,
    /// Index of its segment, from 0.
    pub segment: u32,
    /// When its first frame is shown, in seconds.
    pub start_sec: f64,
    /// How long it plays, in seconds.
    pub duration_sec: f64,
    /// It begins with a keyframe.
    pub independent: bool,
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

/// `POST /chunk/{id}/commit`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CommitChunk {
    /// Where the bytes were PUT; looked up in the registry.
    pub node_urls: Vec<String>,
    /// Hex SHA-256, bare or after `sha256:`.
    #[schema(value_type = String)]
    pub checksum: Digest,
    /// Bytes.
    pub size_bytes: u64,
    /// Whose chunk.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// From 0.
    pub sequence_num: u32,
    /// Default `replication`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub redundancy_mode: Option<RedundancyMode>,
}

/// The answer to [`CommitChunk`].
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Committed {
    /// Always true; failures are errors.
    pub success: bool,
    /// URLs of the nodes of the decided placement.
    pub committed_nodes: Vec<String>,
    /// For people.
    pub message: String,
}

/// `GET /consensus/{chunk_id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConsensusState {
    /// Which register.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// Highest round promised by an acceptor.
    pub promised_ballot: Option<u64>,
    /// Round in which the value below was accepted.
    pub accepted_ballot: Option<u64>,
    /// A JSON text of URLs.
    pub accepted_value: Option<String>,
    /// `none`, `prepare`, `accept` or `committed`; `unknown` when too few acceptors answered to say.
    pub phase: String,
    /// What each acceptor said.
    pub acceptors: Vec<AcceptorState>,
}

/// One acceptor in [`ConsensusState`].
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AcceptorState {
    /// `<uuid>/<incarnation>`.
    #[schema(value_type = String)]
    pub node: NodeRef,
    /// Where it is reached.
    pub node_url: Option<String>,
    /// It answered; what it would say is empty otherwise.
    pub reachable: bool,
    /// `<round>@<proposer>`.
    pub promised: Option<String>,
    /// `<round>@<proposer>`.
    pub accepted: Option<String>,
    /// Version of the accepted placement.
    pub version: Option<u64>,
    /// It knows the accepted placement to be decided.
    pub decided: bool,
    /// It abstains.
    pub damaged: bool,
    /// It has what the accepted placement assigns to it.
    pub holds: bool,
    /// Its label.
    #[serde(default)]
    pub node_id: Option<String>,
    /// What it accepted.
    #[serde(default)]
    pub value: Option<crate::consensus::PlacementView>,
    /// Whether it votes at all; none when it does not say.
    #[serde(default)]
    pub standing: Option<crate::consensus::NodeStanding>,
}

/// How a node is doing, by its silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeStatus {
    /// Heard of within half of `NODE_TIMEOUT`.
    Healthy,
    /// Silent for longer than that.
    Degraded,
    /// Silent past `NODE_TIMEOUT`.
    Down,
}

/// What part a node's disk takes in the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// It takes chunks.
    #[default]
    Active,
    /// It is being emptied, or empty: nothing new goes there.
    Draining,
    /// It is being emptied, and is taken out then.
    Removing,
    /// It is empty, and its disk is sealed: it votes no more, and is about to be taken out.
    Sealed,
    /// It was taken out, for good.
    Removed,
}

impl NodeRole {
    /// The word in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Removing => "removing",
            Self::Sealed => "sealed",
            Self::Removed => "removed",
        }
    }

    /// Whether it is emptied.
    pub const fn is_leaving(self) -> bool {
        !matches!(self, Self::Active)
    }
}

impl std::str::FromStr for NodeRole {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [
            Self::Active,
            Self::Draining,
            Self::Removing,
            Self::Sealed,
            Self::Removed,
        ];
        all.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// The text names no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is active, draining, removing, sealed or removed")]
pub struct UnknownRole;

/// One node of `GET /nodes/healthy` and `GET /nodes/all`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NodeInfo {
    /// How services reach it.
    pub node_url: String,
    /// Its label.
    pub node_id: String,
    /// When it was last heard of.
    pub last_heartbeat: Option<WallTime>,
    /// As it last said.
    pub disk_usage_percent: f64,
    /// As it last said.
    pub chunk_count: u64,
    /// By its silence.
    pub status: NodeStatus,
    /// Of its software.
    pub version: String,
    /// How browsers reach it.
    pub public_url: String,
    /// The disk; none for a node that has not said so and takes no votes.
    #[schema(value_type = Option<String>)]
    pub disk_uuid: Option<NodeUuid>,
    /// The disk's life.
    pub incarnation: u32,
    /// It proved that it knows the cluster secret.
    pub trusted: bool,
    /// Failure domain.
    pub zone: String,
    /// Chunks of which it has no good bytes any more, as it told.
    #[serde(default)]
    pub damaged_chunks: u64,
    /// What part it takes.
    #[serde(default)]
    pub role: NodeRole,
}

impl NodeInfo {
    /// A disk that is registered nowhere, and given up.
    pub fn given_up(disk: NodeUuid) -> Self {
        Self {
            node_url: String::new(),
            node_id: disk.to_string(),
            last_heartbeat: None,
            disk_usage_percent: 0.0,
            chunk_count: 0,
            status: NodeStatus::Down,
            version: String::new(),
            public_url: String::new(),
            disk_uuid: Some(disk),
            incarnation: 0,
            trusted: false,
            zone: String::new(),
            damaged_chunks: 0,
            role: NodeRole::Removed,
        }
    }
}

/// `GET /nodes/all`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// All registered.
    pub nodes: Vec<NodeInfo>,
}

/// `GET /nodes/health-summary`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub struct NodeSummary {
    /// How many.
    pub healthy: usize,
    /// How many.
    pub degraded: usize,
    /// How many.
    pub down: usize,
}

/// `POST /nodes/register?...`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema, utoipa::IntoParams)]
pub struct RegisterNode {
    /// How services reach it.
    pub node_url: String,
    /// Its label.
    pub node_id: String,
    /// Of its software.
    #[serde(default)]
    pub version: String,
    /// How browsers reach it; `node_url` when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub public_url: Option<String>,
    /// Failure domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<String>,
    /// The disk.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub disk_uuid: Option<NodeUuid>,
    /// The disk's life.
    #[serde(default)]
    pub incarnation: u32,
    /// Sequence number of the last durable record: it never falls.
    #[serde(default)]
    pub log_seq: u64,
    /// The process that serves the disk, new with every start: two of one disk are told apart by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub process: Option<ProcessUuid>,
}

/// The answer to [`RegisterNode`] and to a heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NodeAck {
    /// `registered` or `ok`.
    pub status: String,
    /// The node's label.
    pub node_id: String,
    /// The node answered the challenge under the cluster secret and takes part in placement.
    pub trusted: bool,
}

/// Most chunks that one heartbeat tells of: their names and digests fit the 16 KiB that one has.
pub const TOLD_CHUNKS_MAX: usize = 32;

/// A chunk of which a disk has no good bytes any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct DamagedChunk {
    /// Which.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// What the digest of its bytes should be.
    #[schema(value_type = String)]
    pub sha256: Digest,
}

/// What changed of a disk's damaged chunks; at most [`TOLD_CHUNKS_MAX`] in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DamageTold {
    /// What was told before is over.
    #[serde(default)]
    pub anew: bool,
    /// Found damaged.
    #[serde(default)]
    pub damaged: Vec<DamagedChunk>,
    /// Whole again, or gone.
    #[serde(default)]
    pub whole: Vec<DamagedChunk>,
}

/// `POST /nodes/{id}/heartbeat`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    /// Share of the disk in use, in percent.
    pub disk_usage_percent: f64,
    /// Chunks held.
    pub chunk_count: u64,
    /// Sequence number of the last durable record.
    #[serde(default)]
    pub log_seq: u64,
    /// Whose record that is. Without it a heartbeat says nothing of a node that is trusted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub disk_uuid: Option<NodeUuid>,
    /// As it registered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub process: Option<ProcessUuid>,
    /// Of its chunks. Believed under the cluster secret, of the disk that is named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub damage: Option<DamageTold>,
}

/// `GET /health` of the metadata service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MetadataHealth {
    /// `healthy`, or `degraded` when too few nodes are healthy.
    pub status: String,
    /// `metadata-service`.
    pub service: String,
    /// How many.
    pub healthy_nodes: usize,
    /// How many.
    pub total_nodes: usize,
    /// `connected` or what is wrong.
    pub database_status: String,
}

/// `GET /stats`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Active videos.
    pub total_videos: u64,
    /// Chunks of active videos.
    pub total_chunks: u64,
    /// Node-and-chunk pairs their placements name.
    pub total_replicas: u64,
    /// Chunks of active videos placed on fewer nodes than the replication factor asks for.
    #[serde(default)]
    pub under_replicated_chunks: u64,
    /// How many.
    pub healthy_nodes: usize,
    /// Of the metadata service.
    pub service_version: String,
}

/// `GET /`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServiceMessage {
    /// For people.
    pub message: String,
    /// Of the service.
    pub version: String,
}

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

/// `GET /redundancy/config`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RedundancyConfig {
    /// Views past which a video is hot.
    pub popularity_threshold: u64,
    /// Copies of a replicated chunk.
    pub replication_factor: usize,
    /// Shards needed to read.
    pub erasure_data_shards: usize,
    /// Shards beyond those.
    pub erasure_parity_shards: usize,
    /// Both.
    pub erasure_total_shards: usize,
}
