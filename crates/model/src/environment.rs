//! What happens to disks, and what operators and clients do.

use std::rc::Rc;

use vstack_chunkpaxos::Register;
use vstack_types::planted;

use crate::{
    names::{self, ITEMS, bit, members, node},
    rules::{Rule, Violation},
    state::{Node, Standing, State},
    step::Step,
    world::{Broken, World, all, names_of, votes, with},
};

type Steps = Vec<(Step, State)>;

impl World {
    pub(crate) fn environment(&mut self, state: &State, out: &mut Steps) -> Result<(), Box<Broken>> {
        let faults = self.scope.faults;
        let may_fail = state.spent.faults < faults.total;
        for n in members(all(self.scope.nodes)) {
            if !state.present(n) {
                continue;
            }
            // A disk that forgot votes may vouch for anything it has.
            if faults.gc && state.nodes[usize::from(n)].standing != Standing::Forgot {
                self.deletions(state, n, out)?;
            }
            if faults.lost && may_fail {
                Self::lose_disk(state, n, out);
            }
            if faults.rot {
                self.rots(state, n, may_fail, out);
            }
            if (faults.votes || faults.register_votes) && may_fail {
                self.lose_votes(state, n, out);
            }
            if faults.newest_votes {
                Self::lose_newest_votes(state, n, may_fail, out);
            }
            if faults.old {
                self.go_back(state, n, may_fail, out);
            }
            if let Some(heir) = faults.heir {
                self.adopt(state, n, heir - 1, out);
            }
            if faults.leaving > 0 {
                self.leave(state, n, out);
            }
            if faults.strays && !state.spent.strayed {
                let mut next = state.clone();
                next.spent.strayed = true;
                let items = &mut next.nodes[usize::from(n)].items;
                *items = with(*items, bit(names::Y));
                out.push((Step::Stray(n), next));
            }
            if planted!("a tombstone is forgotten") {
                self.forget(state, n, out);
            }
        }
        if faults.group.is_some() && !state.spent.regrouped {
            let mut next = state.clone();
            next.spent.regrouped = true;
            out.push((Step::Regroup, next));
        }
        Ok(())
    }

    fn deletions(&mut self, state: &State, n: u8, out: &mut Steps) -> Result<(), Box<Broken>> {
        let here = state.nodes[usize::from(n)];
        for item in members(self.machines.deletable(here.register, n) & here.items) {
            let step = Step::Delete { node: n, item };
            if let Err(broken) = self.check_delete(state, n, item) {
                self.matters(step, broken)?;
            }
            let mut next = state.clone();
            next.nodes[usize::from(n)].items &= !bit(item);
            out.push((step, next));
        }
        Ok(())
    }

    /// Who knows only an older decision, and never knew or voted for anything in a higher ballot, vouches for nothing
    /// that is named now.
    fn check_delete(&mut self, state: &State, n: u8, item: u8) -> Result<(), Violation> {
        let Some(latest) = state.latest() else {
            return Ok(());
        };
        let current = Rc::clone(self.machines.values.get(latest));
        let here = state.nodes[usize::from(n)];
        let register = Rc::clone(self.machines.registers.get(here.register));
        let accepted = register.accepted.as_ref();
        let accepted = accepted.map(|vote| self.machines.values.short(vote.placement.clone()));
        let older = accepted.is_some_and(|value| value != latest && state.decided(value).is_some());
        let stale = older && !here.knew_later;
        if current.keeps(node(n), names::digest(item)) && !stale {
            let what = format!("node {} deletes what {} names", n + 1, names::show(&current));
            return Err(Violation::new(Rule::A3NotDeleted, what));
        }
        Ok(())
    }

    fn lose_disk(state: &State, n: u8, out: &mut Steps) {
        let mut next = state.clone();
        next.spent.faults += 1;
        let standing = if planted!("a lost disk returns under its old name") {
            Standing::Up
        } else {
            Standing::Gone
        };
        // Number 0 is the empty register: `begin` made it first.
        next.nodes[usize::from(n)] = Self::empty(state, n, standing);
        out.push((Step::LoseDisk(n), next));
    }

    /// The node without anything it had.
    fn empty(state: &State, n: u8, standing: Standing) -> Node {
        let here = state.nodes[usize::from(n)];
        Node {
            standing,
            taken: here.taken | here.items,
            ..Node::default()
        }
    }

    fn rots(&mut self, state: &State, n: u8, may_fail: bool, out: &mut Steps) {
        let here = state.nodes[usize::from(n)];
        let register = Rc::clone(self.machines.registers.get(here.register));
        let placement = register.accepted.as_ref().map(|vote| &vote.placement);
        for item in members(here.items).filter(|_| may_fail) {
            let mine = |placement: &vstack_chunkpaxos::Placement| {
                placement
                    .items_of(&placement.layout, node(n))
                    .contains(&names::digest(item))
            };
            let mut next = state.clone();
            next.spent.faults += 1;
            next.nodes[usize::from(n)].items &= !bit(item);
            next.nodes[usize::from(n)].taken |= bit(item);
            if placement.is_some_and(mine) {
                next.nodes[usize::from(n)].register = self.machines.registers.short(Register {
                    damaged: true,
                    ..(*register).clone()
                });
            }
            out.push((Step::Rot { node: n, item }, next));
        }
        let Some(placement) = placement.filter(|_| register.damaged) else {
            return;
        };
        let value = self.machines.values.short(placement.clone());
        let lost = self.machines.mine(value, n) & !here.items;
        let others = names_of(placement) & !bit(n);
        if lost != 0 && members(lost).all(|item| self.can_copy(state, item, others)) {
            let mut next = state.clone();
            let items = here.items | lost;
            let holds = |digest| items & bit(names::item(digest)) != 0;
            next.nodes[usize::from(n)].items = items;
            next.nodes[usize::from(n)].register = self
                .machines
                .registers
                .short((*register).clone().examined(node(n), holds));
            out.push((Step::Restore(n), next));
        }
    }

    fn lose_votes(&mut self, state: &State, n: u8, out: &mut Steps) {
        let here = state.nodes[usize::from(n)].register;
        let empty = self.machines.registers.short(Register::default());
        let lost = self.machines.registers.short(Register::lost());
        if here == empty || here == lost {
            return;
        }
        let mut next = state.clone();
        next.spent.faults += 1;
        let node = &mut next.nodes[usize::from(n)];
        if self.scope.faults.register_votes {
            node.register = lost;
        } else {
            node.register = empty;
            node.standing = if planted!("a lost vote record is taken for none") {
                Standing::Up
            } else {
                Standing::Forgot
            };
        }
        out.push((Step::LoseVotes(n), next));
    }

    /// The newest records of a vote are lost in both places, and one from before is left.
    fn lose_newest_votes(state: &State, n: u8, may_fail: bool, out: &mut Steps) {
        let here = state.nodes[usize::from(n)];
        let mut next = state.clone();
        if !state.spent.copied {
            next.spent.copied = true;
            next.nodes[usize::from(n)].old = Some((here.register, here.items));
            out.push((Step::Remember(n), next));
        } else if let Some((register, _)) = here.old
            && may_fail
            && register != here.register
        {
            next.spent.faults += 1;
            let node = &mut next.nodes[usize::from(n)];
            node.register = register;
            node.standing = if planted!("an older vote record is taken for the newest") {
                Standing::Up
            } else {
                Standing::Forgot
            };
            out.push((Step::LoseNewestVotes(n), next));
        }
    }

    fn go_back(&self, state: &State, n: u8, may_fail: bool, out: &mut Steps) {
        let here = state.nodes[usize::from(n)];
        let mut next = state.clone();
        if !state.spent.copied {
            next.spent.copied = true;
            next.nodes[usize::from(n)].old = Some((here.register, here.items));
            out.push((Step::Copy(n), next));
        } else if let Some((register, items)) = here.old
            && may_fail
            && register != here.register
        {
            next.spent.faults += 1;
            // Its log is shorter than it was when it last registered, so it is refused.
            let standing = if self.scope.faults.unnoticed || planted!("a disk that went back votes") {
                Standing::Up
            } else {
                Standing::Abstains
            };
            next.nodes[usize::from(n)] = Node {
                register,
                items,
                standing,
                taken: here.taken | here.items & !items,
                ..Node::default()
            };
            out.push((Step::PutBack(n), next));
        }
    }

    fn adopt(&mut self, state: &State, n: u8, heir: u8, out: &mut Steps) {
        let here = state.nodes[usize::from(n)];
        let register = self.machines.registers.get(here.register);
        let may_not_vote = matches!(here.standing, Standing::Abstains | Standing::Forgot) || register.votes_lost();
        if !may_not_vote || state.nodes[usize::from(heir)].standing != Standing::Unborn {
            return;
        }
        let mut next = state.clone();
        next.nodes[usize::from(heir)].items = here.items;
        next.nodes[usize::from(heir)].standing = Standing::Up;
        next.nodes[usize::from(n)] = Self::empty(state, n, Standing::Gone);
        out.push((Step::Adopt(n), next));
    }

    /// One node at a time: sealed when no register and no group names it, looked for again, wiped.
    fn leave(&mut self, state: &State, n: u8, out: &mut Steps) {
        let one_is_leaving = (0..self.scope.nodes).any(|other| {
            matches!(
                state.nodes[usize::from(other)].standing,
                Standing::Sealed | Standing::Cleared
            )
        });
        let may = state.spent.leaving < self.scope.faults.leaving && !one_is_leaving;
        let (step, standing) = match state.nodes[usize::from(n)].standing {
            Standing::Up if may && self.census_misses(state, n) => (Step::Seal(n), Standing::Sealed),
            Standing::Sealed if self.census_misses(state, n) => (Step::Clear(n), Standing::Cleared),
            Standing::Cleared => (Step::Wipe(n), Standing::Gone),
            _ => return,
        };
        let mut next = state.clone();
        if standing == Standing::Sealed {
            next.spent.leaving += 1;
        }
        next.nodes[usize::from(n)].standing = standing;
        if standing == Standing::Gone {
            next.nodes[usize::from(n)] = Node {
                standing,
                ..Node::default()
            };
        }
        out.push((step, next));
    }

    /// No register anywhere names it, and no group whose chunk may still be undecided.
    fn census_misses(&self, state: &State, n: u8) -> bool {
        if planted!("a node that registers still name is wiped") {
            return true;
        }
        let named = |other: u8| {
            let register = self.machines.registers.get(state.nodes[usize::from(other)].register);
            let accepted = register.accepted.as_ref();
            state.present(other) && accepted.is_some_and(|vote| vote.placement.names(node(n)))
        };
        let undecided = state.chain.is_empty() || planted!("a group counts for ever");
        let grouped = undecided && self.scope.initial_mask() & bit(n) != 0;
        !grouped && !(0..self.scope.nodes).any(named)
    }

    fn forget(&mut self, state: &State, n: u8, out: &mut Steps) {
        let register = self.machines.registers.get(state.nodes[usize::from(n)].register);
        let deleted = register
            .accepted
            .as_ref()
            .is_some_and(|vote| vote.placement.layout.is_deleted());
        if !(deleted && register.decided) {
            return;
        }
        let mut next = state.clone();
        next.nodes[usize::from(n)].register = 0;
        out.push((Step::Forget(n), next));
    }

    /// Nodes that vote when asked.
    pub(crate) fn able(&self, state: &State) -> u8 {
        members(all(self.scope.nodes))
            .filter(|n| {
                let here = state.nodes[usize::from(*n)];
                let sealed = matches!(here.standing, Standing::Sealed | Standing::Cleared);
                let damaged = self.machines.registers.get(here.register).damaged;
                votes(here.standing) && !sealed && (!damaged || planted!("a damaged acceptor votes"))
            })
            .fold(0, |mask, n| mask | bit(n))
    }
}

const _: () = assert!(ITEMS as usize <= 8, "items are masks of eight bits");
