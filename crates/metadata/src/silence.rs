//! Gives up what nobody was heard of for long: uploads whose owners fell silent, uploads of scripts that nobody works
//! on, and nodes that never proved to belong to the cluster.
//!
//! Silence counts only while this service could hear: after a gap, every owner has the whole time again. A script is not
//! heard between two commits, so of it the wall clock alone says how long that was. It is believed, and what it noted
//! when it was ahead is set right, once it went evenly for a while.

use std::time::Duration;

use vstack_api::metadata::{NodeRole, VideoStatus};
use vstack_types::{Timestamp, VideoId};

use crate::{
    app::{App, Shared},
    attention::Attention,
    registry,
    store::{Node, StatusChange, StoreError},
};

/// Why an upload whose owner fell silent failed.
const OWNER_SILENT: &str = "the uploader stopped answering";
/// Why an upload that nobody works on failed.
const ABANDONED: &str = "nothing was committed for a day, and it was not made active";
/// Uploads failed in one look.
const SILENT_PER_LOOK: u32 = 256;
/// An upload without an owner is worked on as long as a chunk of it is committed so often. Nodes keep bytes that no
/// decision names for as long, by the default of `STAGING_TTL`: what was staged before is not there any more.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(86_400);
/// A node that never proved itself is forgotten after so much silence. If it is there after all, it registers again.
const STRANGER_PATIENCE: Duration = Duration::from_secs(86_400);
/// A clock that was just set may say anything: it is believed when it went evenly for so long, or for ten times what an
/// owner is given.
const CLOCK_SETTLES: Duration = Duration::from_secs(300);

/// Works until the service stops.
pub(crate) async fn run(app: Shared) {
    let mut attention = Attention::begin(app.now(), app.clock.monotonic());
    let mut clock = Believed::NotYet;
    loop {
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(app.pace.look_every) => {}
        }
        let now = app.now();
        let heard_for = attention.look(now, app.clock.monotonic());
        if let Err(error) = look(&app, now, heard_for, &mut clock).await {
            tracing::warn!(%error, "what fell silent could not be looked for; it is later");
        }
    }
}

/// Whether the wall clock is, since the last gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Believed {
    NotYet,
    /// And what was noted when it was ahead is set right.
    Now,
}

async fn look(app: &App, now: Timestamp, heard_for: Duration, clock: &mut Believed) -> Result<(), StoreError> {
    let patience = app.settings.owner_timeout();
    if heard_for >= patience {
        let before = earlier(now, patience);
        let silent = app.store.silent_owners(before, SILENT_PER_LOOK).await?;
        fail(app, silent, OWNER_SILENT, before, now).await?;
    }
    if heard_for < patience.saturating_mul(10).min(CLOCK_SETTLES) {
        *clock = Believed::NotYet;
        return Ok(());
    }
    if *clock == Believed::NotYet {
        let videos = app.store.clock_is_right(now).await?;
        if videos > 0 {
            tracing::warn!(
                videos,
                "what a clock noted that was ahead, and was set back, is set right"
            );
        }
        *clock = Believed::Now;
    }
    let before = earlier(now, SCRIPT_PATIENCE);
    let abandoned = app.store.untouched(before, SILENT_PER_LOOK).await?;
    fail(app, abandoned, ABANDONED, before, now).await?;
    forget_strangers(app, now).await
}

fn earlier(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}

async fn fail(
    app: &App,
    videos: Vec<VideoId>,
    reason: &str,
    before: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    for video in videos {
        let change = StatusChange {
            from: VideoStatus::Uploading,
            to: VideoStatus::Failed,
            reason: Some(reason.to_owned()),
            // Somebody may have been heard since the list was made.
            owner_silent_since: Some(before),
            trash_until: None,
            at: now,
        };
        if app.store.change_status(video, change).await? {
            tracing::info!(%video, "upload failed: {reason}");
            app.tell_status(video, VideoStatus::Failed, Some(reason.to_owned()));
        }
    }
    Ok(())
}

async fn forget_strangers(app: &App, now: Timestamp) -> Result<(), StoreError> {
    for node in app.known_nodes().await? {
        if registry::is_missed_by_nobody(&node, now, STRANGER_PATIENCE) {
            forget_stranger(app, &node).await?;
        }
    }
    Ok(())
}

/// Forgets a node if it never proved to belong to the cluster; says whether it did. Nothing that counts is there.
pub(crate) async fn forget_stranger(app: &App, node: &Node) -> Result<bool, StoreError> {
    let disk = node.acceptor.map(|acceptor| acceptor.uuid);
    let is_forgotten = app.store.forget_stranger(node.label.clone(), disk).await?;
    if is_forgotten {
        tracing::info!(
            node = node.label,
            url = node.url,
            "a node that never proved itself is forgotten"
        );
        app.tell_node(&Node {
            role: NodeRole::Removed,
            ..node.clone()
        });
    }
    Ok(is_forgotten)
}
