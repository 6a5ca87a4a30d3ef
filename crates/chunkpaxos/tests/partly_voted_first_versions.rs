//! An upload straight to shards whose uploader died after some votes: whoever comes after it completes what may have been
//! decided, or ends it. Tried with every set of nodes that voted, and every majority that answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeSet, VecDeque};

use vstack_chunkpaxos::{
    Action, Ballot, Change, Layout, Outcome, Placement, Proposer, Refusal, Register, Reply, Request, Shard, acceptor,
};
use vstack_types::{Digest, NodeRef, NodeUuid, ProcessUuid};

const NODES: u8 = 5;
const DATA: u8 = 3;
const CHUNK: &[u8] = b"the whole chunk";
/// More than anybody needs here: nobody is in its way for long.
const ATTEMPTS: u32 = 6;

fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

fn nodes() -> Vec<NodeRef> {
    (0..NODES).map(node).collect()
}

fn shard(index: u8) -> Digest {
    Digest::of(&[b's', index])
}

/// Shard 0 at node 0, and so on.
fn first() -> Placement {
    let shards = (0..NODES).map(|index| Shard {
        index,
        node: node(index),
        sha256: shard(index),
    });
    Placement {
        version: 1,
        size: CHUNK.len() as u64,
        sha256: Digest::of(CHUNK),
        layout: Layout::Coded {
            data: DATA,
            parity: NODES - DATA,
            shards: shards.collect(),
        },
        prev: Some(Layout::nothing()),
        back: false,
    }
}

/// Some of the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Those(u8);

impl Those {
    fn every() -> impl Iterator<Item = Self> {
        (0..1 << NODES).map(Self)
    }

    fn majorities() -> impl Iterator<Item = Self> {
        Self::every().filter(|some| some.count() > usize::from(NODES / 2))
    }

    const ALL: Self = Self((1 << NODES) - 1);

    fn has(self, n: u8) -> bool {
        (self.0 >> n) & 1 == 1
    }

    fn all(self) -> impl Iterator<Item = u8> {
        (0..NODES).filter(move |n| self.has(*n))
    }

    fn count(self) -> usize {
        self.all().count()
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

#[derive(Clone, Default)]
struct Node {
    register: Register,
    items: BTreeSet<Digest>,
}

struct Nodes {
    all: Vec<Node>,
    /// Those that answer.
    live: Those,
    proposers: u8,
}

impl Nodes {
    /// As an uploader left them that reached `voters`, with those that answer after it.
    fn left(voters: Those, live: Those) -> Self {
        let mut nodes = Self {
            all: vec![Node::default(); usize::from(NODES)],
            live: Those::ALL,
            proposers: 1,
        };
        for n in voters.all() {
            assert!(matches!(nodes.put(n), Reply::Accepted { .. }));
        }
        nodes.live = live;
        nodes
    }

    /// The uploader's PUT of one shard, with its vote.
    fn put(&mut self, n: u8) -> Reply {
        self.all[usize::from(n)].items.insert(shard(n));
        let request = Request::Put0 {
            ballot: Ballot::zero(ProcessUuid::from_bytes([0xee; 16])),
            placement: first(),
        };
        self.ask(node(n), &request).unwrap()
    }

    fn number(&self, of: NodeRef) -> u8 {
        (0..NODES).find(|n| node(*n) == of).unwrap()
    }

    /// The answer of a node; none of one that is not there.
    fn ask(&mut self, to: NodeRef, request: &Request) -> Option<Reply> {
        let n = self.number(to);
        if !self.live.has(n) {
            return None;
        }
        let node = &mut self.all[usize::from(n)];
        let items = &node.items;
        let outcome = acceptor::handle(&node.register, to, |item| items.contains(&item), request);
        if let Some(register) = outcome.persist {
            node.register = register;
        }
        Some(outcome.reply)
    }

    /// Brings an item to a node: from whoever has it, made of the chunk, or of enough shards.
    fn bring(&mut self, to: NodeRef, item: Digest) -> bool {
        let there = |wanted: Digest| {
            self.live
                .all()
                .any(|n| self.all[usize::from(n)].items.contains(&wanted))
        };
        let shards = (0..NODES).filter(|index| there(shard(*index))).count();
        let is_whole = there(Digest::of(CHUNK));
        let brought = there(item) || is_whole || shards >= usize::from(DATA);
        let n = self.number(to);
        if brought && self.live.has(n) {
            self.all[usize::from(n)].items.insert(item);
        }
        brought && self.live.has(n)
    }

    /// Somebody proposes, alone, until it comes to an end; none when it comes to none.
    fn propose(&mut self, change: Change, known: Option<Placement>) -> Option<Outcome> {
        let process = ProcessUuid::from_bytes([self.proposers; 16]);
        self.proposers += 1;
        let mut proposer = Proposer::new(process, nodes(), change);
        if let Some(known) = known {
            proposer = proposer.knowing(known);
        }
        let mut outcome = None;
        let mut todo: VecDeque<Action> = proposer.retry().into();
        while let Some(action) = todo.pop_front() {
            let next = match action {
                Action::Send { to, request } => {
                    let (Request::Prepare { ballot } | Request::Accept { ballot, .. }) = request else {
                        panic!("no proposer sends {request:?}")
                    };
                    match self.ask(to, &request) {
                        Some(reply) => proposer.on_reply(to, ballot, reply),
                        None => proposer.on_silence(to, ballot, request.stage().unwrap()),
                    }
                }
                Action::Copy { to, item, .. } => {
                    let copied = self.bring(to, item);
                    proposer.on_copied(to, proposer.ballot(), copied)
                }
                Action::Tell { to, request } => {
                    let _news = self.ask(to, &request);
                    Vec::new()
                }
                Action::Backoff { attempt } if attempt < ATTEMPTS => proposer.retry(),
                Action::Backoff { .. } => Vec::new(),
                Action::Finish(finished) => {
                    outcome = Some(finished);
                    Vec::new()
                }
            };
            todo.extend(next);
        }
        outcome
    }

    /// Votes for what the uploader sent, in its own ballot.
    fn first_votes(&self) -> usize {
        let owners = Ballot::zero(ProcessUuid::from_bytes([0xee; 16]));
        let votes = self.all.iter().filter_map(|node| node.register.accepted.as_ref());
        votes.filter(|vote| vote.ballot == owners).count()
    }
}

fn is_deleted(outcome: &Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Decided(vote)) if vote.placement.layout.is_deleted())
}

/// Whoever gave the video up ends its chunks, however many votes there were, with any majority.
#[test]
fn what_nobody_wants_is_ended_whatever_was_voted() {
    for (voters, live) in Those::every().flat_map(|voters| Those::majorities().map(move |live| (voters, live))) {
        for change in [Change::Delete, Change::Abort, Change::TurnBack] {
            let what = format!("{change:?}: {voters:?} voted, {live:?} answer");
            let mut nodes = Nodes::left(voters, live);
            let ended = nodes.propose(change.clone(), None);
            if change == Change::TurnBack && ended == Some(Outcome::Refused(Refusal::Nothing)) {
                assert!(voters.count() <= usize::from(NODES / 2), "{what}: it was decided");
                continue;
            }
            assert!(is_deleted(&ended), "{what}: {ended:?}");
            for n in live.all() {
                let register = &nodes.all[usize::from(n)].register;
                let is_told = |placement: &Placement| register.decided && placement.layout.is_deleted();
                let accepted = register.accepted.as_ref().map(|vote| &vote.placement);
                assert!(accepted.is_some_and(is_told), "{what}: {n} has {register:?}");
                // What was still under way comes too late.
                assert!(matches!(nodes.put(n), Reply::Nack { .. }), "{what}: {n} votes");
            }
            // Everybody is back, and so is the uploader, which goes on as if nothing had been.
            nodes.live = Those::ALL;
            for n in 0..NODES {
                nodes.put(n);
            }
            assert!(nodes.first_votes() <= usize::from(NODES / 2), "{what}");
            let known = (voters.count() > usize::from(NODES / 2)).then(first);
            for wish in [Change::Settle, Change::Renew] {
                let late = nodes.propose(wish, known.clone());
                assert_eq!(late, Some(Outcome::Refused(Refusal::Deleted)), "{what}");
            }
            assert!(is_deleted(&nodes.propose(Change::Read, None)), "{what}");
        }
    }
}

/// Whoever only reads completes it where the shards that are there give the chunk. Where they do not, that comes to no end,
/// and nothing is told: it may have been decided, and it cannot be read.
#[test]
fn what_may_have_been_decided_is_completed_where_its_shards_are_enough() {
    for (voters, live) in Those::every().flat_map(|voters| Those::majorities().map(move |live| (voters, live))) {
        let what = format!("{voters:?} voted, {live:?} answer");
        let mut nodes = Nodes::left(voters, live);
        let held = voters.and(live).count();
        match nodes.propose(Change::Read, None) {
            Some(Outcome::Decided(vote)) => {
                assert!(
                    vote.placement == first() && held >= usize::from(DATA),
                    "{what}: {vote:?}"
                );
                // It is stored once any one more may be lost, and given up where that cannot be.
                let holders = live
                    .all()
                    .filter(|n| nodes.all[usize::from(*n)].items.contains(&shard(*n)));
                let holders = holders.count();
                let settled = nodes.propose(Change::Settle, Some(first()));
                if holders > usize::from(DATA) {
                    let settled = settled.and_then(|outcome| match outcome {
                        Outcome::Decided(vote) => Some(vote.placement),
                        _ => None,
                    });
                    let expected = Placement {
                        version: 2,
                        prev: None,
                        ..first()
                    };
                    assert_eq!(settled, Some(expected), "{what}");
                } else {
                    let not_enough = Some(Outcome::Refused(Refusal::NotEnough));
                    assert_eq!(settled, not_enough, "{what}");
                    assert!(is_deleted(&nodes.propose(Change::TurnBack, Some(first()))), "{what}");
                }
            }
            Some(Outcome::Nothing) => {
                assert!(voters.count() <= usize::from(NODES / 2), "{what}: it was decided");
            }
            None => {
                assert!((1..usize::from(DATA)).contains(&held), "{what}");
                assert!(
                    is_deleted(&nodes.propose(Change::Delete, None)),
                    "{what}: it is given up"
                );
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// An uploader that lives and was overtaken puts the whole chunk at every node, without a vote, and asks again: of that,
/// shards are made where somebody voted for shards, however few.
#[test]
fn who_was_overtaken_completes_it_of_the_whole_chunk() {
    for voters in Those::every().filter(|voters| voters.count() < usize::from(DATA)) {
        let mut nodes = Nodes::left(voters, Those::ALL);
        for node in &mut nodes.all {
            node.items.insert(Digest::of(CHUNK));
        }
        let wish = Change::Create {
            size: CHUNK.len() as u64,
            sha256: Digest::of(CHUNK),
        };
        let Some(Outcome::Decided(vote)) = nodes.propose(wish, None) else {
            panic!("{voters:?}: it is not decided")
        };
        if !vote.placement.is_first_coded() {
            // Nobody of those who were heard had voted: it is copies.
            let copies = Layout::Replicated { nodes: self::nodes() };
            assert_eq!(vote.placement.layout, copies, "{voters:?}");
            continue;
        }
        let settled = nodes.propose(Change::Settle, Some(vote.placement));
        let Some(Outcome::Decided(settled)) = settled else {
            panic!("{voters:?}: {settled:?}")
        };
        assert!(settled.placement.prev.is_none() && settled.placement.layout == first().layout);
    }
}
