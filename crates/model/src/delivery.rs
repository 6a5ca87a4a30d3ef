//! A message is heard: what the acceptor answers, what that decides, what the rival does upon it.

use std::rc::Rc;

use vstack_chunkpaxos::{Ballot, Outcome, Placement, Refusal, Reply, Request, acceptor};
use vstack_types::planted;

use crate::{
    forward,
    machines::{Input, Kind},
    names::{self, Mask, bit, mask, members},
    rules::{self, Rule, Violation},
    state::{DONE, Decision, Mail, SETTLES_NOTHING, Standing, State},
    world::{World, with},
};

impl World {
    /// `node` hears `request`; its reply goes to `rival`.
    pub(crate) fn deliver(
        &mut self,
        state: &mut State,
        request: u16,
        node: u8,
        rival: Option<u8>,
    ) -> Result<(), Violation> {
        let parts = self.machines.parts(request);
        let at = usize::from(node);
        let here = state.nodes[at];
        let sealed = matches!(here.standing, Standing::Sealed | Standing::Cleared)
            .then(|| acceptor::when_sealed(self.machines.requests.get(request)))
            .flatten();
        let reply = if let Some(reply) = sealed {
            self.machines.replies.short(reply)
        } else {
            let brings = match (parts.kind, parts.value) {
                (Kind::Put0, Some(value)) => self.machines.mine(value, node),
                _ => 0,
            };
            let (reply, register) = self.machines.handle(here.register, node, here.items | brings, request);
            if register != here.register {
                state.nodes[at].knew_later |= self.goes_back(here.register, register);
                state.nodes[at].register = register;
                if parts.kind == Kind::Decided && planted!("a decision brings forgotten votes back") {
                    state.nodes[at].standing = Standing::Up;
                }
                state.nodes[at].items = with(here.items, brings);
            }
            reply
        };
        self.check_kept(state, request, node, reply)?;
        if matches!(**self.machines.replies.get(reply), Reply::Accepted { .. }) {
            self.count(state, request, node)?;
        }
        match rival {
            Some(rival) if parts.kind != Kind::Decided => self.tell(state, rival, Input::Reply(node, reply)),
            _ => Ok(()),
        }
    }

    /// Whether the node's register holds what it answers. Who watches for another promise only lets it pass.
    fn check_kept(&self, state: &State, request: u16, node: u8, reply: u16) -> Result<(), Violation> {
        if self.only.is_some_and(|only| only != Rule::Forward) {
            return Ok(());
        }
        let register = self.machines.registers.get(state.nodes[usize::from(node)].register);
        let (request, reply) = (self.machines.requests.get(request), self.machines.replies.get(reply));
        forward::is_kept(request, reply, register)
            .map_err(|what| Violation::new(Rule::Forward, format!("node {} {what}", node + 1)))
    }

    /// Whether the second register knows only lower ballots than the first.
    fn goes_back(&self, from: u16, to: u16) -> bool {
        let ballot = |register| {
            let accepted = self.machines.registers.get(register).accepted.as_ref();
            accepted.map(|vote| vote.ballot)
        };
        ballot(to) < ballot(from)
    }

    /// `node` said that it accepted.
    fn count(&mut self, state: &mut State, request: u16, node: u8) -> Result<(), Violation> {
        if matches!(
            state.nodes[usize::from(node)].standing,
            Standing::Sealed | Standing::Cleared
        ) {
            let what = format!("node {} is sealed and votes", node + 1);
            return Err(Violation::new(Rule::Sealed, what));
        }
        let parts = self.machines.parts(request);
        let Some(value) = parts.value else { return Ok(()) };
        let Some(mail) = state.mail.iter_mut().find(|mail| mail.request == request) else {
            return Ok(());
        };
        mail.voters |= bit(node);
        let voters = mail.voters;
        let decides = if planted!("acceptors that hold nothing vote") {
            voters.count_ones() > u32::from(self.scope.nodes) / 2
        } else {
            self.machines.quorum(value, voters)
        };
        if !decides || !self.is_news(state, request) {
            return Ok(());
        }
        self.decide(state, value, names::rank(parts.ballot))?;
        if parts.kind == Kind::Put0 {
            let placement = Rc::clone(self.machines.values.get(value));
            let news = self.machines.request(Request::Decided {
                ballot: parts.ballot,
                placement: (*placement).clone(),
            });
            self.send(state, &[(news, mask(placement.nodes()))])?;
        }
        Ok(())
    }

    /// Whether a quorum for this request would say anything that the chain does not say yet. A decision that was made
    /// again in a ballot between others adds nothing, nor does a lower one of the first version; but its owner, who
    /// learns of it then, tells it.
    pub(crate) fn is_news(&self, state: &State, request: u16) -> bool {
        let parts = self.machines.parts(request);
        let Some(value) = parts.value else { return false };
        let rank = names::rank(parts.ballot);
        match state.decided(value) {
            Some(0) if rank < state.chain[0].lowest => parts.kind == Kind::Put0,
            Some(at) => state.chain[at].lacks(rank),
            None => !self.is_moot_first(state, self.machines.values.get(value), rank),
        }
    }

    /// A quorum accepted `value` in the ballot of this rank: the later a placement is in the chain, the higher are all
    /// the ballots that decided it.
    fn decide(&mut self, state: &mut State, value: u16, rank: u16) -> Result<(), Violation> {
        let at = match state.decided(value) {
            Some(at) => at,
            None => {
                let placement = Rc::clone(self.machines.values.get(value));
                let latest = state.latest().map(|latest| Rc::clone(self.machines.values.get(latest)));
                rules::may_follow(latest.as_deref(), &placement, self.scope.begins_coded())?;
                state.chain.push(Decision {
                    value,
                    lowest: rank,
                    highest: rank,
                });
                state.chain.len() - 1
            }
        };
        let decision = &mut state.chain[at];
        decision.lowest = decision.lowest.min(rank);
        decision.highest = decision.highest.max(rank);
        let before = at.checked_sub(1).map(|before| state.chain[before]);
        let overtaken = before.filter(|before| rank < before.highest);
        let overtakes = state.chain.get(at + 1).filter(|after| rank > after.lowest);
        let Some(other) = overtaken.or(overtakes.copied()) else {
            return Ok(());
        };
        let shown = |value| names::show(self.machines.values.get(value));
        let gone = overtakes.is_some() && self.machines.values.get(other.value).layout.is_deleted();
        let rule = if gone { Rule::A4Tombstone } else { Rule::A1OneChain };
        let than = if overtakes.is_some() { "higher" } else { "lower" };
        let what = format!(
            "{} is decided in a {than} ballot than {}",
            shown(value),
            shown(other.value)
        );
        Err(Violation::new(rule, what))
    }

    /// A coded first version that was given up may still get its majority in a lower ballot. No uploader is told that
    /// its chunk is stored before it is settled, and whoever wants to settle it finds the deletion.
    fn is_moot_first(&self, state: &State, placement: &Placement, rank: u16) -> bool {
        let given_up =
            |latest: &Decision| rank < latest.lowest && self.machines.values.get(latest.value).layout.is_deleted();
        placement.is_first_coded() && state.chain.last().is_some_and(given_up)
    }

    /// Tells a rival, and does what it says until it waits again.
    pub(crate) fn tell(&mut self, state: &mut State, rival: u8, input: Input) -> Result<(), Violation> {
        let at = usize::from(rival);
        if state.rivals[at] <= DONE {
            return Ok(());
        }
        let effects = self.machines.advance(state.rivals[at], input);
        state.rivals[at] = effects.next;
        if let Some(outcome) = &effects.outcome {
            self.check_outcome(state, outcome)?;
        }
        let attempts = u32::from(self.scope.attempts);
        let spent = effects.attempt > attempts + u32::from(self.scope.completing);
        let no_other = self.scope.completing || effects.attempt >= attempts;
        if !spent {
            self.send(state, &effects.sends)?;
        } else {
            let news: Vec<_> = effects
                .sends
                .iter()
                .filter(|(request, _)| self.machines.parts(*request).kind == Kind::Decided)
                .copied()
                .collect();
            self.send(state, &news)?;
        }
        if effects.outcome.is_some() || spent || (effects.backoff && no_other) {
            state.rivals[at] = DONE;
            return Ok(());
        }
        if effects.backoff {
            // Waiting longer is what a delay of its next messages looks like.
            return self.tell(state, rival, Input::Retry);
        }
        for copy in &effects.copies {
            let copied = copy.fits && self.can_copy(state, copy.item, copy.from);
            if copied {
                let items = &mut state.nodes[usize::from(copy.to)].items;
                *items = with(*items, bit(copy.item));
            }
            self.tell(state, rival, Input::Copied(copy.to, copied))?;
        }
        Ok(())
    }

    /// A whole copy is copied; a shard too, or made from a whole copy; and a whole copy from enough shards.
    pub(crate) fn can_copy(&self, state: &State, item: u8, from: Mask) -> bool {
        let has = |wanted: u8| {
            members(from).any(|n| state.present(n) && state.nodes[usize::from(n)].items & bit(wanted) != 0)
        };
        let enough = || {
            let shards = (names::SHARD..names::ITEMS).filter(|shard| has(*shard)).count();
            self.scope
                .shards_needed()
                .is_some_and(|data| shards >= usize::from(data))
        };
        has(item) || (item != names::Y && ((item >= names::SHARD && has(names::X)) || enough()))
    }

    fn check_outcome(&mut self, state: &State, outcome: &Outcome) -> Result<(), Violation> {
        match outcome {
            Outcome::Decided(vote) => self.check_known(state, &vote.placement, names::rank(vote.ballot)),
            Outcome::Refused(Refusal::Taken(placement) | Refusal::Joint(placement) | Refusal::Version(placement)) => {
                self.check_known(state, placement, 0)
            }
            Outcome::Nothing | Outcome::Refused(_) => Ok(()),
        }
    }

    fn check_known(&mut self, state: &State, told: &Placement, rank: u16) -> Result<(), Violation> {
        let value = self.machines.values.short(told.clone());
        if state.decided(value).is_some() || self.is_moot_first(state, told, rank) {
            return Ok(());
        }
        let what = format!("{} is told to be decided and is not", names::show(told));
        Err(Violation::new(Rule::A5Learner, what))
    }

    pub(crate) fn send(&mut self, state: &mut State, sends: &[(u16, Mask)]) -> Result<(), Violation> {
        for (request, to) in sends {
            let parts = self.machines.parts(*request);
            if let Some(value) = parts.value {
                let placement = Rc::clone(self.machines.values.get(value));
                if parts.kind == Kind::Decided {
                    self.check_known(state, &placement, names::rank(parts.ballot))?;
                }
                self.check_one_value(state, *request)?;
                if parts.kind == Kind::Accept {
                    self.note_settled(state, value, parts.ballot);
                }
            }
            match state.mail.binary_search_by_key(request, |mail| mail.request) {
                Ok(at) => state.mail[at].to |= to,
                Err(at) => state.mail.insert(
                    at,
                    Mail {
                        request: *request,
                        to: *to,
                        voters: 0,
                    },
                ),
            }
        }
        Ok(())
    }

    /// Who settles a move after something was lost counted what is left, so that is no excuse for the settled value: it
    /// is kept for it who had lost something before all that may have counted for it began. A turning back is settled
    /// without counting.
    fn note_settled(&self, state: &mut State, value: u16, ballot: Ballot) {
        let settled = self.machines.values.get(value);
        if settled.prev.is_some() || settled.version == 1 || settled.layout.is_deleted() {
            return;
        }
        let without = names::rival_of(ballot).map_or(0, |rival| state.settles_without[usize::from(rival)]);
        let turned_back = state.chain.iter().any(|decision| {
            let before = self.machines.values.get(decision.value);
            before.version + 1 == settled.version && before.back
        });
        if without == SETTLES_NOTHING || turned_back {
            return;
        }
        match state.counted_without.iter().position(|(of, _)| *of == value) {
            Some(at) => state.counted_without[at].1 &= without,
            None if !self.was_proposed(state, value) => state.counted_without.push((value, without)),
            None => {}
        }
        state.counted_without.retain(|(_, without)| *without != 0);
        state.counted_without.sort_unstable();
    }

    /// Whether anybody may know of this value.
    fn was_proposed(&self, state: &State, value: u16) -> bool {
        let accepts = |register: u16| {
            let accepted = self.machines.registers.get(register).accepted.as_ref();
            accepted.is_some_and(|vote| vote.placement == **self.machines.values.get(value))
        };
        let nodes = state.nodes.iter().flat_map(|node| {
            let old = node.old.map(|(register, _)| register);
            std::iter::once(node.register).chain(old)
        });
        let sent = |mail: &Mail| self.machines.parts(mail.request).value == Some(value);
        state.decided(value).is_some() || state.mail.iter().any(sent) || nodes.into_iter().any(accepts)
    }

    fn check_one_value(&self, state: &State, request: u16) -> Result<(), Violation> {
        let new = self.machines.parts(request);
        let other = state
            .mail
            .iter()
            .map(|mail| self.machines.parts(mail.request))
            .find(|old| {
                old.ballot == new.ballot
                    && old.kind == Kind::Accept
                    && new.kind == Kind::Accept
                    && old.value != new.value
            });
        let Some(other) = other.and_then(|other| other.value) else {
            return Ok(());
        };
        let what = format!(
            "ballot {} carries {} and something else",
            names::show_ballot(new.ballot),
            names::show(self.machines.values.get(other))
        );
        Err(Violation::new(Rule::OneValue, what))
    }
}
