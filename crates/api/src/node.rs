//! Bodies of the storage node's calls.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, Digest, NodeUuid};

/// `GET /health` of a storage node.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NodeHealth {
    /// `healthy` below 85 % disk use, `warning` to 95, `critical` above, or when nothing can be written (with 503);
    /// `degraded` instead of `healthy` when superblocks are lost or cannot be read.
    pub status: DiskStatus,
    /// Share of the disk in use, in percent.
    pub disk_usage: f64,
    /// Chunks held.
    pub chunk_count: u64,
    /// Seconds since the process started.
    pub uptime: f64,
    /// The node's label.
    pub node_id: String,
    /// The disk.
    #[schema(value_type = String)]
    pub disk_uuid: NodeUuid,
    /// Superblocks that are lost or could not be read when the node started: what it does not find may have been there.
    #[serde(default)]
    pub lost_superblocks: Vec<u32>,
    /// Of the service.
    pub version: String,
}

/// How a node's disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiskStatus {
    /// Used below 85 %.
    Healthy,
    /// The same, and a part of what it held is lost or cannot be read.
    Degraded,
    /// 85 to 95 %.
    Warning,
    /// Above 95 %: writes are refused.
    Critical,
}

impl DiskStatus {
    /// The state of a disk used to `percent`.
    pub fn of(percent: f64) -> Self {
        if percent > vstack_types::limits::DISK_PERCENT_FULL {
            Self::Critical
        } else if percent >= vstack_types::limits::DISK_PERCENT_WARNING {
            Self::Warning
        } else {
            Self::Healthy
        }
    }
}

/// One item a node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldItem {
    /// Its name.
    #[schema(value_type = String)]
    pub id: ChunkId,
    /// Bytes.
    pub size: u64,
    /// `sha256:<hex>` or bare hex.
    #[schema(value_type = String)]
    pub checksum: Digest,
    /// Whether its register's accepted placement assigns it to this node.
    pub placed: bool,
}

/// `GET /chunks?cursor=&limit=`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChunkPage {
    /// In log order.
    pub chunks: Vec<HeldItem>,
    /// To be given back for the next page; none at the end.
    pub next_cursor: Option<String>,
}

/// One register of a node, for people and for audits; programs read the encoded form under `/paxos`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RegisterEntry {
    /// Which chunk.
    #[schema(value_type = String)]
    pub id: ChunkId,
    /// `none`, `replicated`, `coded` or `deleted`: the accepted layout.
    pub layout: String,
    /// Version of the accepted placement.
    pub version: Option<u64>,
    /// The accepted placement is joint.
    pub joint: bool,
    /// Known decided.
    pub decided: bool,
    /// Abstaining.
    pub damaged: bool,
    /// `<round>@<proposer>`.
    pub promised: Option<String>,
    /// `<round>@<proposer>`.
    pub accepted: Option<String>,
    /// Acceptors named, `<uuid>/<incarnation>`.
    pub nodes: Vec<String>,
    /// Base64url of the encoded register.
    pub encoded: String,
}

/// `GET /registers?cursor=&limit=`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RegisterPage {
    /// In log order.
    pub registers: Vec<RegisterEntry>,
    /// To be given back for the next page; none at the end.
    pub next_cursor: Option<String>,
}
