//! Counting the votes of one chunk's round 0. Pure.
//!
//! Only acceptances of round 0 in the owner's own ballot are counted, each acceptor once; an acceptor that refused or
//! cannot answer may still be asked again as long as the chunk is open, because the owner may repeat its vote.

use std::collections::BTreeMap;

use vstack_chunkpaxos::{Ballot, Placement, Reply};
use vstack_types::NodeRef;

/// How an acceptor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Not heard of, or it may yet answer otherwise.
    Open,
    /// Its vote counts.
    Accepted,
    /// Another proposer was there: round 0 is over for this acceptor.
    Outvoted,
    /// It will not take this chunk from us, whoever proposes.
    Unable,
}

/// How the chunk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Votes are still to come.
    Open,
    /// A majority accepted.
    Decided,
    /// Round 0 can no longer decide; the classic path may.
    Classic,
    /// No majority is able to take the chunk.
    Impossible,
}

/// What the answer to a [`Request::Read`](vstack_chunkpaxos::Request::Read) says of a vote for `placement` in `ballot`
/// that was sent before; none when it was not cast and may be sent again.
pub fn outcome_of(ballot: Ballot, placement: &Placement, read: Reply) -> Option<Reply> {
    let Reply::State {
        promised,
        accepted,
        damaged,
        holds,
        ..
    } = read
    else {
        // Another disk sits there, say.
        return Some(read);
    };
    if damaged {
        return Some(Reply::Damaged);
    }
    // A vote once cast stays cast, whatever was promised after it. Without the bytes it was learned, not cast.
    if holds && accepted.is_some_and(|vote| vote.ballot == ballot && vote.placement == *placement) {
        return Some(Reply::Accepted { ballot });
    }
    (promised > Some(ballot)).then_some(Reply::Nack { promised })
}

/// The votes for one placement.
#[derive(Debug, Clone)]
pub struct Tally {
    ballot: Ballot,
    placement: Placement,
    stands: BTreeMap<NodeRef, Stand>,
}

impl Tally {
    /// Before any vote.
    pub fn new(ballot: Ballot, placement: Placement) -> Self {
        let stands = placement.nodes().into_iter().map(|node| (node, Stand::Open)).collect();
        Self {
            ballot,
            placement,
            stands,
        }
    }

    /// Notes what `node` said. Strangers are ignored, and a vote once cast stays cast.
    pub fn on_reply(&mut self, node: NodeRef, reply: &Reply) {
        let stand = match reply {
            Reply::Accepted { ballot } if *ballot == self.ballot => Stand::Accepted,
            Reply::Nack { .. } if vstack_types::planted!("a refused vote counts") => Stand::Accepted,
            Reply::Nack { .. } => Stand::Outvoted,
            Reply::Damaged | Reply::WrongNode => Stand::Unable,
            // The bytes travel with the vote: whoever still lacks them did not keep them, and may the next time.
            _ => Stand::Open,
        };
        self.set(node, stand);
    }

    /// `node` refused the bytes for a reason that another try does not change.
    pub fn on_refusal(&mut self, node: NodeRef) {
        self.set(node, Stand::Unable);
    }

    fn set(&mut self, node: NodeRef, stand: Stand) {
        if let Some(known) = self.stands.get_mut(&node)
            && *known != Stand::Accepted
        {
            *known = stand;
        }
    }

    /// How `node` stands.
    pub fn stand(&self, node: NodeRef) -> Option<Stand> {
        self.stands.get(&node).copied()
    }

    /// Those whose stand is `stand`.
    pub fn nodes(&self, stand: Stand) -> Vec<NodeRef> {
        self.stands
            .iter()
            .filter(|(_, known)| **known == stand)
            .map(|(node, _)| *node)
            .collect()
    }

    /// How the chunk stands now.
    pub fn outcome(&self) -> Outcome {
        let quorum = |stands: &[Stand]| {
            let stands = |node| self.stand(node).is_some_and(|s| stands.contains(&s));
            // What is coded from the start has to be settled, too, and a majority of shards is not enough for that.
            let is_first_coded = self.placement.is_first_coded()
                && !vstack_types::planted!("a coded first version is told before it is settled");
            self.placement.quorum(stands) && (!is_first_coded || self.placement.may_settle(stands))
        };
        let enough = vstack_types::planted!("one vote decides") && !self.nodes(Stand::Accepted).is_empty();
        if quorum(&[Stand::Accepted]) || enough {
            Outcome::Decided
        } else if !quorum(&[Stand::Accepted, Stand::Open, Stand::Outvoted]) {
            Outcome::Impossible
        } else if quorum(&[Stand::Accepted, Stand::Open]) {
            Outcome::Open
        } else if vstack_types::planted!("an overtaken round decides") {
            Outcome::Decided
        } else {
            Outcome::Classic
        }
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::{Layout, Vote};
    use vstack_types::{Digest, NodeUuid, ProcessUuid};

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn tally(nodes: u8) -> (Tally, Ballot) {
        let ballot = Ballot::zero(ProcessUuid::from_bytes([9; 16]));
        let layout = Layout::Replicated {
            nodes: (1..=nodes).map(node).collect(),
        };
        let sha256 = Digest::of(b"x");
        (
            Tally::new(
                ballot,
                Placement {
                    version: 1,
                    size: 1,
                    sha256,
                    layout,
                    prev: None,
                    back: false,
                },
            ),
            ballot,
        )
    }

    #[test]
    fn a_majority_decides_and_nothing_less() {
        let yes = |ballot| Some(Reply::Accepted { ballot });
        let own = tally(3).1;
        let other = Ballot { round: 1, ..own };
        let nack = || Some(Reply::Nack { promised: Some(other) });
        // None stands for a refusal of the bytes.
        type Answers = Vec<(u8, Option<Reply>)>;
        let table: [(u8, Answers, Outcome); 12] = [
            (3, vec![], Outcome::Open),
            (3, vec![(1, yes(own))], Outcome::Open),
            (3, vec![(1, yes(own)), (1, yes(own))], Outcome::Open),
            (3, vec![(1, yes(own)), (3, yes(own))], Outcome::Decided),
            (3, vec![(1, yes(own)), (3, yes(other))], Outcome::Open),
            (3, vec![(1, yes(own)), (7, yes(own))], Outcome::Open),
            (3, vec![(1, yes(own)), (2, nack())], Outcome::Open),
            (3, vec![(1, nack()), (2, nack())], Outcome::Classic),
            (3, vec![(1, None), (2, Some(Reply::Damaged))], Outcome::Impossible),
            (3, vec![(1, None), (2, nack())], Outcome::Classic),
            (3, vec![(1, yes(own)), (2, yes(own)), (1, nack())], Outcome::Decided),
            (1, vec![(1, yes(own))], Outcome::Decided),
        ];
        for (nodes, answers, expected) in table {
            let (mut tally, _) = tally(nodes);
            for (from, reply) in &answers {
                match reply {
                    Some(reply) => tally.on_reply(node(*from), reply),
                    None => tally.on_refusal(node(*from)),
                }
            }
            assert_eq!(tally.outcome(), expected, "{nodes} nodes, {answers:?}");
        }
    }

    #[test]
    fn a_vote_that_was_cast_is_found_again_and_no_other() {
        let (tally, ballot) = tally(3);
        let placement = tally.placement;
        let higher = Ballot { round: 3, ..ballot };
        let other = Placement {
            sha256: Digest::of(b"y"),
            ..placement.clone()
        };
        let vote = |ballot, placement: &Placement| {
            Some(Vote {
                ballot,
                placement: placement.clone(),
            })
        };
        let yes = Some(Reply::Accepted { ballot });
        let nack = Some(Reply::Nack { promised: Some(higher) });
        let table = [
            (None, None, false, None),
            (Some(ballot), vote(ballot, &placement), false, yes.clone()),
            (Some(higher), vote(ballot, &placement), false, yes),
            (Some(ballot), vote(ballot, &other), false, None),
            (Some(higher), vote(higher, &placement), false, nack.clone()),
            (Some(higher), None, false, nack),
            (Some(ballot), vote(ballot, &placement), true, Some(Reply::Damaged)),
        ];
        let learned = Reply::State {
            promised: None,
            accepted: vote(ballot, &placement),
            decided: true,
            damaged: false,
            holds: false,
        };
        assert_eq!(outcome_of(ballot, &placement, learned), None);
        for (promised, accepted, damaged, expected) in table {
            let state = Reply::State {
                promised,
                accepted,
                decided: false,
                damaged,
                holds: true,
            };
            assert_eq!(outcome_of(ballot, &placement, state.clone()), expected, "{state:?}");
        }
        assert_eq!(outcome_of(ballot, &placement, Reply::WrongNode), Some(Reply::WrongNode));
    }

    #[test]
    fn who_is_missing_is_known() {
        let (mut tally, ballot) = tally(3);
        tally.on_reply(node(2), &Reply::Accepted { ballot });
        tally.on_refusal(node(3));
        assert_eq!(tally.nodes(Stand::Accepted), [node(2)]);
        assert_eq!(tally.nodes(Stand::Open), [node(1)]);
        assert_eq!(tally.nodes(Stand::Unable), [node(3)]);
    }
}
