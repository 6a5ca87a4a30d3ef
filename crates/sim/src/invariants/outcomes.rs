//! What a proposer reports was decided, and is no older than what was decided before it was asked.

use std::collections::BTreeSet;

use vstack_chunkpaxos::{Outcome, Placement, Refusal};
use vstack_types::NodeRef;

use super::register::Seen;

/// Whether `outcome` may be reported by a proposer that began at the nodes `initial`, of a register of which `known` was
/// the last decision when it began, and `seen` is what was seen of it since.
///
/// # Errors
/// The promise that was broken.
pub(crate) fn check(
    known: Option<&Placement>,
    seen: Option<&Seen>,
    initial: &[NodeRef],
    outcome: &Outcome,
) -> Result<(), String> {
    match outcome {
        Outcome::Decided(vote) => reported(known, seen, &vote.placement),
        Outcome::Refused(Refusal::Taken(found) | Refusal::Joint(found) | Refusal::Version(found)) => {
            reported(known, seen, found)
        }
        Outcome::Nothing | Outcome::Refused(Refusal::Nothing) => match (known, seen.and_then(Seen::first)) {
            // Of the first nodes every majority has something; of other nodes it need not.
            (Some(known), Some(first)) if is_same(&first.nodes(), initial) => {
                Err(format!("a proposer found nothing, and {known:?} was decided before"))
            }
            _ => Ok(()),
        },
        Outcome::Refused(Refusal::Deleted) => {
            if seen
                .and_then(Seen::current)
                .is_some_and(|current| current.layout.is_deleted())
            {
                return Ok(());
            }
            Err("a proposer found a deletion that nobody decided".to_owned())
        }
        Outcome::Refused(Refusal::Settled | Refusal::Layout(_) | Refusal::NotEnough | Refusal::Spared) => Ok(()),
    }
}

fn is_same(one: &[NodeRef], other: &[NodeRef]) -> bool {
    one.iter().collect::<BTreeSet<_>>() == other.iter().collect()
}

fn reported(known: Option<&Placement>, seen: Option<&Seen>, found: &Placement) -> Result<(), String> {
    if seen.and_then(|seen| seen.chain.get(&found.version)) != Some(found) {
        return Err(format!("a proposer reports a decision that is none: {found:?}"));
    }
    match known {
        Some(known) if found.version < known.version => Err(format!(
            "a proposer reports {found:?}, and {known:?} was decided before it began"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::{Ballot, Layout, Reply, Vote};
    use vstack_types::{Digest, NodeUuid, ProcessUuid};

    use super::*;

    fn placement(version: u64, nodes: &[u8]) -> Placement {
        let node = |n: &u8| NodeRef::first(NodeUuid::from_bytes([*n; 16]));
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        let layout = if version == 1 {
            Layout::Replicated { nodes }
        } else {
            Layout::Deleted { nodes }
        };
        Placement {
            version,
            size: 1,
            sha256: Digest::of(b"x"),
            layout,
            prev: None,
            back: false,
        }
    }

    fn decide(seen: &mut Seen, placement: &Placement) {
        let ballot = ballot(placement.version);
        seen.offered(ballot, placement).expect("one value");
        for node in placement.nodes() {
            seen.replied(node, &Reply::Accepted { ballot }).expect("one chain");
        }
    }

    fn ballot(round: u64) -> Ballot {
        let proposer = ProcessUuid::from_bytes([1; 16]);
        Ballot { round, proposer }
    }

    fn decided(placement: &Placement) -> Outcome {
        Outcome::Decided(Vote {
            ballot: ballot(placement.version),
            placement: placement.clone(),
        })
    }

    #[test]
    fn a_proposer_reports_what_stood_when_it_began_or_something_newer() {
        let (first, second) = (placement(1, &[1, 2, 3]), placement(2, &[1, 2, 3]));
        let (initial, mut seen) = (first.nodes(), Seen::default());
        assert!(
            check(None, Some(&seen), &initial, &decided(&first)).is_err(),
            "no decision"
        );
        assert_eq!(check(None, None, &initial, &Outcome::Nothing), Ok(()));
        decide(&mut seen, &first);
        assert_eq!(
            check(None, Some(&seen), &initial, &Outcome::Nothing),
            Ok(()),
            "it was before"
        );
        assert!(check(Some(&first), Some(&seen), &initial, &Outcome::Nothing).is_err());
        let others = placement(1, &[2, 3, 4]).nodes();
        assert_eq!(check(Some(&first), Some(&seen), &others, &Outcome::Nothing), Ok(()));
        let gone = Outcome::Refused(Refusal::Deleted);
        assert!(check(Some(&first), Some(&seen), &initial, &gone).is_err());
        decide(&mut seen, &second);
        assert_eq!(check(Some(&first), Some(&seen), &initial, &gone), Ok(()));
        assert_eq!(
            check(Some(&first), Some(&seen), &initial, &decided(&first)),
            Ok(()),
            "it was read before"
        );
        assert!(
            check(Some(&second), Some(&seen), &initial, &decided(&first)).is_err(),
            "stale"
        );
        let version = Outcome::Refused(Refusal::Version(Box::new(first)));
        assert!(
            check(Some(&second), Some(&seen), &initial, &version).is_err(),
            "stale too"
        );
    }
}
