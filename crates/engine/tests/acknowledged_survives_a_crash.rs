//! Random histories, cut off at every change of the disk, by power cuts that lose or tear what was not synced and
//! by failed writes and syncs: what was acknowledged is there afterwards, what was refused is not vouched for, and
//! nothing is taken for damage that is none.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use support::*;
use vstack_chunkpaxos::{Reply, Request};
use vstack_engine::{Fault, Item, MemDisk, Op, Outcome, PutOutcome, Store, WriteError};
use vstack_types::ChunkId;

/// What the outside was told.
#[derive(Default)]
struct Told {
    /// Bytes acknowledged and not deleted since.
    items: BTreeMap<(ChunkId, vstack_types::Digest), Item>,
    /// Highest ballot promised or accepted, and whether a value was accepted, per register.
    registers: BTreeMap<ChunkId, (u64, bool)>,
    /// An operation that was not answered may have deleted these.
    maybe_deleted: Vec<ChunkId>,
    /// Operations refused because the disk was full.
    full: usize,
}

fn random_op(rng: &mut StdRng) -> Op {
    let name = format!("c{}", rng.random_range(0..6));
    // The largest is written from where it is, in pieces of its own.
    let sizes = [1, 100, 3000, 9000, 40_000, 70_000];
    let contents = item(rng.random_range(0..4), sizes[rng.random_range(0..sizes.len())]);
    match rng.random_range(0..8) {
        0 | 1 => put(&name, &contents),
        2 => put_item(&name, &contents),
        3 | 4 => put_vote(&name, &contents),
        5 => paxos(
            &name,
            Request::Prepare {
                ballot: ballot(rng.random_range(1..9)),
            },
        ),
        6 => {
            let placement = placement(&contents, 2, &[me(), other()]);
            paxos(
                &name,
                Request::Accept {
                    ballot: ballot(rng.random_range(1..9)),
                    placement,
                },
            )
        }
        _ => Op::DeleteStaged { id: id(&name) },
    }
}

impl Told {
    fn hear(&mut self, op: &Op, result: &Result<Outcome, WriteError>) {
        self.full += usize::from(matches!(result, Err(WriteError::DiskFull)));
        match (op, result) {
            (Op::Put { id, item, .. }, Ok(Outcome::Put(outcome))) => match outcome {
                PutOutcome::Stored { .. } | PutOutcome::AlreadyThere { .. } => self.hold(id, item),
                PutOutcome::Voted {
                    reply: Reply::Accepted { ballot },
                    ..
                } => {
                    self.hold(id, item);
                    self.promised(id, ballot.round, true);
                }
                PutOutcome::Voted { .. } | PutOutcome::Conflict => {}
            },
            (Op::Paxos { id, .. }, Ok(Outcome::Reply(reply))) => match reply {
                Reply::Promise { ballot, .. } => self.promised(id, ballot.round, false),
                Reply::Accepted { ballot } => self.promised(id, ballot.round, true),
                _ => {}
            },
            (Op::DeleteStaged { id }, Ok(Outcome::Deleted(vstack_engine::DeleteOutcome::Deleted))) => {
                self.items.retain(|(of, _), _| of != id);
            }
            // A disk that was full and goes on has done nothing.
            (Op::DeleteStaged { .. }, Err(WriteError::DiskFull)) => {}
            (Op::DeleteStaged { id }, Err(_)) => self.maybe_deleted.push(id.clone()),
            _ => {}
        }
    }

    fn hold(&mut self, id: &ChunkId, item: &Item) {
        self.items.insert((id.clone(), item.sha256()), item.clone());
    }

    fn promised(&mut self, id: &ChunkId, round: u64, accepted: bool) {
        let known = self.registers.entry(id.clone()).or_default();
        *known = (known.0.max(round), known.1 || accepted);
    }

    /// It takes more, and that survives as well.
    fn goes_on_until_power_goes(&mut self, mut store: Store<MemDisk>, disk: &MemDisk, seed: u64, context: &str) {
        let after = item(99, 500);
        assert!(stored(one(&mut store, put("after", &after))), "{context}");
        self.hold(&id("after"), &after);
        drop(store);
        disk.crash(seed);
        self.check(&open(disk), context);
    }

    fn check(&self, store: &Store<MemDisk>, context: &str) {
        assert!(store.report().damage.is_empty(), "{context}: {:?}", store.report());
        let reader = store.reader();
        for ((id, sha256), item) in &self.items {
            if self.maybe_deleted.contains(id) {
                continue;
            }
            let found = reader.find(id, vstack_engine::Which::Exact(*sha256));
            let found = found.unwrap_or_else(|error| panic!("{context}: {id} {sha256}: {error}"));
            assert_eq!(
                reader.read(&found, None, at(5).monotonic).unwrap(),
                *item.bytes(),
                "{context}"
            );
        }
        for (id, (round, accepted)) in &self.registers {
            let register = reader.register(id).unwrap();
            assert!(
                register.promised.is_some_and(|promised| promised.round >= *round),
                "{context}: {id}"
            );
            assert!(
                !accepted || register.accepted.is_some(),
                "{context}: {id} forgot its vote"
            );
            assert!(!register.damaged, "{context}: {id}");
        }
        // Everything listed is readable, and every vote has its bytes.
        for listed in reader.list_items(0, usize::MAX, None).unwrap().entries {
            let found = reader
                .find(&listed.id, vstack_engine::Which::Exact(listed.sha256))
                .unwrap();
            reader.read(&found, None, at(5).monotonic).unwrap();
        }
        for listed in reader.list_registers(0, usize::MAX, None).unwrap().entries {
            if let Some(vote) = listed.register.accepted {
                assert!(
                    reader.has_item(&listed.id, vote.placement.sha256).unwrap(),
                    "{context}: {} vouches for nothing",
                    listed.id
                );
            }
        }
    }
}

/// Runs the history of `seed` on `disk` until it ends or the disk fails, telling `told`.
fn run(disk: &MemDisk, seed: u64, told: &mut Told) {
    run_in(disk, seed, told, |_step| {});
}

/// The same, with `before` called before each step.
fn run_in(disk: &MemDisk, seed: u64, told: &mut Told, mut before: impl FnMut(u64)) {
    let mut rng = StdRng::seed_from_u64(seed);
    let Ok(mut store) = Store::open(disk.clone(), options(), at(0)) else {
        return;
    };
    for step in 0..12 {
        let ops: Vec<Op> = (0..rng.random_range(1..6)).map(|_| random_op(&mut rng)).collect();
        before(step);
        if rng.random_range(0..5) == 0 {
            // A mark that fails, as the one after a rest may, says nothing about the batch behind it.
            let _ = store.mark(at(step));
        }
        let results = store.commit(ops.clone(), at(step));
        for (op, result) in ops.iter().zip(&results) {
            told.hear(op, result);
        }
        if rng.random_range(0..5) == 0 {
            let _ = store.mark(at(step));
        }
        if store.is_failed() {
            return;
        }
    }
}

fn histories(seeds: std::ops::Range<u64>, fault: Fault) {
    let mut cut_tails = 0;
    for seed in seeds {
        let whole = MemDisk::default();
        run(&whole, seed, &mut Told::default());
        let changes = whole.changes();
        assert!(changes > 10);
        for at_change in 1..=changes {
            let disk = MemDisk::default();
            disk.plan(at_change, fault);
            let mut told = Told::default();
            run(&disk, seed, &mut told);
            disk.crash(seed * 1000 + at_change);
            let context = format!("seed {seed}, {fault:?} at change {at_change} of {changes}");
            let store =
                Store::open(disk.clone(), options(), at(100)).unwrap_or_else(|error| panic!("{context}: {error}"));
            cut_tails += u64::from(store.report().torn_bytes > 0);
            told.check(&store, &context);
            told.goes_on_until_power_goes(store, &disk, at_change, &context);
        }
    }
    if fault == Fault::PowerCut {
        assert!(cut_tails > 100, "the histories must tear tails, {cut_tails} did");
    }
}

#[test]
fn at_every_power_cut() {
    histories(0..30, Fault::PowerCut);
}

#[test]
fn at_every_failed_write_or_sync() {
    histories(100..115, Fault::Error);
}

#[test]
fn at_every_full_disk() {
    histories(200..215, Fault::Full);
}

/// Space comes and goes, writes and marks find none, the node goes on; then power goes.
#[test]
fn while_the_disk_is_full_now_and_then() {
    let (mut refused, mut kept) = (0, 0);
    for seed in 500..900 {
        let disk = MemDisk::default();
        disk.set_sparse(true);
        let mut told = Told::default();
        let mut room = StdRng::seed_from_u64(seed ^ 0xF011);
        run_in(&disk, seed, &mut told, |_step| {
            let used = vstack_engine::Disk::usage(&disk).unwrap().used_bytes;
            let left = [0, 4096, 16_384, 65_536][room.random_range(0..4)];
            disk.set_capacity((room.random_range(0..3) > 0).then_some(used + left));
        });
        refused += told.full;
        kept += told.items.len();
        disk.set_capacity(None);
        if seed % 2 == 0 {
            disk.crash(seed);
        } else {
            disk.kill();
        }
        told.check(&open(&disk), &format!("seed {seed}"));
    }
    assert!(refused > 1000 && kept > 500, "{refused} refused, {kept} kept");
}

/// The process ends, the machine does not; the next process goes on and then power goes. Nothing that either of
/// them acknowledged, or the second one found, is lost.
fn killed_then_crashed(seeds: std::ops::Range<u64>, fault: Fault) {
    for seed in seeds {
        let whole = MemDisk::default();
        run(&whole, seed, &mut Told::default());
        for at_change in 1..=whole.changes() {
            let disk = MemDisk::default();
            disk.plan(at_change, fault);
            let mut told = Told::default();
            run(&disk, seed, &mut told);
            disk.kill();
            let context = format!("seed {seed}, kill after {fault:?} at change {at_change}");
            let store = open(&disk);
            told.check(&store, &context);
            // Whether an unanswered deletion was done is known now: what is left is what must stay.
            let unclear = std::mem::take(&mut told.maybe_deleted);
            told.items.retain(|(id, _), _| !unclear.contains(id));
            for listed in store.reader().list_items(0, usize::MAX, None).unwrap().entries {
                let found = store
                    .reader()
                    .find(&listed.id, vstack_engine::Which::Exact(listed.sha256))
                    .unwrap();
                let bytes = store.reader().read(&found, None, at(5).monotonic).unwrap();
                told.hold(&listed.id, &Item::new(bytes));
            }
            told.goes_on_until_power_goes(store, &disk, at_change, &context);
        }
    }
}

#[test]
fn at_every_kill() {
    killed_then_crashed(300..310, Fault::PowerCut);
}

#[test]
fn at_every_failed_sync_followed_by_a_restart() {
    killed_then_crashed(400..410, Fault::Error);
}
