//! Decides how each video is kept, and says so to whoever brings its chunks into that form.
//!
//! What somebody asked for is done at once; everything else follows from a policy and its rules, which are pure
//! (`vstack-redundancy`). Decisions are written down before anything follows from them: a restart moves nothing twice.
//!
//! What was moved stays for its time, from when it was moved. The store counts changes of form as it learns of them, and each
//! look notes when there were more. What is about to be moved goes by the count as it is then (`may_become`): neither a
//! plan of before the last look nor a chunk that was on its way as another form was decided has one moved twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU8,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use vstack_api::metadata::RedundancyMode;
use vstack_redundancy::{Changed, Decision, Mode, Policy, Rules, Why};
use vstack_types::{Timestamp, VideoId};
use vstack_upkeep::migrate::Wished;

use crate::{
    app::App,
    redundancy::{changed_of, heat_of, would_decide},
    store::{KEEPINGS_MAX, Keeping, StoreError, Watched},
};

/// Videos read at once.
const PAGE: u32 = 4_096;
/// Of the time of a processor, deciding takes about one part in so many at most.
const SHARE: u32 = 100;
/// A processor decides about one video in less. What a look takes beyond that it spends waiting, which costs nobody anything:
/// on a busy machine a second of it would put the next look off for minutes.
const ONE_VIDEO: Duration = Duration::from_micros(100);
/// Views count less with time, which need not be written down each time: what is kept of them is at most so old.
const HEAT_KEPT: Duration = Duration::from_secs(600);

/// What is decided of each video, as of the last look.
#[derive(Debug, Default)]
pub(crate) struct KeepingDesk {
    known: Mutex<Known>,
    /// Wakes the next look before its time.
    pub(crate) look_now: Notify,
}

/// What is decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Decided {
    /// Of each active video.
    pub(crate) of: BTreeMap<VideoId, Decision>,
    /// In which form its chunks are to be; of a video that is to stay for now as it is, nothing.
    pub(crate) wished: Arc<BTreeMap<VideoId, Wished>>,
    /// Nothing is to be brought into another form for now.
    pub(crate) paused: bool,
}

/// What was decided last, and how often it was said meanwhile whether to pause.
#[derive(Debug, Default)]
struct Known {
    decided: Arc<Decided>,
    words: u64,
}

impl KeepingDesk {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, without waiting for the next look. It is written down before.
    pub(crate) fn pause(&self, paused: bool) {
        let mut known = self.lock();
        known.words += 1;
        known.decided = Arc::new(Decided {
            paused,
            ..(*known.decided).clone()
        });
    }

    /// As of the last look.
    pub(crate) fn decided(&self) -> Arc<Decided> {
        Arc::clone(&self.lock().decided)
    }

    /// How often it was said whether to pause.
    fn words(&self) -> u64 {
        self.lock().words
    }

    /// Takes over what a look came to that began after so many `words`; says whether that concerns what is mended next.
    fn conclude(&self, mut decided: Decided, words: u64) -> bool {
        let mut known = self.lock();
        if known.words != words {
            // What was read of it when the look began is over.
            decided.paused = known.decided.paused;
        }
        if *known.decided == decided {
            return false;
        }
        // A new film is counted in its time.
        let concerns = known.decided.paused != decided.paused || are_shards(&known.decided) != are_shards(&decided);
        known.decided = Arc::new(decided);
        concerns
    }
}

/// The mode that somebody asks for, as the rules call it.
pub(crate) const fn mode_of(asked: RedundancyMode) -> Mode {
    match asked {
        RedundancyMode::Replication => Mode::Replicated,
        RedundancyMode::ErasureCoding => Mode::Coded,
    }
}

/// And as it is called in answers.
pub(crate) const fn asked_of(mode: Mode) -> RedundancyMode {
    match mode {
        Mode::Replicated => RedundancyMode::Replication,
        Mode::Coded => RedundancyMode::ErasureCoding,
    }
}

/// Works until the service stops.
pub(crate) async fn run(app: Arc<App>) {
    loop {
        let began = app.clock.monotonic();
        let videos = look(&app).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "it could not be decided how videos are kept; it is tried again");
            0
        });
        let wait = rest(app.clock.monotonic().since(began), videos).max(app.pace.policy_every);
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = app.keeping.look_now.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// How long to rest after a look at so many videos that took so long.
fn rest(took: Duration, videos: usize) -> Duration {
    let of_processor = ONE_VIDEO.saturating_mul(u32::try_from(videos).unwrap_or(u32::MAX));
    took.min(of_processor).saturating_mul(SHARE)
}

/// Decides about every video; says how many there are.
async fn look(app: &App) -> Result<usize, StoreError> {
    let policy = app.settings.policy();
    let rules = app.settings.rules();
    let words = app.keeping.words();
    let mut decided = Decided {
        paused: app.store.is_migration_paused().await?,
        ..Decided::default()
    };
    let mut wished = BTreeMap::new();
    let mut after = None;
    loop {
        let page = app.store.watched(after, PAGE).await?;
        let now = app.now();
        let mut news = Vec::new();
        for watched in &page {
            let (keeping, is_news) = judge(watched, &rules, policy.as_ref(), now);
            if is_news {
                news.push((watched.video, keeping));
            }
            decided.of.insert(watched.video, keeping.decision);
            if may_change(keeping.decision, keeping.changed, &rules, now) {
                wished.insert(watched.video, wish(app, keeping.decision));
            }
        }
        for some in news.chunks(KEEPINGS_MAX) {
            app.store.note_keepings(some.to_vec()).await?;
        }
        after = page.last().map(|last| last.video);
        if page.len() < PAGE as usize {
            break;
        }
    }
    decided.wished = Arc::new(wished);
    let videos = decided.of.len();
    if app.keeping.conclude(decided, words) {
        app.upkeep.count_now.notify_one();
    }
    Ok(videos)
}

/// The films that are to be shards.
fn are_shards(decided: &Decided) -> BTreeSet<VideoId> {
    let wished = decided.wished.iter();
    let shards = wished.filter(|(_, wished)| matches!(wished, Wished::Shards { .. }));
    shards.map(|(video, _)| *video).collect()
}

fn wish(app: &App, decision: Decision) -> Wished {
    let config = app.settings.redundancy();
    let data = u8::try_from(config.erasure_data_shards).ok().and_then(NonZeroU8::new);
    match (decision.mode, data) {
        (Mode::Coded, Some(data)) => Wished::Shards {
            data,
            parity: u8::try_from(config.erasure_parity_shards).unwrap_or_default(),
            bytes_min: app.settings.erasure_min_bytes,
            asked: decision.why == Why::Asked,
        },
        _ => Wished::Copies {
            asked: decision.why == Why::Asked,
        },
    }
}

/// Whether chunks of a video may be brought into the form that is decided: none that left it so lately that it would change
/// twice within its time. What somebody asks for is done at once, and nothing holds up what was never moved.
fn may_change(decision: Decision, changed: Changed, rules: &Rules, now: Timestamp) -> bool {
    decision.why == Why::Asked || changed.allows(decision.mode, rules.dwell, now)
}

/// Whether a chunk of a video may be brought into this form now, by what is written down of it: it was planned a while ago.
pub(crate) fn may_become(watched: &Watched, mode: Mode, rules: &Rules, now: Timestamp) -> bool {
    let decision = watched.keeping.map(|keeping| keeping.decision);
    let decision = decision.filter(|decision| decision.mode == mode);
    decision.is_some_and(|decision| may_change(decision, changed_of(watched, now), rules, now))
}

/// What is decided of a video now, and whether that is to be written down.
fn judge(watched: &Watched, rules: &Rules, policy: &dyn Policy, now: Timestamp) -> (Keeping, bool) {
    let keeping = Keeping {
        decision: would_decide(watched, rules, policy, now),
        heat: heat_of(watched, now),
        heat_views: watched.view_count,
        changed: changed_of(watched, now),
        turns: watched.turns,
    };
    let is_news = watched.keeping.is_none_or(|last| {
        let was_watched = watched.view_count > last.heat_views;
        last.decision != keeping.decision
            || last.turns != keeping.turns
            || (was_watched && now.since(last.heat.at) >= HEAT_KEPT)
    });
    (keeping, is_news)
}

#[cfg(test)]
mod tests {
    use vstack_redundancy::Threshold;

    use super::*;
    use crate::store::Turns;

    const HOUR_MS: i64 = 3_600_000;
    const RULES: Rules = Rules {
        threshold: 100.0,
        cold_after: Duration::from_secs(3_600),
        dwell: Duration::from_secs(3_600),
    };

    fn watched(view_count: u64, keeping: Option<Keeping>) -> Watched {
        Watched {
            video: VideoId::from_bytes([1; 16]),
            created_at: Timestamp(HOUR_MS),
            view_count,
            override_mode: None,
            turns: Turns::default(),
            keeping,
        }
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp(hours * HOUR_MS)
    }

    #[test]
    fn a_look_at_many_videos_is_rare_and_one_that_waited_for_others_is_not() {
        let second = Duration::from_secs(1);
        assert_eq!(rest(second, 1_000_000), SHARE * second);
        assert_eq!(rest(second, 1), Duration::from_millis(10));
        assert_eq!(rest(second, 0), Duration::ZERO, "it failed, and is tried again");
    }

    #[test]
    fn what_is_decided_is_written_down_once_and_views_now_and_then() {
        let (new, is_news) = judge(&watched(0, None), &RULES, &Threshold, at(1));
        assert_eq!((new.decision.why, is_news), (Why::New, true));
        let (_, is_news) = judge(&watched(0, Some(new)), &RULES, &Threshold, at(1));
        assert!(!is_news);
        let (cold, is_news) = judge(&watched(0, Some(new)), &RULES, &Threshold, at(2));
        assert_eq!((cold.decision.mode, is_news), (Mode::Coded, true));
        let soon = Timestamp(at(2).0 + 1_000);
        let (_, is_news) = judge(&watched(5, Some(cold)), &RULES, &Threshold, soon);
        assert!(!is_news, "five views are not worth a write each second");
        let (later, is_news) = judge(&watched(5, Some(cold)), &RULES, &Threshold, at(3));
        assert_eq!((later.heat_views, later.heat.fast, is_news), (5, 5.0, true));
        let (hot, is_news) = judge(&watched(101, Some(later)), &RULES, &Threshold, at(4));
        assert_eq!(
            (hot.decision.mode, hot.decision.why, is_news),
            (Mode::Replicated, Why::Hot, true)
        );
    }

    /// A film, and what is done about it as time passes: hours after the epoch, of which a move is to stay for one.
    struct Told {
        watched: Watched,
        hour: f64,
    }

    impl Told {
        /// Kept as copies, as new, for its first hour.
        fn new() -> Self {
            let mut told = Self {
                watched: watched(0, None),
                hour: 1.0,
            };
            assert_eq!(told.look().why, Why::New);
            told
        }

        fn now(&self) -> Timestamp {
            #[expect(clippy::cast_possible_truncation, reason = "few hours")]
            let ms = (self.hour * HOUR_MS as f64) as i64;
            Timestamp(ms)
        }

        fn look(&mut self) -> Decision {
            let (keeping, is_news) = judge(&self.watched, &RULES, &Threshold, self.now());
            if is_news {
                self.watched.keeping = Some(keeping);
            }
            keeping.decision
        }

        fn look_at(&mut self, hour: f64) -> (Mode, Why) {
            self.hour = hour;
            let decision = self.look();
            (decision.mode, decision.why)
        }

        /// Whether a job that was planned may be begun at this hour.
        fn may_become(&mut self, mode: Mode, hour: f64) -> bool {
            self.hour = hour;
            may_become(&self.watched, mode, &RULES, self.now())
        }
    }

    /// Moves were paused for longer than what is moved is to stay.
    #[test]
    fn no_chunk_changes_its_form_twice_in_its_time_however_long_its_move_was_held_up() {
        let mut film = Told::new();
        assert_eq!(film.look_at(2.0), (Mode::Coded, Why::Cold));
        // It is paused, the time is over, and it goes on.
        assert_eq!(film.look_at(5.0), (Mode::Coded, Why::Cold));
        assert!(film.may_become(Mode::Coded, 5.0));
        film.watched.turns.to_shards = 1;
        // Everybody watches it, a minute later.
        film.watched.view_count = 1_000;
        assert_eq!(film.look_at(5.02), (Mode::Coded, Why::Dwells));
        assert!(!film.may_become(Mode::Replicated, 5.03));
        assert!(film.may_become(Mode::Coded, 5.03), "the rest of it follows meanwhile");
        film.watched.turns.to_shards = 2;
        assert_eq!(film.look_at(5.5), (Mode::Coded, Why::Dwells));
        assert_eq!(
            film.look_at(6.2),
            (Mode::Coded, Why::Dwells),
            "the second was moved at half past five"
        );
        assert_eq!(film.look_at(6.5), (Mode::Replicated, Why::Hot));
        assert!(film.may_become(Mode::Replicated, 6.5));
        film.watched.turns.to_copies = 1;
        assert_eq!(film.look_at(6.6), (Mode::Replicated, Why::Hot));
        assert_eq!(
            film.watched.keeping.map(|keeping| keeping.changed.to_copies),
            Some(Some(film.now()))
        );
    }

    /// What was on its way as something else was decided came there after.
    #[test]
    fn what_comes_late_stays_for_its_time_too() {
        let mut film = Told::new();
        assert_eq!(film.look_at(2.0), (Mode::Coded, Why::Cold));
        film.watched.view_count = 1_000;
        assert_eq!(
            film.look_at(3.0),
            (Mode::Replicated, Why::Hot),
            "nothing of it was moved"
        );
        assert!(!film.may_become(Mode::Coded, 3.1), "as was planned before");
        assert!(film.may_become(Mode::Replicated, 3.1));
        // And now it is shards, which no look has seen yet.
        film.watched.turns.to_shards = 1;
        assert!(!film.may_become(Mode::Replicated, 3.2));
        assert_eq!(film.look_at(3.2), (Mode::Replicated, Why::Hot));
        for (hour, expected) in [(3.3, false), (4.1, false), (4.3, true)] {
            assert_eq!(film.may_become(Mode::Replicated, hour), expected, "at {hour}");
        }
        film.hour = 3.3;
        let keeping = film.watched.keeping.expect("it was looked at");
        assert!(!may_change(keeping.decision, keeping.changed, &RULES, film.now()));
        // Unless somebody asks for it.
        film.watched.override_mode = Some(RedundancyMode::Replication);
        assert_eq!(film.look_at(3.4), (Mode::Replicated, Why::Asked));
        assert!(film.may_become(Mode::Replicated, 3.4));
    }

    /// Somebody asked for shards of a new film, and then for nothing.
    #[test]
    fn being_new_is_no_reason_to_change_a_chunk_twice_in_its_time() {
        let unasked_after = |turns: u64| {
            let mut film = Told::new();
            film.watched.override_mode = Some(RedundancyMode::ErasureCoding);
            assert_eq!(film.look_at(1.1), (Mode::Coded, Why::Asked));
            assert!(film.may_become(Mode::Coded, 1.1));
            film.watched.turns.to_shards = turns;
            assert_eq!(film.look_at(1.2), (Mode::Coded, Why::Asked));
            film.watched.override_mode = None;
            film
        };
        let mut film = unasked_after(1);
        assert_eq!(film.look_at(1.3), (Mode::Coded, Why::Dwells));
        assert!(!film.may_become(Mode::Replicated, 1.4));
        // What was on its way came there when it was to be copies again.
        let mut film = unasked_after(0);
        assert_eq!(film.look_at(1.3), (Mode::Replicated, Why::New));
        assert!(film.may_become(Mode::Replicated, 1.3), "nothing of it was moved");
        film.watched.turns.to_shards = 1;
        assert!(!film.may_become(Mode::Replicated, 1.4));
        assert_eq!(film.look_at(1.4), (Mode::Replicated, Why::New));
        let keeping = film.watched.keeping.expect("it was looked at");
        assert!(!may_change(keeping.decision, keeping.changed, &RULES, film.now()));
        // Unless somebody asks for copies.
        film.watched.override_mode = Some(RedundancyMode::Replication);
        assert_eq!(film.look_at(1.5), (Mode::Replicated, Why::Asked));
        assert!(film.may_become(Mode::Replicated, 1.5));
        // What was uploaded just now was never moved.
        assert!(Told::new().may_become(Mode::Replicated, 1.0));
    }

    /// What a look read of it may be older than what was said since.
    #[test]
    fn what_is_said_of_a_pause_while_a_look_is_under_way_is_not_undone() {
        let desk = KeepingDesk::default();
        let read = |paused| Decided {
            paused,
            ..Decided::default()
        };
        let words = desk.words();
        desk.pause(true);
        assert!(!desk.conclude(read(false), words));
        assert!(desk.decided().paused);
        // Said twice, so that it is again as it was when the look began, and not as it was read in between.
        let words = desk.words();
        desk.pause(false);
        desk.pause(true);
        assert!(!desk.conclude(read(false), words));
        assert!(desk.decided().paused);
        // Where nobody said anything, it is as it is written down: by whoever did so before this service began.
        assert!(desk.conclude(read(false), desk.words()), "that is news");
        assert!(!desk.decided().paused);
        assert!(!desk.conclude(read(false), desk.words()), "and that is none");
    }

    #[test]
    fn views_of_before_are_as_old_as_their_video() {
        let (first, _) = judge(&watched(1_024, None), &RULES, &Threshold, at(1 + 24));
        assert!((first.heat.fast - 512.0).abs() < 1.0, "{}", first.heat.fast);
        assert_eq!(first.heat_views, 1_024);
    }
}
