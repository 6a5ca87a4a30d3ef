//! Mends what the plan names, the most endangered first.
//!
//! Some at a time, and no more bytes in a second than `REPAIR_RATE`. Each chunk is taken on by itself: one that cannot be
//! mended now is left for a while, and keeps no other waiting. What is done here is undone by no stop: a copy is
//! verified by the node that takes it, and everything else is decided.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::sleep;
use vstack_types::{ChunkId, Monotonic, NodeRef, Timestamp, VideoId};
use vstack_upkeep::{
    census::{Item, Part},
    plan::Job,
    standing::{Form, Seen, Standing},
};

use super::{
    Planned, Purpose,
    mender::{Done, Failed, attempt},
    reason::Reason,
};
use crate::app::App;

/// Chunks that are mended at once.
const AT_ONCE: usize = 16;
/// Of them, those whose bytes are on their way. The others wait for decisions, which nodes sync together.
const COPIED_AT_ONCE: usize = 8;
/// Of these, those that bring bytes to the same node: one that hangs does not keep the others waiting.
const COPIED_TO_ONE_NODE: usize = 4;
/// Looked at for one that may be taken on now.
const LOOKED_AT: usize = 256;
/// A chunk that could not be mended is left for so long, doubling up to the longest.
const LEFT_FIRST: Duration = Duration::from_secs(2);
const LEFT_MAX: Duration = Duration::from_secs(120);
/// Tries at one node, for one chunk, after which another takes its place if there is any.
const TRIES_AT_A_NODE: u32 = 3;
/// So long: there may be no other, and what was wrong there ends.
const AVOIDED_FOR: Duration = Duration::from_secs(300);
/// Copies in a row that a node did not take, of whatever chunks, after which it is left alone for a while: it may be slow,
/// cut off from the others, or out of order.
const FAILURES_IN_A_ROW: u32 = 5;
const RESTS_FIRST: Duration = Duration::from_secs(30);
const RESTS_MAX: Duration = Duration::from_secs(600);
/// Chunks of which it is remembered that they were tried; beyond, those whose time to wait is over are forgotten.
const TRIED_MAX: usize = 100_000;
/// What was done lately, for those who look.
const RECENT_MAX: usize = 200;
/// Bytes that may be moved at once are those of so long at the rate: whoever reads meanwhile waits behind them.
const BURST: Duration = Duration::from_millis(100);

/// Something that was done, or tried.
#[derive(Debug, Clone)]
pub(crate) struct Mended {
    pub(crate) chunk: ChunkId,
    pub(crate) video: VideoId,
    pub(crate) what: &'static str,
    pub(crate) why: Standing,
    pub(crate) began: Timestamp,
    /// None while it goes on.
    pub(crate) took: Option<Duration>,
    pub(crate) bytes: u64,
    /// Why it did not work out.
    pub(crate) failed: Option<String>,
    purpose: Purpose,
    pub(crate) reason: Reason,
    /// Who is to get bytes by it.
    pub(crate) to: Vec<NodeRef>,
    /// They are still on their way there.
    copies: bool,
}

/// A chunk is one part of a video.
pub(super) type Key = (VideoId, Part);

/// What is remembered of a chunk until nothing is to be done about it any more.
#[derive(Debug, Default)]
struct Tried {
    tries: u32,
    not_before: Monotonic,
    /// Where it did not work, how often, and when it did not last.
    at: Vec<(NodeRef, u32, Monotonic)>,
}

impl Tried {
    fn wait(&mut self, now: Monotonic) {
        self.tries = self.tries.saturating_add(1);
        let wait = LEFT_FIRST.saturating_mul(1 << self.tries.min(10)).min(LEFT_MAX);
        self.not_before = now + wait;
    }

    fn failed_at(&mut self, node: NodeRef, now: Monotonic) {
        match self.at.iter_mut().find(|(at, ..)| *at == node) {
            Some((_, times, last)) => (*times, *last) = (times.saturating_add(1), now),
            None => self.at.push((node, 1, now)),
        }
    }

    /// Where it is not tried for a while.
    fn avoided(&self, now: Monotonic) -> Vec<NodeRef> {
        let is_avoided =
            |(_, times, last): &&(NodeRef, u32, Monotonic)| *times >= TRIES_AT_A_NODE && now.since(*last) < AVOIDED_FOR;
        self.at.iter().filter(is_avoided).map(|(node, ..)| *node).collect()
    }
}

/// A node that does not take copies.
#[derive(Debug, Default)]
struct Failing {
    in_a_row: u32,
    rests_until: Monotonic,
}

impl Failing {
    fn again(&mut self, now: Monotonic) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if let Some(times) = self.in_a_row.checked_sub(FAILURES_IN_A_ROW) {
            self.rests_until = now + RESTS_FIRST.saturating_mul(1 << times.min(8)).min(RESTS_MAX);
        }
    }
}

/// What was tried, for those who plan.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// Being mended, or left for a while.
    pub(super) held_back: BTreeSet<Key>,
    /// Where it did not work often enough.
    pub(super) avoided: BTreeMap<Key, Vec<NodeRef>>,
    /// Nodes that are left alone for a while.
    pub(super) resting: BTreeSet<NodeRef>,
    /// Some are being mended now, or moved so that nodes hold more nearly the same: what those hold is not settled. What only
    /// changes its form may do so for weeks, a little at a time.
    pub(super) any_moved: bool,
}

#[derive(Debug, Default)]
struct Ledger {
    running: BTreeMap<Key, Mended>,
    recent: VecDeque<Mended>,
    tried: BTreeMap<Key, Tried>,
    /// Nodes that did not take what was brought to them.
    failing: BTreeMap<NodeRef, Failing>,
    done: u64,
    done_bytes: u64,
    failures: u64,
}

/// What is being mended, and was.
#[derive(Debug, Default)]
pub(crate) struct Mending(Mutex<Ledger>);

/// What there is to see of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) running: Vec<Mended>,
    /// The last first.
    pub(crate) recent: Vec<Mended>,
    pub(crate) done: u64,
    pub(crate) done_bytes: u64,
    pub(crate) failures: u64,
}

impl Mending {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tries(&self, now: Monotonic) -> Tries {
        let ledger = self.ledger();
        let waits = ledger.tried.iter().filter(|(_, tried)| tried.not_before > now);
        let mut avoided = BTreeMap::new();
        for (key, tried) in &ledger.tried {
            let nodes = tried.avoided(now);
            if !nodes.is_empty() {
                avoided.insert(*key, nodes);
            }
        }
        Tries {
            held_back: ledger
                .running
                .keys()
                .chain(waits.map(|(key, _)| key))
                .copied()
                .collect(),
            avoided,
            resting: ledger
                .failing
                .iter()
                .filter(|(_, failing)| failing.rests_until > now)
                .map(|(node, _)| *node)
                .collect(),
            any_moved: ledger
                .running
                .values()
                .any(|mended| mended.purpose != Purpose::Migrates),
        }
    }

    /// Where a chunk is not tried for a while.
    pub(super) fn avoided(&self, key: Key, now: Monotonic) -> Vec<NodeRef> {
        let ledger = self.ledger();
        ledger.tried.get(&key).map_or_else(Vec::new, |tried| tried.avoided(now))
    }

    /// Forgets what was tried for chunks about which nothing is to be done any more, once their time to wait is over: what
    /// only evens nodes out is done about chunks that are well.
    pub(super) fn keep_tried(&self, now: Monotonic, is_due: impl Fn(&Key) -> bool) {
        let mut ledger = self.ledger();
        ledger.tried.retain(|key, tried| tried.not_before > now || is_due(key));
    }

    /// All bytes of a chunk are where they go: others may be copied.
    pub(super) fn brought(&self, key: Key) {
        if let Some(mended) = self.ledger().running.get_mut(&key) {
            mended.copies = false;
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let ledger = self.ledger();
        Progress {
            running: ledger.running.values().cloned().collect(),
            recent: ledger.recent.iter().rev().cloned().collect(),
            done: ledger.done,
            done_bytes: ledger.done_bytes,
            failures: ledger.failures,
        }
    }
}

impl Ledger {
    /// How often a chunk was tried, if it may be taken on now.
    fn may_begin(&self, key: Key, now: Monotonic) -> Option<u32> {
        if self.running.contains_key(&key) {
            return None;
        }
        match self.tried.get(&key) {
            Some(tried) => (tried.not_before <= now).then_some(tried.tries),
            None => Some(0),
        }
    }

    /// Who is brought nothing now: enough is on its way there, or it rests.
    fn busy(&self, now: Monotonic) -> BTreeSet<NodeRef> {
        let resting = self.failing.iter().filter(|(_, failing)| failing.rests_until > now);
        let mut busy: BTreeSet<NodeRef> = resting.map(|(node, _)| *node).collect();
        let going: BTreeSet<NodeRef> = self.running.values().flat_map(|mended| mended.to.clone()).collect();
        busy.extend(going.into_iter().filter(|node| self.is_busy(&[*node])));
        busy
    }

    /// Whether as many bytes as may be are on their way to one of these, or at all.
    fn is_busy(&self, to: &[NodeRef]) -> bool {
        let copied = || self.running.values().filter(|mended| mended.copies);
        let goes_to = |node: &NodeRef| copied().filter(|mended| mended.to.contains(node)).count();
        !to.is_empty()
            && (copied().count() >= COPIED_AT_ONCE || to.iter().any(|node| goes_to(node) >= COPIED_TO_ONE_NODE))
    }

    fn ended(&mut self, key: Key, now: (Timestamp, Monotonic), outcome: Result<Done, Failed>) {
        let Some(mut mended) = self.running.remove(&key) else {
            return;
        };
        mended.took = Some(now.0.since(mended.began));
        if self.tried.len() >= TRIED_MAX {
            self.tried.retain(|_, tried| tried.not_before > now.1);
        }
        match outcome {
            Ok(done) => {
                match done {
                    Done::Mended { .. } => drop(self.tried.remove(&key)),
                    // Whether it helped is seen at the next count.
                    Done::Told => self.tried.entry(key).or_default().wait(now.1),
                }
                for node in &mended.to {
                    self.failing.remove(node);
                }
                self.done += 1;
                self.done_bytes += done.bytes();
                mended.bytes = done.bytes();
            }
            Err(failed) => {
                let tried = self.tried.entry(key).or_default();
                tried.wait(now.1);
                if let Some(node) = failed.at {
                    tried.failed_at(node, now.1);
                    if !failed.of_this_alone {
                        self.failing.entry(node).or_default().again(now.1);
                    }
                }
                self.failures += 1;
                mended.failed = Some(failed.why);
            }
        }
        self.recent.push_back(mended);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }
}

/// Bytes that may be moved now: as many as come in a tenth of a second at the rate, and no more are saved up.
#[derive(Debug)]
struct Allowance {
    rate: u64,
    at: Monotonic,
    /// May be negative: a chunk is moved as soon as anything is left, and waited for after.
    left: i64,
}

impl Allowance {
    const fn new(rate: u64, at: Monotonic) -> Self {
        Self { rate, at, left: 0 }
    }

    /// How long to wait until something may be moved.
    fn wait(&mut self, now: Monotonic) -> Duration {
        let earned = now.since(self.at).as_secs_f64() * self.rate as f64;
        self.at = now;
        #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
        let (earned, most) = (earned as i64, (BURST.as_secs_f64() * self.rate as f64) as i64);
        // At a low rate, still something.
        self.left = self.left.saturating_add(earned).min(most.max(1));
        if self.left > 0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1 - self.left) as f64 / self.rate as f64)
    }

    fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Works until the service stops.
pub(super) async fn run(app: &App) {
    if !app.settings.repairs {
        tracing::warn!("REPAIRS=false: nothing is mended");
        return;
    }
    let mut running = FuturesUnordered::new();
    let now = app.clock.monotonic();
    let mut allowance = Allowance::new(app.settings.repair_rate.max(1), now);
    let mut for_evening_out = Allowance::new(app.settings.rebalance_rate.max(1), now);
    let mut for_migrating = Allowance::new(app.settings.migration_rate.max(1), now);
    loop {
        let mut wait = None;
        while running.len() < AT_ONCE {
            let now = app.clock.monotonic();
            let pause = allowance.wait(now);
            if !pause.is_zero() {
                wait = Some(pause);
                break;
            }
            let (evening_out, migrating) = (for_evening_out.wait(now), for_migrating.wait(now));
            let may = May {
                even_out: evening_out.is_zero() || app.upkeep.is_hurried(),
                migrate: migrating.is_zero() && !app.keeping.decided().paused,
            };
            let Some(next) = take(app, may) else {
                let waits = [evening_out, migrating].into_iter().filter(|wait| !wait.is_zero());
                wait = waits.min();
                break;
            };
            allowance.spend(next.moves);
            match next.planned.purpose {
                Purpose::Mends => {}
                Purpose::EvensOut => for_evening_out.spend(next.moves),
                Purpose::Migrates => for_migrating.spend(next.moves),
            }
            running.push(mend(app, next));
        }
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            Some(()) = running.next() => {}
            () = app.upkeep.planned.notified() => {}
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

/// Whether nothing is being mended, moved or brought into another form, and nothing waits for it that could be begun.
pub(super) fn is_idle(app: &App) -> bool {
    if !app.settings.repairs {
        return true;
    }
    let now = app.clock.monotonic();
    let plan = app.upkeep.plan();
    let ledger = app.upkeep.mending.ledger();
    let resting = ledger.busy(now);
    let may_begin = |planned: &Planned| {
        let rests = matches!(&planned.due.job, Job::Restore { node, .. } if resting.contains(node));
        !rests && ledger.may_begin((planned.video, planned.part), now).is_some()
    };
    ledger.running.is_empty() && !plan.iter().any(may_begin)
}

/// A chunk that is taken on.
pub(super) struct Task {
    pub(super) planned: Planned,
    /// Bytes that go from node to node for it.
    moves: u64,
    /// Who is to get bytes.
    to: Vec<NodeRef>,
    /// How often it was tried before.
    pub(super) tries: u32,
}

impl Task {
    pub(super) const fn key(&self) -> Key {
        (self.planned.video, self.planned.part)
    }

    fn what(&self) -> &'static str {
        match &self.planned.due.job {
            Job::Salvage => "salvage",
            Job::Read { .. } => "read_registers",
            Job::Restore { .. } => "restore_copy",
            Job::Settle => "end_move",
            Job::TurnBack => "give_move_up",
            Job::Move { .. } if self.planned.purpose == Purpose::EvensOut => "even_out",
            Job::Move { .. } => "move",
            Job::Correct { .. } => "correct_shards",
            Job::Encode { .. } => "encode",
            Job::Decode { .. } => "decode",
        }
    }
}

/// What may be done now besides mending.
#[derive(Debug, Clone, Copy)]
struct May {
    even_out: bool,
    migrate: bool,
}

impl May {
    const fn allows(self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Mends => true,
            Purpose::EvensOut => self.even_out,
            Purpose::Migrates => self.migrate,
        }
    }
}

/// The most endangered chunk of the plan that may be taken on now. Those that may not stay in the plan.
fn take(app: &App, may: May) -> Option<Task> {
    let now = app.clock.monotonic();
    let mut plan = app.upkeep.plan();
    let busy = app.upkeep.mending.ledger().busy(now);
    let (mut at, mut looks) = (plan.len(), LOOKED_AT);
    while at > 0 && looks > 0 {
        at -= 1;
        let planned = &plan[at];
        // What may not be done yet keeps nothing behind it waiting, and is no look: there are no more than are planned at once.
        if !may.allows(planned.purpose) {
            continue;
        }
        // However many there are for one node, others wait behind them only as long as bytes take.
        if matches!(&planned.due.job, Job::Restore { node, .. } if busy.contains(node)) {
            continue;
        }
        looks -= 1;
        let key = (planned.video, planned.part);
        let Some(Known { moves, to, reason }) = known(app, planned) else {
            // It is gone, or something else is to be done about it.
            plan.remove(at);
            continue;
        };
        let mut ledger = app.upkeep.mending.ledger();
        let Some(tries) = ledger.may_begin(key, now) else {
            plan.remove(at);
            continue;
        };
        if ledger.is_busy(&to) {
            continue;
        }
        let planned = plan.remove(at);
        let task = Task {
            planned,
            moves,
            to,
            tries,
        };
        let begun = Mended {
            chunk: task.planned.id.clone(),
            video: task.planned.video,
            what: task.what(),
            why: task.planned.due.standing,
            began: app.now(),
            took: None,
            bytes: 0,
            failed: None,
            purpose: task.planned.purpose,
            reason,
            copies: !task.to.is_empty(),
            to: task.to.clone(),
        };
        ledger.running.insert(key, begun);
        return Some(task);
    }
    None
}

/// Of a planned chunk that is as it was.
struct Known {
    /// Bytes that go from node to node for it.
    moves: u64,
    /// Who gets them.
    to: Vec<NodeRef>,
    reason: Reason,
}

fn known(app: &App, planned: &Planned) -> Option<Known> {
    let attendance = app.upkeep.attendance();
    let state = app.upkeep.state();
    let row = state.census.row(planned.video, planned.part)?;
    if row.version != planned.version || state.census.id(planned.video, planned.part) != planned.id {
        return None;
    }
    let has = |node: &NodeRef| row.items.iter().any(|item| state.census.node(item.node) == Some(*node));
    let size = u64::from(row.size);
    let times = |count: usize| size.saturating_mul(count as u64);
    let (to, moves): (Vec<NodeRef>, u64) = match &planned.due.job {
        Job::Restore { node, .. } => (vec![*node], size),
        Job::Move { to } if row.form == Form::Replicated => {
            let to: Vec<NodeRef> = to.iter().copied().filter(|node| !has(node)).collect();
            let moves = times(to.len());
            (to, moves)
        }
        Job::Move { to } => {
            let changed = row.of_layout().zip(to).filter_map(|(item, to)| {
                let from = state.census.node(item.node)?;
                (from != *to).then_some((from, *to))
            });
            let changed: Vec<(NodeRef, NodeRef)> = changed.collect();
            // A shard goes as it is, or is made of as many others as are read.
            let cost = |from: &NodeRef| {
                if attendance.up.contains(from) {
                    row.form.item_bytes(row.size)
                } else {
                    size
                }
            };
            let moves = changed.iter().map(|(from, _)| cost(from)).sum();
            (changed.into_iter().map(|(_, to)| to).collect(), moves)
        }
        Job::Correct { to } => {
            let changed = row.of_layout().zip(to);
            let is_made =
                |(item, to): &(&Item, &NodeRef)| item.seen == Seen::Wrong || state.census.node(item.node) != Some(**to);
            let to: Vec<NodeRef> = changed.filter(is_made).map(|(_, to)| *to).collect();
            // Each is made of as many others as are read.
            let moves = times(to.len());
            (to, moves)
        }
        Job::Encode { data, to } => {
            let stored = Form::Coded { data: *data }
                .item_bytes(row.size)
                .saturating_mul(to.len() as u64);
            (to.clone(), stored)
        }
        Job::Decode { to } => (to.clone(), times(to.len())),
        Job::Salvage => (Vec::new(), times(app.settings.replication_factor)),
        Job::Read { .. } | Job::Settle | Job::TurnBack => (Vec::new(), 0),
    };
    let is_to_go = |node| app.upkeep.stays_because(node).is_some();
    let reason = Reason::of(&planned.due.job, (&state.census, row), &attendance, is_to_go);
    Some(Known { moves, to, reason })
}

async fn mend(app: &App, task: Task) {
    let began = app.clock.monotonic();
    let outcome = attempt(app, &task).await;
    match &outcome {
        Ok(done) => app
            .upkeep
            .metrics
            .mended(task.what(), done.bytes(), app.clock.monotonic().since(began)),
        Err(_) => app.upkeep.metrics.failed(),
    }
    if let Err(Failed { why, .. }) = &outcome {
        tracing::info!(chunk = %task.planned.id, what = task.what(), why, "a chunk is left as it is for a while");
    }
    let now = (app.now(), app.clock.monotonic());
    app.upkeep.mending.ledger().ended(task.key(), now, outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_moved_at_the_rate() {
        let at = |ms| Monotonic::from_start(Duration::from_millis(ms));
        let mut allowance = Allowance::new(1_000, at(0));
        assert!(allowance.wait(at(1)) <= Duration::from_millis(1));
        assert_eq!(allowance.wait(at(100)), Duration::ZERO);
        allowance.spend(600);
        // A hundred were there, less what the first look took.
        let wait = allowance.wait(at(100));
        assert!((500..=502).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(allowance.wait(at(100) + wait), Duration::ZERO);
        // What was not used for long is not saved up.
        assert_eq!(allowance.wait(at(60_000)), Duration::ZERO);
        allowance.spend(3_000);
        let wait = allowance.wait(at(60_000));
        assert!((2_899..=2_902).contains(&wait.as_millis()), "{wait:?}");
    }

    const KEY: Key = (VideoId::from_bytes([1; 16]), Part::Chunk(0));

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    /// A try that begins and ends at once.
    fn tried(mending: &Mending, now: Monotonic, outcome: Result<Done, Failed>) {
        let begun = Mended {
            chunk: ChunkId::of_video(KEY.0, 0),
            video: KEY.0,
            what: "restore_copy",
            why: Standing::Endangered,
            began: Timestamp(0),
            took: None,
            bytes: 0,
            failed: None,
            purpose: Purpose::Mends,
            reason: Reason::default(),
            to: Vec::new(),
            copies: false,
        };
        let mut ledger = mending.ledger();
        assert!(ledger.may_begin(KEY, now).is_some(), "at {now:?}");
        ledger.running.insert(KEY, begun);
        assert!(ledger.may_begin(KEY, now).is_none(), "one at a time");
        ledger.ended(KEY, (Timestamp(0), now), outcome);
    }

    #[test]
    fn what_does_not_work_is_left_for_longer_each_time_and_its_node_is_avoided() {
        let mending = Mending::default();
        let node = NodeRef::first(vstack_types::NodeUuid::from_bytes([7; 16]));
        let mut now = at(0);
        for (tries, wait) in [(1, 4), (2, 8), (3, 16)] {
            tried(&mending, now, Err(Failed::at(node, "it hangs")));
            let (almost, then) = (now + Duration::from_secs(wait - 1), now + Duration::from_secs(wait));
            assert!(mending.tries(almost).held_back.contains(&KEY));
            assert!(mending.ledger().may_begin(KEY, almost).is_none());
            assert!(!mending.tries(then).held_back.contains(&KEY));
            assert_eq!(mending.ledger().may_begin(KEY, then), Some(tries));
            let avoided = mending.tries(then).avoided.get(&KEY).cloned();
            assert_eq!(avoided.is_some(), tries == TRIES_AT_A_NODE, "after {tries} tries");
            now = then;
        }
        // Not for ever: it may be the only one.
        assert!(mending.tries(now + AVOIDED_FOR).avoided.is_empty());
        // What only may have helped is left as well, and what did is forgotten.
        tried(&mending, now, Ok(Done::Told));
        assert!(mending.tries(now + Duration::from_secs(31)).held_back.contains(&KEY));
        now = now + Duration::from_secs(32);
        tried(&mending, now, Ok(Done::Mended { bytes: 5 }));
        assert_eq!(mending.ledger().may_begin(KEY, now), Some(0));
        assert!(mending.tries(now).avoided.is_empty());
        let progress = mending.progress();
        assert_eq!((progress.done, progress.done_bytes, progress.failures), (2, 5, 3));
        assert_eq!(progress.recent.len(), 5);
    }

    #[test]
    fn who_takes_nothing_rests_and_who_was_given_nothing_does_not() {
        let node = NodeRef::first(vstack_types::NodeUuid::from_bytes([7; 16]));
        let rests = |failed: &Failed| {
            let mending = Mending::default();
            let mut now = at(0);
            for _ in 0..FAILURES_IN_A_ROW {
                tried(&mending, now, Err(failed.clone()));
                now = now + LEFT_MAX;
            }
            let last = mending.tries(at(0));
            assert_eq!(last.avoided.get(&KEY), Some(&vec![node]), "for this chunk");
            last.resting.contains(&node)
        };
        assert!(rests(&Failed::at(node, "it hangs")));
        assert!(!rests(&Failed::only_at(node, "nobody gave it")));
    }

    #[test]
    fn who_hangs_keeps_no_others_waiting_and_who_waits_for_decisions_neither() {
        let nodes = [1, 2, 3].map(|n| NodeRef::first(vstack_types::NodeUuid::from_bytes([n; 16])));
        let mending = Mending::default();
        let key = |n: usize| (KEY.0, Part::Chunk(u32::try_from(n).expect("few")));
        let begin = |n: usize, to: NodeRef| {
            let mut ledger = mending.ledger();
            assert!(!ledger.is_busy(&[to]), "{n}");
            let begun = Mended {
                chunk: ChunkId::of_video(KEY.0, 0),
                video: KEY.0,
                what: "move",
                why: Standing::Endangered,
                began: Timestamp(0),
                took: None,
                bytes: 0,
                failed: None,
                purpose: Purpose::Mends,
                reason: Reason::default(),
                to: vec![to],
                copies: true,
            };
            ledger.running.insert(key(n), begun);
        };
        for n in 0..COPIED_TO_ONE_NODE {
            begin(n, nodes[0]);
        }
        assert!(mending.ledger().is_busy(&nodes[..1]));
        assert!(mending.ledger().is_busy(&nodes[..2]), "one of the two is");
        for n in COPIED_TO_ONE_NODE..COPIED_AT_ONCE {
            begin(n, nodes[1]);
        }
        assert!(mending.ledger().is_busy(&nodes[2..]), "enough at all");
        assert!(!mending.ledger().is_busy(&[]), "nothing is copied");
        mending.brought(key(0));
        assert!(!mending.ledger().is_busy(&nodes[..1]));
        assert!(!mending.ledger().is_busy(&nodes[2..]));
        assert!(mending.ledger().is_busy(&nodes[1..2]));
    }

    #[test]
    fn what_changes_its_form_does_not_keep_nodes_from_being_evened_out() {
        let mending = Mending::default();
        let begin = |sequence: u32, purpose: Purpose| {
            let begun = Mended {
                chunk: ChunkId::of_video(KEY.0, sequence),
                video: KEY.0,
                what: "of no concern",
                why: Standing::Whole,
                began: Timestamp(0),
                took: None,
                bytes: 0,
                failed: None,
                purpose,
                reason: Reason::default(),
                to: Vec::new(),
                copies: false,
            };
            mending.ledger().running.insert((KEY.0, Part::Chunk(sequence)), begun);
        };
        begin(0, Purpose::Migrates);
        assert!(!mending.tries(at(0)).any_moved);
        for purpose in [Purpose::Mends, Purpose::EvensOut] {
            begin(1, purpose);
            assert!(mending.tries(at(0)).any_moved, "{purpose:?}");
        }
        assert_eq!(mending.tries(at(0)).held_back.len(), 2, "none is begun twice");
        // Neither is looked at when its bytes of a second are used up, and the other is.
        let (even_out, migrate) = (Purpose::EvensOut, Purpose::Migrates);
        for (may, allowed) in [((true, false), even_out), ((false, true), migrate)] {
            let may = May {
                even_out: may.0,
                migrate: may.1,
            };
            let purposes = [Purpose::Mends, even_out, migrate];
            let those: Vec<Purpose> = purposes.into_iter().filter(|purpose| may.allows(*purpose)).collect();
            assert_eq!(those, [Purpose::Mends, allowed]);
        }
    }

    #[test]
    fn what_is_well_again_is_another_matter_when_it_fails_later() {
        let mending = Mending::default();
        tried(&mending, at(0), Err(Failed::because("nobody has it")));
        mending.keep_tried(at(1), |_| false);
        assert!(mending.ledger().may_begin(KEY, at(1)).is_none(), "its time is not over");
        mending.keep_tried(at(4), |key| *key == KEY);
        assert_eq!(mending.ledger().may_begin(KEY, at(4)), Some(1));
        mending.keep_tried(at(4), |_| false);
        assert_eq!(mending.ledger().may_begin(KEY, at(4)), Some(0));
    }
}
