//! The end of a register that can decide nothing any more, since too many of its acceptors are lost for good.
//!
//! What somebody may have decided with those who are lost cannot be found out any more, and whoever proposes gets no
//! quorum, not even for a deletion. Once nobody wants the chunk, its survivors are told that it is deleted by whoever
//! knows that those others never come back. That is no decision: it is right only because none can be made.

use vstack_types::{Digest, NodeRef, ProcessUuid};

use crate::{
    message::Vote,
    placement::{Ballot, Layout, Placement},
};

/// What a survivor says: what it promised, and what it accepted.
pub type Survivor = (Option<Ballot>, Option<Vote>);

/// Whether no quorum is left without those who are `lost`: of the newest placement that is known, or of those who were to
/// accept first.
pub fn is_beyond(known: Option<&Placement>, initial: &[NodeRef], lost: impl Fn(NodeRef) -> bool) -> bool {
    match known {
        Some(placement) => !placement.quorum(|node| !lost(node)),
        None => initial.iter().filter(|node| !lost(**node)).count() <= initial.len() / 2,
    }
}

/// What all `survivors` are to be told: that the chunk is deleted, in a ballot above everything they know. `known` is
/// what was learned elsewhere, `by` a process that proposes nothing else.
pub fn obituary(known: Option<&Placement>, initial: &[NodeRef], survivors: &[Survivor], by: ProcessUuid) -> Vote {
    let votes = survivors.iter().filter_map(|(_, accepted)| accepted.as_ref());
    let newest = votes.clone().map(|vote| &vote.placement).chain(known);
    let newest = newest.max_by_key(|placement| placement.version);
    let promises = survivors.iter().filter_map(|(promised, _)| *promised);
    let round = promises
        .chain(votes.map(|vote| vote.ballot))
        .map(|ballot| ballot.round)
        .max();
    Vote {
        ballot: Ballot {
            round: round.unwrap_or_default().saturating_add(1),
            proposer: by,
        },
        placement: Placement {
            version: newest.map_or(0, |placement| placement.version).saturating_add(1),
            size: newest.map_or(0, |placement| placement.size),
            sha256: newest.map_or_else(|| Digest::of(b""), |placement| placement.sha256),
            layout: Layout::Deleted {
                nodes: newest.map_or_else(|| initial.to_vec(), |placement| placement.layout.nodes()),
            },
            prev: None,
            back: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;
    use crate::{Register, Reply, Request, acceptor::handle};

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn nodes(numbers: &[u8]) -> Vec<NodeRef> {
        numbers.iter().map(|n| node(*n)).collect()
    }

    fn placed(version: u64, on: &[u8], from: Option<&[u8]>) -> Placement {
        let layout = |on: &[u8]| Layout::Replicated { nodes: nodes(on) };
        Placement {
            version,
            size: 3,
            sha256: Digest::of(b"abc"),
            layout: layout(on),
            prev: from.map(layout),
            back: false,
        }
    }

    #[test]
    fn it_is_beyond_when_either_half_has_no_majority_left() {
        let lost = |numbers: &'static [u8]| move |one: NodeRef| numbers.iter().any(|n| node(*n) == one);
        let settled = placed(3, &[1, 2, 3], None);
        assert!(!is_beyond(Some(&settled), &[], lost(&[1])));
        assert!(is_beyond(Some(&settled), &[], lost(&[1, 2])));
        let joint = placed(4, &[4, 5, 6], Some(&[1, 2, 3]));
        assert!(!is_beyond(Some(&joint), &[], lost(&[1, 4])));
        assert!(is_beyond(Some(&joint), &[], lost(&[1, 2])));
        assert!(is_beyond(Some(&joint), &[], lost(&[4, 5])));
        assert!(is_beyond(None, &nodes(&[1, 2]), lost(&[1])));
        assert!(!is_beyond(None, &nodes(&[1, 2, 3]), lost(&[1])));
    }

    #[test]
    fn every_survivor_takes_it_whatever_it_promised_and_gives_its_bytes_up() {
        let ballot = |round, n| Ballot {
            round,
            proposer: ProcessUuid::from_bytes([n; 16]),
        };
        let vote = |ballot, placement: &Placement| {
            let placement = placement.clone();
            Some(Vote { ballot, placement })
        };
        let (old, new) = (placed(1, &[1, 2, 3], None), placed(2, &[1, 4, 5], Some(&[1, 2, 3])));
        let registers = [
            Register {
                promised: Some(ballot(9, 7)),
                accepted: vote(ballot(0, 1), &old),
                decided: true,
                damaged: false,
            },
            Register {
                promised: Some(ballot(4, 2)),
                accepted: vote(ballot(4, 2), &new),
                decided: false,
                damaged: true,
            },
            Register::lost(),
        ];
        let survivors: Vec<Survivor> = registers
            .iter()
            .map(|one| (one.promised, one.accepted.clone()))
            .collect();
        let told = obituary(
            Some(&old),
            &nodes(&[1, 2, 3]),
            &survivors,
            ProcessUuid::from_bytes([3; 16]),
        );
        assert_eq!((told.ballot.round, told.placement.version), (10, 3));
        assert_eq!(told.placement.nodes(), nodes(&[1, 4, 5]));
        told.placement.check().expect("a placement that can be sent");
        let request = Request::Decided {
            ballot: told.ballot,
            placement: told.placement.clone(),
        };
        for register in registers {
            let after = handle(&register, node(1), |_| false, &request);
            assert_eq!(after.reply, Reply::Noted);
            let after = after.persist.expect("it is news");
            assert!(after.decided && after.may_delete(node(1), Digest::of(b"abc")));
        }
        let nothing = obituary(None, &nodes(&[1, 2]), &[], ProcessUuid::from_bytes([3; 16]));
        assert_eq!(
            (nothing.placement.version, nothing.placement.nodes()),
            (1, nodes(&[1, 2]))
        );
        nothing.placement.check().expect("a placement that can be sent");
    }
}
