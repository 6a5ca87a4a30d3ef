//! Bodies of the uploader's calls.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vstack_types::VideoId;

use crate::WallTime;

/// Where an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadStage {
    /// Waiting for a place.
    Queued,
    /// The file is arriving.
    Uploading,
    /// The file is being looked at.
    Processing,
    /// It is being cut.
    Chunking,
    /// The video is being registered.
    Registering,
    /// Chunks go to the nodes.
    UploadingChunks,
    /// The last decisions are being written down.
    Finalizing,
    /// It can be played, whole.
    Completed,
    /// It cannot; `error` says why.
    Failed,
}

impl UploadStage {
    /// Nothing more will happen.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// The answer to `POST /upload`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UploadAccepted {
    /// The new video.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// Ask for its status with this.
    pub upload_session_id: String,
    /// As given, or from the file's name.
    pub title: String,
    /// Always `processing`.
    pub status: UploadStage,
    /// For people.
    pub message: String,
    /// `/upload/status/{session}`.
    pub status_url: String,
}

/// `GET /upload/status/{session}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UploadStatus {
    /// The video it makes.
    #[schema(value_type = String)]
    pub video_id: VideoId,
    /// Ask again with this.
    pub upload_session_id: String,
    /// Of the video.
    pub title: String,
    /// As the uploader's user named the file.
    pub filename: String,
    /// Where it stands.
    pub status: UploadStage,
    /// 0 to 100, never falling; 100 only when completed.
    pub progress: f64,
    /// When the request came.
    pub started_at: WallTime,
    /// Chunks cut so far; of the whole video once it is cut.
    pub total_chunks: u32,
    /// Why it failed.
    pub error: Option<String>,
    /// What to know about a video that was taken all the same (damaged input, transcoded tracks).
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Place in the queue, from 1, while queued.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queue_position: Option<usize>,
    /// Chunks with fewer copies on disk than their placement names.
    #[serde(default)]
    pub under_replicated: u32,
    /// Where its manifest is, once completed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub manifest_url: Option<String>,
}

/// `GET /health` of the uploader.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UploaderHealth {
    /// `healthy`.
    pub status: String,
    /// `uploader-service`.
    pub service: String,
    /// Being processed now.
    pub active_uploads: usize,
    /// Waiting.
    pub queued_uploads: usize,
    /// Of the service.
    pub version: String,
}
