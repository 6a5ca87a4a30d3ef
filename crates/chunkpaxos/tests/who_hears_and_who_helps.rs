//! What the exhaustive model found missing in the proposer, each as the shortest exchange that shows it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use vstack_chunkpaxos::{
    Action, Ballot, Change, Layout, Outcome, Placement, Proposer, Refusal, Reply, Request, Shard, Stage, Vote,
};
use vstack_types::{Digest, NodeRef, NodeUuid, ProcessUuid};

fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

fn replicated(nodes: [u8; 3]) -> Layout {
    Layout::Replicated {
        nodes: nodes.map(node).to_vec(),
    }
}

fn vote(layout: Layout, prev: Option<Layout>) -> Vote {
    Vote {
        ballot: Ballot {
            round: 1,
            proposer: ProcessUuid::from_bytes([1; 16]),
        },
        placement: Placement {
            version: 2,
            size: 1,
            sha256: Digest::of(b"x"),
            layout,
            prev,
            back: false,
        },
    }
}

fn promise(proposer: &Proposer, vote: &Vote, decided: bool) -> Reply {
    Reply::Promise {
        ballot: proposer.ballot(),
        accepted: Some(vote.clone()),
        decided,
        holds: true,
    }
}

fn proposer(change: Change) -> Proposer {
    let initial = vec![node(1), node(2), node(3)];
    Proposer::new(ProcessUuid::from_bytes([9; 16]), initial, change)
}

#[test]
fn who_leaves_hears_that_the_move_is_settled() {
    let joint = vote(replicated([1, 2, 4]), Some(replicated([1, 2, 3])));
    let mut settle = proposer(Change::Settle);
    settle.retry();
    let ballot = settle.ballot();
    for n in [1, 2] {
        let reply = promise(&settle, &joint, true);
        settle.on_reply(node(n), ballot, reply);
    }
    let mut told = Vec::new();
    for n in [1, 2] {
        for action in settle.on_reply(node(n), ballot, Reply::Accepted { ballot }) {
            if let Action::Tell {
                to,
                request: Request::Decided { placement, .. },
            } = action
            {
                assert!(placement.prev.is_none());
                told.push(to);
            }
        }
    }
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 4].map(node), "3 learns that it may forget the bytes");
}

#[test]
fn one_that_votes_no_more_does_not_end_the_attempt() {
    let stored = vote(replicated([1, 2, 3]), None);
    let mut read = proposer(Change::Read);
    read.retry();
    let ballot = read.ballot();
    assert_eq!(read.on_reply(node(1), ballot, Reply::Nack { promised: None }), vec![]);
    let reply = promise(&read, &stored, true);
    read.on_reply(node(2), ballot, reply.clone());
    let last = read.on_reply(node(3), ballot, reply);
    assert!(
        matches!(last.last(), Some(Action::Finish(_))),
        "two of three are enough: {last:?}"
    );
}

#[test]
fn who_lacks_a_shard_may_make_it_of_its_own_copy() {
    let shards = (0u8..).zip([1, 2, 3]).map(|(index, n)| Shard {
        index,
        node: node(n),
        sha256: Digest::of(&[index]),
    });
    let layout = Layout::Coded {
        data: 2,
        parity: 1,
        shards: shards.collect(),
    };
    let undecided = vote(layout, Some(replicated([1, 2, 3])));
    let mut read = proposer(Change::Read);
    read.retry();
    let ballot = read.ballot();
    for (n, accepted) in [(1, None), (3, Some(&undecided))] {
        let reply = accepted.map_or(
            Reply::Promise {
                ballot,
                accepted: None,
                decided: false,
                holds: false,
            },
            |vote| promise(&read, vote, false),
        );
        read.on_reply(node(n), ballot, reply);
    }
    let need = Reply::NeedBytes {
        items: vec![Digest::of(&[0])],
    };
    let actions = read.on_reply(node(1), ballot, need);
    let [Action::Copy { to, from, .. }] = &actions[..] else {
        panic!("a copy is asked for: {actions:?}")
    };
    assert!(*to == node(1) && from.contains(&node(1)));
}

#[test]
fn late_silence_about_the_promise_takes_nobody_from_the_vote() {
    let mut create = proposer(Change::Create {
        size: 1,
        sha256: Digest::of(b"x"),
    });
    create.retry();
    let ballot = create.ballot();
    let nothing = Reply::Promise {
        ballot,
        accepted: None,
        decided: false,
        holds: false,
    };
    create.on_reply(node(1), ballot, nothing.clone());
    let asked = create.on_reply(node(2), ballot, nothing);
    assert_eq!(asked.len(), 3, "all three are asked for their votes: {asked:?}");
    // The third did not answer the first question in time. The second it has, and is being sent the bytes.
    let need = Reply::NeedBytes {
        items: vec![Digest::of(b"x")],
    };
    create.on_reply(node(3), ballot, need);
    assert_eq!(create.on_silence(node(3), ballot, Stage::Prepare), vec![]);
    assert_eq!(create.on_silence(node(2), ballot, Stage::Accept), vec![]);
    assert_eq!(create.on_reply(node(1), ballot, Reply::Accepted { ballot }), vec![]);
    create.on_copied(node(3), ballot, true);
    let last = create.on_reply(node(3), ballot, Reply::Accepted { ballot });
    assert!(matches!(last.last(), Some(Action::Finish(_))), "two voted: {last:?}");
}

/// A deletion is neither completed nor told by who knows that the chunk is wanted, whether it was decided or only begun.
#[test]
fn one_that_spares_completes_no_deletion_and_tells_nobody() {
    let deleted = Layout::Deleted {
        nodes: [1, 2, 3].map(node).to_vec(),
    };
    let deletion = vote(deleted, None);
    for decided in [false, true] {
        for change in [Change::Read, Change::Settle, Change::TurnBack] {
            let mut spares = proposer(change).sparing();
            spares.retry();
            let ballot = spares.ballot();
            let reply = promise(&spares, &deletion, decided);
            let mut actions = spares.on_reply(node(1), ballot, reply.clone());
            actions.extend(spares.on_reply(node(2), ballot, reply));
            assert_eq!(actions, [Action::Finish(Outcome::Refused(Refusal::Spared))]);
        }
    }
    // Whatever else was begun is completed as ever.
    let moved = vote(replicated([1, 2, 4]), Some(replicated([1, 2, 3])));
    let mut spares = proposer(Change::Read).sparing();
    spares.retry();
    let ballot = spares.ballot();
    let reply = promise(&spares, &moved, false);
    spares.on_reply(node(1), ballot, reply);
    let nothing = Reply::Promise {
        ballot,
        accepted: None,
        decided: false,
        holds: false,
    };
    let completed = spares.on_reply(node(2), ballot, nothing);
    let accepts = completed.iter().filter(|action| {
        matches!(
            action,
            Action::Send {
                request: Request::Accept { .. },
                ..
            }
        )
    });
    assert_ne!(accepts.count(), 0, "{completed:?}");
}
