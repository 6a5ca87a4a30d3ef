//! Which superblocks are worth emptying, and what of them has to be written again.
//!
//! What holes (`holes.rs`) leave of many small records, and what a process that was killed had no time for, is found by
//! what a file takes beyond what is wanted of it; then the rest of it is written again behind the log, and the superblock
//! is emptied.

use std::{
    io,
    ops::Range,
    sync::{PoisonError, atomic::Ordering},
};

use vstack_types::{Digest, planted};

use crate::{
    batches::{Batch, Batches, list_of},
    disk::{Disk, DiskFile},
    holes::{HOLE_BYTES_MIN, pages_of},
    index::{Place, tag_of},
    op::Move,
    reader::{ReadError, Reader},
    record::{Body, Change, Kind},
    scan::{Scanned, Scanner},
    superblock::RECORDS_AT,
    superblocks::Superblock,
};

/// How much of a superblock has to be waste, so that writing the rest of it again is worth it, in percent of what it
/// takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waste(u64);

impl Waste {
    /// Beside the work of a node.
    pub const BESIDE: Self = Self(30);

    /// So many percent.
    pub const fn percent(percent: u64) -> Self {
        Self(percent)
    }

    /// And in bytes, of superblocks of `superblock_bytes`: what is nearly empty takes nearly nothing.
    fn least(self, superblock_bytes: u64) -> u64 {
        let half_of_it = superblock_bytes.saturating_mul(self.0) / 200;
        half_of_it.min(superblock_bytes / 16)
    }
}

/// What a superblock takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuperblockSpace {
    /// Its number.
    pub number: u32,
    /// Length of its file, holes too.
    pub size: u64,
    /// Bytes of it that were written.
    pub end: u64,
    /// Bytes of the filesystem that it takes.
    pub allocated: u64,
    /// Bytes of its records that are wanted, about, as they are when they are written close together.
    pub live: u64,
    /// Bytes that those are known to take beyond that, since they were moved: they would wherever they are.
    pub unavoidable: u64,
    /// Of what it takes, what is taken ahead of the log and not written to.
    pub ahead: u64,
    /// Records are being appended to it.
    pub is_tail: bool,
}

impl SuperblockSpace {
    /// What of the filesystem was written to. Where it gives no space ahead, less than nothing is taken.
    pub const fn written(&self) -> u64 {
        self.allocated.saturating_sub(self.ahead)
    }

    /// What may come back when what is wanted is written again.
    pub fn waste(&self) -> u64 {
        self.written().saturating_sub(RECORDS_AT + self.live + self.unavoidable)
    }

    /// Whether writing what is wanted again is worth what it brings.
    fn is_wasteful(&self, superblock_bytes: u64, from: Waste) -> bool {
        let waste = self.waste();
        waste * 100 >= self.allocated * from.0 && waste >= from.least(superblock_bytes.min(self.size))
    }

    fn is_worth_emptying(&self, superblock_bytes: u64, from: Waste) -> bool {
        !self.is_tail && (self.live == 0 || self.is_wasteful(superblock_bytes, from))
    }
}

impl<D: Disk> Reader<D> {
    /// What each superblock takes. Asks the filesystem.
    ///
    /// # Errors
    /// Of the disk.
    pub fn space(&self) -> io::Result<Vec<SuperblockSpace>> {
        let tail = self.0.position().superblock;
        self.0
            .superblocks
            .all()
            .iter()
            .map(|superblock| {
                // Space is taken ahead of the log and given back meanwhile. What is ahead is more before it is taken, and
                // less only after it was given back: what was ahead before or after is not written to.
                let before = superblock.ahead();
                let allocated = superblock.file.allocated()?;
                Ok(SuperblockSpace {
                    number: superblock.head.number,
                    size: superblock.file.size()?,
                    end: superblock.end(),
                    allocated,
                    live: superblock.live.bytes(),
                    unavoidable: superblock.live.beyond(),
                    ahead: superblock.ahead().max(before),
                    is_tail: superblock.head.number >= tail,
                })
            })
            .collect()
    }

    /// The superblock of `among` that is most worth emptying, where they have `superblock_bytes`; none when none is. One in
    /// which something is lost is left as it is.
    ///
    /// # Errors
    /// Of the disk.
    pub fn most_wasteful(&self, superblock_bytes: u64, from: Waste, among: Range<u32>) -> io::Result<Option<u32>> {
        if !self.may_empty() {
            return Ok(None);
        }
        let stuck = self.0.stuck.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = self.space()?;
        let usage = self.0.disk.usage()?;
        // What gives no page back when it is written again has to find room, or it was written again in vain. What
        // does makes room for the next: on a nearly full disk a superblock of large items goes in several rounds.
        let free = usage.total_bytes.saturating_sub(usage.used_bytes);
        let room = free
            + all
                .iter()
                .filter(|space| space.is_tail)
                .map(|space| space.ahead)
                .sum::<u64>();
        let worth = all.iter().filter(|space| {
            let has_room = || space.live <= room || self.0.index.bytes_in(space.number, HOLE_BYTES_MIN) <= room;
            among.contains(&space.number)
                && space.is_worth_emptying(superblock_bytes, from)
                && !stuck.contains(&space.number)
                && has_room()
        });
        Ok(worth
            .max_by_key(|space| (space.waste() * 1000).checked_div(space.allocated).unwrap_or(0))
            .map(|space| space.number))
    }

    /// Whether superblocks may be emptied: everything that they held is known, and what was found lost is written down.
    fn may_empty(&self) -> bool {
        !self.0.votes_lost && !self.0.unfinished.load(Ordering::Acquire)
    }

    /// Whether the superblock that is written to would be worth emptying, were it another's turn.
    ///
    /// # Errors
    /// Of the disk.
    pub fn is_tail_wasteful(&self, superblock_bytes: u64, from: Waste) -> io::Result<bool> {
        if !self.may_empty() {
            return Ok(false);
        }
        let all = self.space()?;
        let mut tails = all.iter().filter(|space| space.is_tail);
        Ok(tails.any(|tail| tail.end > RECORDS_AT && tail.is_wasteful(superblock_bytes, from)))
    }

    /// Where the records of a superblock begin that have to be written again before it is emptied. What was not given
    /// back of it is noted to be.
    ///
    /// # Errors
    /// Of the disk.
    pub fn wanted_records(&self, number: u32) -> io::Result<Vec<u64>> {
        // Of the one that is written to, records may be durable that the index does not have yet: they look like dead ones.
        let ended = number < self.0.position().superblock;
        let Some(superblock) = self.0.superblocks.get(number).filter(|_| ended) else {
            return Ok(Vec::new());
        };
        let mut wanted = Vec::new();
        let scanner = Scanner::new(&*superblock.file, &superblock.head, RECORDS_AT, superblock.end(), 0);
        let mut batches = Batches::new(scanner, RECORDS_AT);
        let mut next_lsn = superblock.head.first_lsn;
        while let Some(batch) = batches.next()? {
            if batch.first > next_lsn || self.may_lack_a_deletion(&superblock, &batch)? {
                return Err(io::Error::other("a deletion in it may be damaged"));
            }
            next_lsn = batch.last() + 1;
            for scanned in &batch.records {
                let Body::Change(change) = &scanned.record.body else {
                    continue;
                };
                let place = Place::new(number, scanned.offset);
                if self.is_wanted(&superblock, scanned, change, place) {
                    wanted.push(scanned.offset);
                }
                if change.kind == Kind::Item && !self.0.index.points_at_item(&change.id, place, tag_of(change.sha256)) {
                    self.0
                        .free(pages_of(number, scanned.payload_at(), change.size.into()).into_iter());
                }
            }
        }
        if batches.gaps().iter().any(|gap| gap.unreadable) {
            return Err(io::Error::other("the disk does not give all of it"));
        }
        Ok(wanted)
    }

    /// Whether a record of the batch is damaged that keeps something deleted: nothing in the index tells of it, and
    /// without it what was deleted would come back.
    fn may_lack_a_deletion(&self, superblock: &Superblock<D::File>, batch: &Batch) -> io::Result<bool> {
        let missing = batch.missing();
        if missing.is_empty() {
            return Ok(false);
        }
        let list = match &batch.commit {
            Some(commit) => list_of(&*superblock.file, commit)?,
            None => None,
        };
        let Some(list) = list else { return Ok(true) };
        let number = superblock.head.number;
        Ok((batch.first..)
            .zip(list)
            .any(|(lsn, change)| change.kind == Kind::Tombstone && missing.contains(&lsn))
            && self.may_come_back(number, number))
    }

    fn is_wanted(&self, superblock: &Superblock<D::File>, scanned: &Scanned, change: &Change, place: Place) -> bool {
        let holds_register = change.register.is_some() && self.0.index.is_live_register(&change.id, place);
        let tag = tag_of(change.sha256);
        (holds_register && !planted!("what still counts is emptied"))
            || match change.kind {
                Kind::Item => self.0.index.points_at_item(&change.id, place, tag),
                Kind::Tombstone => self.may_come_back(superblock.head.number, scanned.record.frame.origin),
                Kind::Quarantine | Kind::Touch => true,
                Kind::Vote | Kind::Commit => false,
            }
    }

    /// Whether a superblock other than `number` may hold what was deleted when `origin` was the last one.
    pub(crate) fn may_come_back(&self, number: u32, origin: u32) -> bool {
        let all = self.0.superblocks.all();
        all.iter()
            .any(|other| other.head.number <= origin && other.head.number != number)
    }

    /// The record of a superblock that begins at `offset`, to be written again; an item with its bytes, verified. None
    /// when it is damaged. Blocks on the disk.
    ///
    /// # Errors
    /// Of the disk.
    pub fn read_for_move(&self, number: u32, offset: u64) -> io::Result<Option<Move>> {
        let Some(superblock) = self.0.superblocks.get(number) else {
            return Ok(None);
        };
        let Some(scanned) = superblock.record(offset)? else {
            return Ok(None);
        };
        let frame = scanned.record.frame;
        let payload_at = scanned.payload_at();
        let Body::Change(change) = scanned.record.body else {
            return Ok(None);
        };
        let place = Place::new(number, offset);
        let (mut payload, mut is_sound) = (bytes::Bytes::new(), false);
        if change.kind == Kind::Item && self.0.index.is_live_item(&change.id, place, change.sha256) {
            let mut read = vec![0; usize::try_from(change.size).map_err(io::Error::other)?];
            superblock.file.read_at(&mut read, payload_at)?;
            // Here, beside the writer that everybody waits for.
            is_sound = Digest::of(&read) == change.sha256;
            payload = read.into();
        }
        Ok(Some(Move {
            place,
            change,
            payload,
            is_sound,
            time: frame.time,
            origin: frame.origin,
        }))
    }

    /// Notes that a superblock cannot be emptied: something of it is damaged.
    pub fn leave(&self, number: u32) {
        let mut stuck = self.0.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.insert(number);
    }

    /// Notes that it may be tried again: what was damaged is mended, as far as it can be.
    pub(crate) fn try_again(&self, number: u32) {
        let mut stuck = self.0.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        stuck.remove(&number);
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Corrupt => Self::other(error.to_string()),
            ReadError::Io(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worth_emptying() {
        let space = |allocated, live, is_tail| SuperblockSpace {
            number: 0,
            size: 1 << 30,
            end: 1 << 30,
            allocated,
            live,
            unavoidable: 0,
            ahead: 0,
            is_tail,
        };
        let bytes = 1 << 30;
        for (expected, space) in [
            (false, space(bytes, bytes - 8192, false)),
            (false, space(bytes, bytes / 10 * 8, false)),
            (true, space(bytes, bytes / 10 * 6, false)),
            (false, space(bytes, 0, true)),
            (true, space(8192, 0, false)),
            (false, space(bytes / 50, bytes / 100, false)),
        ] {
            assert_eq!(space.is_worth_emptying(bytes, Waste::BESIDE), expected, "{space:?}");
        }
        let small = SuperblockSpace {
            size: bytes / 128,
            ..space(bytes / 128, bytes / 1024, false)
        };
        assert!(
            small.is_worth_emptying(bytes, Waste::BESIDE),
            "one made of the room kept for a full disk"
        );
    }

    #[test]
    fn who_asks_for_more_waste_is_never_given_less() {
        let least: Vec<_> = (1..=100).map(|percent| Waste::percent(percent).least(3200)).collect();
        assert!(least.is_sorted(), "{least:?}");
        assert_eq!(
            (least[0], least[9], least[11], least[12], least[99]),
            (16, 160, 192, 200, 200)
        );
    }

    #[test]
    fn less_waste_is_worth_it_while_there_is_nothing_else_to_do() {
        let size = 1 << 30;
        let tail = SuperblockSpace {
            number: 0,
            size,
            end: size / 2,
            allocated: size / 2,
            live: size / 100 * 43,
            unavoidable: 0,
            ahead: 0,
            is_tail: true,
        };
        assert!(!tail.is_wasteful(size, Waste::BESIDE));
        assert!(tail.is_wasteful(size, Waste::percent(10)));
        let taken_ahead = SuperblockSpace {
            ahead: size / 100 * 6,
            ..tail
        };
        assert!(
            !taken_ahead.is_wasteful(size, Waste::percent(10)),
            "what is taken ahead is no waste"
        );
        let dense = SuperblockSpace {
            unavoidable: size / 100 * 6,
            ..tail
        };
        assert!(
            !dense.is_wasteful(size, Waste::percent(10)),
            "it would be as much again"
        );
        assert!(!tail.is_worth_emptying(size, Waste::percent(10)), "it is written to");
    }
}
