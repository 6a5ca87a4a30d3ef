//! What deciding costs proposers, as metrics: the same names in every service that proposes.
//!
//! Sums by path, to be divided by the number of decisions: `vstack_commit_messages_total{path="fast"}` over
//! `vstack_commit_decisions_total{path="fast"}` is messages per decision. What went into proposals that decided
//! nothing is in the sums too; it was paid.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// How something was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitPath {
    /// Round 0: the vote rides on the bytes.
    Fast,
    /// Two phases.
    Classic,
}

impl CommitPath {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Classic => "classic",
        }
    }
}

type PathLabel = [(&'static str, &'static str); 1];

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct CommitCosts {
    decisions: Family<PathLabel, Counter>,
    messages: Family<PathLabel, Counter>,
    round_trips: Family<PathLabel, Counter>,
    votes: Family<PathLabel, Counter>,
}

impl CommitCosts {
    /// None yet, printed by `registry`.
    pub fn registered(registry: &mut Registry) -> Self {
        let costs = Self::default();
        costs.register(registry);
        costs
    }

    /// Has `registry` print them.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, family) in [
            ("vstack_commit_decisions", "Placements decided", &self.decisions),
            (
                "vstack_commit_messages",
                "Requests sent and answers received to decide",
                &self.messages,
            ),
            (
                "vstack_commit_round_trips",
                "Waits for answers, one after the other, until the decision",
                &self.round_trips,
            ),
            (
                "vstack_commit_votes",
                "Promises and acceptances received, each durable at its node",
                &self.votes,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
    }

    /// A placement was decided.
    pub fn decided(&self, path: CommitPath) {
        self.decisions.get_or_create(&[("path", path.as_str())]).inc();
    }

    /// So much was spent on deciding.
    pub fn spent(&self, path: CommitPath, messages: u64, round_trips: u64, votes: u64) {
        let label = [("path", path.as_str())];
        self.messages.get_or_create(&label).inc_by(messages);
        self.round_trips.get_or_create(&label).inc_by(round_trips);
        self.votes.get_or_create(&label).inc_by(votes);
    }
}
