//! What was tried for one chunk: which replicas failed, which gave corrupt bytes, when the next round may start.

use std::time::Duration;

use vstack_types::Monotonic;

use crate::{NodeUrl, breaker::doubled, settings::SchedulerSettings};

/// The history of one chunk until it is there. A round is over when every replica failed once; then there is a pause,
/// longer each time, and it starts again.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    tried: Vec<NodeUrl>,
    corrupt: Vec<NodeUrl>,
    last: Option<NodeUrl>,
    rounds: u32,
    retry_at: Monotonic,
    failing_since: Option<Monotonic>,
    rescued: bool,
}

impl Attempts {
    /// When the next transfer may start.
    pub fn retry_at(&self) -> Monotonic {
        self.retry_at
    }

    /// Rounds in which every replica failed.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// For how long it could not be had, once all replicas failed.
    pub fn hopeless_for(&self, now: Monotonic) -> Duration {
        self.failing_since
            .filter(|_| self.rounds > 0)
            .map_or(Duration::ZERO, |since| now.since(since))
    }

    pub(crate) fn is_untried(&self, node: &NodeUrl) -> bool {
        !self.tried.contains(node)
    }

    /// Asked last of all: the node that failed last, and those whose copy is known to be damaged.
    pub(crate) fn avoids(&self, node: &NodeUrl) -> bool {
        self.last.as_ref() == Some(node) || self.corrupt.contains(node)
    }

    /// The last transfer failed, and it was another node's.
    pub(crate) fn is_failover_to(&self, node: &NodeUrl) -> bool {
        self.last.as_ref().is_some_and(|last| last != node)
    }

    pub(crate) fn was_rescued(&self) -> bool {
        self.rescued
    }

    pub(crate) fn rescue(&mut self) {
        self.rescued = true;
    }

    pub(crate) fn mark_corrupt(&mut self, node: &NodeUrl) {
        if !self.corrupt.contains(node) {
            self.corrupt.push(node.clone());
        }
    }

    /// Notes that `node` did not give the chunk.
    pub(crate) fn fail(&mut self, now: Monotonic, node: NodeUrl) {
        self.failing_since.get_or_insert(now);
        if self.is_untried(&node) {
            self.tried.push(node.clone());
        }
        self.last = Some(node);
    }

    /// `node` did not give what it was asked for, and may be asked for something else.
    pub(crate) fn forgive(&mut self, node: &NodeUrl) {
        self.tried.retain(|tried| tried != node);
    }

    /// Ends the round when nobody is left to ask; true when it did.
    pub(crate) fn end_round(
        &mut self,
        now: Monotonic,
        replicas: &[NodeUrl],
        settings: &SchedulerSettings,
        jitter: f64,
    ) -> bool {
        if replicas.iter().any(|node| self.is_untried(node)) {
            return false;
        }
        self.failing_since.get_or_insert(now);
        self.tried.clear();
        self.rounds = self.rounds.saturating_add(1);
        self.retry_at = now + doubled(settings.backoff_first, settings.backoff_max, self.rounds).mul_f64(jitter);
        true
    }
}
