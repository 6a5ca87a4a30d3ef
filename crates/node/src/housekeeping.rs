//! What is done now and then, beside everything else: letting go of bytes that nothing keeps, on the disk and in memory,
//! giving their space back, and writing the index down.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use vstack_engine::Waste;

use crate::{app::App, emptying::Emptying};

/// How often, and for how long things are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    pub interval: Duration,
    pub grace: Duration,
    pub staging_ttl: Duration,
    pub superblock_bytes: u64,
    pub compact_rate: u64,
    /// From which a superblock is emptied while there is nothing else to do.
    pub idle_waste: Waste,
    pub checkpoint_records: u64,
    /// None: never.
    pub scrub_period: Option<Duration>,
}

/// Keeps house until `shutdown`.
pub(crate) async fn keep(app: Arc<App>, habits: Habits, shutdown: CancellationToken) {
    let mut wait = habits.interval;
    let mut emptying = Emptying::new(&app, habits);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = sleep(wait) => {}
        }
        attend(&app).await;
        app.bodies.trim();
        app.sending.trim();
        let more = collect(&app, habits).await;
        wait = if more { Duration::ZERO } else { habits.interval };
        reclaim(&app).await;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = emptying.go_on(&app) => {}
        }
        checkpoint(&app, habits.checkpoint_records).await;
    }
}

/// A node whose directory was taken away under it ends with its writer.
async fn attend(app: &App) {
    // Looked at beside the writer: what waits for it is not held up by a look.
    let out_of_place = app.engine.look_aside(vstack_engine::Reader::out_of_place).await;
    if matches!(out_of_place, Ok(Some(_)))
        && !app.engine.is_failed()
        && let Err(error) = app.engine.attend().await
    {
        tracing::error!(%error, "the data directory is not what it was");
    }
}

/// Says whether there is more.
async fn collect(app: &App, habits: Habits) -> bool {
    if !app.remembers() {
        return false;
    }
    match app.engine.collect(habits.grace, habits.staging_ttl).await {
        Ok(collected) if collected.items > 0 => {
            tracing::info!(items = collected.items, bytes = collected.bytes, "collected");
            collected.more
        }
        Ok(_) => false,
        Err(error) => {
            tracing::warn!(%error, "nothing could be collected");
            false
        }
    }
}

async fn reclaim(app: &App) {
    let reclaiming = app.engine.look_aside(|reader| {
        reader.trim();
        reader.reclaim()
    });
    match reclaiming.await.flatten() {
        Ok(reclaimed) if reclaimed.bytes > 0 => tracing::info!(bytes = reclaimed.bytes, "space given back"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "space could not be given back"),
    }
}

/// Writes the index down at the end, so that the next start is a short one.
pub(crate) async fn last_checkpoint(app: &App) {
    checkpoint(app, 1).await;
}

async fn checkpoint(app: &App, records: u64) {
    if app.engine.reader().since_checkpoint() < records || app.engine.is_failed() {
        return;
    }
    match app
        .engine
        .look_aside(vstack_engine::Reader::write_checkpoint)
        .await
        .flatten()
    {
        Ok(Some(log_seq)) => tracing::info!(log_seq, "the index was written down"),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "the index could not be written down: the next start reads more"),
    }
}
