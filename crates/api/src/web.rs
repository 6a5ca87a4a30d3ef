//! Bodies of the web service's and the smart client's calls.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::VideoId;

/// One service as `/api/health` sees it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServiceHealth {
    /// `healthy`, `unhealthy` or `unreachable`.
    pub status: String,
    /// How long its `/health` took, in milliseconds; none when it did not answer.
    pub latency_ms: Option<f64>,
}

/// `GET /api/health`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SystemHealth {
    /// `healthy` when all is, `degraded` when playback still works, `unhealthy` otherwise.
    pub status: String,
    /// By name.
    pub services: BTreeMap<String, ServiceHealth>,
    /// As `/nodes/all` of the metadata service.
    pub nodes: Vec<crate::metadata::NodeInfo>,
    /// Nodes that run and may not take part, as there.
    #[serde(default)]
    pub refused: Vec<crate::metadata::RefusedNode>,
}

/// `GET /api/stats`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SystemStats {
    /// The metadata service's.
    #[serde(flatten)]
    pub stats: crate::metadata::Stats,
    /// Uploads being processed.
    pub active_uploads: usize,
    /// Uploads waiting.
    pub queued_uploads: usize,
}

/// How a player's buffer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, Default)]
#[serde(rename_all = "UPPERCASE")]
pub enum BufferState {
    /// No session.
    #[default]
    Idle,
    /// Filling before the first frame.
    Starting,
    /// Above the low-water mark.
    Healthy,
    /// Below it, still playing.
    Low,
    /// Empty: playback waits.
    Stalled,
    /// Everything was played.
    Ended,
}

/// A player's buffer.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct BufferStatus {
    /// How it is doing.
    pub state: BufferState,
    /// Seconds that can be played without another byte.
    pub buffer_level_sec: f64,
    /// What it is filled to.
    pub target_buffer_sec: f64,
    /// Level as a share of the target, 0 to 100.
    pub buffer_health_percent: f64,
    /// Index of the chunk being played.
    pub current_position: u32,
}

/// What the buffer went through.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct BufferStats {
    /// Chunks played to their end.
    pub total_chunks_played: u32,
    /// Times playback had to wait after it had begun.
    pub rebuffering_events: u32,
    /// Mean level since playback began, in seconds.
    pub average_buffer_level: f64,
}

/// What the scheduler did.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct SchedulerStats {
    /// Transfers that ended, well or badly.
    pub total_downloads: u32,
    /// Share that ended well, in percent.
    pub success_rate: f64,
    /// Transfers that went to another node after a failure.
    pub failover_count: u32,
}

/// What is known of the way to one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct NetworkStats {
    /// Smoothed round trip of pings, in milliseconds.
    pub latency_ms: f64,
    /// Smoothed rate of transfers, in Mbit/s.
    pub bandwidth_mbps: f64,
    /// Share of pings and transfers that went well, in percent.
    pub success_rate: f64,
}

/// `GET /api/status` of the smart client.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PlayerStatus {
    /// None while idle.
    #[schema(value_type = Option<String>)]
    pub video_id: Option<VideoId>,
    /// Playback has begun and not ended.
    pub playing: bool,
    /// From play() to the first frame allowed, in seconds; none before.
    pub startup_latency: Option<f64>,
    /// Seconds of video played.
    pub playback_duration: f64,
    /// The buffer.
    pub buffer: BufferStatus,
    /// What it went through.
    pub buffer_stats: BufferStats,
    /// What the scheduler did.
    pub scheduler_stats: SchedulerStats,
    /// By node URL.
    pub network_stats: BTreeMap<String, NetworkStats>,
    /// (bandwidth x reliability) / (1 + latency_ms x 0.1), by node URL.
    pub node_scores: BTreeMap<String, f64>,
    /// Why the session ended badly.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// `GET /api/stats` of the smart client.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PlayerStats {
    /// Video, whether it plays, since when.
    pub session: SessionStats,
    /// As in the status.
    pub buffer: BufferStats,
    /// As in the status.
    pub downloads: SchedulerStats,
    /// By node URL.
    pub nodes: BTreeMap<String, NodeDownloads>,
}

/// The session of a smart client.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct SessionStats {
    /// None while idle.
    #[schema(value_type = Option<String>)]
    pub video_id: Option<VideoId>,
    /// Playback has begun and not ended.
    pub playing: bool,
    /// From play() to the first frame allowed, in seconds.
    pub startup_latency: Option<f64>,
    /// Seconds of video played.
    pub playback_duration: f64,
}

/// What one node gave.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct NodeDownloads {
    /// Chunks verified.
    pub chunks: u32,
    /// Bytes verified.
    pub bytes: u64,
    /// Transfers that failed.
    pub failures: u32,
    /// What is known of the way to it.
    #[serde(flatten)]
    pub network: NetworkStats,
}

/// A figure at a moment of the session.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Seconds since play().
    pub time_sec: f64,
    /// The figure.
    pub value: f64,
}

/// `GET /api/metrics` of the smart client: the last few minutes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PlayerMetrics {
    /// Level in seconds.
    pub buffer_history: Vec<Sample>,
    /// Mbit/s received.
    pub throughput_history: Vec<Sample>,
    /// By node URL.
    pub node_score_history: BTreeMap<String, Vec<Sample>>,
}

/// `GET /api/performance` of the smart client.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PlayerPerformance {
    /// From play() to the first frame allowed.
    pub startup_latency_sec: Option<f64>,
    /// Verified bytes over the time transfers ran.
    pub average_throughput_mbps: f64,
    /// Times playback had to wait.
    pub rebuffering_events: u32,
    /// Mean level since playback began.
    pub average_buffer_level_sec: f64,
    /// Seconds of video played.
    pub playback_duration_sec: f64,
    /// Chunks played to their end.
    pub chunks_played: u32,
    /// Share of transfers that ended well, in percent.
    pub download_success_rate: f64,
}
