//! Bodies of the calls about nodes: how they are doing, what part they take, and what they tell when they register and
//! with each heartbeat.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, Digest, NodeUuid, ProcessUuid};

use crate::WallTime;

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
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// All registered.
    pub nodes: Vec<NodeInfo>,
    /// Those that know the cluster secret, asked lately to take part, and may not.
    #[serde(default)]
    pub refused: Vec<RefusedNode>,
}

/// A node that runs and may not take part. It may be registered, too: as it was, or as another with its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedNode {
    /// The label it gives.
    pub node_id: String,
    /// Where it says it is.
    pub node_url: String,
    /// Why, and what to do, for people.
    pub why: String,
    /// When it asked last.
    pub asked_at: WallTime,
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

/// What a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldByNode {
    /// Bytes of its items: whole chunks and shards, each counted once.
    pub item_bytes: u64,
    /// Bytes of the filesystem that its superblocks take.
    pub allocated_bytes: u64,
}

/// `POST /nodes/{id}/heartbeat`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    /// Share of the disk in use, in percent.
    pub disk_usage_percent: f64,
    /// Bytes of the disk that are free for it: nodes get chunks in proportion.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk_free_bytes: Option<u64>,
    /// Chunks held.
    pub chunk_count: u64,
    /// Bytes of the items that it holds, and of the filesystem that its superblocks take. Believed under the cluster secret,
    /// of the disk that is named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<HeldByNode>,
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
