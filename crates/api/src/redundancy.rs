//! Bodies of the metadata service's calls about how chunks are kept and what that takes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, VideoId};

use crate::metadata::RedundancyMode;

/// How chunks of a video are to be kept; what does not belong to the mode is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModeConfig {
    /// Which.
    pub mode: RedundancyMode,
    /// Copies, when replicated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replication_factor: Option<usize>,
    /// Shards needed to read, when coded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data_shards: Option<usize>,
    /// Shards beyond those.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parity_shards: Option<usize>,
    /// Both.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total_shards: Option<usize>,
    /// As `data_shards`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min_shards_for_recovery: Option<usize>,
}

/// `GET /redundancy/recommend/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Recommendation {
    /// Which video.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// Views counted.
    pub view_count: u64,
    /// By the override, or else by the views.
    pub recommended_mode: RedundancyMode,
    /// What that means.
    pub config: ModeConfig,
}

/// The answer to `POST` and `DELETE /redundancy/override/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OverrideSet {
    /// `success`.
    pub status: String,
    /// Which video.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// Absent once it is cleared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub override_mode: Option<RedundancyMode>,
    /// For people.
    pub message: String,
}

/// What everything stored takes, measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Efficiency {
    /// 100 x (1 - physical / (replication factor x logical)); 0 while nothing is stored.
    pub storage_savings_percent: f64,
    /// Bytes of one copy of everything.
    pub total_logical_bytes: u64,
    /// Bytes on all nodes together.
    pub total_physical_bytes: u64,
    /// Physical over logical bytes of what is replicated; 0 while nothing is.
    pub replication_overhead_factor: f64,
    /// Physical over logical bytes of what is coded; 0 while nothing is.
    pub erasure_coding_overhead_factor: f64,
}

/// What a mode costs and gives, by its parameters.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ModeFigures {
    /// Physical over logical bytes.
    pub overhead_factor: f64,
    /// Logical over physical bytes, in percent.
    pub storage_efficiency: f64,
    /// Taken up by a chunk of full size, on all nodes together.
    pub storage_per_chunk_mb: f64,
    /// Nodes for one item each.
    pub nodes_required: usize,
    /// Nodes that may be lost with everything still readable, on the nodes there are now.
    pub failures_tolerated: usize,
}

/// The modes side by side.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ModeComparison {
    /// Whole copies.
    pub replication: ModeFigures,
    /// Shards.
    pub erasure_coding: ModeFigures,
}

/// `GET /redundancy/efficiency`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EfficiencyReport {
    /// Measured.
    pub efficiency: Efficiency,
    /// Computed.
    pub mode_comparison: ModeComparison,
}

/// `GET /storage/overhead`, all of it measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct StorageOverhead {
    /// Chunks kept as copies.
    pub replication_chunks: u64,
    /// Chunks kept as shards.
    pub erasure_coded_chunks: u64,
    /// Bytes of one copy of everything.
    pub total_logical_bytes: u64,
    /// Bytes on all nodes together.
    pub total_physical_bytes: u64,
    /// As in [`Efficiency`].
    pub storage_savings_percent: f64,
    /// Physical beyond logical bytes of what is replicated.
    pub replication_overhead_bytes: u64,
    /// Physical beyond logical bytes of what is coded.
    pub erasure_overhead_bytes: u64,
}

/// One shard of a coded chunk.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FragmentInfo {
    /// `{chunk_id}-frag-{index}`.
    pub fragment_id: String,
    /// Place in the code, from 0.
    pub fragment_index: u8,
    /// Who holds it.
    pub node_url: String,
    /// Bytes.
    pub size_bytes: u64,
    /// `sha256:<hex>`.
    pub checksum: String,
    /// `active`, or `unreachable` while its node is down.
    pub status: String,
}

/// `GET /chunk/{id}/fragments`; empty for a replicated chunk.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FragmentList {
    /// Which chunk.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// By index.
    pub fragments: Vec<FragmentInfo>,
}
