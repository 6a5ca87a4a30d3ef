//! What the policy moved to another form stays there for its time, however views and clocks jump.
//!
//! Held to what is written down of each film, where nobody asks for a form: what somebody asks for is done at once.

use std::{collections::BTreeMap, time::Duration};

use vstack_metadata::store::{Keeping, Store};
use vstack_types::{Timestamp, VideoId};

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
