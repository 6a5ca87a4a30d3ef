//! Registers go forward: what a node promised, accepted and answered stays true of it, unless a fault takes it, and then
//! its votes end.
//!
//! The search rests on it. It leaves out messages that a node would refuse or that tell it nothing new, for good, and
//! that loses nothing only while what a node once refused it refuses for ever. So it is looked at in every step.

use vstack_chunkpaxos::{Register, Reply, Request};

use crate::{
    rules::{Rule, Violation},
    state::{Standing, State},
    step::Step,
    world::{World, votes},
};

impl World {
    /// Whether every register and standing in `next` is one that may come after those in `state`.
    ///
    /// # Errors
    /// Who went back.
    pub(crate) fn check_forward(&self, step: Step, state: &State, next: &State) -> Result<(), Violation> {
        let nodes = state.nodes.iter().zip(&next.nodes);
        for (n, (from, to)) in (1..).zip(nodes) {
            if from.register == to.register && from.standing == to.standing {
                continue;
            }
            let before = self.machines.registers.get(from.register);
            let after = self.machines.registers.get(to.register);
            let born = from.standing == Standing::Unborn && matches!(step, Step::Adopt(_));
            let ended = !votes(from.standing) || before.votes_lost();
            let ends = !votes(to.standing) || after.votes_lost();
            let left = matches!(from.standing, Standing::Unborn | Standing::Gone) && from.standing != to.standing;
            let what = if !born && (left || ended && !ends) {
                "votes again"
            } else if let Some(what) = fell(before, after)
                && !(ends && takes_votes(step))
            {
                what
            } else {
                continue;
            };
            return Err(Violation::new(Rule::Forward, format!("node {n} {what}")));
        }
        Ok(())
    }
}

/// Faults after which a disk may know less than it did.
const fn takes_votes(step: Step) -> bool {
    matches!(
        step,
        Step::LoseDisk(_)
            | Step::LoseVotes(_)
            | Step::LoseNewestVotes(_)
            | Step::PutBack(_)
            | Step::Adopt(_)
            | Step::Wipe(_)
    )
}

/// What the second register no longer knows of the first. An undecided placement may be followed by one of a lower
/// version, in a higher ballot: it lost.
fn fell(before: &Register, after: &Register) -> Option<&'static str> {
    if after.promised < before.promised {
        return Some("takes a promise back");
    }
    let Some(was) = &before.accepted else { return None };
    let Some(is) = &after.accepted else {
        return Some("forgets what it accepted");
    };
    if is.ballot < was.ballot {
        return Some("goes back to an older vote");
    }
    if is.ballot == was.ballot && is.placement != was.placement {
        return Some("changes its vote");
    }
    if before.decided && is.ballot == was.ballot && !after.decided {
        return Some("forgets a decision");
    }
    (before.decided && is.placement.version < was.placement.version).then_some("votes below what it knows decided")
}

/// Whether what `reply` says to `request` is in the register it leaves behind.
///
/// # Errors
/// What was promised and not kept.
pub(crate) fn is_kept(request: &Request, reply: &Reply, register: &Register) -> Result<(), &'static str> {
    match (reply, request) {
        (Reply::Promise { ballot, .. }, _) if register.promised != Some(*ballot) => Err("does not keep its promise"),
        (Reply::Accepted { .. }, Request::Put0 { ballot, placement } | Request::Accept { ballot, placement }) => {
            let keeps = |vote: &vstack_chunkpaxos::Vote| vote.ballot == *ballot && vote.placement == *placement;
            if register.accepted.as_ref().is_some_and(keeps) {
                Ok(())
            } else {
                Err("does not keep its vote")
            }
        }
        _ => Ok(()),
    }
}
