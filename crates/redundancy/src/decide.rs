//! The decision about one video.

use std::time::Duration;

use vstack_types::Timestamp;

use crate::policy::{Policy, Seen};

/// How the chunks of a video are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As whole copies.
    Replicated,
    /// As shards.
    Coded,
}

impl Mode {
    /// The one that is not this one.
    pub const fn other(self) -> Self {
        match self {
            Self::Replicated => Self::Coded,
            Self::Coded => Self::Replicated,
        }
    }
}

/// Why a video is to be kept so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Somebody asked for it.
    Asked,
    /// It is new: it may yet be watched much. What was moved a short while ago stays all the same.
    New,
    /// It scores more than the threshold, or has lately.
    Hot,
    /// It does not.
    Cold,
    /// It was moved a short while ago, and stays for now.
    Dwells,
}

impl Why {
    const ALL: [Self; 5] = [Self::Asked, Self::New, Self::Hot, Self::Cold, Self::Dwells];

    /// The word in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::New => "new",
            Self::Hot => "hot",
            Self::Cold => "cold",
            Self::Dwells => "dwells",
        }
    }
}

impl std::str::FromStr for Why {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|why| why.as_str() == text).ok_or(())
    }
}

/// What was decided about a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How it is to be kept.
    pub mode: Mode,
    /// Since when that is so.
    pub since: Timestamp,
    /// Why.
    pub why: Why,
}

/// When a chunk of a video came into either form last, out of the other one; none where that was never seen. A decision may
/// wait long for its moves: behind many others, while they are paused, or for nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Shards that became copies.
    pub to_copies: Option<Timestamp>,
    /// Copies that became shards.
    pub to_shards: Option<Timestamp>,
}

impl Changed {
    /// When one came into this form last.
    pub const fn to(self, mode: Mode) -> Option<Timestamp> {
        match mode {
            Mode::Replicated => self.to_copies,
            Mode::Coded => self.to_shards,
        }
    }

    /// Whether chunks of the video may come into this form now, and none of them changes its form twice within `dwell`: none
    /// left it for the other one so lately.
    pub fn allows(self, mode: Mode, dwell: Duration, now: Timestamp) -> bool {
        self.to(mode.other()).is_none_or(|at| now.since(at) >= dwell)
    }
}

/// The rules around a policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// More than so many is hot.
    pub threshold: f64,
    /// A video that is younger stays replicated.
    pub cold_after: Duration,
    /// What was moved stays for so long, from when that was decided and from when its last chunk was moved.
    pub dwell: Duration,
}

/// What was hot is so until it scores less than this part of the threshold.
const STAYS_HOT_ABOVE: f64 = 0.8;

/// How a video is to be kept from now on. `last` is what was decided before, if anything was, and `asked` what somebody
/// wants, whatever it scores: that is done at once.
pub fn decide(
    rules: &Rules,
    policy: &dyn Policy,
    seen: &Seen,
    asked: Option<Mode>,
    last: Option<Decision>,
    now: Timestamp,
) -> Decision {
    let since = |mode: Mode| last.filter(|last| last.mode == mode).map_or(now, |last| last.since);
    let decided = |mode, why| Decision {
        mode,
        since: since(mode),
        why,
    };
    if let Some(mode) = asked {
        return decided(mode, Why::Asked);
    }
    let dwells = |last: Decision| Decision {
        why: Why::Dwells,
        ..last
    };
    if seen.age < rules.cold_after {
        // Being new undoes no move before its time: somebody may have asked for shards, and does no longer. What was uploaded
        // just now, in whichever form, was not moved.
        let is_moved =
            |last: &Decision| last.mode == Mode::Coded && !seen.changed.allows(Mode::Replicated, rules.dwell, now);
        let new = decided(Mode::Replicated, Why::New);
        return last.filter(is_moved).map_or(new, dwells);
    }
    let was_hot = last.is_some_and(|last| last.mode == Mode::Replicated && last.why != Why::New);
    let threshold = if was_hot {
        rules.threshold * STAYS_HOT_ABOVE
    } else {
        rules.threshold
    };
    let wished = if policy.score(seen) > threshold {
        decided(Mode::Replicated, Why::Hot)
    } else {
        decided(Mode::Coded, Why::Cold)
    };
    match last {
        Some(last) if last.mode != wished.mode && is_too_soon(last, seen.changed, rules.dwell, now) => dwells(last),
        _ => wished,
    }
}

/// Whether a video is to stay for now as was decided last: since that was decided, or since chunks of it became so, which may
/// have been long after.
fn is_too_soon(last: Decision, changed: Changed, dwell: Duration, now: Timestamp) -> bool {
    // Being new is no move: what ends it is the first.
    let was_decided_lately = last.why != Why::New && now.since(last.since) < dwell;
    was_decided_lately || !changed.allows(last.mode.other(), dwell, now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Heat, Threshold};

    const DAY: Duration = Duration::from_secs(86_400);
    const RULES: Rules = Rules {
        threshold: 1_000.0,
        cold_after: DAY,
        dwell: DAY,
    };

    fn seen(days: u32, views: u64) -> Seen {
        Seen {
            age: DAY * days,
            views,
            heat: Heat::default(),
            changed: Changed::default(),
        }
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp(1_700_000_000_000 + hours * 3_600_000)
    }

    fn by_views(days: u32, views: u64, asked: Option<Mode>, last: Option<Decision>, now: Timestamp) -> Decision {
        decide(&RULES, &Threshold, &seen(days, views), asked, last, now)
    }

    #[test]
    fn what_somebody_asked_for_comes_first_then_being_new_then_views() {
        let of = |days, views, asked| {
            let decision = by_views(days, views, asked, None, at(0));
            (decision.mode, decision.why)
        };
        assert_eq!(of(0, 0, None), (Mode::Replicated, Why::New));
        assert_eq!(of(0, 0, Some(Mode::Coded)), (Mode::Coded, Why::Asked));
        assert_eq!(
            of(1, 1_000, None),
            (Mode::Coded, Why::Cold),
            "more than, not as many as"
        );
        assert_eq!(of(1, 1_001, None), (Mode::Replicated, Why::Hot));
        assert_eq!(of(9, 9_000, Some(Mode::Coded)), (Mode::Coded, Why::Asked));
        assert_eq!(of(9, 0, Some(Mode::Replicated)), (Mode::Replicated, Why::Asked));
    }

    #[test]
    fn what_was_moved_stays_for_a_while_and_what_was_hot_cools_slowly() {
        let cold = by_views(1, 10, None, None, at(0));
        let soon = by_views(1, 2_000, None, Some(cold), at(3));
        assert_eq!((soon.mode, soon.why, soon.since), (Mode::Coded, Why::Dwells, at(0)));
        let hot = by_views(2, 2_000, None, Some(soon), at(24));
        assert_eq!((hot.mode, hot.why, hot.since), (Mode::Replicated, Why::Hot, at(24)));
        // As when the threshold was raised: below it, and not clearly.
        let still = by_views(9, 900, None, Some(hot), at(200));
        assert_eq!((still.mode, still.since), (Mode::Replicated, at(24)));
        let cooled = by_views(9, 800, None, Some(still), at(200));
        assert_eq!((cooled.mode, cooled.since), (Mode::Coded, at(200)));
        // A wish is no flapping, and neither is the end of being new.
        let asked = by_views(9, 800, Some(Mode::Replicated), Some(cooled), at(201));
        assert_eq!(asked.mode, Mode::Replicated);
        let new = by_views(0, 0, None, None, at(0));
        assert_eq!(by_views(1, 0, None, Some(new), at(1)).mode, Mode::Coded);
    }

    /// A backlog, a pause or too few nodes may hold a move up for longer than what is moved is to stay.
    #[test]
    fn what_was_moved_stays_from_when_it_was_moved_and_not_from_when_that_was_decided() {
        let cold = by_views(1, 10, None, None, at(0));
        let later = |changed, hours| {
            let seen = Seen {
                changed,
                ..seen(9, 2_000)
            };
            let decision = decide(&RULES, &Threshold, &seen, None, Some(cold), at(hours));
            (decision.mode, decision.why)
        };
        // Nothing of it was moved: there is nothing that is to stay.
        assert_eq!(later(Changed::default(), 24), (Mode::Replicated, Why::Hot));
        let moved = |hours| Changed {
            to_shards: Some(at(hours)),
            ..Changed::default()
        };
        for (moved_at, now, expected) in [
            (50, 51, (Mode::Coded, Why::Dwells)),
            (50, 73, (Mode::Coded, Why::Dwells)),
            (50, 74, (Mode::Replicated, Why::Hot)),
            // It was moved before, and this was decided since.
            (-50, 23, (Mode::Coded, Why::Dwells)),
            (-50, 24, (Mode::Replicated, Why::Hot)),
        ] {
            assert_eq!(later(moved(moved_at), now), expected, "moved at {moved_at}, now {now}");
        }
        // The time of shards that became copies is not that of copies that became shards.
        let back = Changed {
            to_copies: Some(at(50)),
            ..Changed::default()
        };
        assert_eq!(later(back, 51), (Mode::Replicated, Why::Hot));
        assert!(back.allows(Mode::Replicated, DAY, at(51)), "others of it may follow");
        assert!(!back.allows(Mode::Coded, DAY, at(73)));
        assert!(back.allows(Mode::Coded, DAY, at(74)));
    }

    /// Somebody asked for shards of a new film, and does no longer.
    #[test]
    fn being_new_undoes_no_move_before_its_time() {
        let rules = Rules {
            cold_after: DAY * 9,
            ..RULES
        };
        let was = |mode, why| Decision {
            mode,
            since: at(0),
            why,
        };
        let of = |to_shards: Option<i64>, last: Option<Decision>, hours: i64| {
            let changed = Changed {
                to_shards: to_shards.map(at),
                ..Changed::default()
            };
            let seen = Seen { changed, ..seen(1, 0) };
            let decision = decide(&rules, &Threshold, &seen, None, last, at(hours));
            (decision.mode, decision.why)
        };
        let (new, dwells) = ((Mode::Replicated, Why::New), (Mode::Coded, Why::Dwells));
        let asked = Some(was(Mode::Coded, Why::Asked));
        assert_eq!(of(Some(2), asked, 3), dwells);
        assert_eq!(of(Some(2), Some(was(Mode::Coded, Why::Dwells)), 25), dwells);
        assert_eq!(of(Some(2), Some(was(Mode::Coded, Why::Dwells)), 26), new);
        // It became shards while it was uploaded, or nothing of it was moved yet, or it was uploaded just now.
        assert_eq!(of(None, asked, 1), new);
        assert_eq!(of(None, None, 0), new);
        // What comes late is held up where it is moved: it is to be copies, and was.
        assert_eq!(of(Some(2), Some(was(Mode::Replicated, Why::New)), 3), new);
    }

    proptest! {
        /// Whatever it scores, and however often it is looked at.
        #[test]
        fn nothing_moves_twice_within_its_time(looks in proptest::collection::vec((1_i64..30, 0_u64..2_000), 1..200)) {
            let (mut last, mut now, mut moved) = (None::<Decision>, 100, Vec::new());
            for (hours, views) in looks {
                now += hours;
                let decision = by_views(9, views, None, last, at(now));
                if last.is_some_and(|last| last.mode != decision.mode) {
                    moved.push(now);
                }
                last = Some(decision);
            }
            prop_assert!(moved.windows(2).all(|pair| pair[1] - pair[0] >= 24), "{:?}", moved);
        }
    }
}
