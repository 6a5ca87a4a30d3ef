//! What one chunk's round 0 costs: messages, votes, and how many requests stood one after the other.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use vstack_chunkpaxos::Reply;
use vstack_client::ClientError;
use vstack_service::commit_costs::{CommitCosts, CommitPath};
use vstack_types::NodeUuid;

/// Shared by the requests of a chunk.
#[derive(Debug, Default)]
pub struct Spent {
    messages: AtomicU64,
    votes: AtomicU64,
    /// Requests to each node so far. Each was sent because of the answer to the one before, or its absence.
    chains: Mutex<BTreeMap<NodeUuid, u64>>,
}

impl Spent {
    /// A request goes out.
    pub fn sent(&self, to: NodeUuid) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        *chains.entry(to).or_default() += 1;
    }

    /// What came of a request. Whoever refuses answers too.
    pub fn heard(&self, answer: Result<&Reply, &ClientError>) {
        let answered = matches!(answer, Ok(_) | Err(ClientError::Refused { .. }));
        self.messages.fetch_add(u64::from(answered), Ordering::Relaxed);
        let vote = matches!(answer, Ok(Reply::Accepted { .. }));
        self.votes.fetch_add(u64::from(vote), Ordering::Relaxed);
    }

    /// The longest chain of requests to one of `nodes`.
    pub fn round_trips(&self, nodes: impl Iterator<Item = NodeUuid>) -> u64 {
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.filter_map(|node| chains.get(&node).copied()).max().unwrap_or(0)
    }

    /// Puts what was spent since the last time on the bill.
    pub fn bill(&self, costs: &CommitCosts, path: CommitPath, round_trips: u64) {
        let messages = self.messages.swap(0, Ordering::Relaxed);
        let votes = self.votes.swap(0, Ordering::Relaxed);
        costs.spent(path, messages, round_trips, votes);
    }
}
