//! Fails uploads whose owners fell silent.
//!
//! Silence counts only while this service could hear: after its start, after a suspended or stalled machine and after
//! a step of the clock, every owner has the whole time again.

use std::time::Duration;

use vstack_api::metadata::VideoStatus;
use vstack_types::{Monotonic, Timestamp};

use crate::{
    app::{App, Shared},
    store::{StatusChange, StoreError},
};

/// Why an upload whose owner fell silent failed.
const OWNER_SILENT: &str = "the uploader stopped answering";
/// Uploads failed in one look.
const SILENT_PER_LOOK: u32 = 256;
/// Looks further apart than this, by either clock, or clocks that disagree by more: nobody listened meanwhile.
const GAP_MAX: Duration = Duration::from_secs(6);

/// Since when this service listens without a gap.
#[derive(Debug, Clone, Copy)]
struct Attention {
    since: Timestamp,
    wall: Timestamp,
    monotonic: Monotonic,
}

impl Attention {
    const fn begin(wall: Timestamp, monotonic: Monotonic) -> Self {
        Self {
            since: wall,
            wall,
            monotonic,
        }
    }

    /// Another look; says how long nobody was missed.
    fn look(&mut self, wall: Timestamp, monotonic: Monotonic) -> Duration {
        let by_wall = wall.since(self.wall);
        let by_monotonic = monotonic.since(self.monotonic);
        if wall < self.wall || by_wall.max(by_monotonic) > GAP_MAX {
            *self = Self::begin(wall, monotonic);
        }
        (self.wall, self.monotonic) = (wall, monotonic);
        wall.since(self.since)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nobody_listened_is_not_counted() {
        let mut attention = Attention::begin(Timestamp(0), Monotonic::default());
        let mut look = |wall_seconds: i64, monotonic_seconds: u64| {
            let monotonic = Monotonic::from_start(Duration::from_secs(monotonic_seconds));
            attention.look(Timestamp(wall_seconds * 1_000), monotonic).as_secs()
        };
        assert_eq!([look(2, 2), look(4, 4), look(9, 9)], [2, 4, 9]);
        // The machine slept: only the wall clock went on.
        assert_eq!([look(3_600, 11), look(3_602, 13)], [0, 2]);
        // The process was stopped: both went on.
        assert_eq!([look(3_700, 111), look(3_705, 116)], [0, 5]);
        // The wall clock was set, back and a little, forward and far; or stood still.
        assert_eq!([look(3_704, 118), look(3_706, 120)], [0, 2]);
        assert_eq!([look(9_000, 122), look(9_002, 124)], [0, 2]);
        assert_eq!([look(9_002, 144), look(9_004, 146)], [0, 2]);
    }
}
