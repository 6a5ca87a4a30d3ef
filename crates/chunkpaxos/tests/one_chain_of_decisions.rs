//! Whatever messages are lost, repeated, delayed and reordered, and whoever proposes what: the decided placements
//! of a register form one chain, nothing follows a deletion, and a lone proposer can always finish.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use vstack_chunkpaxos::{
    Action, Ballot, Change, Layout, Outcome, Placement, Proposer, Register, Reply, Request, Shard, Stage, acceptor,
};
use vstack_types::{Digest, NodeRef, NodeUuid, ProcessUuid};

fn node(n: u8) -> NodeRef {
    NodeRef::first(NodeUuid::from_bytes([n; 16]))
}

fn replicated(nodes: &[u8]) -> Layout {
    Layout::Replicated {
        nodes: nodes.iter().map(|n| node(*n)).collect(),
    }
}

fn coded(nodes: &[u8]) -> Layout {
    let shards = (0u8..).zip(nodes).map(|(index, n)| Shard {
        index,
        node: node(*n),
        sha256: Digest::of(&[b's', index]),
    });
    Layout::Coded {
        data: 3,
        parity: 2,
        shards: shards.collect(),
    }
}

#[derive(Default)]
struct Node {
    register: Register,
    items: BTreeSet<Digest>,
}

enum Message {
    Request {
        from: Option<usize>,
        to: NodeRef,
        ballot: Ballot,
        request: Request,
        bytes: Option<Digest>,
    },
    Reply {
        to: usize,
        from: NodeRef,
        ballot: Ballot,
        reply: Reply,
    },
}

struct World {
    rng: StdRng,
    nodes: BTreeMap<NodeRef, Node>,
    proposers: Vec<Proposer>,
    outcomes: Vec<Option<Outcome>>,
    waiting: BTreeSet<usize>,
    flight: Vec<Message>,
    votes: BTreeMap<(Ballot, Vec<u8>), (Placement, BTreeSet<NodeRef>)>,
    decided: BTreeMap<u64, Placement>,
    loss_percent: u32,
}

/// Of different lengths: a copy must be asked for with the length of what is placed, not of what somebody wished for.
const CONTENT: [&[u8]; 2] = [b"x", b"yyyyy"];

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            nodes: (1..=5).map(|n| (node(n), Node::default())).collect(),
            proposers: Vec::new(),
            outcomes: Vec::new(),
            waiting: BTreeSet::new(),
            flight: Vec::new(),
            votes: BTreeMap::new(),
            decided: BTreeMap::new(),
            loss_percent: 10,
        };
        world.owner_puts();
        for _ in 0..world.rng.random_range(1..=4) {
            world.add_proposer();
        }
        world
    }

    fn initial() -> Vec<NodeRef> {
        (1..=3).map(node).collect()
    }

    fn owner_puts(&mut self) {
        if self.rng.random_bool(0.2) {
            return;
        }
        let placement = Placement {
            version: 1,
            size: 1,
            sha256: Digest::of(CONTENT[0]),
            layout: replicated(&[1, 2, 3]),
            prev: None,
            back: false,
        };
        let ballot = Ballot::zero(ProcessUuid::from_bytes([0xee; 16]));
        for to in Self::initial() {
            let request = Request::Put0 {
                ballot,
                placement: placement.clone(),
            };
            self.flight.push(Message::Request {
                from: None,
                to,
                ballot,
                request,
                bytes: Some(Digest::of(CONTENT[0])),
            });
        }
    }

    fn random_change(&mut self) -> Change {
        let content = CONTENT[self.rng.random_range(0..2)];
        let (size, sha256) = (content.len() as u64, Digest::of(content));
        match self.rng.random_range(0..11) {
            10 => Change::Renew,
            0 => Change::Abort,
            1 => Change::Delete,
            2 => Change::Create { size, sha256 },
            3 => Change::TurnBack,
            4 => Change::Read,
            5 | 6 => Change::Settle,
            7 => Change::Move {
                to: replicated(&[1, 4, 5]),
            },
            8 => Change::Move {
                to: coded(&[1, 2, 3, 4, 5]),
            },
            _ => Change::Move {
                to: coded(&[1, 1, 2, 2, 3]),
            },
        }
    }

    fn add_proposer(&mut self) {
        let change = self.random_change();
        // A script staged its bytes before it asks for a commit.
        if let Change::Create { sha256, .. } = change {
            for n in 1..=self.rng.random_range(1..=3) {
                self.nodes.get_mut(&node(n)).unwrap().items.insert(sha256);
            }
        }
        let id = u8::try_from(self.proposers.len()).unwrap();
        let mut proposer = Proposer::new(ProcessUuid::from_bytes([id; 16]), Self::initial(), change);
        let actions = proposer.retry();
        self.proposers.push(proposer);
        self.outcomes.push(None);
        self.perform(usize::from(id), actions);
    }

    fn perform(&mut self, proposer: usize, actions: Vec<Action>) {
        let mut todo = actions;
        while !todo.is_empty() {
            let action = todo.remove(0);
            let ballot = self.proposers[proposer].ballot();
            match action {
                Action::Send { to, request } => {
                    self.flight.push(Message::Request {
                        from: Some(proposer),
                        to,
                        ballot,
                        request,
                        bytes: None,
                    });
                }
                Action::Tell { to, request } => {
                    self.flight.push(Message::Request {
                        from: None,
                        to,
                        ballot,
                        request,
                        bytes: None,
                    });
                }
                Action::Copy { to, item, size, from } => {
                    // A coding node makes any shard from a whole copy or from enough shards; copies are never invented.
                    let holders = || from.iter().map(|holder| &self.nodes[holder].items);
                    let whole = CONTENT
                        .iter()
                        .any(|content| holders().any(|items| items.contains(&Digest::of(content))));
                    let shards = (0u8..5)
                        .filter(|index| holders().any(|items| items.contains(&Digest::of(&[b's', *index]))))
                        .count();
                    let is_shard = (0u8..5).any(|index| Digest::of(&[b's', index]) == item);
                    let there = holders().any(|items| items.contains(&item))
                        || (is_shard && whole)
                        || (shards >= 3 && !is_shard);
                    // A node refuses an item of another size than it was told.
                    let content = CONTENT.iter().find(|content| Digest::of(content) == item);
                    let copied = there && content.is_none_or(|content| content.len() as u64 == size);
                    if copied {
                        self.nodes.get_mut(&to).unwrap().items.insert(item);
                    }
                    todo.extend(self.proposers[proposer].on_copied(to, ballot, copied));
                }
                Action::Backoff { .. } => {
                    self.waiting.insert(proposer);
                }
                Action::Finish(outcome) => self.outcomes[proposer] = Some(outcome),
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Request {
                from,
                to,
                ballot,
                request,
                bytes,
            } => {
                let node = self.nodes.get_mut(&to).unwrap();
                node.items.extend(bytes);
                let items = &node.items;
                let outcome = acceptor::handle(&node.register, to, |item| items.contains(&item), &request);
                if let Some(register) = outcome.persist {
                    node.register = register;
                }
                if let (Reply::Accepted { .. }, Request::Put0 { placement, .. } | Request::Accept { placement, .. }) =
                    (&outcome.reply, &request)
                {
                    self.note_vote(to, ballot, placement);
                }
                self.collect_garbage(to);
                if let Some(proposer) = from {
                    self.flight.push(Message::Reply {
                        to: proposer,
                        from: to,
                        ballot,
                        reply: outcome.reply,
                    });
                }
            }
            Message::Reply {
                to,
                from,
                ballot,
                reply,
            } => {
                let actions = self.proposers[to].on_reply(from, ballot, reply);
                self.perform(to, actions);
            }
        }
    }

    fn collect_garbage(&mut self, at: NodeRef) {
        let node = self.nodes.get_mut(&at).unwrap();
        let register = node.register.clone();
        node.items.retain(|item| !register.may_delete(at, *item));
    }

    fn note_vote(&mut self, voter: NodeRef, ballot: Ballot, placement: &Placement) {
        let entry = self
            .votes
            .entry((ballot, placement.encode()))
            .or_insert_with(|| (placement.clone(), BTreeSet::new()));
        entry.1.insert(voter);
        let voters = entry.1.clone();
        let values_in_ballot = self.votes.keys().filter(|(other, _)| *other == ballot).count();
        assert_eq!(values_in_ballot, 1, "two values in one ballot");
        if placement.quorum(|node| voters.contains(&node)) {
            self.note_decision(placement);
        }
    }

    fn note_decision(&mut self, placement: &Placement) {
        if let Some(standing) = self.decided.get(&placement.version) {
            assert_eq!(standing, placement, "two placements of one version were decided");
            return;
        }
        let latest = self.decided.last_key_value().map(|(_, latest)| latest.clone());
        match latest {
            None => assert_eq!(placement.version, 1, "the chain starts at 1"),
            Some(latest) => {
                assert_eq!(
                    placement.version,
                    latest.version + 1,
                    "each version follows the one before"
                );
                assert!(!latest.layout.is_deleted(), "nothing follows a deletion");
                assert!(
                    placement.prev.is_none() || latest.prev.is_none() || placement.back,
                    "one move at a time"
                );
            }
        }
        assert!(self.readable(placement), "decided, and cannot be read: {placement:?}");
        self.decided.insert(placement.version, placement.clone());
    }

    /// The bytes can be had from those that one of the layouts names.
    fn readable(&self, placement: &Placement) -> bool {
        std::iter::once(&placement.layout)
            .chain(&placement.prev)
            .any(|layout| match layout {
                Layout::Deleted { .. } => true,
                Layout::Replicated { nodes } => nodes
                    .iter()
                    .any(|node| self.nodes[node].items.contains(&placement.sha256)),
                Layout::Coded { data, shards, .. } => {
                    shards
                        .iter()
                        .filter(|shard| self.nodes[&shard.node].items.contains(&shard.sha256))
                        .count()
                        >= usize::from(*data)
                }
            })
    }

    fn step(&mut self) {
        if self.flight.is_empty() || self.rng.random_bool(0.05) {
            self.wake_somebody();
            return;
        }
        let at = self.rng.random_range(0..self.flight.len());
        let message = self.flight.swap_remove(at);
        if self.rng.random_range(0..100) < self.loss_percent {
            return;
        }
        if self.rng.random_range(0..100) < self.loss_percent
            && let Message::Request {
                from,
                to,
                ballot,
                request,
                bytes,
            } = &message
        {
            self.flight.push(Message::Request {
                from: *from,
                to: *to,
                ballot: *ballot,
                request: request.clone(),
                bytes: *bytes,
            });
        }
        self.deliver(message);
    }

    fn wake_somebody(&mut self) {
        let unfinished: Vec<_> = (0..self.proposers.len())
            .filter(|at| self.outcomes[*at].is_none())
            .collect();
        let Some(at) = unfinished.choose(&mut self.rng).copied() else {
            return;
        };
        let actions = if self.waiting.remove(&at) {
            self.proposers[at].retry()
        } else {
            let ballot = self.proposers[at].ballot();
            let silent = node(self.rng.random_range(1..=5));
            let stage = *[Stage::Prepare, Stage::Accept].choose(&mut self.rng).unwrap();
            self.proposers[at].on_silence(silent, ballot, stage)
        };
        self.perform(at, actions);
    }

    fn finish_alone(&mut self) {
        self.flight.clear();
        self.loss_percent = 0;
        let mut proposer = Proposer::new(ProcessUuid::from_bytes([0xfe; 16]), Self::initial(), Change::Read);
        let actions = proposer.retry();
        self.proposers.push(proposer);
        self.outcomes.push(None);
        let lone = self.proposers.len() - 1;
        self.perform(lone, actions);
        for _ in 0..2_000 {
            if self.outcomes[lone].is_some() {
                break;
            }
            if self.flight.is_empty() && self.waiting.remove(&lone) {
                let actions = self.proposers[lone].retry();
                self.perform(lone, actions);
            }
            let Some(message) = self.flight.pop() else { continue };
            self.deliver(message);
        }
        let outcome = self.outcomes[lone]
            .clone()
            .unwrap_or_else(|| panic!("a lone proposer finishes: {:#?}", self.proposers[lone]));
        let latest = self.decided.last_key_value().map(|(_, placement)| placement);
        match outcome {
            Outcome::Decided(vote) => assert_eq!(Some(&vote.placement), latest, "a read finds the latest decision"),
            Outcome::Nothing => assert_eq!(latest, None),
            Outcome::Refused(refusal) => panic!("a read is never refused: {refusal}"),
        }
        assert!(
            latest.is_none_or(|placement| self.readable(placement)),
            "a decided chunk can be read"
        );
    }
}

#[test]
fn decisions_form_one_chain_that_a_lone_proposer_can_read() {
    let mut decided = 0;
    let mut deepest = 0;
    for seed in 0..3_000 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
            if world.rng.random_bool(0.01) && world.proposers.len() < 12 {
                world.add_proposer();
            }
        }
        world.finish_alone();
        decided += world.decided.len();
        deepest = deepest.max(world.decided.len());
    }
    // The histories must have something in them, or the assertions above say nothing.
    assert!(
        decided > 3_000 && deepest >= 5,
        "{decided} decisions, longest chain {deepest}"
    );
}
