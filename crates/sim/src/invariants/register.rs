//! One value a ballot, one chain of decisions, nothing after a deletion, and nobody tells of a decision that is none.

use std::collections::{BTreeMap, BTreeSet};

use vstack_chunkpaxos::{Ballot, Placement, Reply};
use vstack_types::NodeRef;

/// What was seen of one register, on all nodes.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    values: BTreeMap<Ballot, Placement>,
    votes: BTreeMap<Ballot, BTreeSet<NodeRef>>,
    /// The version that each ballot with a quorum decided: rising as the ballots do.
    decided_in: BTreeMap<Ballot, u64>,
    /// Decided placements by version.
    pub chain: BTreeMap<u64, Placement>,
}

impl Seen {
    /// Whether any value was ever proposed.
    pub(crate) fn was_sent(&self) -> bool {
        !self.values.is_empty()
    }

    /// The first version, as decided.
    pub(crate) fn first(&self) -> Option<&Placement> {
        self.chain.get(&1)
    }

    /// The last decision.
    pub(crate) fn current(&self) -> Option<&Placement> {
        self.chain.last_key_value().map(|(_, placement)| placement)
    }

    /// What was decided, and what somebody voted for: it may be decided yet, and then nothing else.
    pub(crate) fn standing(&self) -> Vec<Placement> {
        let voted = self.votes.keys().filter_map(|ballot| self.values.get(ballot));
        self.chain.values().chain(voted).cloned().collect()
    }

    /// Whether `node` voted for `placement`, in any ballot.
    pub(crate) fn voted(&self, node: NodeRef, placement: &Placement) -> bool {
        self.votes.iter().any(|(ballot, voters)| {
            voters.contains(&node) && self.values.get(ballot).is_some_and(|value| value == placement)
        })
    }

    /// A value was proposed.
    pub(crate) fn offered(&mut self, ballot: Ballot, placement: &Placement) -> Result<(), String> {
        match self.values.get(&ballot) {
            Some(value) if value != placement => {
                Err(format!("two values in ballot {ballot}: {value:?} and {placement:?}"))
            }
            Some(_) => Ok(()),
            None => {
                self.values.insert(ballot, placement.clone());
                Ok(())
            }
        }
    }

    /// An acceptor replied.
    pub(crate) fn replied(&mut self, node: NodeRef, reply: &Reply) -> Result<(), String> {
        match reply {
            Reply::Accepted { ballot } => self.vote(*ballot, node),
            // What is known there to be decided may have come as news; then it is no vote.
            Reply::Promise {
                accepted: Some(vote),
                decided: false,
                ..
            }
            | Reply::State {
                accepted: Some(vote),
                decided: false,
                ..
            } => {
                self.offered(vote.ballot, &vote.placement)?;
                self.vote(vote.ballot, node)
            }
            _ => Ok(()),
        }
    }

    fn vote(&mut self, ballot: Ballot, node: NodeRef) -> Result<(), String> {
        let voters = self.votes.entry(ballot).or_default();
        if !voters.insert(node) {
            return Ok(());
        }
        let Some(value) = self.values.get(&ballot) else {
            return Err(format!(
                "{node} voted in ballot {ballot}, in which nothing was proposed"
            ));
        };
        if !value.nodes().contains(&node) {
            return Err(format!("{node} has a vote for {value:?}, of which it is no acceptor"));
        }
        if value.quorum(|node| voters.contains(&node)) {
            let value = value.clone();
            return self.decided(ballot, value);
        }
        Ok(())
    }

    fn decided(&mut self, ballot: Ballot, placement: Placement) -> Result<(), String> {
        // An older placement that gets a majority again, above the ballot that decided its successor, is a split.
        let version = placement.version;
        let below = self.decided_in.range(..ballot).find(|(_, other)| **other > version);
        let above = self.decided_in.range(ballot..).find(|(_, other)| **other < version);
        if let Some((other, there)) = below.or(above) {
            return Err(format!(
                "{placement:?} was decided in {ballot}, and version {there} in {other}"
            ));
        }
        self.decided_in.insert(ballot, version);
        if let Some(there) = self.chain.get(&placement.version) {
            return if *there == placement {
                Ok(())
            } else {
                Err(format!("two decisions of one version: {there:?} and {placement:?}"))
            };
        }
        if let Some((_, gone)) = self
            .chain
            .range(..placement.version)
            .find(|(_, before)| before.layout.is_deleted())
        {
            return Err(format!("{placement:?} was decided after the deletion {gone:?}"));
        }
        // What was coded from the start and given up may get its majority behind that: nobody was told that it is stored.
        let given_up = |later: &Placement| placement.is_first_coded() && later.layout.is_deleted();
        if let Some((_, later)) = self.chain.range(placement.version..).next() {
            if given_up(later) {
                return Ok(());
            }
            return Err(format!("{placement:?} was decided after {later:?}"));
        }
        if placement.version > 1 {
            let Some(before) = self.chain.get(&(placement.version - 1)) else {
                if self.gives_up(&placement) {
                    self.chain.insert(placement.version, placement);
                    return Ok(());
                }
                return Err(format!("{placement:?} was decided, and no version before it"));
            };
            follows(before, &placement)?;
        }
        self.chain.insert(placement.version, placement);
        Ok(())
    }

    /// Whether it gives up a coded first version, which need not have been decided for that.
    fn gives_up(&self, placement: &Placement) -> bool {
        let mut first = self.values.values().filter(|value| value.is_first_coded());
        placement.version == 2 && first.any(|first| follows(first, placement).is_ok())
    }

    /// Somebody says that `placement` was decided in `ballot`.
    pub(crate) fn told(&mut self, ballot: Ballot, placement: &Placement) -> Result<(), String> {
        if self.chain.get(&placement.version) == Some(placement) {
            return Ok(());
        }
        Err(format!(
            "somebody tells of a decision that is none: {placement:?} in {ballot}"
        ))
    }
}

impl Seen {
    /// Nothing can be decided any more, and its survivors were told that it is deleted: so it is, for good.
    pub(crate) fn buried(&mut self, placement: &Placement) {
        self.chain.insert(placement.version, placement.clone());
    }
}

/// Whether `after` is what can be made of `before`.
fn follows(before: &Placement, after: &Placement) -> Result<(), String> {
    let same_bytes = (before.size, before.sha256) == (after.size, after.sha256);
    let legal = match (&before.prev, before.back) {
        (None, _) if after.layout.is_deleted() => after.prev.is_none(),
        (None, _) => after.prev.as_ref() == Some(&before.layout) && !after.back,
        (Some(prev), false) if prev.is_nothing() && after.layout.is_deleted() => {
            after.prev.is_none() && after.layout.nodes() == before.layout.nodes()
        }
        (Some(prev), false) => {
            let settled = after.prev.is_none() && after.layout == before.layout;
            let turned = after.back && after.layout == *prev && after.prev.as_ref() == Some(&before.layout);
            settled || turned
        }
        (Some(_), true) => after.prev.is_none() && after.layout == before.layout,
    };
    if legal && same_bytes {
        Ok(())
    } else {
        Err(format!("{after:?} was not made from {before:?}"))
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Layout;
    use vstack_types::{Digest, NodeUuid, ProcessUuid};

    use super::*;

    fn decide(seen: &mut Seen, round: u64, placement: &Placement) -> Result<(), String> {
        let proposer = ProcessUuid::from_bytes([1; 16]);
        let ballot = Ballot { round, proposer };
        seen.offered(ballot, placement)?;
        let mut voters = placement.nodes().into_iter();
        voters.try_for_each(|node| seen.replied(node, &Reply::Accepted { ballot }))
    }

    #[test]
    fn what_is_coded_from_the_start_may_be_given_up_and_decided_behind_that() {
        let node = |n: u8| NodeRef::first(NodeUuid::from_bytes([n; 16]));
        let shard = |index: u8| vstack_chunkpaxos::Shard {
            index,
            node: node(index),
            sha256: Digest::of(&[index]),
        };
        let first = Placement {
            version: 1,
            size: 1,
            sha256: Digest::of(b"x"),
            layout: Layout::Coded {
                data: 2,
                parity: 1,
                shards: (0..3).map(shard).collect(),
            },
            prev: Some(Layout::nothing()),
            back: false,
        };
        let deleted = |nodes: &[u8]| Placement {
            version: 2,
            layout: Layout::Deleted {
                nodes: nodes.iter().copied().map(node).collect(),
            },
            prev: None,
            ..first.clone()
        };
        let mut seen = Seen::default();
        assert!(
            decide(&mut seen, 1, &deleted(&[0, 1, 2])).is_err(),
            "nothing was offered"
        );
        let mut seen = Seen::default();
        let owner = ProcessUuid::from_bytes([9; 16]);
        seen.offered(Ballot::zero(owner), &first).unwrap();
        assert!(decide(&mut seen, 1, &deleted(&[0, 1])).is_err(), "its acceptors stay");
        let mut seen = Seen::default();
        seen.offered(Ballot::zero(owner), &first).unwrap();
        assert_eq!(decide(&mut seen, 2, &deleted(&[0, 1, 2])), Ok(()));
        assert_eq!(decide(&mut seen, 1, &first), Ok(()), "the last votes of an old ballot");
        assert!(decide(&mut seen, 3, &first).is_err());
    }

    #[test]
    fn a_placement_decided_again_above_its_successor_is_a_split() {
        let nodes: Vec<_> = (1..=3).map(|n| NodeRef::first(NodeUuid::from_bytes([n; 16]))).collect();
        let first = Placement {
            version: 1,
            size: 1,
            sha256: Digest::of(b"x"),
            layout: Layout::Replicated { nodes: nodes.clone() },
            prev: None,
            back: false,
        };
        let second = Placement {
            version: 2,
            layout: Layout::Deleted { nodes },
            ..first.clone()
        };
        let mut seen = Seen::default();
        assert_eq!(decide(&mut seen, 1, &first), Ok(()));
        assert_eq!(decide(&mut seen, 3, &first), Ok(()), "completed once more");
        assert_eq!(decide(&mut seen, 4, &second), Ok(()));
        assert_eq!(decide(&mut seen, 2, &first), Ok(()), "the last votes of an old ballot");
        assert!(decide(&mut seen, 5, &first).is_err());
    }
}
