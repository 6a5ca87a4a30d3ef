//! What is being mended, what was tried, and what is therefore left alone for a while.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use vstack_types::{Monotonic, NodeRef, Timestamp};

use super::{Key, Mended};
use crate::upkeep::{
    Purpose,
    mender::{Done, Failed},
};

/// Of the chunks that are mended at once, those whose bytes are on their way. The others wait for decisions, which nodes sync
/// together.
const COPIED_AT_ONCE: usize = 8;
/// Of these, those that bring bytes to the same node: one that hangs does not keep the others waiting.
const COPIED_TO_ONE_NODE: usize = 4;
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

/// What is remembered of a chunk until nothing is to be done about it any more.
#[derive(Debug, Default)]
struct Tried {
    tries: u32,
    not_before: Monotonic,
    /// Where it did not work, how often, and when it did not last.
    at: Vec<(NodeRef, u32, Monotonic)>,
    /// Until then it is remembered who made something else of it, also while nothing is wrong with it.
    blames_until: Monotonic,
}

impl Tried {
    fn wait(&mut self, now: Monotonic) {
        self.tries = self.tries.saturating_add(1);
        let wait = LEFT_FIRST.saturating_mul(1 << self.tries.min(10)).min(LEFT_MAX);
        self.not_before = now + wait;
    }

    fn failed_at(&mut self, node: NodeRef, counts: u32, now: Monotonic) {
        match self.at.iter_mut().find(|(at, ..)| *at == node) {
            Some((_, times, last)) => (*times, *last) = (times.saturating_add(counts), now),
            None => self.at.push((node, counts, now)),
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
pub(in crate::upkeep) struct Tries {
    /// Being mended, or left for a while.
    pub(in crate::upkeep) held_back: BTreeSet<Key>,
    /// Where it did not work often enough.
    pub(in crate::upkeep) avoided: BTreeMap<Key, Vec<NodeRef>>,
    /// Nodes that are left alone for a while.
    pub(in crate::upkeep) resting: BTreeSet<NodeRef>,
    /// Some are being mended now, or moved so that nodes hold more nearly the same: what those hold is not settled. What only
    /// changes its form may do so for weeks, a little at a time.
    pub(in crate::upkeep) any_moved: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) running: BTreeMap<Key, Mended>,
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
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::upkeep) fn tries(&self, now: Monotonic) -> Tries {
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
    pub(in crate::upkeep) fn avoided(&self, key: Key, now: Monotonic) -> Vec<NodeRef> {
        let ledger = self.ledger();
        ledger.tried.get(&key).map_or_else(Vec::new, |tried| tried.avoided(now))
    }

    /// Forgets what was tried for chunks about which nothing is to be done any more, once their time to wait is over: what
    /// only evens nodes out is done about chunks that are well.
    pub(in crate::upkeep) fn keep_tried(&self, now: Monotonic, is_due: impl Fn(&Key) -> bool) {
        let mut ledger = self.ledger();
        // Where it did not work is remembered for as long as it says anything: what is well is tried again and again there
        // otherwise, when it is to be moved or to get another form.
        let says_nothing = |tried: &Tried| tried.at.iter().all(|(.., last)| now.since(*last) >= AVOIDED_FOR);
        let is_over = |tried: &Tried| tried.not_before <= now && tried.blames_until <= now && says_nothing(tried);
        ledger.tried.retain(|key, tried| !is_over(tried) || is_due(key));
    }

    /// All bytes of a chunk are where they go: others may be copied.
    pub(in crate::upkeep) fn brought(&self, key: Key) {
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
    pub(super) fn may_begin(&self, key: Key, now: Monotonic) -> Option<u32> {
        if self.running.contains_key(&key) {
            return None;
        }
        match self.tried.get(&key) {
            Some(tried) => (tried.not_before <= now).then_some(tried.tries),
            None => Some(0),
        }
    }

    /// Who is brought nothing now: enough is on its way there, or it rests.
    pub(super) fn busy(&self, now: Monotonic) -> BTreeSet<NodeRef> {
        let resting = self.failing.iter().filter(|(_, failing)| failing.rests_until > now);
        let mut busy: BTreeSet<NodeRef> = resting.map(|(node, _)| *node).collect();
        let going: BTreeSet<NodeRef> = self.running.values().flat_map(|mended| mended.to.clone()).collect();
        busy.extend(going.into_iter().filter(|node| self.is_busy(&[*node])));
        busy
    }

    /// Whether as many bytes as may be are on their way to one of these, or at all.
    pub(super) fn is_busy(&self, to: &[NodeRef]) -> bool {
        let copied = || self.running.values().filter(|mended| mended.copies);
        let goes_to = |node: &NodeRef| copied().filter(|mended| mended.to.contains(node)).count();
        !to.is_empty()
            && (copied().count() >= COPIED_AT_ONCE || to.iter().any(|node| goes_to(node) >= COPIED_TO_ONE_NODE))
    }

    pub(super) fn ended(&mut self, key: Key, now: (Timestamp, Monotonic), outcome: Result<Done, Failed>) {
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
                    if failed.made_otherwise {
                        // It is not tried again before others were.
                        tried.failed_at(node, TRIES_AT_A_NODE, now.1);
                        tried.blames_until = now.1 + AVOIDED_FOR;
                    } else {
                        tried.failed_at(node, 1, now.1);
                    }
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

#[cfg(test)]
mod tests {
    use vstack_types::{NodeUuid, VideoId};
    use vstack_upkeep::census::Part;

    use super::*;

    const KEY: Key = (VideoId::from_bytes([1; 16]), Part::Chunk(0));

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    /// A try that begins and ends at once.
    fn tried(mending: &Mending, now: Monotonic, outcome: Result<Done, Failed>) {
        let mut ledger = mending.ledger();
        assert!(ledger.may_begin(KEY, now).is_some(), "at {now:?}");
        ledger.running.insert(KEY, Mended::begun(Purpose::Mends, &[]));
        assert!(ledger.may_begin(KEY, now).is_none(), "one at a time");
        ledger.ended(KEY, (Timestamp(0), now), outcome);
    }

    #[test]
    fn what_does_not_work_is_left_for_longer_each_time_and_its_node_is_avoided() {
        let mending = Mending::default();
        let node = NodeRef::first(NodeUuid::from_bytes([7; 16]));
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
        let node = NodeRef::first(NodeUuid::from_bytes([7; 16]));
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
        let nodes = [1, 2, 3].map(|n| NodeRef::first(NodeUuid::from_bytes([n; 16])));
        let mending = Mending::default();
        let key = |n: usize| (KEY.0, Part::Chunk(u32::try_from(n).expect("few")));
        let begin = |n: usize, to: NodeRef| {
            let mut ledger = mending.ledger();
            assert!(!ledger.is_busy(&[to]), "{n}");
            ledger.running.insert(key(n), Mended::begun(Purpose::Mends, &[to]));
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
    fn who_made_something_else_of_a_chunk_is_avoided_for_it_at_once_and_for_no_other() {
        let node = NodeRef::first(NodeUuid::from_bytes([7; 16]));
        let mending = Mending::default();
        tried(&mending, at(0), Err(Failed::made_otherwise(node)));
        let tries = mending.tries(at(4));
        assert_eq!(tries.avoided.get(&KEY), Some(&vec![node]));
        assert!(tries.resting.is_empty() && tries.avoided.len() == 1);
        // It may only change its form: there is nothing wrong with it meanwhile.
        mending.keep_tried(at(4), |_| false);
        assert_eq!(mending.tries(at(4)).avoided.get(&KEY), Some(&vec![node]));
        // It may be the only one, and calculate right the next time.
        assert!(mending.tries(at(4) + AVOIDED_FOR).avoided.is_empty());
        mending.keep_tried(at(4) + AVOIDED_FOR, |_| false);
        assert_eq!(
            mending.ledger().may_begin(KEY, at(4) + AVOIDED_FOR),
            Some(0),
            "it is forgotten"
        );
    }

    /// What is well is moved, or gets another form, and is tried where it did not work otherwise, again and again.
    #[test]
    fn where_it_did_not_work_is_remembered_of_what_is_well_too_as_long_as_it_says_anything() {
        let node = NodeRef::first(NodeUuid::from_bytes([7; 16]));
        let mending = Mending::default();
        for n in 0..TRIES_AT_A_NODE {
            let now = at(0) + LEFT_MAX * n;
            tried(&mending, now, Err(Failed::at(node, "it hangs")));
        }
        let last = at(0) + LEFT_MAX * (TRIES_AT_A_NODE - 1);
        let almost = last + (AVOIDED_FOR - Duration::from_secs(1));
        assert_eq!(
            mending.ledger().may_begin(KEY, almost),
            Some(TRIES_AT_A_NODE),
            "its time is over"
        );
        mending.keep_tried(almost, |_| false);
        assert_eq!(mending.avoided(KEY, almost), [node]);
        assert_eq!(mending.tries(almost).avoided.get(&KEY), Some(&vec![node]));
        mending.keep_tried(last + AVOIDED_FOR, |_| false);
        assert_eq!(
            mending.ledger().may_begin(KEY, last + AVOIDED_FOR),
            Some(0),
            "it is forgotten"
        );
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
