//! What a crash left behind: uploads of an earlier process.
//!
//! They cannot go on: the votes of round 0 belong to the process that is gone. Each becomes a failed upload whose
//! status can still be asked for; its files are removed, and the metadata service is told until it has heard.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use vstack_api::uploader::{UploadStage, UploadStatus};
use vstack_types::Clock as _;

use crate::{app::SharedApp, journal::Journal, pipeline::told_failed, session::Session, spool::Spool};

const REASON: &str = "the uploader restarted while this upload was in progress; upload the file again";

/// Fails and removes what earlier processes left.
///
/// # Errors
/// When the spool cannot be read.
pub fn recover(app: &SharedApp) -> std::io::Result<()> {
    for (id, spool) in app.spool.left_behind()? {
        // Without a journal there is no video yet, and dropping the spool is all there is to do.
        if let Some(journal) = Journal::read(&spool) {
            fail(app, id, spool, journal);
        }
    }
    Ok(())
}

fn fail(app: &SharedApp, id: Uuid, spool: Spool, journal: Journal) {
    tracing::warn!(session = %id, video = %journal.video, "an upload was in progress when the uploader ended");
    spool.shrink();
    let status = UploadStatus {
        video_id: journal.video,
        upload_session_id: id.to_string(),
        title: journal.title,
        filename: journal.filename,
        status: UploadStage::Failed,
        progress: 0.0,
        started_at: journal.started_at,
        total_chunks: 0,
        error: Some(REASON.to_owned()),
        warnings: Vec::new(),
        queue_position: None,
        under_replicated: 0,
        manifest_url: None,
    };
    app.sessions.insert(Arc::new(Session::new(id, status, CancellationToken::new())));
    app.sessions.over(id, app.clock.monotonic());
    let (app, video) = (Arc::clone(app), journal.video);
    app.clone().tasks.spawn(async move {
        tokio::select! {
            () = told_failed(&app, video, REASON) => drop(spool),
            () = app.shutdown.cancelled() => spool.leave(),
        }
    });
}
