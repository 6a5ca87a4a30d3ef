//! One piece on its way here: whole from any one of its replicas, or as shards from as many nodes as are needed.
//!
//! Shards are asked for side by side. When one does not come, another takes its place; and where it is urgent, or one is
//! much slower than those that came, one more is asked for than is needed, and whichever comes last is not waited for.

use std::time::Duration;

use vstack_types::Monotonic;

use crate::{Attempts, Begin, Explore, Failure, NodeUrl, Selector, TransferId, Verdict};

/// Who has a piece, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holders {
    /// Each has all of it.
    Whole(Vec<NodeUrl>),
    /// Each has a shard.
    Shards {
        /// So many of different indexes give the piece; those with the first indexes without decoding.
        needed: u8,
        /// Bytes of a shard.
        bytes: u64,
        /// Index and node of each.
        at: Vec<(u8, NodeUrl)>,
    },
}

impl Holders {
    /// All nodes that are named.
    pub fn nodes(&self) -> Vec<&NodeUrl> {
        match self {
            Self::Whole(nodes) => nodes.iter().collect(),
            Self::Shards { at, .. } => at.iter().map(|(_, node)| node).collect(),
        }
    }

    const fn needed(&self) -> usize {
        match self {
            Self::Whole(_) => 1,
            Self::Shards { needed, .. } => *needed as usize,
        }
    }
}

/// What a transfer brings of its piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// All of it.
    Whole,
    /// The shard with this index.
    Shard(u8),
}

/// What came of wanting more of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum More {
    /// This transfer is to be run.
    Started(TransferId, NodeUrl, Part),
    /// Nobody is left to ask: not before this moment.
    WaitUntil(Monotonic),
}

/// When one more shard is asked for than is needed; then whichever comes last is not waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OneMore {
    /// Not at all: exactly as many as are needed are on their way.
    Never,
    /// Once one takes much longer than those that came.
    #[default]
    WhenLate,
    /// At once.
    AtOnce,
}

/// A shard from a node that is expected to take longer than the fastest by this factor is not worth what decoding costs.
const WORTH_NO_DECODING: f64 = 1.5;
/// And by this: below, it is noise.
const WORTH_NO_DECODING_AT_LEAST: Duration = Duration::from_millis(10);
/// A shard that takes so many times as long as the slowest that came is not waited for alone.
const SLOW_FACTOR: u32 = 2;
const SLOW_AT_LEAST: Duration = Duration::from_millis(5);

#[derive(Debug, Clone)]
struct Running {
    transfer: TransferId,
    part: Part,
    began: Monotonic,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Gathering {
    holders: Holders,
    attempts: Attempts,
    /// Indexes of shards that came.
    here: Vec<u8>,
    running: Vec<Running>,
    /// How long the slowest of those took that came.
    slowest: Duration,
}

impl Gathering {
    /// Nothing was asked for yet.
    pub fn new(holders: Holders) -> Self {
        Self {
            holders,
            attempts: Attempts::default(),
            here: Vec::new(),
            running: Vec::new(),
            slowest: Duration::ZERO,
        }
    }

    /// Who has it.
    pub const fn holders(&self) -> &Holders {
        &self.holders
    }

    /// What was tried.
    pub const fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    pub(crate) const fn attempts_mut(&mut self) -> &mut Attempts {
        &mut self.attempts
    }

    /// Others have it by now. Shards that came stay, unless they are of another code: then it is begun anew; what is under
    /// way is told, to be given up.
    pub fn replace(&mut self, holders: Holders) -> Vec<TransferId> {
        let same_form = match (&self.holders, &holders) {
            (Holders::Whole(_), Holders::Whole(_)) => true,
            (
                Holders::Shards { needed, bytes, .. },
                Holders::Shards {
                    needed: now_needed,
                    bytes: now_bytes,
                    ..
                },
            ) => (needed, bytes) == (now_needed, now_bytes),
            _ => false,
        };
        self.holders = holders;
        if same_form {
            return Vec::new();
        }
        self.here.clear();
        self.attempts = Attempts::default();
        self.running.drain(..).map(|running| running.transfer).collect()
    }

    /// Others have it, too.
    pub fn add(&mut self, holders: Holders) {
        match (&mut self.holders, holders) {
            (Holders::Whole(known), Holders::Whole(nodes)) => {
                known.extend(
                    nodes
                        .into_iter()
                        .filter(|node| !known.contains(node))
                        .collect::<Vec<_>>(),
                );
            }
            (Holders::Shards { at: known, .. }, Holders::Shards { at, .. }) => {
                known.extend(at.into_iter().filter(|one| !known.contains(one)).collect::<Vec<_>>());
            }
            _ => {}
        }
    }

    /// Whether anything is under way.
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether this transfer is of it.
    pub fn runs(&self, transfer: TransferId) -> bool {
        self.running.iter().any(|running| running.transfer == transfer)
    }

    /// Everything under way.
    pub fn transfers(&self) -> impl Iterator<Item = TransferId> + '_ {
        self.running.iter().map(|running| running.transfer)
    }

    /// Bytes that a transfer of it brings, of a piece of so many.
    pub const fn part_bytes(&self, piece_bytes: u64) -> u64 {
        match &self.holders {
            Holders::Whole(_) => piece_bytes,
            Holders::Shards { bytes, .. } => *bytes,
        }
    }

    /// Whether another transfer is to be begun now.
    pub fn wants_more(&self, now: Monotonic, one_more: OneMore) -> bool {
        let (needed, have) = (self.holders.needed(), self.here.len() + self.running.len());
        if have < needed {
            return self.attempts.retry_at() <= now;
        }
        let is_due = match one_more {
            OneMore::Never => false,
            OneMore::WhenLate => self.overdue_at().is_some_and(|at| at <= now),
            OneMore::AtOnce => true,
        };
        have == needed
            && needed > 1
            && is_due
            && self.attempts.retry_at() <= now
            && self.left().any(|node| self.attempts.is_untried(node))
    }

    /// When another transfer is to be begun, as far as that is known: once it may be tried again what is missing, or once one
    /// that is under way is to be overtaken by another.
    pub fn more_at(&self) -> Option<Monotonic> {
        if self.here.len() + self.running.len() < self.holders.needed() {
            Some(self.attempts.retry_at())
        } else {
            self.overdue_at()
        }
    }

    fn overdue_at(&self) -> Option<Monotonic> {
        let (needed, have) = (self.holders.needed(), self.here.len() + self.running.len());
        if have != needed || self.here.is_empty() {
            return None;
        }
        let patience = self.slowest.saturating_mul(SLOW_FACTOR) + SLOW_AT_LEAST;
        let is_any_left = self.left().any(|node| self.attempts.is_untried(node));
        let first = self.running.iter().map(|running| running.began + patience).min();
        let first = first.filter(|_| is_any_left)?;
        Some(first.max(self.attempts.retry_at()))
    }

    /// Begins another transfer.
    pub fn begin(&mut self, now: Monotonic, selector: &mut Selector, piece_bytes: u64, explore: Explore) -> More {
        let bytes = self.part_bytes(piece_bytes);
        let candidates: Vec<(Part, NodeUrl)> = self.candidates().map(|(part, node)| (part, node.clone())).collect();
        let of = self.worthwhile(now, selector, bytes, &candidates);
        let nodes: Vec<NodeUrl> = of.iter().map(|(_, node)| node.clone()).collect();
        match selector.begin(now, &nodes, &mut self.attempts, explore) {
            Begin::WaitUntil(at) => More::WaitUntil(at),
            Begin::Started(transfer, node) => {
                let part = of
                    .iter()
                    .find(|(_, of)| *of == node)
                    .map_or(Part::Whole, |(part, _)| *part);
                self.running.push(Running {
                    transfer,
                    part,
                    began: now,
                });
                More::Started(transfer, node, part)
            }
        }
    }

    /// A transfer ended well: the part that it brought, and, when everything needed is here, what else is under way and not
    /// needed any more: to be cancelled. None when it is not of this piece.
    pub fn done(&mut self, now: Monotonic, selector: &mut Selector, transfer: TransferId) -> Option<Arrived> {
        let at = self.running.iter().position(|running| running.transfer == transfer)?;
        let arrived = self.running.swap_remove(at);
        self.slowest = self.slowest.max(now.since(arrived.began));
        if let Part::Shard(index) = arrived.part {
            self.here.push(index);
        }
        let is_whole = arrived.part == Part::Whole || self.here.len() >= self.holders.needed();
        Some(if is_whole {
            let spare = self.give_up();
            if let Holders::Shards { bytes, .. } = &self.holders {
                spare.iter().for_each(|late| selector.overtaken(now, *late, *bytes));
            }
            Arrived::Whole { spare }
        } else {
            Arrived::Partly
        })
    }

    /// A transfer gave nothing usable. None when it is not of this piece, or was given up before.
    pub fn failed(
        &mut self,
        now: Monotonic,
        selector: &mut Selector,
        transfer: TransferId,
        failure: Failure,
    ) -> Option<Verdict> {
        let at = self.running.iter().position(|running| running.transfer == transfer)?;
        self.running.swap_remove(at);
        if self.here.len() + self.running.len() >= self.holders.needed() {
            // It was one more than is needed: the round goes on with the others.
            selector.note_failed(now, transfer, failure, &mut self.attempts)?;
            return Some(Verdict::TryAnother);
        }
        let left: Vec<NodeUrl> = self.left().cloned().collect();
        selector.failed(now, transfer, failure, &left, &mut self.attempts)
    }

    /// Who could be asked beside those who are.
    pub(crate) fn left(&self) -> impl Iterator<Item = &NodeUrl> {
        self.candidates().map(|(_, node)| node)
    }

    /// Takes everything under way, to be given up.
    pub fn give_up(&mut self) -> Vec<TransferId> {
        self.running.drain(..).map(|running| running.transfer).collect()
    }

    /// Who could be asked for what is neither here nor under way.
    fn candidates(&self) -> impl Iterator<Item = (Part, &NodeUrl)> {
        let is_asked = |part: Part| self.running.iter().any(|running| running.part == part);
        let (whole, shards) = match &self.holders {
            Holders::Whole(nodes) => (&nodes[..], &[][..]),
            Holders::Shards { at, .. } => (&[][..], &at[..]),
        };
        let shards = shards
            .iter()
            .filter(move |(index, _)| !self.here.contains(index) && !is_asked(Part::Shard(*index)));
        let shards = shards.map(|(index, node)| (Part::Shard(*index), node));
        whole.iter().map(|node| (Part::Whole, node)).chain(shards)
    }

    /// Those of `candidates` to choose from: the shards that need no decoding, as long as they do not take much longer.
    fn worthwhile(
        &self,
        now: Monotonic,
        selector: &Selector,
        bytes: u64,
        candidates: &[(Part, NodeUrl)],
    ) -> Vec<(Part, NodeUrl)> {
        let Holders::Shards { needed, .. } = &self.holders else {
            return candidates.to_vec();
        };
        let untried = candidates.iter().filter(|(_, node)| self.attempts.is_untried(node));
        let expected: Vec<(&(Part, NodeUrl), Option<Duration>)> = untried
            .map(|one| (one, selector.expected(now, &one.1, bytes, &self.attempts)))
            .collect();
        let best = expected.iter().filter_map(|(_, expected)| *expected).min();
        let most = best.map(|best| best.mul_f64(WORTH_NO_DECODING).max(best + WORTH_NO_DECODING_AT_LEAST));
        let is_plain = |part: Part| matches!(part, Part::Shard(index) if index < *needed);
        let near = |expected: Option<Duration>| match (expected, most) {
            (Some(expected), Some(most)) => expected <= most,
            // Of nobody anything is known.
            (None, None) => true,
            _ => false,
        };
        let plain = expected
            .iter()
            .filter(|(one, expected)| is_plain(one.0) && near(*expected));
        let plain: Vec<(Part, NodeUrl)> = plain.map(|(one, _)| (*one).clone()).collect();
        if plain.is_empty() { candidates.to_vec() } else { plain }
    }
}

/// What came of a transfer that ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrived {
    /// More is needed.
    Partly,
    /// Everything that is needed is here.
    Whole {
        /// Under way, and not needed any more.
        spare: Vec<TransferId>,
    },
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{MonitorSettings, SchedulerSettings};

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn one_more_than_is_needed_is_asked_for_never_when_one_is_late_or_at_once() {
        let shard = |index: u8| (index, NodeUrl::new(&format!("http://node-{index}")));
        let mut gathering = Gathering::new(Holders::Shards {
            needed: 3,
            bytes: 700_000,
            at: (0..5).map(shard).collect(),
        });
        let (monitor, scheduler) = (MonitorSettings::default(), SchedulerSettings::default());
        let mut selector = Selector::new(monitor, scheduler, StdRng::seed_from_u64(1));
        let mut begun = Vec::new();
        for _ in 0..3 {
            assert!(gathering.wants_more(at(0), OneMore::Never), "it is needed");
            match gathering.begin(at(0), &mut selector, 2_100_000, Explore::All) {
                More::Started(transfer, ..) => begun.push(transfer),
                More::WaitUntil(_) => panic!("nobody failed"),
            }
        }
        let wants = |gathering: &Gathering, ms| {
            [OneMore::Never, OneMore::WhenLate, OneMore::AtOnce].map(|when| gathering.wants_more(at(ms), when))
        };
        assert_eq!(wants(&gathering, 0), [false, false, true]);
        for transfer in &begun[..2] {
            assert!(selector.finished(at(10), *transfer));
            assert_eq!(gathering.done(at(10), &mut selector, *transfer), Some(Arrived::Partly));
        }
        // Twice the ten milliseconds of the others, and five.
        assert_eq!(wants(&gathering, 24), [false, false, true]);
        assert_eq!(wants(&gathering, 25), [false, true, true]);
    }
}
