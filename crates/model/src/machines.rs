//! The protocol's own code, asked once for every distinct question.
//!
//! Acceptors and proposers are pure: what they do depends on their state and on the message alone. So each answer of
//! [`acceptor::handle`] and of [`Proposer`] is kept by the numbers of what was asked, and a search of millions of
//! states runs the real code some ten thousand times. Nothing of the protocol is written a second time here.

use std::{collections::BTreeMap, rc::Rc};

use vstack_chunkpaxos::{Action, Ballot, Outcome, Placement, Proposer, Register, Reply, Request, acceptor};
use vstack_types::NodeRef;

use crate::{
    intern::{Interner, QuickMap},
    names::{Mask, bit, digest, index, item, mask, node},
    state::DONE,
};

/// What a proposer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Input {
    /// Begin, or begin again.
    Retry,
    /// This node answered so.
    Reply(u8, u16),
    /// A copy to this node succeeded or failed.
    Copied(u8, bool),
    /// This node does not answer.
    Silent(u8),
    /// Nobody of those asked answers any more.
    Silence,
}

/// An item to be brought to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// Who needs it.
    pub to: u8,
    /// Which.
    pub item: u8,
    /// Who should have it.
    pub from: Mask,
    /// The length asked for is that of the item.
    pub fits: bool,
}

/// What a proposer does when told something.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// Its number afterwards.
    pub next: u32,
    /// Requests, and to whom.
    pub sends: Vec<(u16, Mask)>,
    /// Copies to make before anything else.
    pub copies: Vec<Copy>,
    /// It gave this attempt up.
    pub backoff: bool,
    /// It is through.
    pub outcome: Option<Outcome>,
    /// Attempts so far.
    pub attempt: u32,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The owner's vote with bytes.
    Put0,
    /// Phase 1.
    Prepare,
    /// Phase 2.
    Accept,
    /// News.
    Decided,
}

/// A request, taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// What it is.
    pub kind: Kind,
    /// Its ballot.
    pub ballot: Ballot,
    /// Number of its placement.
    pub value: Option<u16>,
}

/// Tables of what the real code said.
#[derive(Debug, Default)]
pub struct Machines {
    /// Placements.
    pub values: Interner<Placement>,
    /// Registers.
    pub registers: Interner<Register>,
    /// Requests.
    pub requests: Interner<Request>,
    /// Replies.
    pub replies: Interner<Reply>,
    proposers: Interner<Proposer>,
    parts: Vec<Parts>,
    handled: QuickMap<u64, (u16, u16)>,
    advanced: QuickMap<(u32, Input), Rc<Effects>>,
    deletable: QuickMap<(u16, u8), u8>,
    quorums: QuickMap<(u16, Mask), bool>,
    mine: QuickMap<(u16, u8), u8>,
}

impl Machines {
    /// The number of a request, with its parts noted.
    pub fn request(&mut self, request: Request) -> u16 {
        let number = self.requests.short(request.clone());
        if usize::from(number) == self.parts.len() {
            let (kind, ballot, placement) = match request {
                Request::Put0 { ballot, placement } => (Kind::Put0, ballot, Some(placement)),
                Request::Prepare { ballot } => (Kind::Prepare, ballot, None),
                Request::Accept { ballot, placement } => (Kind::Accept, ballot, Some(placement)),
                Request::Decided { ballot, placement } => (Kind::Decided, ballot, Some(placement)),
                Request::Read => panic!("nobody reads in a model"),
            };
            let value = placement.map(|placement| self.values.short(placement));
            self.parts.push(Parts { kind, ballot, value });
        }
        number
    }

    /// The parts of a request.
    pub fn parts(&self, request: u16) -> Parts {
        self.parts[usize::from(request)]
    }

    /// What node `n` with this register and these items answers, and its register then.
    pub fn handle(&mut self, register: u16, n: u8, items: u8, request: u16) -> (u16, u16) {
        let key = u64::from(register) << 32 | u64::from(n) << 24 | u64::from(items) << 16 | u64::from(request);
        if let Some(answer) = self.handled.get(&key) {
            return *answer;
        }
        let holds = |digest| items & bit(item(digest)) != 0;
        let outcome = acceptor::handle(self.registers.get(register), node(n), holds, self.requests.get(request));
        let reply = self.replies.short(outcome.reply);
        let next = outcome.persist.map_or(register, |next| self.registers.short(next));
        self.handled.insert(key, (reply, next));
        (reply, next)
    }

    /// Items that node `n` with this register may delete.
    pub fn deletable(&mut self, register: u16, n: u8) -> u8 {
        let known = Rc::clone(self.registers.get(register));
        *self.deletable.entry((register, n)).or_insert_with(|| {
            (0..crate::names::ITEMS)
                .filter(|item| known.may_delete(node(n), digest(*item)))
                .fold(0, |mask, item| mask | bit(item))
        })
    }

    /// Whether these voters decide this value.
    pub fn quorum(&mut self, value: u16, voters: Mask) -> bool {
        let placement = Rc::clone(self.values.get(value));
        *self
            .quorums
            .entry((value, voters))
            .or_insert_with(|| placement.quorum(|voter| voters & bit(index(voter)) != 0))
    }

    /// Items that the layout of this value assigns to node `n`.
    pub fn mine(&mut self, value: u16, n: u8) -> u8 {
        let placement = Rc::clone(self.values.get(value));
        *self.mine.entry((value, n)).or_insert_with(|| {
            let items = placement.items_of(&placement.layout, node(n));
            items.into_iter().fold(0, |mask, digest| mask | bit(item(digest)))
        })
    }

    /// The number of a proposer; never that of [`DONE`] or below.
    pub fn proposer(&mut self, proposer: Proposer) -> u32 {
        self.proposers.number(proposer) + DONE + 1
    }

    /// The proposer with this number.
    pub fn proposer_of(&self, number: u32) -> &Rc<Proposer> {
        self.proposers.get(number - DONE - 1)
    }

    /// How many distinct proposers, registers and placements were seen.
    pub fn sizes(&self) -> [usize; 3] {
        [self.proposers.count(), self.registers.count(), self.values.count()]
    }

    /// What the proposer does when told `input`.
    pub fn advance(&mut self, number: u32, input: Input) -> Rc<Effects> {
        if let Some(effects) = self.advanced.get(&(number, input)) {
            return Rc::clone(effects);
        }
        let mut proposer = Proposer::clone(self.proposer_of(number));
        let ballot = proposer.ballot();
        let actions = match input {
            Input::Retry => proposer.retry(),
            Input::Reply(from, reply) => {
                let reply = Reply::clone(self.replies.get(reply));
                proposer.on_reply(node(from), ballot, reply)
            }
            Input::Copied(to, copied) => proposer.on_copied(node(to), ballot, copied),
            Input::Silent(by) => proposer
                .stage()
                .map_or_else(Vec::new, |stage| proposer.on_silence(node(by), ballot, stage)),
            Input::Silence => silence(&mut proposer),
        };
        let effects = Rc::new(self.effects(proposer, actions));
        self.advanced.insert((number, input), Rc::clone(&effects));
        effects
    }

    fn effects(&mut self, proposer: Proposer, actions: Vec<Action>) -> Effects {
        let mut effects = Effects {
            attempt: proposer.attempt(),
            ..Effects::default()
        };
        let mut sends: BTreeMap<u16, Mask> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Send { to, request } | Action::Tell { to, request } => {
                    *sends.entry(self.request(request)).or_default() |= bit(index(to));
                }
                Action::Copy {
                    to,
                    item: sha256,
                    size,
                    from,
                } => effects.copies.push(copy(to, item(sha256), size, from)),
                Action::Backoff { .. } => effects.backoff = true,
                Action::Finish(outcome) => effects.outcome = Some(outcome),
            }
        }
        effects.sends = sends.into_iter().collect();
        effects.next = self.proposer(proposer);
        effects
    }
}

/// Everybody it waits for is silent: it gives up or finishes, whichever comes of it.
fn silence(proposer: &mut Proposer) -> Vec<Action> {
    let ballot = proposer.ballot();
    let mut actions = Vec::new();
    let Some(stage) = proposer.stage() else { return actions };
    for silent in proposer.waits_for() {
        actions.extend(proposer.on_silence(silent, ballot, stage));
        if proposer.ballot() != ballot || proposer.stage() != Some(stage) {
            break;
        }
    }
    actions
}

fn copy(to: NodeRef, item: u8, size: u64, from: Vec<NodeRef>) -> Copy {
    let fits = item > crate::names::Y || crate::names::size(item) == size;
    Copy {
        to: index(to),
        item,
        from: mask(from),
        fits,
    }
}
