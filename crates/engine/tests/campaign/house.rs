//! Housekeeping as steps of a history: superblocks are emptied, the log goes on in a new one, and space that was taken
//! ahead of it is given back. Power cuts and failing writes come in the middle of it.

use rand::{RngExt, seq::IndexedRandom};
use vstack_engine::{Fault, MemDisk, Op, Outcome, Store, SuperblockSpace, Which};

use super::{Damaged, Verdict, World, sent};
use crate::support::*;

/// Where records begin.
const RECORDS_AT: u64 = 8192;

/// Space is taken in pages.
const PAGE: u64 = 4096;

/// Items that are put again after they were moved.
const AGAIN_MAX: usize = 3;

/// What happens in the middle of housekeeping.
const IN_THE_MIDDLE: [Fault; 3] = [Fault::PowerCut, Fault::Error, Fault::Error];

/// The superblock that is written to.
fn tail(store: &Store<MemDisk>) -> Verdict<SuperblockSpace> {
    let all = store.reader().space().map_err(|error| error.to_string())?;
    let tail = all.into_iter().rfind(|space| space.is_tail);
    tail.ok_or_else(|| "no superblock is written to".to_owned())
}

impl World {
    /// Lets one of `faults` happen to one of the next changes of the disk.
    pub(super) fn spoil(&mut self, faults: &[Fault], one_in: u32, changes: u64) {
        if self.rng.random_range(0..one_in) == 0
            && let Some(fault) = faults.choose(&mut self.rng)
        {
            let at_change = self.disk.changes() + self.rng.random_range(1..=changes);
            self.disk.plan(at_change, *fault);
        }
    }

    /// Gives space back, and empties a superblock, wasteful or not.
    pub(super) fn compact(&mut self, store: &mut Store<MemDisk>) -> Verdict {
        let _ = store.reader().reclaim();
        let mut numbers = store.reader().superblock_numbers();
        numbers.pop();
        match numbers.choose(&mut self.rng).copied() {
            Some(number) => self.empty(store, number).map(|_| ()),
            None => Ok(()),
        }
    }

    /// What a node does that has nothing else to do: it goes on in a new superblock and empties all others.
    pub(super) fn make_order(&mut self, store: &mut Store<MemDisk>) -> Verdict {
        self.turn(store)?;
        let mut numbers = store.reader().superblock_numbers();
        numbers.pop();
        self.counts.in_order += 1;
        for number in numbers {
            if store.is_failed() || !self.empty(store, number)? {
                return Ok(());
            }
        }
        self.counts.all_emptied += 1;
        Ok(())
    }

    /// Empties superblock `number`; says whether it is.
    fn empty(&mut self, store: &mut Store<MemDisk>, number: u32) -> Verdict<bool> {
        let reader = store.reader();
        if reader.votes_lost() {
            return Ok(false);
        }
        // One that the disk does not give, or in which a deletion may be lost, is left as it is.
        let Ok(wanted) = reader.wanted_records(number) else {
            return Ok(false);
        };
        let step = self.rng.random_range(1..5);
        for offsets in wanted.chunks(step) {
            let read = |offset: &u64| reader.read_for_move(number, *offset);
            let moves: Vec<_> = offsets
                .iter()
                .filter_map(|offset| read(offset).ok().flatten())
                .collect();
            self.spoil(&IN_THE_MIDDLE, 30, 4);
            let (cut, moved) = self.cut_during(|| one_at(store, Op::Move { moves }, self.now()));
            self.counts.cut_moving += usize::from(cut);
            self.told.reached(store);
            if moved.is_err() || self.rng.random_range(0..30) == 0 {
                return Ok(false);
            }
        }
        if !wanted.is_empty() && self.rng.random_range(0..2) == 0 {
            self.put_again(store)?;
        }
        self.spoil(&IN_THE_MIDDLE, 4, 6);
        let (cut, emptied) = self.cut_during(|| one_at(store, Op::Empty { superblock: number }, self.now()));
        self.counts.cut_emptying += usize::from(cut);
        let emptied = emptied == Ok(Outcome::Emptied(true));
        self.counts.emptied += usize::from(emptied);
        Ok(emptied)
    }

    /// Some of what is behind the log is put again: who is told that it is there can read it.
    fn put_again(&mut self, store: &mut Store<MemDisk>) -> Verdict {
        let (reader, last) = (store.reader(), tail(store)?.number);
        let listed = reader
            .list_items(0, usize::MAX, None)
            .map_err(|error| error.to_string())?;
        let behind = listed.entries.into_iter().filter(|listed| {
            let found = reader.find(&listed.id, Which::Exact(listed.sha256));
            found.is_ok_and(|found| found.superblock() == last)
        });
        let again = behind.filter_map(|listed| {
            let item = sent::put().get(&listed.sha256)?;
            Some(put_item(listed.id.as_str(), item))
        });
        let again: Vec<Op> = again.collect();
        let ops: Vec<Op> = again.sample(&mut self.rng, AGAIN_MAX).cloned().collect();
        self.commit(store, &ops)
    }

    /// Gives back the space ahead of the log: all of it and nothing else.
    pub(super) fn rest(&mut self, store: &mut Store<MemDisk>) -> Verdict {
        let before = tail(store)?;
        // A file that was cut may end within a page, which stays.
        let rest_of_page = if before.size.is_multiple_of(PAGE) { 0 } else { PAGE };
        let Ok(Outcome::Rested(bytes)) = one_at(store, Op::Rest, self.now()) else {
            return Ok(());
        };
        if bytes > 0 {
            self.counts.rested += 1;
            if before.ahead != bytes {
                return Err(format!("{bytes} bytes were given back of {before:?}"));
            }
            let after = tail(store)?;
            if after.ahead > 0 || after.allocated > after.end + rest_of_page || after.size != before.size {
                return Err(format!(
                    "{bytes} bytes were given back, and it is {after:?} after {before:?}"
                ));
            }
        }
        self.nothing_is_lost(store)
            .map_err(|wrong| format!("after a rest: {wrong}"))
    }

    /// Goes on in a new superblock, unless this one is.
    pub(super) fn turn(&mut self, store: &mut Store<MemDisk>) -> Verdict {
        let before = tail(store)?;
        let turned = one_at(store, Op::Turn, self.now());
        self.told.reached(store);
        let Ok(Outcome::Turned(number)) = turned else {
            return Ok(());
        };
        let after = tail(store)?;
        let is_new = number != before.number;
        if after.number != number || after.end != RECORDS_AT || is_new != (before.end > RECORDS_AT) {
            return Err(format!(
                "it was turned to superblock {number}: {after:?} after {before:?}"
            ));
        }
        self.counts.turned += usize::from(is_new);
        self.nothing_is_lost(store)
            .map_err(|wrong| format!("after a turn: {wrong}"))
    }

    /// Registers and numbers are as they were told. On a disk that was harmed, what was read since the start may be known to
    /// be damaged without being written down.
    fn nothing_is_lost(&self, store: &Store<MemDisk>) -> Verdict {
        if self.told.harmed {
            return Ok(());
        }
        self.told.check(store, self.now(), Damaged::Nothing, false)
    }
}
