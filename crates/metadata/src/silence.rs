//! Fails uploads whose owners fell silent.
//!
//! Silence counts only while this service could hear: after a gap, every owner has the whole time again.

use vstack_api::metadata::VideoStatus;
use vstack_types::Timestamp;

use crate::{
    app::{App, Shared},
    attention::Attention,
    store::{StatusChange, StoreError},
};

/// Why an upload whose owner fell silent failed.
const OWNER_SILENT: &str = "the uploader stopped answering";
/// Uploads failed in one look.
const SILENT_PER_LOOK: u32 = 256;
/// Works until the service stops.
pub(crate) async fn run(app: Shared) {
    let mut attention = Attention::begin(app.now(), app.clock.monotonic());
    loop {
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(app.pace.look_every) => {}
        }
        let now = app.now();
        if attention.look(now, app.clock.monotonic()) < app.settings.owner_timeout() {
            continue;
        }
        if let Err(error) = fail_silent(&app, now).await {
            tracing::warn!(%error, "silent uploads could not be looked for; they are later");
        }
    }
}

async fn fail_silent(app: &App, now: Timestamp) -> Result<(), StoreError> {
    let patience = i64::try_from(app.settings.owner_timeout().as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp(now.0.saturating_sub(patience));
    for video in app.store.silent_owners(before, SILENT_PER_LOOK).await? {
        let change = StatusChange {
            from: VideoStatus::Uploading,
            to: VideoStatus::Failed,
            reason: Some(OWNER_SILENT.to_owned()),
            // Its owner may have been heard since the list was made.
            owner_silent_since: Some(before),
            trash_until: None,
            at: now,
        };
        if app.store.change_status(video, change).await? {
            tracing::info!(%video, "upload failed: {OWNER_SILENT}");
            app.tell_status(video, VideoStatus::Failed, Some(OWNER_SILENT.to_owned()));
        }
    }
    Ok(())
}
