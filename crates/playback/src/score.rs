//! The score of a node and the order in which the replicas of a chunk are asked. Pure functions, shared with the
//! browser's player through `vectors/scores.json`.

use crate::{Gate, NodeUrl};

/// How much a millisecond of round trip costs in the score.
const LATENCY_COST: f64 = 0.1;

/// `(bandwidth_mbps * reliability) / (1 + latency_ms * 0.1)`, with reliability from 0 to 1.
pub fn score(measure: Measure, latency_ms: f64) -> f64 {
    measure.bandwidth_mbps * measure.reliability / (1.0 + latency_ms * LATENCY_COST)
}

/// What transfers from a node showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// Smoothed rate.
    pub bandwidth_mbps: f64,
    /// Share of the last events that went well, 0 to 1.
    pub reliability: f64,
}

/// A replica that could be asked for a chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which node.
    pub node: NodeUrl,
    /// None while nothing was transferred from it.
    pub measure: Option<Measure>,
    /// None while no ping came back.
    pub latency_ms: Option<f64>,
    /// Our own transfers that run from it.
    pub pending: u32,
    /// Whether it may be asked.
    pub gate: Gate,
    /// Its rate was measured long ago.
    pub stale: bool,
    /// It was the last to fail for this chunk, or gave corrupt bytes for it.
    pub avoid: bool,
}

impl Candidate {
    fn latency_or_last(&self) -> f64 {
        self.latency_ms.unwrap_or(f64::INFINITY)
    }

    /// The score shared among our own transfers, so that they do not all go to one node.
    fn weight(&self) -> Option<f64> {
        let measure = self.measure?;
        Some(score(measure, self.latency_ms.unwrap_or(0.0)) / f64::from(self.pending.saturating_add(1)))
    }
}

/// How much may be risked to learn about nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explore {
    /// Nothing: playback waits for this chunk.
    No,
    /// Nodes that never gave anything may be tried.
    Unmeasured,
    /// So may nodes that failed or were measured long ago: the buffer bears a slow answer.
    All,
}

/// The classes of candidates, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Explored,
    Measured,
    Unmeasured,
    Probe,
    BackingOff,
    Avoided,
}

fn class(candidate: &Candidate, explore: Explore) -> Class {
    let measured = candidate.measure.is_some();
    let idle = candidate.pending == 0;
    match candidate.gate {
        _ if candidate.avoid => Class::Avoided,
        Gate::BackingOff => Class::BackingOff,
        Gate::Probe if idle && explore == Explore::All => Class::Explored,
        Gate::Probe if idle => Class::Probe,
        // One probe at a time: the rest wait for its outcome.
        Gate::Probe => Class::BackingOff,
        Gate::Ready if idle && !measured && explore != Explore::No => Class::Explored,
        Gate::Ready if idle && candidate.stale && explore == Explore::All => Class::Explored,
        Gate::Ready if measured => Class::Measured,
        Gate::Ready => Class::Unmeasured,
    }
}

/// The order in which to ask, as indices into `candidates`. Equal ones keep their order: shuffle before, so that
/// many clients do not all prefer the same.
pub fn rank(candidates: &[Candidate], explore: Explore) -> Vec<usize> {
    let mut order: Vec<(Class, usize)> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| (class(candidate, explore), index))
        .collect();
    order.sort_by(|(a_class, a), (b_class, b)| {
        let (a, b) = (&candidates[*a], &candidates[*b]);
        a_class.cmp(b_class).then_with(|| match a_class {
            Class::Measured | Class::BackingOff | Class::Avoided => {
                b.weight().unwrap_or(-1.0).total_cmp(&a.weight().unwrap_or(-1.0))
            }
            Class::Explored | Class::Unmeasured | Class::Probe => a
                .pending
                .cmp(&b.pending)
                .then(a.latency_or_last().total_cmp(&b.latency_or_last())),
        })
    });
    order.into_iter().map(|(_, index)| index).collect()
}
