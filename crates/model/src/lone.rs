//! A6: from this state, whoever of the nodes is live, one proposer that nobody disturbs finishes if it can.

use std::{
    collections::{HashSet, VecDeque},
    rc::Rc,
};

use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer, Refusal, acceptor};
use vstack_types::ProcessUuid;

use crate::{
    machines::{Input, Kind},
    names::{self, Mask, NODES_MAX, bit, index, members},
    rules::{self, Rule, Violation},
    state::{Standing, State},
    world::{World, names_of},
};

/// Attempts are for: a refusal that tells the round to go above, completing what was found, the wish.
const ATTEMPTS: u32 = 5;

/// A joint found undecided, turned back, settled, and a reader's last look.
const ROUNDS: u32 = 5;

/// States of the nodes that were looked at already: all that a lone proposer can see.
pub type Seen = HashSet<(Vec<u8>, Option<u16>)>;

/// The nodes alone.
struct Nodes {
    registers: [u16; NODES_MAX],
    items: [u8; NODES_MAX],
    live: Mask,
}

impl World {
    /// Checks A6 and the reader's half of A5, unless these nodes were looked at before.
    ///
    /// # Errors
    /// What a lone proposer cannot do.
    pub fn check_finishes(&mut self, state: &State, seen: &mut Seen) -> Result<(), Violation> {
        match self.only {
            None | Some(Rule::A5Learner | Rule::A6Finishes) => match self.check_nodes(state, seen) {
                Err(broken) if self.only.is_none_or(|only| only == broken.rule) => Err(broken),
                _ => Ok(()),
            },
            Some(_) => Ok(()),
        }
    }

    fn check_nodes(&mut self, state: &State, seen: &mut Seen) -> Result<(), Violation> {
        let mut bytes = Vec::new();
        for node in &state.nodes[..usize::from(self.scope.nodes)] {
            bytes.extend_from_slice(&node.register.to_le_bytes());
            bytes.extend_from_slice(&[node.items, node.standing as u8]);
        }
        bytes.push(state.spent.faults);
        if !seen.insert((bytes, state.latest())) {
            return Ok(());
        }
        let able = self.able(state);
        let current = state.latest().map(|latest| Rc::clone(self.machines.values.get(latest)));
        let current = current.as_deref();
        let enough: Vec<bool> = (0..=able)
            .map(|live| live & !able == 0 && self.suffices(state, live, current, current))
            .collect();
        let enough = |live: Mask| enough[usize::from(live)];
        if state.spent.faults <= 1 && !enough(able) {
            return Err(Violation::new(
                Rule::A6Finishes,
                "no set of live nodes is enough any more",
            ));
        }
        for live in 1..=able {
            if enough(live) {
                self.drain(state, live, current, current)?;
                // Whoever knows nothing is led to the current nodes by a majority of the first ones.
                let initial = self.scope.initial_mask();
                let majority = (live & initial).count_ones() > initial.count_ones() / 2;
                if current.is_some() && majority && self.suffices(state, live, current, None) {
                    self.drain(state, live, current, None)?;
                }
            }
        }
        Ok(())
    }

    /// Whether `live` has the majorities of the current value and of the one that a proposer will find, which may have
    /// been accepted after it, and, where these are coded, enough to make shards from. It asks the nodes of `told`, or
    /// the first ones, and then those of the highest value among the answers, until that names nobody new.
    fn suffices(&self, state: &State, live: Mask, current: Option<&Placement>, told: Option<&Placement>) -> bool {
        let is_live = |node| live & bit(index(node)) != 0;
        let initial = self.scope.initial_mask();
        let knows_first = (live & initial).count_ones() > initial.count_ones() / 2;
        let based = current.map_or(knows_first, |current| current.quorum(is_live));
        let mut asked = told.map_or(initial, names_of);
        let highest = loop {
            let votes = members(asked & live).filter_map(|n| {
                let register = self.machines.registers.get(state.nodes[usize::from(n)].register);
                register.accepted.as_ref()
            });
            let highest = votes.max_by_key(|vote| vote.ballot).map(|vote| &vote.placement);
            let more = highest.map_or(0, names_of) & !asked;
            if more == 0 {
                break highest;
            }
            asked |= more;
        };
        let can_be_made = |placement: &Placement| {
            let layouts = std::iter::once(&placement.layout).chain(&placement.prev);
            let coded = layouts.into_iter().any(|layout| matches!(layout, Layout::Coded { .. }));
            placement.is_first_coded() || !coded || self.can_copy(state, names::X, names_of(placement) & live)
        };
        let ready = |placement: &Placement| placement.quorum(is_live) && can_be_made(placement);
        based && current.is_none_or(can_be_made) && highest.is_none_or(ready)
    }

    /// Reads, and ends the move under way if there is one: settles it, or turns it back and settles that.
    fn drain(
        &mut self,
        state: &State,
        live: Mask,
        current: Option<&Placement>,
        told: Option<&Placement>,
    ) -> Result<(), Violation> {
        let mut nodes = Nodes {
            registers: state.nodes.map(|node| node.register),
            items: state.nodes.map(|node| node.items),
            live,
        };
        let stuck = |what: &str| {
            let live: String = members(live).map(|n| (n + 1).to_string()).collect();
            Violation::new(Rule::A6Finishes, format!("with {live} live, {what} does not finish"))
        };
        let mut latest = current.cloned();
        let mut known = told.cloned();
        for _ in 0..ROUNDS {
            let found = match self.propose(state, &mut nodes, &known, Change::Read) {
                Some(found) => found,
                // A coded first version that cannot be made is given up; everything else can be read.
                None if self.has_first_coded(&nodes) => self
                    .propose(state, &mut nodes, &known, Change::TurnBack)
                    .ok_or_else(|| stuck("giving up"))?,
                None => return Err(stuck("a read")),
            };
            self.check_found(&found, latest.as_ref())?;
            let Outcome::Decided(vote) = found else { return Ok(()) };
            if vote.placement.prev.is_none() {
                return Ok(());
            }
            latest = Some(vote.placement.clone());
            known = Some(vote.placement);
            // Refused, it found something newer: that is read next.
            let mut ended = self.propose(state, &mut nodes, &known, Change::Settle);
            if ended == Some(Outcome::Refused(Refusal::NotEnough)) {
                ended = self.propose(state, &mut nodes, &known, Change::TurnBack);
            }
            if ended.is_none() {
                return Err(stuck("ending a move"));
            }
        }
        Err(stuck("a move"))
    }

    fn has_first_coded(&self, nodes: &Nodes) -> bool {
        nodes.registers.iter().any(|register| {
            let accepted = &self.machines.registers.get(*register).accepted;
            accepted.as_ref().is_some_and(|vote| vote.placement.is_first_coded())
        })
    }

    fn check_found(&self, found: &Outcome, current: Option<&Placement>) -> Result<(), Violation> {
        let version = |placement: &Placement| placement.version;
        let ok = match (found, current) {
            (Outcome::Decided(vote), Some(current)) => {
                vote.placement == *current || vote.placement.version > version(current)
            }
            (Outcome::Nothing, Some(_)) => false,
            (Outcome::Decided(vote), None) => {
                rules::may_follow(None, &vote.placement, self.scope.begins_coded()).is_ok()
            }
            (Outcome::Nothing | Outcome::Refused(_), _) => true,
        };
        let what = || {
            let current = current.map_or_else(|| "nothing".into(), names::show);
            let found = match found {
                Outcome::Decided(vote) => names::show(&vote.placement),
                Outcome::Nothing => "nothing".into(),
                Outcome::Refused(refusal) => refusal.to_string(),
            };
            format!("a reader gets {found} where {current} was decided")
        };
        if ok {
            Ok(())
        } else {
            Err(Violation::new(Rule::A5Learner, what()))
        }
    }

    /// Runs a real proposer among the live nodes, to its end; none when it comes to none.
    fn propose(
        &mut self,
        state: &State,
        nodes: &mut Nodes,
        known: &Option<Placement>,
        change: Change,
    ) -> Option<Outcome> {
        // Above all others, should rounds be equal.
        let name = ProcessUuid::from_bytes([0xfe; 16]);
        let mut proposer = Proposer::new(name, names::refs(self.scope.initial), change);
        if let Some(known) = known {
            proposer = proposer.knowing(known.clone());
        }
        let mut number = self.machines.proposer(proposer);
        let mut attempt = 0;
        let mut inputs = VecDeque::from([(attempt, Input::Retry)]);
        while let Some((of, input)) = inputs.pop_front() {
            if of != attempt {
                continue;
            }
            let effects = self.machines.advance(number, input);
            number = effects.next;
            attempt = effects.attempt;
            for (request, to) in &effects.sends {
                let news = self.machines.parts(*request).kind == Kind::Decided;
                for n in members(*to) {
                    let reply = self.ask(state, nodes, n, *request);
                    let input = reply.map_or(Input::Silent(n), |reply| Input::Reply(n, reply));
                    inputs.extend((!news).then_some((attempt, input)));
                }
            }
            for copy in &effects.copies {
                let mut now = state.clone();
                for (node, items) in now.nodes.iter_mut().zip(nodes.items) {
                    node.items = items;
                }
                let copied = copy.fits && self.can_copy(&now, copy.item, copy.from & nodes.live);
                if copied {
                    nodes.items[usize::from(copy.to)] |= bit(copy.item);
                }
                inputs.push_back((attempt, Input::Copied(copy.to, copied)));
            }
            if let Some(outcome) = &effects.outcome {
                return Some(outcome.clone());
            }
            if effects.backoff {
                if attempt >= ATTEMPTS {
                    return None;
                }
                inputs.push_back((attempt, Input::Retry));
            }
        }
        None
    }

    fn ask(&mut self, state: &State, nodes: &mut Nodes, n: u8, request: u16) -> Option<u16> {
        let at = usize::from(n);
        let sealed = matches!(state.nodes[at].standing, Standing::Sealed | Standing::Cleared);
        if sealed && let Some(reply) = acceptor::when_sealed(self.machines.requests.get(request)) {
            return Some(self.machines.replies.short(reply));
        }
        if nodes.live & bit(n) == 0 {
            return None;
        }
        let (reply, register) = self.machines.handle(nodes.registers[at], n, nodes.items[at], request);
        nodes.registers[at] = register;
        Some(reply)
    }
}
