//! One piece on its way here: whole from any one of its replicas, or as shards from as many nodes as are needed.
//!
//! Shards are asked for side by side. When one does not come, another takes its place; and where it is urgent, or one is
//! much slower than those that came, one more is asked for than is needed, and whichever comes last is not waited for.
//!
//! A piece that is kept in both forms comes whole, which takes one transfer, and as shards when no replica gives it or all
//! are to be left alone; and the other way round.
//!
//! Shards that do not give the piece, though each is as it is listed, were made wrongly. Then one further shard after the
//! other is asked for, and other sets of them are tried, as far as [`FURTHER_SETS_MAX`] goes.

use std::{collections::BTreeSet, time::Duration};

use vstack_types::Monotonic;

use crate::{
    Attempts, Begin, Explore, Failure, Holders, NodeUrl, Part, Selector, ShardId, TransferId, Verdict,
    sets::sets_with_the_last,
};

/// What came of wanting more of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum More {
    /// This transfer is to be run.
    Started(TransferId, NodeUrl, Part),
    /// Nobody is left to ask: not before this moment.
    WaitUntil(Monotonic),
}

/// When one more shard is asked for than is needed; then whichever comes last is not waited for. What is more urgent is
/// greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
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
/// Sets of shards that are tried beside the first one. Any single shard that was made wrongly is found with so many, of any
/// code, and any two of a code with up to nine data shards. Each takes some milliseconds.
const FURTHER_SETS_MAX: usize = 64;

#[derive(Debug, Clone)]
struct Running {
    transfer: TransferId,
    part: Part,
    node: NodeUrl,
    bytes: u64,
    began: Monotonic,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Gathering {
    holders: Holders,
    attempts: Attempts,
    /// Shards that came, in that order. Of different indexes, as long as none came in vain.
    here: Vec<ShardId>,
    /// No set of the first so many of them gives the piece.
    in_vain: usize,
    /// Sets that may still be tried.
    sets_left: usize,
    /// What is here is being joined.
    joining: bool,
    running: Vec<Running>,
    /// How long the slowest of those took that came.
    slowest: Duration,
    /// What nodes that are well do not have as it should be, each with the round in which it was found out.
    bad: Vec<(u32, Part, NodeUrl)>,
}

impl Gathering {
    /// Nothing was asked for yet.
    pub fn new(holders: Holders) -> Self {
        Self {
            holders,
            attempts: Attempts::default(),
            here: Vec::new(),
            in_vain: 0,
            sets_left: 1 + FURTHER_SETS_MAX,
            joining: false,
            running: Vec::new(),
            slowest: Duration::ZERO,
            bad: Vec::new(),
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

    /// Others have it by now. Shards that came stay as long as they are listed; what is under way and is not is told, to be
    /// given up. In another form it is begun anew.
    pub fn replace(&mut self, holders: Holders) -> Vec<TransferId> {
        let before = std::mem::replace(&mut self.holders, holders);
        let same_code = before.has_the_code_of(&self.holders);
        if !same_code || before.whole.is_empty() != self.holders.whole.is_empty() {
            self.attempts = Attempts::default();
            self.bad.clear();
        }
        self.heard_of_others_than(&before);
        let keeps = |id: ShardId| same_code && self.holders.lists(id);
        let in_vain = self.here.iter().take(self.in_vain).filter(|id| keeps(**id)).count();
        self.here.retain(|id| keeps(*id));
        // Of fewer than are needed there is no set that could have been tried.
        let is_short = self.here.len() < self.needed();
        self.in_vain = if is_short { 0 } else { in_vain };
        self.joining &= same_code;
        let is_over = |running: &Running| running.part.shard().is_some_and(|id| !keeps(id));
        let over: Vec<TransferId> = self
            .running
            .iter()
            .filter(|one| is_over(one))
            .map(|one| one.transfer)
            .collect();
        self.running.retain(|running| !over.contains(&running.transfer));
        over
    }

    /// Others have it, too.
    pub fn add(&mut self, holders: Holders) {
        let before = self.holders.clone();
        self.holders.add(holders);
        self.heard_of_others_than(&before);
    }

    /// Shards that were not listed before are worth being tried again.
    fn heard_of_others_than(&mut self, before: &Holders) {
        if self.holders.listed().any(|id| !before.lists(id)) {
            self.sets_left = 1 + FURTHER_SETS_MAX;
        }
    }

    /// Whether anything is under way.
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Whether this transfer is of it.
    pub fn runs(&self, transfer: TransferId) -> bool {
        self.running(transfer).is_some()
    }

    /// What a transfer of it brings, and how many bytes that are; none when it is not of this piece.
    pub fn part(&self, transfer: TransferId) -> Option<(Part, u64)> {
        self.running(transfer).map(|running| (running.part, running.bytes))
    }

    fn running(&self, transfer: TransferId) -> Option<&Running> {
        self.running.iter().find(|running| running.transfer == transfer)
    }

    /// Everything under way.
    pub fn transfers(&self) -> impl Iterator<Item = TransferId> + '_ {
        self.running.iter().map(|running| running.transfer)
    }

    /// Whether shards of it are here and are being joined.
    pub const fn is_joining(&self) -> bool {
        self.joining
    }

    /// The shards that came are kept no longer: they are fetched again. Not to be called while they are being joined.
    pub fn let_go(&mut self) {
        self.here.clear();
        self.in_vain = 0;
    }

    /// Whether another transfer is to be begun now.
    pub fn wants_more(&self, now: Monotonic, one_more: OneMore) -> bool {
        if self.joining || self.attempts.retry_at() > now {
            return false;
        }
        if !self.is_enough_under_way() {
            return true;
        }
        let is_due = match one_more {
            OneMore::Never => false,
            OneMore::WhenLate => self.overdue_at().is_some_and(|at| at <= now),
            OneMore::AtOnce => true,
        };
        is_due && self.may_have_one_more()
    }

    /// When another transfer is to be begun, as far as that is known: once it may be tried again what is missing, or once one
    /// that is under way is to be overtaken by another.
    pub fn more_at(&self) -> Option<Monotonic> {
        if self.joining {
            None
        } else if self.is_enough_under_way() {
            self.overdue_at()
        } else {
            Some(self.attempts.retry_at())
        }
    }

    fn overdue_at(&self) -> Option<Monotonic> {
        if self.here.is_empty() || !self.may_have_one_more() {
            return None;
        }
        let patience = self.slowest.saturating_mul(SLOW_FACTOR) + SLOW_AT_LEAST;
        let first = self.running.iter().map(|running| running.began + patience).min()?;
        Some(first.max(self.attempts.retry_at()))
    }

    fn may_have_one_more(&self) -> bool {
        !self.runs_whole()
            && self.in_vain == 0
            && self.needed() > 1
            && self.shards_had() == self.needed()
            && self.open().any(|(_, node)| self.attempts.is_untried(node))
    }

    /// Whether nothing more is needed when all comes that is under way.
    fn is_enough_under_way(&self) -> bool {
        let is_of_use = self.holders.shards.is_some() && self.sets_left > 0;
        self.runs_whole() || (is_of_use && self.shards_had() >= self.goal())
    }

    fn runs_whole(&self) -> bool {
        self.running.iter().any(|running| running.part == Part::Whole)
    }

    fn needed(&self) -> usize {
        self.holders.shards.as_ref().map_or(1, |shards| shards.needed.into())
    }

    /// So many shards are to be here before they are joined.
    fn goal(&self) -> usize {
        self.needed().max(self.in_vain + 1)
    }

    /// Shards that are here or on their way.
    fn had(&self) -> impl Iterator<Item = ShardId> + '_ {
        let running = self.running.iter().filter_map(|running| running.part.shard());
        self.here.iter().copied().chain(running)
    }

    fn shards_had(&self) -> usize {
        self.had().count()
    }

    /// Begins another transfer.
    pub fn begin(&mut self, now: Monotonic, selector: &mut Selector, piece_bytes: u64, explore: Explore) -> More {
        let candidates = self.candidates(now, selector);
        let of = self.worthwhile(now, selector, candidates);
        let nodes: Vec<NodeUrl> = of.iter().map(|(_, node)| node.clone()).collect();
        match selector.begin(now, &nodes, &mut self.attempts, explore) {
            Begin::WaitUntil(at) => More::WaitUntil(at),
            Begin::Started(transfer, node) => {
                let part = of
                    .iter()
                    .find(|(_, of)| *of == node)
                    .map_or(Part::Whole, |(part, _)| *part);
                let shard_bytes = self.holders.shards.as_ref().map_or(0, |shards| shards.bytes);
                self.running.push(Running {
                    transfer,
                    part,
                    node: node.clone(),
                    bytes: part.shard().map_or(piece_bytes, |_| shard_bytes),
                    began: now,
                });
                More::Started(transfer, node, part)
            }
        }
    }

    /// A transfer ended well: what follows. None when it is not of this piece.
    pub fn done(&mut self, now: Monotonic, selector: &mut Selector, transfer: TransferId) -> Option<Arrived> {
        let at = self.running.iter().position(|running| running.transfer == transfer)?;
        let arrived = self.running.swap_remove(at);
        self.slowest = self.slowest.max(now.since(arrived.began));
        let Some(id) = arrived.part.shard() else {
            let spare = self.overtake(now, selector);
            return Some(Arrived::Whole { spare });
        };
        self.here.push(id);
        let sets = self.sets();
        if sets.is_empty() {
            return Some(Arrived::Partly);
        }
        self.sets_left -= sets.len();
        self.joining = true;
        let spare = self.overtake(now, selector);
        Some(Arrived::Joinable { sets, spare })
    }

    /// Sets of the shards that are here and may give the piece.
    fn sets(&mut self) -> Vec<Vec<ShardId>> {
        if self.here.len() < self.goal() {
            return Vec::new();
        }
        let sets = sets_with_the_last(&self.here, self.needed(), self.sets_left);
        if sets.is_empty() {
            // It is as good as another that is here.
            self.in_vain = self.here.len();
        }
        sets
    }

    /// None of the sets of [`Arrived::Joinable`] gave the piece, though each shard is as it is listed.
    pub fn not_joined(&mut self) {
        if std::mem::take(&mut self.joining) {
            self.in_vain = self.here.len();
        }
    }

    /// Takes what is under way and not needed any more.
    fn overtake(&mut self, now: Monotonic, selector: &mut Selector) -> Vec<TransferId> {
        let late: Vec<Running> = self.running.drain(..).collect();
        late.iter()
            .for_each(|late| selector.overtaken(now, late.transfer, late.bytes));
        late.into_iter().map(|late| late.transfer).collect()
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
        let Running { part, node, .. } = self.running.swap_remove(at);
        let first_time = self.attempts.is_untried(&node);
        selector.failed(now, transfer, failure, &mut self.attempts)?;
        if first_time && matches!(failure, Failure::Missing | Failure::Corrupt) {
            // Its node is well: what else it has may be asked for, last of all.
            let round = self.attempts.rounds();
            self.bad.retain(|(of, ..)| *of == round);
            self.attempts.forgive(&node);
            self.bad.push((round, part, node));
        }
        if self.is_enough_under_way() {
            // It was one more than is needed: the round goes on with the others.
            return Some(Verdict::TryAnother);
        }
        let left: Vec<NodeUrl> = self.copies().chain(self.open()).map(|(_, node)| node.clone()).collect();
        Some(selector.verdict(now, &left, &mut self.attempts))
    }

    /// Who could be asked for the same in the place of a transfer that is under way.
    pub(crate) fn instead_of(&self, part: Part) -> Vec<NodeUrl> {
        let nodes = |(_, node): (Part, &NodeUrl)| node.clone();
        match part {
            Part::Whole => self.copies().map(nodes).collect(),
            Part::Shard(_) => self.open().map(nodes).collect(),
        }
    }

    /// Takes everything under way, to be given up.
    pub fn give_up(&mut self) -> Vec<TransferId> {
        self.running.drain(..).map(|running| running.transfer).collect()
    }

    /// Replicas that may give all of it.
    fn copies(&self) -> impl Iterator<Item = (Part, &NodeUrl)> {
        let whole = self.holders.whole.iter().map(|node| (Part::Whole, node));
        whole.filter(|(part, node)| !self.is_bad(*part, node))
    }

    /// Shards that are of use and neither here nor under way, each with a node that may give it.
    fn open(&self) -> impl Iterator<Item = (Part, &NodeUrl)> {
        let shards = self.holders.shards.as_ref().filter(|_| self.sets_left > 0);
        let of_use = shards.into_iter().flat_map(|shards| &shards.at);
        let of_use = of_use.filter(|(id, _)| !self.is_had(*id));
        let located = of_use.map(|(id, node)| (Part::Shard(*id), node));
        located.filter(|(part, node)| !self.is_bad(*part, node))
    }

    /// Whether a shard is here or on its way; or one with its index, which is as good as long as none came in vain.
    fn is_had(&self, id: ShardId) -> bool {
        self.had()
            .any(|other| other == id || (self.in_vain == 0 && other.index == id.index))
    }

    fn is_bad(&self, part: Part, node: &NodeUrl) -> bool {
        let round = self.attempts.rounds();
        self.bad
            .iter()
            .any(|(of, bad, at)| (*of, *bad) == (round, part) && at == node)
    }

    /// Of whom one is asked next.
    fn candidates(&self, now: Monotonic, selector: &Selector) -> Vec<(Part, NodeUrl)> {
        let untried = |(_, node): &(Part, &NodeUrl)| self.attempts.is_untried(node);
        let is_ready = |(_, node): &(Part, &NodeUrl)| selector.is_ready(now, node, &self.attempts);
        let copies: Vec<(Part, &NodeUrl)> = self.copies().filter(untried).collect();
        let shards: Vec<(Part, &NodeUrl)> = self.open().filter(untried).collect();
        let ready: Vec<(Part, &NodeUrl)> = shards.iter().copied().filter(is_ready).collect();
        let chosen = if copies.is_empty() || (self.is_running() && self.suffice(&shards)) {
            shards
        } else if !copies.iter().any(is_ready) && self.suffice(&ready) {
            ready
        } else {
            copies
        };
        chosen.into_iter().map(|(part, node)| (part, node.clone())).collect()
    }

    /// Whether the piece may come of these shards, with those that are here or under way.
    fn suffice(&self, more: &[(Part, &NodeUrl)]) -> bool {
        let more_ids = more.iter().filter_map(|(part, _)| part.shard());
        let indexes: BTreeSet<u8> = self.had().chain(more_ids).map(|id| id.index).collect();
        !more.is_empty() && indexes.len() >= self.needed()
    }

    /// Those of `candidates` to choose from: the shards that need no decoding, as long as they do not take much longer.
    fn worthwhile(
        &self,
        now: Monotonic,
        selector: &Selector,
        candidates: Vec<(Part, NodeUrl)>,
    ) -> Vec<(Part, NodeUrl)> {
        let Some(shards) = &self.holders.shards else {
            return candidates;
        };
        let expected: Vec<Option<Duration>> = candidates
            .iter()
            .map(|(_, node)| selector.expected(now, node, shards.bytes, &self.attempts))
            .collect();
        let best = expected.iter().filter_map(|expected| *expected).min();
        let most = best.map(|best| best.mul_f64(WORTH_NO_DECODING).max(best + WORTH_NO_DECODING_AT_LEAST));
        let is_plain = |part: Part| part.shard().is_some_and(|id| id.index < shards.needed);
        let near = |expected: Option<Duration>| match (expected, most) {
            (Some(expected), Some(most)) => expected <= most,
            // Of nobody anything is known.
            (None, None) => true,
            _ => false,
        };
        let plain = candidates
            .iter()
            .zip(&expected)
            .filter(|((part, _), expected)| is_plain(*part) && near(**expected));
        let plain: Vec<(Part, NodeUrl)> = plain.map(|(one, _)| one.clone()).collect();
        if plain.is_empty() { candidates } else { plain }
    }
}

/// What came of a transfer that ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrived {
    /// More is needed.
    Partly,
    /// It is here.
    Whole {
        /// Under way, and not needed any more: to be cancelled.
        spare: Vec<TransferId>,
    },
    /// As many shards are here as are needed: to be joined. When that does not give the piece, [`Gathering::not_joined`].
    Joinable {
        /// Sets of them, to be tried in this order.
        sets: Vec<Vec<ShardId>>,
        /// Under way, and not needed any more: to be cancelled.
        spare: Vec<TransferId>,
    },
}

#[cfg(test)]
mod tests;
