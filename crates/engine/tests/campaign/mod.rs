//! Random lives of one disk, judged: operations of all kinds, ended by power cuts, failing writes, full disks, kills and
//! clean stops at any moment, with damage done to what is on the medium in between.
//!
//! After every opening: what was answered is there, or it is reported that it is not; what is served is what was put;
//! what was given up stays given up. One seed is one history.

mod damage;
mod house;
mod scrubbed;
mod sent;
mod told;
mod unreadable;

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use vstack_chunkpaxos::{Layout, Placement, Request};
use vstack_engine::{
    Adoption, DeleteOutcome, Disk as _, Fault, Item, MemDisk, Now, Op, OpenError, Outcome, PutMode, Store,
    StoreOptions, Which,
};
use vstack_types::{NodeRef, NodeUuid};

use self::{
    damage::{Damaged, Page},
    told::Told,
};
use crate::support::*;

/// What a history came to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub power_cuts: usize,
    /// Of them, those that found writes that were not synced.
    pub cut_unsynced: usize,
    /// Those inside a move of what is wanted of a superblock.
    pub cut_moving: usize,
    /// Those while a superblock was being emptied.
    pub cut_emptying: usize,
    /// Those while a checkpoint was being written.
    pub cut_checkpoint: usize,
    pub torn: usize,
    pub damaged: usize,
    pub reported: usize,
    pub votes_lost: usize,
    pub adopted: usize,
    pub sealed: usize,
    pub unreadable: usize,
    pub checkpoints: usize,
    /// Starts that read only what is behind a checkpoint.
    pub resumed: usize,
    pub emptied: usize,
    /// Times that all superblocks but an empty one were to be emptied.
    pub in_order: usize,
    /// Of them, those after which none but that one was left.
    pub all_emptied: usize,
    /// Times that space ahead of the log was given back.
    pub rested: usize,
    /// Superblocks begun because somebody asked for one.
    pub turned: usize,
    /// Items read again by a scrub.
    pub scrubbed: usize,
    pub answers: usize,
    /// Items that were sent piece by piece.
    pub sent: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.power_cuts += other.power_cuts;
        self.cut_unsynced += other.cut_unsynced;
        self.cut_moving += other.cut_moving;
        self.cut_emptying += other.cut_emptying;
        self.cut_checkpoint += other.cut_checkpoint;
        self.torn += other.torn;
        self.damaged += other.damaged;
        self.reported += other.reported;
        self.votes_lost += other.votes_lost;
        self.adopted += other.adopted;
        self.sealed += other.sealed;
        self.unreadable += other.unreadable;
        self.checkpoints += other.checkpoints;
        self.resumed += other.resumed;
        self.emptied += other.emptied;
        self.in_order += other.in_order;
        self.all_emptied += other.all_emptied;
        self.rested += other.rested;
        self.turned += other.turned;
        self.scrubbed += other.scrubbed;
        self.answers += other.answers;
        self.sent += other.sent;
    }
}

/// What is wrong, in a sentence.
pub type Verdict<T = ()> = Result<T, String>;

const NAMES: u64 = 6;
/// Contents that are put under each name.
const VARIANTS: u64 = 3;
const STAGING_TTL: Duration = Duration::from_secs(300);
const GRACE: Duration = Duration::from_secs(20);

/// One disk over its lives.
struct World {
    disk: MemDisk,
    rng: StdRng,
    /// Seconds since the first start.
    clock: u64,
    me: NodeRef,
    names_given: u8,
    told: Told,
    /// Pages in which bytes changed by themselves, last time that happened.
    harmed: Vec<Page>,
    counts: Counts,
}

/// Lives through the history of `seed`.
pub fn history(seed: u64) -> Verdict<Counts> {
    let mut world = World {
        disk: MemDisk::default(),
        rng: StdRng::seed_from_u64(seed),
        clock: 0,
        me: NodeRef::first(NodeUuid::from_bytes([1; 16])),
        names_given: 2,
        told: Told::new(NodeRef::first(NodeUuid::from_bytes([1; 16]))),
        harmed: Vec::new(),
        counts: Counts::default(),
    };
    world.disk.set_sparse(seed.is_multiple_of(3));
    for life in 0..14 {
        // Every other disk is unharmed for most of its time: power is all that fails.
        let may_harm = seed.is_multiple_of(2) || life > 10;
        world
            .live(may_harm)
            .map_err(|wrong| format!("seed {seed}, life {life}: {wrong}"))?;
    }
    Ok(world.counts)
}

/// The bytes `variant` that are put under `name`.
fn contents(name: u64, variant: u64) -> Item {
    let sizes = [1, 90, 700, 3000, 9000, 70_000];
    let size = sizes[usize::try_from(name * 5 + variant * 2).unwrap() % sizes.len()];
    item(name * 10 + variant + 1, size)
}

impl World {
    fn now(&self) -> Now {
        at(self.clock)
    }

    fn options(&self) -> StoreOptions {
        StoreOptions {
            superblock_bytes: 192 * 1024,
            new_uuid: self.me.uuid,
            ..options()
        }
    }

    /// The only value of `round` under `name`: two values never share a ballot.
    fn value(&self, name: u64, round: u64) -> Placement {
        let bytes = contents(name, round % VARIANTS);
        let here = Layout::Replicated {
            nodes: vec![self.me, other()],
        };
        let away = Layout::Replicated { nodes: vec![other()] };
        let (layout, prev) = match round % 7 {
            3 => (away, Some(here)),
            4 => (away, None),
            5 => (
                Layout::Deleted {
                    nodes: vec![self.me, other()],
                },
                None,
            ),
            _ => (here, None),
        };
        Placement {
            layout,
            prev,
            ..placement(&bytes, round + 1, &[])
        }
    }

    /// Decisions about chunks of others: so few bytes that a torn write may leave all of them but a part of the commit
    /// record.
    fn news(&mut self) -> Op {
        let round = self.clock + 14;
        let decision = |name| (id(&format!("c{name}")), ballot(round), self.value(name, round));
        Op::Decided {
            decisions: (NAMES..NAMES + 3).map(decision).collect(),
        }
    }

    fn random_op(&mut self) -> Op {
        let name = self.rng.random_range(0..NAMES);
        let chunk = id(&format!("c{name}"));
        let round = self.rng.random_range(1..14);
        let bytes = contents(name, self.rng.random_range(0..VARIANTS));
        match self.rng.random_range(0..19) {
            0..=2 => put(chunk.as_str(), &bytes),
            3..=5 => put_item(chunk.as_str(), &bytes),
            6 | 7 => Op::Put {
                id: chunk,
                item: contents(name, 0),
                mode: PutMode::Vote {
                    ballot: ballot(0),
                    placement: self.value(name, 0),
                },
            },
            8 | 9 => paxos(chunk.as_str(), Request::Prepare { ballot: ballot(round) }),
            10..=12 => {
                let placement = self.value(name, round);
                paxos(
                    chunk.as_str(),
                    Request::Accept {
                        ballot: ballot(round),
                        placement,
                    },
                )
            }
            13 | 14 => Op::Decided {
                decisions: vec![(chunk, ballot(round), self.value(name, round))],
            },
            15 | 16 => Op::Turn,
            _ => Op::DeleteStaged { id: chunk },
        }
    }

    /// Opens, checks, works until something ends it, and lets something happen to the medium.
    fn live(&mut self, may_harm: bool) -> Verdict {
        let fault = *[
            Fault::PowerCut,
            Fault::PowerCut,
            Fault::PowerCut,
            Fault::Error,
            Fault::Full,
        ]
        .choose(&mut self.rng)
        .unwrap();
        if self.rng.random_range(0..5) > 0 {
            let at_change = self.disk.changes() + self.rng.random_range(1..25);
            self.disk.plan(at_change, fault);
        }
        let ended = match Store::open(self.disk.clone(), self.options(), self.now()) {
            Ok(mut store) => {
                let reads = self.rng.random_range(0..2) == 0;
                self.told.check(&store, self.now(), Damaged::Nothing, reads)?;
                if reads {
                    self.told.see(&store, self.now(), Damaged::Nothing)?;
                }
                if self.rng.random_range(0..3) == 0 {
                    self.read_all(&mut store)?;
                }
                self.work(&mut store)?
            }
            // The disk failed while the store was being opened: nothing was promised.
            Err(OpenError::Io(_) | OpenError::Write(_)) => Ended::Failed,
            Err(OpenError::Identity(_)) if self.told.log_seq == 0 => Ended::Failed,
            Err(error) => return Err(format!("not opened: {error}")),
        };
        match ended {
            Ended::Marked if self.rng.random_range(0..3) == 0 => {
                // What read badly reads well again.
                damage::heal(&self.disk, &std::mem::take(&mut self.harmed));
                Ok(())
            }
            Ended::Marked if may_harm => self.harm(),
            Ended::Failed | Ended::Cut | Ended::Marked => {
                // After writes that failed, too, the process may end and the machine stay.
                let power = self.disk.is_down() || self.rng.random_range(0..3) > 0;
                if power {
                    self.power_goes();
                } else {
                    self.disk.kill();
                }
                let store = self.reopen()?;
                self.counts.resumed += usize::from(store.report().checkpoint.is_some());
                self.counts.torn += usize::from(store.report().torn_bytes > 0);
                self.told.check(&store, self.now(), Damaged::Nothing, true)?;
                self.told.see(&store, self.now(), Damaged::Nothing)?;
                drop(store);
                self.sends()?;
                self.scrubs()?;
                self.reads_may_fail()?;
                self.every_vote_stands_twice()
            }
        }
    }

    fn power_goes(&mut self) {
        self.counts.power_cuts += 1;
        self.counts.cut_unsynced += usize::from(self.disk.has_unsynced());
        self.disk.crash(self.rng.random());
    }

    /// Whether power went while `work` was done, and what came of it.
    fn cut_during<T>(&self, work: impl FnOnce() -> T) -> (bool, T) {
        let was_down = self.disk.is_down();
        let done = work();
        (self.disk.is_down() && !was_down, done)
    }

    /// What a node sends of the disk as it is.
    fn sends(&mut self) -> Verdict {
        self.counts.sent += sent::sends_what_it_has(&self.disk, &self.options(), self.now())?;
        Ok(())
    }

    /// What one scrub comes to on the disk as it is, after everything of it was read.
    fn scrubs(&mut self) -> Verdict {
        if self.rng.random_range(0..2) == 0 {
            self.counts.scrubbed += scrubbed::scrub(&self.disk, &self.options(), self.now(), &self.told)?;
        }
        Ok(())
    }

    /// A disk that could not be read for a while stands by everything when it can be again.
    fn reads_may_fail(&mut self) -> Verdict {
        let seed = self.disk.changes();
        let (copy, failed) = unreadable::suffer(&self.disk, seed, &self.options(), self.now())?;
        self.counts.unreadable += failed;
        let store = Store::open(copy, self.options(), self.now()).map_err(|error| format!("not opened: {error}"))?;
        self.told
            .check(&store, self.now(), Damaged::Nothing, true)
            .map_err(|wrong| format!("after reads that failed: {wrong}"))
    }

    /// One record that cannot be read makes no vote be forgotten, neither in a batch that was under way in the end.
    fn every_vote_stands_twice(&mut self) -> Verdict {
        // The other copy may be what was harmed before.
        let whole = self.counts.damaged == 0;
        let Some(copy) = whole.then(|| damage::without_last_record(&self.disk)).flatten() else {
            return Ok(());
        };
        let store = Store::open(copy, self.options(), self.now()).map_err(|error| format!("not opened: {error}"))?;
        self.told
            .check(&store, self.now(), Damaged::Byte, false)
            .map_err(|wrong| format!("with the last batch's first record damaged: {wrong}"))
    }

    fn reopen(&mut self) -> Verdict<Store<MemDisk>> {
        Store::open(self.disk.clone(), self.options(), self.now()).map_err(|error| format!("not opened again: {error}"))
    }

    /// Some batches, until the store fails, the power goes, or it is enough.
    fn work(&mut self, store: &mut Store<MemDisk>) -> Verdict<Ended> {
        let tight = self.rng.random_range(0..3) == 0;
        for _ in 0..self.rng.random_range(2..9) {
            self.clock += self.rng.random_range(0..60);
            self.disk.set_capacity(None);
            if tight {
                let used = self.disk.usage().map_err(|error| error.to_string())?.used_bytes;
                let room = [0, 4096, 16_384, 65_536].choose(&mut self.rng).copied().unwrap_or(0);
                self.disk.set_capacity(Some(used + room));
            }
            match self.rng.random_range(0..16) {
                0 | 1 => self.collect(store)?,
                2 => self.read_all(store)?,
                3 => {
                    let _ = store.mark(self.now());
                }
                4 if self.rng.random_range(0..12) == 0 => self.seal(store)?,
                5 => {
                    let (cut, written) = self.cut_during(|| store.reader().write_checkpoint());
                    self.counts.cut_checkpoint += usize::from(cut);
                    self.counts.checkpoints += usize::from(matches!(written, Ok(Some(_))));
                }
                6 => self.compact(store)?,
                7 => self.rest(store)?,
                8 => self.turn(store)?,
                9 => self.make_order(store)?,
                _ => self.batch(store)?,
            }
            if store.is_failed() {
                break;
            }
        }
        self.disk.set_capacity(None);
        if store.is_failed() {
            return Ok(Ended::Failed);
        }
        if self.rng.random_range(0..2) == 0 && store.mark(self.now()).is_ok() {
            // As a node that is told to end does.
            if self.rng.random_range(0..2) == 0 && matches!(store.reader().write_checkpoint(), Ok(Some(_))) {
                self.counts.checkpoints += 1;
            }
            return Ok(Ended::Marked);
        }
        Ok(Ended::Cut)
    }

    fn batch(&mut self, store: &mut Store<MemDisk>) -> Verdict {
        let ops: Vec<Op> = if self.rng.random_range(0..3) == 0 {
            // Their batch is torn more often than others.
            self.spoil(&[Fault::PowerCut], 4, 3);
            vec![self.news()]
        } else {
            (0..self.rng.random_range(1..7)).map(|_| self.random_op()).collect()
        };
        self.commit(store, &ops)
    }

    fn commit(&mut self, store: &mut Store<MemDisk>, ops: &[Op]) -> Verdict {
        let results = store.commit(ops.to_vec(), self.now());
        for (op, result) in ops.iter().zip(&results) {
            self.counts.answers += usize::from(result.is_ok());
            self.told.hear(op, result, self.now())?;
        }
        self.told.reached(store);
        // Who vouches for bytes has them.
        let deleted = results.contains(&Ok(Outcome::Deleted(DeleteOutcome::Deleted)));
        for (op, result) in ops.iter().zip(&results).filter(|_| !deleted) {
            self.told.check_vouched(&store.reader(), op, result, self.now())?;
        }
        Ok(())
    }

    fn seal(&mut self, store: &mut Store<MemDisk>) -> Verdict {
        if one_at(store, Op::Seal, self.now()) == Ok(Outcome::Sealed) {
            self.counts.sealed += 1;
            self.told.sealed = true;
        } else {
            self.told.maybe_sealed = true;
        }
        Ok(())
    }

    fn collect(&mut self, store: &mut Store<MemDisk>) -> Verdict {
        let registers: Vec<_> = self
            .told
            .ids()
            .map(|id| (id.clone(), store.reader().register(id).unwrap()))
            .collect();
        for due in store.reader().due(GRACE, STAGING_TTL, self.now().wall) {
            let op = Op::Collect { due };
            let result = one_at(store, op.clone(), self.now());
            self.told.hear(&op, &result, self.now())?;
            self.told.reached(store);
            if result.is_ok() {
                self.told.check_collected(&store.reader(), &registers, self.now())?;
            }
        }
        Ok(())
    }

    /// Reads everything; what is found damaged is written down.
    fn read_all(&mut self, store: &mut Store<MemDisk>) -> Verdict {
        for listed in store.reader().list_items(0, usize::MAX, None).unwrap().entries {
            let Ok(found) = store.reader().find(&listed.id, Which::Exact(listed.sha256)) else {
                continue;
            };
            if store.reader().read(&found, None, self.now().monotonic).is_err() {
                if !self.told.harmed {
                    return Err(format!("{} {} is damaged out of nothing", listed.id, listed.sha256));
                }
                let op = Op::Quarantine {
                    id: listed.id,
                    sha256: listed.sha256,
                    lsn: found.lsn(),
                };
                let result = one_at(store, op.clone(), self.now());
                self.told.hear(&op, &result, self.now())?;
                self.told.reached(store);
            }
        }
        Ok(())
    }

    /// Something happens to the medium while the store is closed; then it is looked at again.
    fn harm(&mut self) -> Verdict {
        self.disk.kill();
        let before = damage::contents(&self.disk);
        let damaged = damage::inflict(&self.disk, &mut self.rng);
        if matches!(damaged, Damaged::Byte | Damaged::Bytes) {
            self.harmed = damage::changed(&self.disk, &before);
        }
        self.counts.damaged += 1;
        self.told.deletions_harmed |= self.told.harmed || !matches!(damaged, Damaged::Byte | Damaged::Identity);
        self.told.harmed_before = self.told.harmed;
        self.told.harmed = true;
        self.look_again(damaged)
            .map_err(|wrong| format!("after {damaged:?}: {wrong}"))
    }

    fn look_again(&mut self, damaged: Damaged) -> Verdict {
        self.sends()?;
        let store = match Store::open(self.disk.clone(), self.options(), self.now()) {
            Ok(store) => store,
            Err(error) if damaged.may_refuse(&error) => {
                self.counts.reported += 1;
                return self.adopt(damaged);
            }
            Err(error) => return Err(format!("not opened: {error}")),
        };
        self.counts.reported += usize::from(!store.report().damage.is_empty());
        let votes_lost = store.reader().votes_lost();
        self.counts.votes_lost += usize::from(votes_lost);
        // The metadata service knows how far the log once reached.
        let went_back = store.report().log_seq < self.told.log_seq && damaged.may_shorten();
        let damaged = if went_back { Damaged::WentBack } else { damaged };
        self.told.check(&store, self.now(), damaged, true)?;
        self.told.see(&store, self.now(), damaged)?;
        drop(store);
        self.scrubs()?;
        if votes_lost || went_back || self.rng.random_range(0..12) == 0 {
            self.adopt(damaged)?;
        }
        Ok(())
    }

    /// The operator gives up the name, as often as power cuts make it necessary.
    fn adopt(&mut self, damaged: Damaged) -> Verdict {
        let old = self.me.uuid;
        let new = NodeUuid::from_bytes([self.names_given + 1; 16]);
        self.names_given += 1;
        loop {
            let cut = self.rng.random_range(0..2) == 0;
            if cut {
                let at_change = self.disk.changes() + self.rng.random_range(1..16);
                self.disk.plan(at_change, Fault::PowerCut);
            }
            let adopted = Adoption::look(self.disk.clone(), self.options().superblock_bytes, self.now().wall)
                .and_then(|found| found.adopt(new));
            if cut {
                self.power_goes();
            }
            match adopted {
                Ok(_) => break,
                Err(_) if cut => {}
                Err(error) => return Err(format!("not adopted: {error}")),
            }
        }
        self.counts.adopted += 1;
        self.me = NodeRef::first(new);
        self.told.adopted(self.me, self.now());
        let store = self.reopen()?;
        if store.me().uuid == old || store.me() != self.me {
            return Err(format!("adopted, it is {}", store.me()));
        }
        if !store.reader().list_registers(0, 1, None).unwrap().entries.is_empty() {
            return Err("an adopted disk shows a vote of its old life".to_owned());
        }
        // What is lost with all its superblocks, or was told missing before, is missing.
        let damaged = if damaged == Damaged::Lost {
            Damaged::WentBack
        } else {
            damaged
        };
        self.told.check(&store, self.now(), damaged, true)?;
        self.told.see(&store, self.now(), damaged)
    }
}

enum Ended {
    /// Everything answered is synced and known to be.
    Marked,
    /// In the middle of things.
    Cut,
    /// The disk failed.
    Failed,
}
