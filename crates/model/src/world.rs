//! Every step from a state: messages and rivals here, faults in `environment`.
//!
//! A request that was sent stays deliverable for as long as it may change anything: loss is that it never is, delay and
//! reordering that it is later, duplication that it is again. A reply is heard at once or never. That leaves nothing
//! out: between a node's answer and its arrival only the proposer could tell the difference, and what it sends upon it
//! may be delayed as well. A proposer that dies is one that takes no further step.

use std::rc::Rc;

use vstack_chunkpaxos::{Layout, Proposer, Register, Request, Vote};
use vstack_types::planted;

use crate::{
    machines::{Effects, Input, Machines},
    names::{self, Mask, NODES_MAX, bit, index, mask, members},
    rules::{self, Rule, Violation},
    scope::{Begin, Scope, Wish},
    state::{DONE, Decision, Mail, NOT_STARTED, Node, RIVALS_MAX, SETTLES_NOTHING, Spent, Standing, State},
    step::Step,
};

/// A step that breaks a promise.
pub type Broken = (Step, Violation);

/// A scope with the machines that run in it.
#[derive(Debug)]
pub struct World {
    /// Its bounds.
    pub scope: Scope,
    /// The real code.
    pub machines: Machines,
    /// The only promise looked at, when it is not all.
    pub only: Option<Rule>,
}

impl World {
    /// A world of `scope`.
    pub fn new(scope: Scope) -> Self {
        assert!(usize::from(scope.nodes) <= NODES_MAX && usize::from(scope.rivals) <= RIVALS_MAX);
        Self {
            scope,
            machines: Machines::default(),
            only: None,
        }
    }

    /// The state before anything happened.
    pub fn begin(&mut self) -> State {
        let empty = self.machines.registers.short(Register::default());
        let mut state = State {
            nodes: [Node {
                register: empty,
                ..Node::default()
            }; NODES_MAX],
            rivals: [NOT_STARTED; RIVALS_MAX],
            mail: Vec::new(),
            chain: Vec::new(),
            settles_without: [SETTLES_NOTHING; RIVALS_MAX],
            counted_without: Vec::new(),
            spent: Spent::default(),
        };
        if let Some(heir) = self.scope.faults.heir {
            state.nodes[usize::from(heir - 1)].standing = Standing::Unborn;
        }
        for staged in members(mask(names::refs(self.scope.staged))) {
            state.nodes[usize::from(staged)].items |= bit(names::Y);
        }
        match self.scope.begin {
            Begin::Empty => {}
            Begin::Sent(form) => self.send_first(&mut state, form.layout()),
            Begin::Stored => {
                let first = names::first(names::X, names::replicated(self.scope.initial));
                self.store(&mut state, vec![first]);
            }
            Begin::Moving(form) | Begin::Moved(form) => {
                let first = names::first(names::X, names::replicated(self.scope.initial));
                let mut joint = first.clone();
                joint.version = 2;
                joint.prev = Some(std::mem::replace(&mut joint.layout, form.layout()));
                let mut chain = vec![first, joint.clone()];
                if matches!(self.scope.begin, Begin::Moved(_)) {
                    joint.version = 3;
                    joint.prev = None;
                    chain.push(joint);
                }
                self.store(&mut state, chain);
            }
        }
        state
    }

    fn send_first(&mut self, state: &mut State, layout: Layout) {
        let mut to = mask(layout.nodes());
        if planted!("acceptors that hold nothing vote") {
            to = all(self.scope.nodes);
        }
        let mut put = |content| {
            let request = self.machines.request(Request::Put0 {
                ballot: names::owner(),
                placement: names::first(content, layout.clone()),
            });
            state.mail.push(Mail { request, to, voters: 0 });
        };
        put(names::X);
        if planted!("a second process of the session uses round 0") {
            put(names::Y);
        }
    }

    /// Everybody accepted these one after the other, has their items and knows of the last that it is decided.
    fn store(&mut self, state: &mut State, chain: Vec<vstack_chunkpaxos::Placement>) {
        for placement in chain {
            let value = self.machines.values.short(placement.clone());
            state.chain.push(Decision {
                value,
                lowest: names::rank(names::owner()),
                highest: names::rank(names::owner()),
            });
            let register = self.machines.registers.short(Register {
                promised: Some(names::owner()),
                accepted: Some(Vote {
                    ballot: names::owner(),
                    placement: placement.clone(),
                }),
                decided: true,
                damaged: false,
            });
            for n in members(mask(placement.nodes())) {
                state.nodes[usize::from(n)].register = register;
                let keeps = if placement.prev.is_some() {
                    state.nodes[usize::from(n)].items
                } else {
                    0
                };
                state.nodes[usize::from(n)].items = keeps | self.machines.mine(value, n);
            }
        }
    }

    /// Everything that may happen in `state`, with what comes of it.
    ///
    /// # Errors
    /// The first step that breaks a promise.
    pub fn steps(&mut self, state: &State, out: &mut Vec<(Step, State)>) -> Result<(), Box<Broken>> {
        out.clear();
        self.deliveries(state, out)?;
        self.starts(state, out)?;
        if self.scope.attempts > 1 {
            self.silences(state, out)?;
        }
        self.environment(state, out)?;
        let latest = state.latest();
        for (step, next) in out {
            if let Err(broken) = self.check_forward(*step, state, next) {
                self.matters(*step, broken)?;
            }
            self.tidy(next);
            let looks = next.nodes != state.nodes || next.latest() != latest;
            if looks
                && let Some(current) = next.latest()
                && let Err(broken) = self.check_readable(next, current)
            {
                self.matters(*step, broken)?;
            }
        }
        Ok(())
    }

    /// A2 for the last decision, with what was lost after it was known who holds it.
    fn check_readable(&mut self, state: &State, current: u16) -> Result<(), Violation> {
        let placement = Rc::clone(self.machines.values.get(current));
        let counted = state.counted_without.iter().find(|(value, _)| *value == current);
        let before = counted.map_or(0, |(_, without)| *without);
        let lost = members(state.harmed() & !before).filter(|n| {
            let mut taken = members(state.nodes[usize::from(*n)].taken);
            taken.any(|item| placement.keeps(names::node(*n), names::digest(item)))
        });
        rules::check_readable(state, &placement, self.scope.nodes, lost.count())
    }

    /// Passes a broken promise on, if it is one that is looked at. What was being done stays half done otherwise.
    pub(crate) fn matters(&self, step: Step, broken: Violation) -> Result<(), Box<Broken>> {
        if self.only.is_none_or(|only| only == broken.rule) {
            return Err(Box::new((step, broken)));
        }
        Ok(())
    }

    fn deliveries(&mut self, state: &State, out: &mut Vec<(Step, State)>) -> Result<(), Box<Broken>> {
        for mail in &state.mail {
            let ballot = self.machines.parts(mail.request).ballot;
            let waiting: Vec<u8> = (0..self.scope.rivals)
                .filter(|rival| self.is_at(state, *rival, ballot))
                .collect();
            for node in members(mail.to) {
                let mut hearers: Vec<Option<u8>> = waiting.iter().copied().map(Some).collect();
                if hearers.is_empty() || self.scope.exact {
                    hearers.push(None);
                }
                for rival in hearers {
                    let step = Step::Deliver {
                        request: mail.request,
                        node,
                        rival,
                    };
                    let mut next = state.clone();
                    if let Err(broken) = self.deliver(&mut next, mail.request, node, rival) {
                        self.matters(step, broken)?;
                    }
                    if next != *state {
                        out.push((step, next));
                    }
                }
            }
        }
        Ok(())
    }

    fn starts(&mut self, state: &State, out: &mut Vec<(Step, State)>) -> Result<(), Box<Broken>> {
        let mut told = vec![None];
        if self.scope.knowing {
            told.extend(state.chain.iter().map(|decision| Some(decision.value)));
        }
        for rival in 0..self.scope.rivals {
            if state.rivals[usize::from(rival)] != NOT_STARTED {
                continue;
            }
            for wish in self.scope.wishes.clone() {
                // A planner names disks that there are, or were.
                if let Wish::Move(form) = wish
                    && members(mask(form.layout().nodes()))
                        .any(|n| state.nodes[usize::from(n)].standing == Standing::Unborn)
                {
                    continue;
                }
                for knowing in &told {
                    let fresh = self.fresh(state, rival, wish, *knowing);
                    let effects = self.machines.advance(fresh, Input::Retry);
                    let (request, to) = effects.sends[0];
                    for node in members(to) {
                        let step = Step::Start {
                            rival,
                            wish,
                            knowing: *knowing,
                            node,
                        };
                        let mut next = state.clone();
                        if wish == Wish::Settle {
                            next.settles_without[usize::from(rival)] = state.harmed();
                        }
                        if let Err(broken) = self.started(&mut next, rival, &effects, request, node) {
                            self.matters(step, broken)?;
                        }
                        // Refused at its first message it might as well not have started yet.
                        let heard = next.rivals[usize::from(rival)] != effects.next || next.nodes != state.nodes;
                        if next.rivals[usize::from(rival)] != DONE && heard {
                            out.push((step, next));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn started(
        &mut self,
        next: &mut State,
        rival: u8,
        effects: &Effects,
        request: u16,
        node: u8,
    ) -> Result<(), Violation> {
        next.rivals[usize::from(rival)] = effects.next;
        self.send(next, &effects.sends)?;
        let deliverable = next
            .mail
            .iter()
            .any(|mail| mail.request == request && mail.to & bit(node) != 0);
        if deliverable && votes(next.nodes[usize::from(node)].standing) {
            self.deliver(next, request, node, Some(rival))?;
        }
        Ok(())
    }

    fn fresh(&mut self, state: &State, rival: u8, wish: Wish, knowing: Option<u16>) -> u32 {
        let name = if planted!("a restarted proposer keeps its name") {
            names::process(0)
        } else {
            names::process(rival)
        };
        let group = self.scope.faults.group.filter(|_| state.spent.regrouped);
        let initial = match group {
            Some(group) if planted!("the first nodes are computed again") => group,
            _ => self.scope.initial,
        };
        let mut proposer = Proposer::new(name, names::refs(initial), wish.change());
        if let Some(value) = knowing {
            proposer = proposer.knowing((**self.machines.values.get(value)).clone());
        }
        self.machines.proposer(proposer)
    }

    fn silences(&mut self, state: &State, out: &mut Vec<(Step, State)>) -> Result<(), Box<Broken>> {
        for rival in 0..self.scope.rivals {
            if state.rivals[usize::from(rival)] <= DONE {
                continue;
            }
            let step = Step::Silence { rival };
            let mut next = state.clone();
            if let Err(broken) = self.tell(&mut next, rival, Input::Silence) {
                self.matters(step, broken)?;
            }
            if next != *state {
                out.push((step, next));
            }
        }
        Ok(())
    }

    pub(crate) fn is_at(&self, state: &State, rival: u8, ballot: vstack_chunkpaxos::Ballot) -> bool {
        let number = state.rivals[usize::from(rival)];
        number > DONE && self.machines.proposer_of(number).ballot() == ballot
    }
}

/// Whether a node of this standing answers those who want a vote, if only to refuse.
pub(crate) const fn votes(standing: Standing) -> bool {
    matches!(standing, Standing::Up | Standing::Sealed | Standing::Cleared)
}

/// Every node of so many.
pub(crate) const fn all(nodes: u8) -> Mask {
    (((1u16 << nodes) - 1) & 0xff) as Mask
}

/// Items with others added. Keyed by the chunk's id alone, other bytes of the same id would take their place.
pub(crate) fn with(items: u8, more: u8) -> u8 {
    let whole = bit(names::X) | bit(names::Y);
    if planted!("bytes are keyed by the chunk id alone") && more & whole != 0 {
        return (items & !whole) | more;
    }
    items | more
}

/// The nodes a value names, as a mask.
pub(crate) fn names_of(placement: &vstack_chunkpaxos::Placement) -> Mask {
    placement
        .nodes()
        .into_iter()
        .fold(0, |mask, node| mask | bit(index(node)))
}
