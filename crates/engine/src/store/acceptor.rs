//! Messages to the acceptor: every decision is [`vstack_chunkpaxos::acceptor::handle`]'s; here it learns what is
//! held, and what it changed is written.

use vstack_chunkpaxos::{Ballot, Placement, Register, Reply, Request, acceptor};
use vstack_types::{ChunkId, Digest, planted};

use super::Store;
use crate::{
    disk::Disk,
    op::{Now, WriteError},
    vouched::Vouched,
};

impl<D: Disk> Store<D> {
    pub(super) fn paxos(
        &mut self,
        id: &ChunkId,
        request: &Request,
        now: Now,
        position: usize,
    ) -> Result<Reply, WriteError> {
        if let Some(reply) = self.cannot_vote(request) {
            return Ok(reply);
        }
        let held = self.held_of(id, request, now, position)?;
        let register = self.entry(id)?.register();
        let outcome = acceptor::handle(
            &register,
            self.shared.me,
            |sha256| held.contains(&sha256) || planted!("votes without bytes"),
            request,
        );
        if let Some(register) = outcome.persist {
            let register = self.without_moot_damage(register, &held);
            self.stage_vote(id, register, now, position)?;
            self.batch_votes += u64::from(matches!(outcome.reply, Reply::Promise { .. } | Reply::Accepted { .. }));
        }
        Ok(match outcome.reply {
            Reply::State {
                promised,
                accepted,
                decided,
                damaged,
                holds,
            } => Reply::State {
                promised,
                accepted,
                decided,
                damaged: damaged || self.shared.votes_lost,
                holds,
            },
            reply => reply,
        })
    }

    pub(super) fn decided(
        &mut self,
        decisions: Vec<(ChunkId, Ballot, Placement)>,
        now: Now,
        position: usize,
    ) -> Result<(), WriteError> {
        for (id, ballot, placement) in decisions {
            self.paxos(&id, &Request::Decided { ballot, placement }, now, position)?;
        }
        Ok(())
    }

    /// What comes of `request` without a look at the register: this disk votes no more, or not for this placement.
    pub(super) fn cannot_vote(&self, request: &Request) -> Option<Reply> {
        if self.identity.sealed
            && let Some(reply) = acceptor::when_sealed(request)
        {
            return Some(reply);
        }
        let proposed = match request {
            Request::Put0 { placement, .. } | Request::Accept { placement, .. } => Some(placement),
            Request::Prepare { .. } => None,
            Request::Decided { .. } | Request::Read => return None,
        };
        if self.shared.votes_lost {
            return Some(Reply::Damaged);
        }
        // Acceptors are the nodes a placement names: a vote of anybody else could stand in for bytes nobody has.
        proposed
            .is_some_and(|placement| !placement.nodes().contains(&self.shared.me))
            .then_some(Reply::WrongNode)
    }

    /// Which items of the accepted and the proposed placement are here and verified. Finding one damaged changes
    /// the register, so this comes before the register is looked at.
    fn held_of(
        &mut self,
        id: &ChunkId,
        request: &Request,
        now: Now,
        position: usize,
    ) -> Result<Vec<Digest>, WriteError> {
        let Vouched { items, anew } = Vouched::of(&self.entry(id)?.register(), request, self.shared.me);
        let mut held = Vec::new();
        for sha256 in items {
            let is_here = if anew {
                self.reads_back(id, sha256, now, position)?
            } else {
                self.holds(id, sha256, now, position)?
            };
            if is_here {
                held.push(sha256);
            }
        }
        Ok(held)
    }

    /// Damage is that an item of the accepted layout is lost. A decision that assigns this node nothing, or only
    /// what is here, ends it.
    fn without_moot_damage(&self, register: Register, held: &[Digest]) -> Register {
        let misses = register.accepted.as_ref().is_some_and(|vote| {
            let mine = vote.placement.items_of(&vote.placement.layout, self.shared.me);
            mine.iter().any(|sha256| !held.contains(sha256))
        });
        Register {
            damaged: register.damaged && (misses || register.votes_lost()),
            ..register
        }
    }
}
