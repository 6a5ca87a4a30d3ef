//! How videos are kept, as answers tell it.

use vstack_api::{
    WallTime,
    redundancy::{Keepings, Migration, VideoKeeping},
};
use vstack_redundancy::{Decision, Mode};
use vstack_types::VideoId;
use vstack_upkeep::report::Kept;

use super::Summary;
use crate::{
    app::App,
    keeping::{asked_of, may_become},
    redundancy::would_decide,
    settings::RedundancyPolicy,
    store::{StoreError, Turns, Video, Watched},
};

/// What is being brought into another form.
pub(crate) fn migration(app: &App) -> Migration {
    let migrations = app.upkeep.summary().migrations.clone();
    let mut migration = Migration {
        paused: app.keeping.decided().paused,
        rate_bytes_per_second: app.settings.migration_rate,
        refused: migrations.refused.map(|refused| refused.to_string()),
        encoded_chunks: app.upkeep.metrics.done("encode"),
        decoded_chunks: app.upkeep.metrics.done("decode"),
        ..Migration::default()
    };
    for waiting in migrations.waiting.values() {
        migration.waiting_chunks += waiting.chunks;
        migration.waiting_bytes += waiting.bytes;
        migration.unready_chunks += waiting.unready;
    }
    migration
}

/// How videos are kept, those with most to be done first; `limit` of them, without the first `offset`.
pub(crate) async fn keepings(app: &App, offset: usize, limit: usize) -> Result<Keepings, StoreError> {
    let decided = app.keeping.decided();
    let summary = app.upkeep.summary();
    let waiting = |video: &VideoId| summary.migrations.waiting.get(video).copied().unwrap_or_default();
    let mut all: Vec<(VideoId, Decision)> = decided.of.iter().map(|(video, decision)| (*video, *decision)).collect();
    all.sort_by_key(|(video, _)| (std::cmp::Reverse(waiting(video).bytes), std::cmp::Reverse(*video)));
    let total = all.len() as u64;
    let mut videos = Vec::new();
    for (video, decision) in all.into_iter().skip(offset).take(limit) {
        let Some(known) = app.store.video(video).await? else {
            continue;
        };
        videos.push(of_video(known, decision, &summary));
    }
    Ok(Keepings {
        policy: match app.settings.redundancy_policy {
            RedundancyPolicy::Threshold => "threshold",
            RedundancyPolicy::Adaptive => "adaptive",
        }
        .to_owned(),
        cold_after_seconds: app.settings.cold_after.into(),
        dwell_seconds: app.settings.redundancy_dwell.into(),
        videos,
        total,
        migration: migration(app),
    })
}

impl App {
    /// How a video is kept; none while nothing is decided about it.
    pub(crate) async fn keeping_of(&self, video: VideoId) -> Result<Option<VideoKeeping>, StoreError> {
        let Some(decision) = self.keeping.decided().of.get(&video).copied() else {
            return Ok(None);
        };
        let known = self.store.video(video).await?;
        Ok(known.map(|known| of_video(known, decision, &self.upkeep.summary())))
    }

    /// A video that is there to be watched; none of any other.
    async fn watched(&self, video: VideoId) -> Result<Option<Watched>, StoreError> {
        let next = self.store.watched(before(video), 1).await?.pop();
        Ok(next.filter(|next| next.video == video))
    }

    /// Whether a chunk of a video may be brought into this form now.
    pub(super) async fn may_become(&self, video: VideoId, mode: Mode) -> Result<bool, StoreError> {
        let watched = self.watched(video).await?;
        let (rules, now) = (self.settings.rules(), self.now());
        Ok(watched.is_some_and(|watched| may_become(&watched, mode, &rules, now)))
    }

    /// Views of a video, and what would be decided about it now; none when there is no such video.
    pub(crate) async fn would_decide(&self, video: VideoId) -> Result<Option<(u64, Decision)>, StoreError> {
        let watched = match self.watched(video).await? {
            Some(watched) => watched,
            None => {
                // Decisions are about what can be watched. Anything else is judged as if it could be.
                let Some(known) = self.store.video(video).await? else {
                    return Ok(None);
                };
                Watched {
                    video,
                    created_at: known.created_at,
                    view_count: known.view_count,
                    override_mode: known.override_mode,
                    turns: Turns::default(),
                    keeping: None,
                }
            }
        };
        let (rules, policy) = (self.settings.rules(), self.settings.policy());
        let decision = would_decide(&watched, &rules, policy.as_ref(), self.now());
        Ok(Some((watched.view_count, decision)))
    }
}

/// The last id before one.
fn before(video: VideoId) -> Option<VideoId> {
    let number = u128::from_be_bytes(*video.as_bytes()).checked_sub(1)?;
    Some(VideoId::from_bytes(number.to_be_bytes()))
}

/// By what is decided of it, and what was counted.
fn of_video(known: Video, decision: Decision, summary: &Summary) -> VideoKeeping {
    let Kept {
        copies,
        shards,
        survives,
    } = summary.report.kept.get(&known.id).copied().unwrap_or_default();
    let waiting = summary.migrations.waiting.get(&known.id).copied().unwrap_or_default();
    VideoKeeping {
        video_id: known.id,
        title: known.title,
        view_count: known.view_count,
        mode: asked_of(decision.mode),
        override_mode: known.override_mode,
        why: decision.why.as_str().to_owned(),
        since: WallTime(decision.since),
        replicated_chunks: copies.chunks,
        coded_chunks: shards.chunks,
        waiting_chunks: waiting.chunks,
        waiting_bytes: waiting.bytes,
        logical_bytes: copies.logical_bytes + shards.logical_bytes,
        placed_bytes: copies.placed_bytes + shards.placed_bytes,
        replicated_logical_bytes: copies.logical_bytes,
        replicated_placed_bytes: copies.placed_bytes,
        coded_logical_bytes: shards.logical_bytes,
        coded_placed_bytes: shards.placed_bytes,
        failures_survived: survives,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_between_one_and_the_one_before() {
        let id = |last: [u8; 2]| {
            let mut bytes = [0; 16];
            bytes[14..].copy_from_slice(&last);
            VideoId::from_bytes(bytes)
        };
        assert_eq!(before(id([1, 0])), Some(id([0, 255])));
        assert_eq!(before(id([7, 9])), Some(id([7, 8])));
        assert_eq!(before(id([0, 0])), None);
        let (one, other) = (VideoId::generate(), VideoId::random());
        for video in [one, other] {
            let before = before(video).expect("not the first");
            assert!(before < video && before.to_string() < video.to_string());
        }
    }
}
