//! Bodies of the metadata service's calls: those about single chunks and about the service itself are here, those about
//! videos, those about nodes and the cluster's own in a module each.

mod cluster;
mod nodes;
mod videos;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, Digest, NodeRef, VideoId};

use crate::census::Health;

pub use cluster::{
    ChunkPlace, CodedForm, CompleteVideo, DecidedBatch, DecidedChunk, FailVideo, Group, GroupMember, OwnerAlive,
    RequestGroup,
};
pub use nodes::{
    DamageTold, DamagedChunk, Heartbeat, HeldByNode, NodeAck, NodeInfo, NodeList, NodeRole, NodeStatus, NodeSummary,
    RefusedNode, RegisterNode, TOLD_CHUNKS_MAX, UnknownRole,
};
pub use videos::{
    CreateVideo, Fragment, Fragments, LibrarySurvival, Manifest, ManifestChunk, ManifestInit, Popularity, SetStatus,
    StatusSet, VideoCreated, VideoInfo, VideoStatus, VideoSurvival, ViewCounted,
};

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

/// `POST /chunk/{id}/commit`: of bytes that were PUT whole. Shards are made by nodes: of a video that was created with
/// `redundancy_mode` `erasure_coding`, or for which that was asked with `POST /redundancy/override/{id}`, once it is active.
/// Fragments are not committed one by one, and `fragments_metadata` is not read: that they give the chunk cannot be told from
/// their checksums, and a placement that named them would be decided for good.
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
    /// `replication`, or left out. `erasure_coding` is refused with 422, which says what to do.
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

/// `GET /health` of the metadata service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MetadataHealth {
    /// `healthy` when the service is, and everything that is stored was counted and is as it should be; `counting` while the
    /// latter is not known; else `degraded`.
    pub status: String,
    /// Of the service alone, whatever is stored: `healthy`, or `degraded` when its database does not answer or too few nodes
    /// are healthy. None from an earlier version.
    #[serde(default)]
    pub service_status: Option<String>,
    /// How whole what is stored is, as in `GET /census`. None from an earlier version.
    #[serde(default)]
    pub stored: Option<Health>,
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
    /// How many losses of nodes active videos survive.
    #[serde(default)]
    pub survival: LibrarySurvival,
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
