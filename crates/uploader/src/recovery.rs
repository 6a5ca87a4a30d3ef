//! What earlier processes left: uploads in progress, uploads that are over, and copies still to be made.
//!
//! An upload in progress cannot go on: the votes of round 0 belong to the process that is gone. It becomes a failed
//! upload whose status can still be asked for; its files are removed, and the metadata service is told until it has
//! heard. Only one that had nothing left to do but to be made active is asked about again.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;
use vstack_api::uploader::{UploadStage, UploadStatus};

use crate::{
    app::SharedApp,
    completer::{MissingChunk, MissingCopy},
    ending::{complete, completed, end, failed, tell_aside},
    failure::chain,
    journal::Journal,
    session::{Change, STORED_PERCENT, Session},
    spool::Spool,
};

const REASON: &str = "the uploader restarted while this upload was in progress; upload the file again";

/// Takes over what earlier processes left.
///
/// # Errors
/// When `TEMP_DIR` cannot be read.
pub async fn recover(app: &SharedApp) -> std::io::Result<()> {
    for (id, ending) in app.records.endings()? {
        let mut status = ending.status;
        status.under_replicated = ending.thin;
        let session = remember(app, id, status, ending.thin);
        resume_copies(app, &session);
        app.records.forget(app.sessions.over(id, ending.over_at)).await;
    }
    for (id, spool) in app.spool.left_behind()? {
        // Without a journal there is no video yet, and dropping the spool is all there is to do.
        if let Some(journal) = Journal::read(&spool) {
            take_over(app, id, spool, journal).await;
        }
    }
    Ok(())
}

fn remember(app: &SharedApp, id: Uuid, status: UploadStatus, thin: u32) -> Arc<Session> {
    let session = Arc::new(Session::remembered(id, status, thin));
    app.sessions.insert(Arc::clone(&session));
    session
}

async fn take_over(app: &SharedApp, id: Uuid, spool: Spool, mut journal: Journal) {
    if vstack_types::planted!("a restart forgets uploads in progress") {
        return drop(spool);
    }
    tracing::warn!(session = %id, video = %journal.video, "an upload was in progress when the uploader ended");
    if let Some(over) = app.sessions.get(id) {
        // It had ended, and only its directory was left.
        return match over.status().status {
            UploadStage::Failed => tell_aside(app, journal.video, spool, REASON.to_owned()),
            _ => drop(spool),
        };
    }
    spool.shrink().await;
    let Some(body) = journal.completing.take() else {
        let session = remember(app, id, journal.status(id, UploadStage::UploadingChunks), 0);
        end(app, &session, Change::Failed(REASON.to_owned())).await;
        return tell_aside(app, journal.video, spool, REASON.to_owned());
    };
    let status = UploadStatus {
        progress: STORED_PERCENT,
        total_chunks: body.total_chunks,
        ..journal.status(id, UploadStage::Finalizing)
    };
    let session = remember(app, id, status, 0);
    resume_copies(app, &session);
    let app = Arc::clone(app);
    app.clone().tasks.spawn(async move {
        match complete(&app, session.video, &body).await {
            Some(Ok(())) => completed(&app, &session, spool, body.total_chunks).await,
            Some(Err(failure)) => failed(&app, &session, spool, chain(&failure)).await,
            None => spool.leave().await,
        }
    });
}

/// Puts the copies that were still to be made back on the agenda. They are counted at once; the agenda takes them as
/// fast as it can.
fn resume_copies(app: &SharedApp, session: &Arc<Session>) {
    let mut chunks: BTreeMap<_, Arc<MissingChunk>> = BTreeMap::new();
    let mut copies = Vec::new();
    for record in app.records.put_off(session.id) {
        let Some(vote) = record.vote() else { continue };
        let count = || MissingChunk::new(Arc::clone(session), record.thin);
        let missing = Arc::clone(chunks.entry(record.chunk.clone()).or_insert_with(count));
        copies.push(MissingCopy {
            to: record.to,
            chunk: record.chunk,
            vote,
            from: record.from,
            missing,
        });
    }
    let app = Arc::clone(app);
    app.clone().tasks.spawn(async move {
        for copy in copies {
            app.completer.add_recorded(copy).await;
        }
    });
}
