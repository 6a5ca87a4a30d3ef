//! The bytes of items that are gone are given back to the filesystem where they are.
//!
//! A hole where bytes were changes nothing for whoever reads the log: heads stay, and the bytes of an item that is gone
//! are looked at by nobody. That takes no room and moves nothing, so it works on a disk that is full.

use std::{
    collections::BTreeMap,
    io,
    sync::{PoisonError, atomic::Ordering},
};

use vstack_types::planted;

use crate::{
    disk::{Disk, DiskFile},
    index::StoredItem,
    pins::{Earlier, Pins},
    reader::{Reader, Shared},
    superblock::PAGE,
};

/// Ranges remembered until they are given back; more are found when their superblock is emptied.
const FREED_MAX: usize = 1 << 20;

/// Payloads below this size share pages with other records.
pub(crate) const HOLE_BYTES_MIN: u64 = 64 * 1024;

/// Pages of an item that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freed {
    superblock: u32,
    from: u64,
    to: u64,
}

/// The whole pages of a payload that is worth a hole.
pub(crate) fn pages_of(superblock: u32, payload_at: u64, size: u64) -> Option<Freed> {
    let (from, to) = (payload_at.next_multiple_of(PAGE), (payload_at + size) / PAGE * PAGE);
    (size >= HOLE_BYTES_MIN && from < to).then_some(Freed { superblock, from, to })
}

/// Ranges that are given back when those who read before are done.
type Waiting = (Earlier, Vec<Freed>);

fn are_done(earlier: &Earlier) -> bool {
    earlier.are_done() || planted!("a hole is made before readers are done")
}

/// What of one superblock waits for its readers.
#[derive(Debug, Default)]
struct Read {
    waiting: Option<Waiting>,
    /// Those that came since. Were they waited for together with the others, readers that overlap would never be done.
    next: Vec<Freed>,
}

impl Read {
    fn take_ready(&mut self, turn: impl Fn() -> Earlier) -> Vec<Freed> {
        let mut ready = Vec::new();
        loop {
            if self.waiting.is_none() && !self.next.is_empty() {
                self.waiting = Some((turn(), std::mem::take(&mut self.next)));
            }
            let Some((_, ranges)) = self.waiting.take_if(|(earlier, _)| are_done(earlier)) else {
                return ready;
            };
            ready.extend(ranges);
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_none() && self.next.is_empty()
    }
}

/// What waits to be given back.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    freed: Vec<Freed>,
    /// Waits for those who look something up, and may yet begin to read it.
    looked: Option<Waiting>,
    /// Then for those who read, by superblock.
    read: BTreeMap<u32, Read>,
    /// Ranges in all of these.
    remembered: usize,
    /// The filesystem cannot do it.
    unsupported: bool,
}

impl Holes {
    fn free(&mut self, ranges: impl Iterator<Item = Freed>) {
        if !self.unsupported {
            let before = self.freed.len();
            self.freed
                .extend(ranges.take(FREED_MAX.saturating_sub(self.remembered)));
            self.remembered += self.freed.len() - before;
        }
    }

    /// What nobody reads any more; `turn` gives the readers of a superblock.
    fn take_ready(&mut self, lookers: &Pins, turn: impl Fn(u32) -> Earlier) -> Vec<Freed> {
        if self.looked.is_none() && !self.freed.is_empty() {
            self.looked = Some((lookers.turn(), std::mem::take(&mut self.freed)));
        }
        if let Some((_, ranges)) = self.looked.take_if(|(earlier, _)| are_done(earlier)) {
            for freed in ranges {
                self.read.entry(freed.superblock).or_default().next.push(freed);
            }
        }
        let mut ready = Vec::new();
        self.read.retain(|number, read| {
            ready.extend(read.take_ready(|| turn(*number)));
            !read.is_empty()
        });
        self.remembered -= ready.len();
        ready
    }

    fn give_up(&mut self) {
        *self = Self {
            unsupported: true,
            ..Self::default()
        };
    }
}

/// What came of taking space back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Bytes given back to the filesystem.
    pub bytes: u64,
    /// Ranges that wait for readers to be done.
    pub waiting: u64,
}

impl<D: Disk> Shared<D> {
    /// Notes the bytes of items that nobody finds any more.
    pub(crate) fn note_freed(&self, gone: &[StoredItem]) {
        // An item without a record of its own has no bytes either.
        let gone = gone.iter().filter(|item| item.record_len > 0);
        self.free(gone.filter_map(|item| pages_of(item.place.superblock(), item.payload_at, item.size.into())));
    }

    pub(crate) fn free(&self, ranges: impl Iterator<Item = Freed>) {
        self.holes.lock().unwrap_or_else(PoisonError::into_inner).free(ranges);
    }

    fn take_ready(&self) -> Vec<Freed> {
        let turn = |number| {
            let superblock = self.superblocks.get(number);
            superblock.map_or_else(Earlier::default, |superblock| superblock.readers.turn())
        };
        let mut holes = self.holes.lock().unwrap_or_else(PoisonError::into_inner);
        holes.take_ready(&self.lookers, turn)
    }

    /// Gives one range back; says how many bytes that was, or that it is too early.
    fn punch(&self, freed: Freed) -> io::Result<Option<u64>> {
        let Some(superblock) = self.superblocks.get(freed.superblock) else {
            return Ok(Some(0));
        };
        // The last batch of the log is looked at again after a stop.
        if freed.to > superblock.marked() {
            return Ok(None);
        }
        superblock.file.punch(freed.from, freed.to)?;
        Ok(Some(freed.to - freed.from))
    }
}

impl<D: Disk> Reader<D> {
    /// Gives the space of items that are gone back to the filesystem, as far as nobody reads in their superblock any
    /// more. Blocks on the disk.
    ///
    /// # Errors
    /// Of the disk. What was not given back is found again when its superblock is emptied.
    pub fn reclaim(&self) -> io::Result<Reclaimed> {
        // The lock is not held further: others go on freeing meanwhile.
        let ready = self.0.take_ready();
        let mut reclaimed = Reclaimed::default();
        let (mut early, mut failed) = (Vec::new(), None);
        for freed in ready {
            match self.0.punch(freed) {
                Ok(Some(bytes)) => reclaimed.bytes += bytes,
                Ok(None) => early.push(freed),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.0.holes.lock().unwrap_or_else(PoisonError::into_inner).give_up();
                    return Ok(reclaimed);
                }
                Err(error) => {
                    // It is tried again, and so are those behind it.
                    early.push(freed);
                    failed = failed.or(Some(error));
                }
            }
        }
        let mut holes = self.0.holes.lock().unwrap_or_else(PoisonError::into_inner);
        holes.free(early.into_iter());
        reclaimed.waiting = holes.remembered as u64;
        drop(holes);
        self.0
            .counters
            .reclaimed_bytes
            .fetch_add(reclaimed.bytes, Ordering::Relaxed);
        // Before anybody else takes what came back.
        self.keep_reserve();
        failed.map_or(Ok(reclaimed), Err)
    }

    /// Keeps room for a disk that is full, as far as there is some.
    pub(crate) fn keep_reserve(&self) {
        let mut reserve = self.0.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = reserve.keep(&self.0.disk) {
            tracing::warn!(%error, "no room could be kept for deletions on a full disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pages_of_large_payloads_are_given_back() {
        assert_eq!(pages_of(1, 8192, 1000), None, "it shares its pages");
        assert_eq!(
            pages_of(1, 12288, 100_000),
            Some(Freed {
                superblock: 1,
                from: 12288,
                to: 12288 + 24 * 4096
            }),
            "the last page may hold the head of the next record"
        );
    }

    #[test]
    fn who_looks_is_waited_for_everywhere_and_who_reads_in_its_superblock() {
        let (lookers, readers) = (Pins::default(), [Pins::default(), Pins::default()]);
        let mut holes = Holes::default();
        let of = |superblock| pages_of(superblock, 12288, 100_000).unwrap();
        holes.free([of(0), of(1)].into_iter());
        let ready = |holes: &mut Holes| holes.take_ready(&lookers, |number| readers[number as usize].turn());
        let looks = lookers.pin();
        assert_eq!(ready(&mut holes), []);
        let reads = readers[1].pin();
        drop(looks);
        assert_eq!(ready(&mut holes), [of(0)]);
        let later = readers[1].pin();
        holes.free([of(1)].into_iter());
        assert_eq!((ready(&mut holes), holes.remembered), (vec![], 2));
        drop(reads);
        assert_eq!(
            ready(&mut holes),
            [of(1)],
            "the one that came later does not keep the first waiting"
        );
        drop(later);
        assert_eq!((ready(&mut holes), holes.remembered), (vec![of(1)], 0));
    }
}
