//! What a node refuses, or knows already, it refuses or knows for ever: the other half of why the search may leave such
//! messages out, beside registers that go forward. Looked at for every register of a small domain, every message that
//! changes nothing there, and every message between.

use vstack_chunkpaxos::{Ballot, Placement, Register, Reply, Request, Vote, acceptor};
use vstack_model::names::{self, X, bit};

const NODE: u8 = 0;
const ITEMS: [u8; 2] = [0, bit(X)];

fn placements() -> Vec<Placement> {
    let first = names::first(X, names::replicated(&[1, 2, 3]));
    let deleted = Placement {
        layout: vstack_chunkpaxos::Layout::Deleted {
            nodes: names::refs(&[1, 2, 3]),
        },
        ..first.clone()
    };
    let leaving = Placement {
        version: 2,
        layout: names::replicated(&[2, 3, 4]),
        prev: Some(first.layout.clone()),
        ..first.clone()
    };
    let left = Placement {
        version: 3,
        prev: None,
        ..leaving.clone()
    };
    vec![first, deleted, leaving, left]
}

fn ballots() -> [Ballot; 4] {
    let ballot = |round, rival| Ballot {
        round,
        proposer: names::process(rival),
    };
    [names::owner(), ballot(1, 0), ballot(1, 1), ballot(2, 0)]
}

fn votes() -> Vec<Vote> {
    let of = |ballot| {
        let vote = move |placement| Vote { ballot, placement };
        placements().into_iter().map(vote)
    };
    ballots().into_iter().flat_map(of).collect()
}

/// The owner's ballot is voted for by its PUT alone.
fn requests() -> Vec<Request> {
    let carried = votes().into_iter().flat_map(|Vote { ballot, placement }| {
        let put = Request::Put0 {
            ballot,
            placement: placement.clone(),
        };
        let accept = Request::Accept {
            ballot,
            placement: placement.clone(),
        };
        let vote = if ballot == names::owner() { put } else { accept };
        [vote, Request::Decided { ballot, placement }]
    });
    let classic = ballots().into_iter().filter(|ballot| *ballot != names::owner());
    let asked = classic.map(|ballot| Request::Prepare { ballot });
    carried.chain(asked).collect()
}

/// Every register that may be: who accepted promised as much, unless its votes are lost.
fn registers() -> Vec<Register> {
    let accepted: Vec<_> = std::iter::once(None).chain(votes().into_iter().map(Some)).collect();
    let promises: Vec<_> = std::iter::once(None).chain(ballots().map(Some)).collect();
    let mut all = Vec::new();
    for accepted in accepted {
        let known = if accepted.is_some() {
            &[false, true][..]
        } else {
            &[false]
        };
        for decided in known.iter().copied() {
            let register = |promised, damaged| Register {
                promised,
                accepted: accepted.clone(),
                decided,
                damaged,
            };
            let enough =
                |promised: &&Option<Ballot>| accepted.as_ref().is_none_or(|vote| **promised >= Some(vote.ballot));
            all.extend(
                promises
                    .iter()
                    .filter(enough)
                    .map(|promised| register(*promised, false)),
            );
            if decided || accepted.is_none() {
                all.push(register(None, true));
            }
        }
    }
    all
}

fn vote_of(request: &Request) -> Option<Vote> {
    match request {
        Request::Put0 { ballot, placement }
        | Request::Accept { ballot, placement }
        | Request::Decided { ballot, placement } => Some(Vote {
            ballot: *ballot,
            placement: placement.clone(),
        }),
        Request::Prepare { .. } | Request::Read => None,
    }
}

/// A ballot carries one value.
fn agree(votes: &[Option<Vote>]) -> bool {
    let agree = |one: &Vote, other: &Vote| one.ballot != other.ballot || one.placement == other.placement;
    let known = || votes.iter().flatten();
    known().all(|one| known().all(|other| agree(one, other)))
}

fn ask(register: &Register, items: u8, request: &Request) -> (Reply, Register) {
    let holds = |digest| items & bit(names::item(digest)) != 0;
    let outcome = acceptor::handle(register, names::node(NODE), holds, request);
    (outcome.reply, outcome.persist.unwrap_or_else(|| register.clone()))
}

/// What comes of a message that changes nothing, whatever is held: whether it is a vote.
fn changes_nothing(register: &Register, request: &Request) -> Option<bool> {
    let mut vote = None;
    for items in ITEMS {
        let (reply, after) = ask(register, items, request);
        let is_vote = match reply {
            _ if after != *register => return None,
            Reply::Nack { .. } | Reply::Noted => Some(false),
            Reply::Accepted { .. } => Some(true),
            _ => None,
        };
        vote = vote.max(is_vote);
    }
    vote
}

fn whole(register: &Register) -> Register {
    Register {
        damaged: register.votes_lost(),
        ..register.clone()
    }
}

#[test]
fn what_changes_nothing_changes_nothing_later() {
    let (requests, mut looked_at) = (requests(), 0usize);
    for before in registers() {
        let rotten = Register {
            damaged: true,
            ..before.clone()
        };
        for moot in &requests {
            let Some(voted) = changes_nothing(&before, moot) else {
                continue;
            };
            let between = |between: &&Request| agree(&[before.accepted.clone(), vote_of(moot), vote_of(between)]);
            for between in requests.iter().filter(between) {
                for from in [&before, &rotten] {
                    for items in ITEMS {
                        let after = whole(&ask(from, items, between).1);
                        let later = changes_nothing(&after, moot);
                        // A vote that was none before is one that the node heard to be decided.
                        let ok = later.is_some_and(|votes| !votes || voted || after.decided);
                        assert!(ok, "{moot:?} changes nothing in {before:?}, but after {between:?}");
                        looked_at += 1;
                    }
                }
            }
        }
    }
    println!("{looked_at} times");
    assert!(looked_at > 100_000);
}
