//! What a later process must know of an upload that this one did not bring to its end.

use std::{fs::File, io, io::Write as _};

use serde::{Deserialize, Serialize};
use vstack_api::{
    WallTime,
    metadata::CompleteVideo,
    uploader::{UploadStage, UploadStatus},
};
use vstack_types::VideoId;

use crate::spool::Spool;

const NAME: &str = "session.json";

/// An upload in progress. There from before its first chunk is sent until it has ended and everyone knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Journal {
    /// The video it makes.
    pub video: VideoId,
    /// Of the video.
    pub title: String,
    /// As the sender named the file.
    pub filename: String,
    /// When the request came.
    pub started_at: WallTime,
    /// Written before the metadata service is asked to make the video active: from then on only its answer tells how
    /// the upload ended.
    pub completing: Option<CompleteVideo>,
}

impl Journal {
    /// Writes it, durably and whole or not at all.
    pub async fn write(&self, spool: &Spool) -> io::Result<()> {
        let (dir, text) = (spool.dir().to_owned(), serde_json::to_vec(self)?);
        let write = move || {
            let new = dir.join("session.json.new");
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(new, dir.join(NAME))?;
            File::open(dir)?.sync_all()
        };
        vstack_service::aside(write).await?
    }

    /// Reads it; none when the upload was not that far.
    pub fn read(spool: &Spool) -> Option<Self> {
        let text = std::fs::read(spool.dir().join(NAME)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The status of such an upload at `stage`.
    pub fn status(&self, session: uuid::Uuid, stage: UploadStage) -> UploadStatus {
        UploadStatus {
            video_id: self.video,
            upload_session_id: session.to_string(),
            title: self.title.clone(),
            filename: self.filename.clone(),
            status: stage,
            progress: 0.0,
            started_at: self.started_at,
            total_chunks: 0,
            error: None,
            warnings: Vec::new(),
            queue_position: None,
            under_replicated: 0,
            manifest_url: None,
        }
    }
}
