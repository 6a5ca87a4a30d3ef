//! A message is heard: what the acceptor answers, what that decides, what the rival does upon it.

use std::rc::Rc;

use vstack_chunkpaxos::{Outcome, Placement, Refusal, Reply, Request, acceptor};
use vstack_types::planted;

use crate::{
    machines::{Input, Kind},
    names::{self, Mask, bit, mask, members},
    rules::{self, Rule, Violation},
    state::{DONE, Mail, Standing, State},
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
                state.nodes[at].register = register;
                state.nodes[at].items = with(here.items, brings);
            }
            reply
        };
        if matches!(**self.machines.replies.get(reply), Reply::Accepted { .. }) {
            self.count(state, request, node)?;
        }
        match rival {
            Some(rival) if parts.kind != Kind::Decided => self.tell(state, rival, Input::Reply(node, reply)),
            _ => Ok(()),
        }
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
        if !decides || state.chain.contains(&value) {
            return Ok(());
        }
        let placement = Rc::clone(self.machines.values.get(value));
        if self.is_moot_first(state, &placement) {
            return Ok(());
        }
        let latest = state
            .chain
            .last()
            .map(|latest| Rc::clone(self.machines.values.get(*latest)));
        rules::may_follow(latest.as_deref(), &placement, self.scope.begins_coded())?;
        state.chain.push(value);
        if parts.kind == Kind::Put0 {
            let news = self.machines.request(Request::Decided {
                ballot: parts.ballot,
                placement: (*placement).clone(),
            });
            self.send(state, &[(news, mask(placement.nodes()))])?;
        }
        Ok(())
    }

    /// A coded first version that was given up may still get its majority. No uploader is told that its chunk is stored
    /// before it is settled, and whoever wants to settle it finds the deletion.
    fn is_moot_first(&self, state: &State, placement: &Placement) -> bool {
        let latest = state.chain.last().map(|latest| self.machines.values.get(*latest));
        placement.is_first_coded() && latest.is_some_and(|latest| latest.layout.is_deleted())
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
        let spent = effects.attempt > u32::from(self.scope.attempts);
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
        if effects.outcome.is_some() || spent || (effects.backoff && effects.attempt >= u32::from(self.scope.attempts))
        {
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
        let told = match outcome {
            Outcome::Decided(vote) => &vote.placement,
            Outcome::Refused(Refusal::Taken(placement) | Refusal::Joint(placement) | Refusal::Version(placement)) => {
                placement
            }
            Outcome::Nothing | Outcome::Refused(_) => return Ok(()),
        };
        self.check_known(state, told)
    }

    fn check_known(&mut self, state: &State, told: &Placement) -> Result<(), Violation> {
        let value = self.machines.values.short(told.clone());
        if state.chain.contains(&value) || self.is_moot_first(state, told) {
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
                    self.check_known(state, &placement)?;
                }
                self.check_one_value(state, *request)?;
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
