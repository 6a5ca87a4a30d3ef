//! Messages that can change nothing any more are taken out, so that states that differ in nothing are one.

use vstack_chunkpaxos::Reply;
use vstack_types::planted;

use crate::{
    forward,
    machines::Kind,
    names::{bit, members},
    state::{DONE, SETTLES_NOTHING, Standing, State},
    world::{World, votes},
};

impl World {
    /// Takes out what can change nothing any more, so that states that differ in nothing are one.
    pub(crate) fn tidy(&mut self, state: &mut State) {
        let mut mail = std::mem::take(&mut state.mail);
        for letter in &mut mail {
            let parts = self.machines.parts(letter.request);
            let waits = (0..self.scope.rivals).any(|rival| self.is_at(state, rival, parts.ballot));
            if parts.kind == Kind::Prepare && !waits && !self.scope.exact {
                letter.to = 0;
            }
            for n in members(letter.to) {
                if self.is_moot(state, letter.request, n, waits) {
                    letter.to &= !bit(n);
                }
            }
            if let Some(value) = parts.value {
                let told = !self.is_news(state, letter.request);
                // Who still may vote has not refused; without a quorum of those it comes to nothing.
                let mut hopeless = || !self.machines.quorum(value, letter.voters | letter.to);
                if told || (letter.voters != 0 && !planted!("acceptors that hold nothing vote") && hopeless()) {
                    letter.voters = 0;
                }
            }
        }
        mail.retain(|letter| letter.to | letter.voters != 0);
        state.mail = mail;
        self.tidy_faults(state);
    }

    fn tidy_faults(&self, state: &mut State) {
        let over = state.spent.faults >= self.scope.faults.total;
        for node in &mut state.nodes {
            node.taken &= !node.items;
            if over {
                node.old = None;
            }
        }
        for (rival, without) in state.rivals.iter().zip(&mut state.settles_without) {
            if *rival <= DONE {
                *without = SETTLES_NOTHING;
            }
        }
    }

    /// Whether node `n` will never do anything upon this message that would make a difference. Nobody is absent for a
    /// time, and registers only go forward: `forward.rs` looks at both in every step. That then a refusal stays one is
    /// looked at in `tests/what_is_refused_stays_refused.rs`.
    fn is_moot(&mut self, state: &State, request: u16, n: u8, waits: bool) -> bool {
        let node = state.nodes[usize::from(n)];
        let parts = self.machines.parts(request);
        let news = parts.kind == Kind::Decided;
        if !state.present(n) {
            // Whoever may come back under this name may yet hear it.
            return !planted!("a lost disk returns under its old name");
        }
        if !news && !votes(node.standing) {
            return matches!(node.standing, Standing::Abstains | Standing::Forgot);
        }
        if self.scope.unpruned {
            return false;
        }
        let brings = match (parts.kind, parts.value) {
            (Kind::Put0, Some(value)) => self.machines.mine(value, n),
            _ => 0,
        };
        let (reply, register) = self.machines.handle(node.register, n, node.items | brings, request);
        if register != node.register {
            return false;
        }
        let said = self.machines.replies.get(reply);
        match **said {
            Reply::Noted => true,
            Reply::Nack { .. } => !waits,
            // A vote that is in the register was counted when it got there, or it is known from news of its decision.
            Reply::Accepted { .. } => {
                let asked = self.machines.requests.get(request);
                !waits && forward::is_kept(asked, said, self.machines.registers.get(register)).is_ok()
            }
            _ => false,
        }
    }
}
