//! How uploads end: in the metadata service first, then in the records, and only then in the status.
//!
//! Who reads `completed` finds an active video, also after a crash of this process; who reads `failed` finds a failed
//! one and no file left here. Everything here may be done twice, by this process or the next.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use vstack_api::metadata::CompleteVideo;
use vstack_types::VideoId;

use crate::{
    app::SharedApp,
    failure::{UploadFailure, chain},
    news::persist,
    records::Ending,
    session::{Change, Session},
    spool::Spool,
};

/// A metadata service that is away is waited for, whatever it takes.
const WHATEVER_IT_TAKES: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the end of a failed upload waits for the metadata service to know.
const TELL_WAIT: Duration = Duration::from_secs(3);

/// Has the video made active; gives how it ended, or nothing when this process stops before it is known.
pub async fn complete(app: &SharedApp, video: VideoId, body: &CompleteVideo) -> Option<Result<(), UploadFailure>> {
    if vstack_types::planted!("completed is said before the video is active") {
        return Some(Ok(()));
    }
    let call = persist(WHATEVER_IT_TAKES, "did not complete the video", || {
        app.metadata.complete(video, body)
    });
    tokio::select! {
        biased;
        answer = call => Some(answer.map(|_status| ())),
        () = app.shutdown.cancelled() => None,
    }
}

/// The upload is completed.
pub async fn completed(app: &SharedApp, session: &Session, spool: Spool, chunks: u32) {
    let manifest_url = format!("/manifest/{}", session.video);
    tracing::info!(session = %session.id, video = %session.video, chunks, "upload completed");
    spool.shrink().await;
    end(app, session, Change::Completed { chunks, manifest_url }).await;
    drop(spool);
}

/// The upload failed for `reason`. Tells the metadata service for a moment, then goes on telling it aside.
pub async fn failed(app: &SharedApp, session: &Session, spool: Spool, reason: String) {
    if vstack_types::planted!("a failed upload is said to be completed") {
        return completed(app, session, spool, 0).await;
    }
    tracing::warn!(session = %session.id, video = %session.video, reason, "upload failed");
    spool.shrink().await;
    match timeout(TELL_WAIT, told_failed(app, session.video, &reason)).await {
        Ok(()) => {
            end(app, session, Change::Failed(reason)).await;
            drop(spool);
        }
        Err(_elapsed) if app.shutdown.is_cancelled() => {
            session.change(Change::Failed(reason));
            spool.leave().await;
        }
        Err(_elapsed) => {
            end(app, session, Change::Failed(reason.clone())).await;
            tell_aside(app, session.video, spool, reason);
        }
    }
}

/// Tells the metadata service of a failure, for as long as it takes or this process lives; the journal in `spool` makes
/// the next one go on.
pub fn tell_aside(app: &SharedApp, video: VideoId, spool: Spool, reason: String) {
    let app = Arc::clone(app);
    app.clone().tasks.spawn(async move {
        tokio::select! {
            biased;
            () = told_failed(&app, video, &reason) => drop(spool),
            () = app.shutdown.cancelled() => spool.leave().await,
        }
    });
}

/// Returns when the metadata service knows that `video` failed, or says that it cannot fail.
pub async fn told_failed(app: &SharedApp, video: VideoId, reason: &str) {
    let call = || app.metadata.fail(video, reason);
    if let Err(failure) = persist(WHATEVER_IT_TAKES, "did not take a failure", call).await {
        tracing::warn!(%video, reason = chain(&failure), "the metadata service refused to fail a video");
    }
}

/// Writes the final status down, shows it, and forgets the oldest.
pub async fn end(app: &SharedApp, session: &Session, change: Change) {
    let over_at = app.clock.wall();
    if vstack_types::planted!("the end of an upload is not written down") {
        return session.change(change);
    }
    let ending = Ending {
        status: session.after(change.clone()),
        over_at,
        thin: session.thin(),
    };
    let failed = matches!(change, Change::Failed(_));
    if let Err(error) = app.records.write_ending(session.id, ending, failed).await {
        tracing::warn!(session = %session.id, %error, "the end of an upload was not written down");
    }
    session.change(change);
    app.records.forget(app.sessions.over(session.id, over_at)).await;
}
