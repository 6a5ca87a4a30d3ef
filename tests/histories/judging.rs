//! Whether what was recorded can be: every register's history, and its votes on the nodes at the end.

use std::collections::{BTreeMap, BTreeSet};

use vstack_chunkpaxos::{Ballot, Placement, Reply};
use vstack_linear::{Answer, ChunkRegister, History, Operation, Verdict, check};
use vstack_types::{ChunkId, NodeRef};

use crate::{
    callers::FOR_SERVICE,
    recorder::{Record, ballots_with_two_values},
};

/// Far more than any history needed.
const CONFIGURATIONS_MAX: usize = 5_000_000;

/// What an acceptor said about a register at the end.
pub struct Vote {
    pub node: NodeRef,
    pub state: Reply,
}

/// Calls by how they ended.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub decided: usize,
    pub refused: usize,
    pub nothing: usize,
    pub unknown: usize,
    pub attempts: usize,
    /// Answered calls that overlap another one of the same register.
    pub overlapping: usize,
    /// Answers of the metadata service, which had proposed for a caller; they are counted above too.
    pub asked_service: usize,
    /// What it was asked for and did not answer.
    pub service_unknown: usize,
    pub versions: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.decided += other.decided;
        self.refused += other.refused;
        self.nothing += other.nothing;
        self.unknown += other.unknown;
        self.attempts += other.attempts;
        self.overlapping += other.overlapping;
        self.asked_service += other.asked_service;
        self.service_unknown += other.service_unknown;
        self.versions += other.versions;
    }
}

pub fn verdict(initial: &[NodeRef], history: &History<Operation, Answer>) -> Verdict<Option<Placement>> {
    let register = ChunkRegister {
        initial: initial.to_vec(),
    };
    check(&register, history, CONFIGURATIONS_MAX)
}

/// Panics unless the register's history is one that can be and the votes agree with it; gives the placements it went
/// through, by version.
pub fn judge(chunk: &ChunkId, record: &Record, votes: &[Vote]) -> BTreeMap<u64, Placement> {
    let order = match verdict(&record.initial, &record.history) {
        Verdict::Linearizable(order) => order,
        verdict => panic!("{chunk} {}", explain(record, &verdict)),
    };
    let chain: BTreeMap<u64, Placement> = order
        .into_iter()
        .filter_map(|step| step.state.map(|placement| (placement.version, placement)))
        .collect();
    let twice = ballots_with_two_values(&record.sent);
    assert!(twice.is_empty(), "{chunk}: ballots with two values: {twice:?}");
    check_votes(chunk, &chain, votes);
    chain
}

/// A1 as the acceptors remember it: what any of them knows to be decided, and what a quorum of them voted for, is in the
/// one chain that the callers saw, and no ballot has two values.
fn check_votes(chunk: &ChunkId, chain: &BTreeMap<u64, Placement>, votes: &[Vote]) {
    let mut in_ballot: BTreeMap<Ballot, (&Placement, BTreeSet<NodeRef>)> = BTreeMap::new();
    for vote in votes {
        let Reply::State {
            accepted,
            decided,
            damaged,
            ..
        } = &vote.state
        else {
            panic!("{chunk}: {} answered {:?}", vote.node, vote.state);
        };
        assert!(!damaged, "{chunk}: {} is damaged", vote.node);
        let Some(accepted) = accepted else { continue };
        let (first, voters) = in_ballot
            .entry(accepted.ballot)
            .or_insert((&accepted.placement, BTreeSet::new()));
        assert_eq!(
            **first, accepted.placement,
            "{chunk}: two values in {}",
            accepted.ballot
        );
        voters.insert(vote.node);
        if *decided {
            let version = accepted.placement.version;
            let in_chain = chain.get(&version);
            assert_eq!(in_chain, Some(&accepted.placement), "{chunk}: decided at {}", vote.node);
        }
    }
    for (ballot, (placement, voters)) in in_ballot {
        if placement.quorum(|node| voters.contains(&node)) {
            let in_chain = chain.get(&placement.version);
            assert_eq!(in_chain, Some(placement), "{chunk}: a quorum voted for it in {ballot}");
        }
    }
}

pub fn count(record: &Record, chain: &BTreeMap<u64, Placement>) -> Counts {
    let mut counts = Counts {
        versions: chain.keys().last().copied().unwrap_or_default(),
        unknown: record.given_up,
        ..Counts::default()
    };
    let calls = record.history.calls();
    for call in calls {
        let by_service = usize::from(call.process >= FOR_SERVICE && call.process != u32::MAX);
        let Some((until, answer)) = &call.answered else {
            counts.service_unknown += by_service;
            match call.operation {
                Operation::OwnersPut { .. } => counts.unknown += 1,
                Operation::Wish { .. } | Operation::Attempt { .. } => counts.attempts += 1,
            }
            continue;
        };
        let overlaps = calls.iter().any(|other| {
            let (asked, others) = (other.invoked, other.answered.as_ref());
            !std::ptr::eq(call, other) && others.is_some_and(|(end, _)| asked < *until && call.invoked < *end)
        });
        counts.overlapping += usize::from(overlaps);
        counts.asked_service += by_service;
        match answer {
            Answer::Decided(_) => counts.decided += 1,
            Answer::Nothing => counts.nothing += 1,
            Answer::Refused(_) | Answer::Shut => counts.refused += 1,
        }
    }
    counts
}

/// The end of what could be ordered, and the call that has no place after it.
fn explain(record: &Record, verdict: &Verdict<Option<Placement>>) -> String {
    let Verdict::Violated { longest, stuck } = verdict else {
        return format!("was not judged: {verdict:?}");
    };
    let calls = record.history.calls();
    let mut text = format!(
        "is not linearizable: {} of {} calls can be ordered, the last ones being\n",
        longest.len(),
        calls.len()
    );
    for step in longest.iter().rev().take(6).rev() {
        text.push_str(&format!("  {:?}\n    -> {:?}\n", calls[step.call], step.state));
    }
    text.push_str(&format!("and then there is no place for\n  {:?}\n", calls[*stuck]));
    text.push_str("everything that was recorded of it:\n");
    let mut lines: Vec<_> = calls.iter().map(|call| (call.invoked, format!("{call:?}"))).collect();
    lines.extend(record.sent.iter().map(|sent| (sent.first, format!("{sent:?}"))));
    lines.sort();
    for (at, line) in lines {
        text.push_str(&format!("  {at:?} {line}\n"));
    }
    text
}
