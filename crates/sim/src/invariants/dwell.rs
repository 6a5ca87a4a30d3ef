//! What the policy moved to another form stays there for its time, however views and clocks jump.
//!
//! Held to what is written down of each film, where nobody asks for a form: what somebody asks for is done at once. And held
//! to the chunks themselves, whose moves may come long after they were decided.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use vstack_api::metadata::RedundancyMode;
use vstack_chunkpaxos::{Layout, Placement};
use vstack_metadata::store::{Keeping, Store};
use vstack_types::{ChunkId, Timestamp, VideoId};

/// Moments are noted in whole milliseconds.
const GRAIN: Duration = Duration::from_millis(1);

/// What was decided of each film, as it was seen last.
#[derive(Debug, Default)]
pub(crate) struct Dwelling(BTreeMap<VideoId, Keeping>);

impl Dwelling {
    /// Looks at what is decided now; gives for how many films the policy has chosen another form since the last look.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) async fn check(&mut self, store: &dyn Store, dwell: Duration) -> Result<usize, String> {
        let mut moved = 0;
        for film in store.watched(None, u32::MAX).await.unwrap_or_default() {
            let Some(now) = film.keeping else { continue };
            let is = (now.decision.why.as_str(), now.decision.since);
            let Some(before) = self.0.insert(film.video, now) else {
                // Copies are what every film begins as.
                moved += usize::from(is.0 == "cold");
                continue;
            };
            if before.decision.mode == now.decision.mode {
                continue;
            }
            let was = (before.decision.why.as_str(), before.decision.since);
            if is_too_soon(was, is, dwell) {
                return Err(format!(
                    "{}: it is to be kept so: {:?}, and was to be so: {:?}, and what is moved stays for {} s",
                    film.video,
                    now.decision,
                    before.decision,
                    dwell.as_secs()
                ));
            }
            moved += usize::from(is_of_policy(is.0));
        }
        Ok(moved)
    }
}

/// The form in which each chunk of a film was when it was settled last. By the time that passes, and not by anybody's clock:
/// only where the service's is right, and where nobody else moves chunks.
#[derive(Debug, Default)]
pub(crate) struct Forms {
    of: BTreeMap<ChunkId, Stay>,
    /// Of the last look, since the history's beginning.
    looked: Duration,
}

/// In a form, and from when on at the earliest; none where the chunk was made so.
#[derive(Debug, Clone, Copy)]
struct Stay {
    mode: RedundancyMode,
    since: Option<Duration>,
}

impl Forms {
    /// Looks at where chunks are now.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) async fn check(&mut self, store: &dyn Store, now: Duration, dwell: Duration) -> Result<(), String> {
        for film in store.watched(None, u32::MAX).await.unwrap_or_default() {
            if film.override_mode.is_some() {
                continue;
            }
            let chunks = store.video_chunks(film.video, None, u32::MAX).await;
            for chunk in chunks.unwrap_or_default() {
                if let Some(mode) = settled(&chunk.placement) {
                    self.see(chunk.id, mode, now, dwell)?;
                }
            }
        }
        self.looked = now;
        Ok(())
    }

    fn see(&mut self, chunk: ChunkId, mode: RedundancyMode, now: Duration, dwell: Duration) -> Result<(), String> {
        let mut known = match self.of.entry(chunk) {
            Entry::Vacant(new) => {
                new.insert(Stay { mode, since: None });
                return Ok(());
            }
            Entry::Occupied(known) => known,
        };
        let before = *known.get();
        if before.mode == mode {
            return Ok(());
        }
        let since = Some(self.looked);
        known.insert(Stay { mode, since });
        match before.since {
            Some(since) if now.saturating_sub(since) + GRAIN < dwell => Err(format!(
                "{} became {:?} after {since:?} at the earliest and {mode:?} by {now:?}, and what is moved stays for {} s",
                known.key(),
                before.mode,
                dwell.as_secs()
            )),
            _ => Ok(()),
        }
    }
}

/// The form that a chunk has; none while it is moved.
const fn settled(placement: &Placement) -> Option<RedundancyMode> {
    match (&placement.prev, &placement.layout) {
        (None, Layout::Replicated { .. }) => Some(RedundancyMode::Replication),
        (None, Layout::Coded { .. }) => Some(RedundancyMode::ErasureCoding),
        (Some(_), _) | (None, Layout::Deleted { .. }) => None,
    }
}

/// Whether views were what it was decided by.
fn is_of_policy(why: &str) -> bool {
    matches!(why, "hot" | "cold")
}

/// Whether a film may not yet have been moved to another form, by why and since when it was kept as it was, and is now. Being
/// new is no move: whatever ends it is the first.
fn is_too_soon((was, from): (&str, Timestamp), (is, since): (&str, Timestamp), dwell: Duration) -> bool {
    was != "new" && is_of_policy(is) && since.since(from) < dwell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_changed_its_form_keeps_it_for_its_time() {
        let chunk = || ChunkId::of_video(VideoId::from_bytes([1; 16]), 0);
        let at = Duration::from_secs;
        let mut forms = Forms::default();
        let mut see = |mode, second| {
            let seen = forms.see(chunk(), mode, at(second), at(20));
            forms.looked = at(second);
            seen
        };
        assert_eq!(see(RedundancyMode::Replication, 1), Ok(()));
        assert_eq!(
            see(RedundancyMode::ErasureCoding, 2),
            Ok(()),
            "as it was made nothing has to stay"
        );
        assert_eq!(see(RedundancyMode::ErasureCoding, 3), Ok(()));
        // It came there after the look at 1.
        assert_eq!(see(RedundancyMode::Replication, 21), Ok(()));
        let why = see(RedundancyMode::ErasureCoding, 22).expect_err("too soon");
        assert!(
            why.contains("became Replication") && why.contains("stays for 20 s"),
            "{why}"
        );
        assert_eq!(
            see(RedundancyMode::Replication, 41),
            Ok(()),
            "it came there after the look at 21"
        );
        assert_eq!(see(RedundancyMode::ErasureCoding, 42), Ok(()), "after the one at 22");
    }

    #[test]
    fn what_was_moved_stays_for_its_time() {
        let at = |second: i64| Timestamp(second * 1_000);
        let of = |was, is, after: i64| is_too_soon((was, at(100)), (is, at(100 + after)), Duration::from_secs(20));
        assert!(of("cold", "hot", 19));
        assert!(!of("cold", "hot", 20));
        assert!(of("dwells", "hot", 19));
        assert!(of("hot", "cold", -5), "by a clock that was set back");
        assert!(!of("new", "cold", 1));
        assert!(
            !of("cold", "new", 1),
            "it is younger than it was, by a clock that was set back"
        );
        assert!(!of("cold", "asked", 1));
    }
}
