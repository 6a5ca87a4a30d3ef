//! Bodies of the metadata service's calls about how chunks are kept and what that takes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::{ChunkId, VideoId};

use crate::{WallTime, metadata::RedundancyMode};

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
    /// As it would be decided now: by the override, or else by the policy and its rules.
    pub recommended_mode: RedundancyMode,
    /// Why, in the words of [`VideoKeeping::why`].
    pub why: String,
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

/// What the nodes hold that are registered and belong to the cluster, as each told with its last heartbeat. What one that is
/// silent holds is as of when it was heard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldBytes {
    /// Bytes of all items of those that told: copies and shards, also such as are staged, on their way, left behind by a
    /// move, or nobody's.
    pub item_bytes: u64,
    /// Bytes of their filesystems that their superblocks take: items, registers, what is not given back yet, and room that
    /// was set aside for what comes next.
    pub allocated_bytes: u64,
    /// How many nodes are registered and belong to the cluster.
    pub nodes: u64,
    /// Of them, those that told. What others hold, as nodes of an earlier version, is not known.
    pub nodes_told: u64,
    /// When the one told that has not told for the longest: some seconds ago while all are there. None when none did.
    #[serde(default)]
    pub as_of: Option<WallTime>,
}

impl HeldBytes {
    /// Whether every node told.
    pub const fn is_known(&self) -> bool {
        self.nodes > 0 && self.nodes_told == self.nodes
    }
}

/// What everything stored takes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Efficiency {
    /// 100 x (1 - physical / (replication factor x logical)); 0 while nothing is stored, null while physical is not known.
    /// Where nodes have not told of everything yet, or copies are missing, physical is less than what is placed, and this
    /// more than lasts.
    pub storage_savings_percent: Option<f64>,
    /// The same of `total_disk_bytes`: what is saved of the disks. Below 0 while little is stored, since nodes take room
    /// ahead of what they write.
    #[serde(default)]
    pub disk_savings_percent: Option<f64>,
    /// Bytes of one copy of everything.
    pub total_logical_bytes: u64,
    /// Bytes of copies and shards that all nodes together hold, measured: `item_bytes` of `held`. Null where a node did not
    /// tell: what they hold is not known then.
    pub total_physical_bytes: Option<u64>,
    /// Bytes that all nodes together take of their disks, measured: `allocated_bytes` of `held`. Null like the above.
    #[serde(default)]
    pub total_disk_bytes: Option<u64>,
    /// Bytes that decisions place on all nodes together. Nodes hold more while a move is cleaned up behind, and less where
    /// copies are missing.
    #[serde(default)]
    pub total_placed_bytes: u64,
    /// What nodes told that they hold.
    #[serde(default)]
    pub held: HeldBytes,
    /// Of chunks that were counted as copies, bytes that were found whole at the nodes over those of one copy; 0 while none
    /// was counted.
    pub replication_overhead_factor: f64,
    /// The same of shards.
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
    /// Nodes that it takes: with fewer there are fewer copies than it has, and shards are refused.
    pub nodes_required: usize,
    /// Nodes that may be lost with everything still readable, on so few.
    #[serde(default)]
    pub failures_tolerated_by_required: usize,
    /// Nodes for one item each, with which as many may be lost as can be. Fewer than these have several shards of a chunk
    /// each.
    #[serde(default)]
    pub nodes_for_most_failures: usize,
    /// Nodes that may be lost then.
    #[serde(default)]
    pub most_failures_tolerated: usize,
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
    /// What there is.
    pub efficiency: Efficiency,
    /// Computed.
    pub mode_comparison: ModeComparison,
}

/// `GET /storage/overhead`. Nodes tell what they hold in sum; what they hold in each form is of the last count of everything
/// (`GET /census`), of those chunks of which each node told what it has.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct StorageOverhead {
    /// Chunks kept as copies.
    pub replication_chunks: u64,
    /// Chunks kept as shards.
    pub erasure_coded_chunks: u64,
    /// Bytes of one copy of everything.
    pub total_logical_bytes: u64,
    /// As in [`Efficiency`]: measured, or null.
    pub total_physical_bytes: Option<u64>,
    /// As in [`Efficiency`]: measured, or null.
    #[serde(default)]
    pub total_disk_bytes: Option<u64>,
    /// As in [`Efficiency`].
    #[serde(default)]
    pub total_placed_bytes: u64,
    /// As in [`Efficiency`].
    #[serde(default)]
    pub held: HeldBytes,
    /// Bytes of one copy of what is kept as copies, or is going to be.
    #[serde(default)]
    pub replication_logical_bytes: u64,
    /// Chunks of which copies were counted. A chunk whose form changes counts in both.
    #[serde(default)]
    pub replication_counted_chunks: u64,
    /// Of `replication_chunks`, those of which it is not known yet what is held.
    #[serde(default)]
    pub replication_uncounted_chunks: u64,
    /// Bytes of their copies that were found whole where they are placed, on all nodes together that are there: what a node
    /// has that is silent, or lost, is not held until it is back or made anew.
    #[serde(default)]
    pub replication_physical_bytes: u64,
    /// Bytes of one copy of what is kept as shards, or is going to be.
    #[serde(default)]
    pub erasure_logical_bytes: u64,
    /// Chunks of which shards were counted, as of copies.
    #[serde(default)]
    pub erasure_counted_chunks: u64,
    /// Of `erasure_coded_chunks`, those of which it is not known yet what is held.
    #[serde(default)]
    pub erasure_uncounted_chunks: u64,
    /// Bytes of their shards that were found whole where they are placed, on all nodes together that are there.
    #[serde(default)]
    pub erasure_physical_bytes: u64,
    /// As in [`Efficiency`].
    pub storage_savings_percent: Option<f64>,
    /// As in [`Efficiency`].
    #[serde(default)]
    pub disk_savings_percent: Option<f64>,
    /// Of the chunks whose copies were counted, what was found beyond the bytes of one copy.
    pub replication_overhead_bytes: u64,
    /// Of the chunks whose shards were counted, what was found beyond the bytes of one copy.
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
    /// `active` when the last count found it whole. Else `damaged`, `missing`, or `uncounted` while that is not known;
    /// `unreachable` while its node is down; `wrong` when it was found to be no shard of this chunk, whatever its node has,
    /// and `doubtful` when some shard of the chunk is none and it is not known which.
    pub status: String,
}

/// `GET /chunk/{id}/fragments`; empty for a replicated chunk. While a chunk is moved both halves are listed: old shards until
/// it has become copies, and one shard at two nodes.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FragmentList {
    /// Which chunk.
    #[schema(value_type = String)]
    pub chunk_id: ChunkId,
    /// By index; of one index, where it is going to be first.
    pub fragments: Vec<FragmentInfo>,
}

/// How a video is kept, and what is to be done for it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VideoKeeping {
    /// Which.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// For people.
    pub title: String,
    /// Views counted.
    pub view_count: u64,
    /// What is decided.
    pub mode: RedundancyMode,
    /// Asked for by hand.
    pub override_mode: Option<RedundancyMode>,
    /// Why: `asked`, `new`, `hot`, `cold`, or `dwells` (it was moved a short while ago, and stays for now).
    pub why: String,
    /// Since when, in RFC 3339.
    #[schema(value_type = String)]
    pub since: WallTime,
    /// Chunks that are kept as copies.
    pub replicated_chunks: u64,
    /// Chunks that are kept as shards.
    pub coded_chunks: u64,
    /// Chunks that are in another form than decided, and will be brought into it.
    pub waiting_chunks: u64,
    /// Their bytes, each counted once.
    pub waiting_bytes: u64,
    /// Bytes of one copy of all its chunks.
    pub logical_bytes: u64,
    /// What decisions place on all nodes together.
    pub placed_bytes: u64,
    /// Of `logical_bytes`, those of chunks that are kept as copies.
    #[serde(default)]
    pub replicated_logical_bytes: u64,
    /// Of `placed_bytes`, those of copies; of a chunk whose form changes, the half that is copies.
    #[serde(default)]
    pub replicated_placed_bytes: u64,
    /// Of `logical_bytes`, those of chunks that are kept as shards.
    #[serde(default)]
    pub coded_logical_bytes: u64,
    /// Of `placed_bytes`, those of shards, as of copies.
    #[serde(default)]
    pub coded_placed_bytes: u64,
    /// Nodes that may be lost, whichever they are, with every chunk still readable: of the nodes that answer now, by where
    /// its chunks are. None when a chunk cannot be read now.
    pub failures_survived: Option<u32>,
}

/// `GET /redundancy/videos/{id}`: how one video is kept.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeepingOfVideo {
    /// That.
    #[serde(flatten)]
    pub keeping: VideoKeeping,
    /// What is being done, for all videos.
    pub migration: Migration,
}

/// `GET /redundancy/videos`: how videos are kept, those with most to be done first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Keepings {
    /// The policy that decides where nobody asked: `threshold` or `adaptive`.
    pub policy: String,
    /// Seconds for which a new video stays replicated.
    pub cold_after_seconds: u64,
    /// Seconds for which a video that was moved stays.
    pub dwell_seconds: u64,
    /// At most as many as asked for.
    pub videos: Vec<VideoKeeping>,
    /// Of all there are.
    pub total: u64,
    /// What is being done.
    pub migration: Migration,
}

/// What is being brought into another form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Migration {
    /// Somebody asked for nothing to be done.
    pub paused: bool,
    /// Bytes a second at most.
    pub rate_bytes_per_second: u64,
    /// Chunks in another form than decided.
    pub waiting_chunks: u64,
    /// Their bytes, each counted once.
    pub waiting_bytes: u64,
    /// Of them, chunks that are not whole now, or are being moved.
    pub unready_chunks: u64,
    /// Why some cannot be begun with, in words.
    pub refused: Option<String>,
    /// Chunks that were made shards of since the service started.
    pub encoded_chunks: u64,
    /// Chunks that were made copies of since the service started.
    pub decoded_chunks: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_hold_is_known_once_all_of_them_told() {
        let known = |nodes, nodes_told| {
            let held = HeldBytes {
                nodes,
                nodes_told,
                ..HeldBytes::default()
            };
            held.is_known()
        };
        assert_eq!(
            [known(3, 3), known(3, 2), known(3, 0), known(0, 0)],
            [true, false, false, false]
        );
    }
}
