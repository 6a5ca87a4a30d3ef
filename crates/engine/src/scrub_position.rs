//! How far the round of the scrub has come: the `scrub` file of a data directory.
//!
//! A round goes over the superblocks there are at its begin, in the order of their numbers, so the next one is always
//! the one whose last scrub is longest ago. Kept over restarts, because a node that is restarted often would read the
//! first ones again and again, and the others never. Nothing else depends on it: without it a round begins anew.

use std::io;

use vstack_types::Timestamp;

use crate::{
    disk::Disk,
    reader::Reader,
    small_file::{self, Small},
};

pub(crate) const NAME: &str = "scrub";

/// What the file says. That of a disk that was never scrubbed is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubPosition {
    /// Superblocks below it were scrubbed in this round.
    next: u32,
    /// Number behind the last superblock of this round.
    end: u32,
    /// A superblock of this round could not be scrubbed.
    failed: bool,
    /// When a round ended in which every superblock was scrubbed.
    completed: Option<Timestamp>,
}

impl ScrubPosition {
    /// Which of the superblocks with these numbers is to be scrubbed next in this round; none when it is over.
    pub fn due(&self, numbers: &[u32]) -> Option<u32> {
        let round = self.next..self.end;
        numbers.iter().copied().filter(|number| round.contains(number)).min()
    }

    /// Begins a round over the superblocks with these numbers. Those made later wait for the next one: otherwise a disk
    /// that is written to faster than it is scrubbed would never come back to the first.
    pub fn begin(&mut self, numbers: &[u32]) {
        self.next = 0;
        self.end = numbers.iter().max().map_or(0, |last| last.saturating_add(1));
        self.failed = false;
    }

    /// Superblock `number` was scrubbed, or could not be and has to wait for the next round.
    pub fn passed(&mut self, number: u32, scrubbed: bool) {
        self.next = number.saturating_add(1);
        self.failed |= !scrubbed;
    }

    /// Ends the round when none of the superblocks with these numbers is due in it any more. Says whether it ended now.
    pub fn ends(&mut self, numbers: &[u32], now: Timestamp) -> bool {
        if self.end == 0 || self.due(numbers).is_some() {
            return false;
        }
        (self.next, self.end) = (0, 0);
        if !self.failed {
            self.completed = Some(now);
        }
        true
    }

    /// When a round last ended without a failure.
    pub const fn completed(&self) -> Option<Timestamp> {
        self.completed
    }

    fn written(&self) -> String {
        let failed = if self.failed { "failed\n" } else { "" };
        let completed = self.completed.map(|at| format!("completed {}\n", at.0));
        let completed = completed.unwrap_or_default();
        format!("next {}\nend {}\n{failed}{completed}", self.next, self.end)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut position = Self::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("next", number)) => position.next = number.parse().ok()?,
                Some(("end", number)) => position.end = number.parse().ok()?,
                Some(("completed", at)) => position.completed = Some(Timestamp(at.parse().ok()?)),
                None if line == "failed" => position.failed = true,
                _ => return None,
            }
        }
        (position.written() == text).then_some(position)
    }

    /// As it was kept; that of a disk never scrubbed where that cannot be told.
    fn load<D: Disk>(disk: &D) -> Self {
        match small_file::read(disk, NAME) {
            Ok(Small::Whole(text)) => Self::parse(&text).unwrap_or_default(),
            Ok(Small::Absent | Small::Damaged) | Err(_) => Self::default(),
        }
    }

    fn save<D: Disk>(&self, disk: &D) -> io::Result<()> {
        small_file::replace(disk, NAME, &self.written())
    }
}

impl<D: Disk> Reader<D> {
    /// How far the scrub has come, as it was kept last. Blocks on the disk.
    pub fn scrub_position(&self) -> ScrubPosition {
        ScrubPosition::load(&self.0.disk)
    }

    /// Keeps it durably. Blocks on the disk.
    ///
    /// # Errors
    /// Of the disk; what was kept before, or nothing, is there then.
    pub fn keep_scrub_position(&self, position: &ScrubPosition) -> io::Result<()> {
        position.save(&self.0.disk)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mem_disk::MemDisk;

    const NOW: Timestamp = Timestamp(1_700_000_000_123);

    /// Scrubs until the round ends, with a restart after every superblock; says in which order.
    fn round(disk: &MemDisk, numbers: &[u32], fails: Option<u32>) -> Vec<u32> {
        let mut order = Vec::new();
        loop {
            let mut position = ScrubPosition::load(disk);
            if position.due(numbers).is_none() {
                position.begin(numbers);
            }
            let number = position.due(numbers).unwrap();
            order.push(number);
            position.passed(number, fails != Some(number));
            let ended = position.ends(numbers, NOW);
            position.save(disk).unwrap();
            if ended {
                return order;
            }
        }
    }

    #[test]
    fn a_round_goes_on_over_restarts() {
        let disk = MemDisk::default();
        assert_eq!(round(&disk, &[0, 1, 4], Some(1)), [0, 1, 4]);
        assert_eq!(ScrubPosition::load(&disk).completed(), None, "one was not scrubbed");
        assert_eq!(round(&disk, &[0, 1, 4], None), [0, 1, 4]);
        assert_eq!(ScrubPosition::load(&disk).completed(), Some(NOW));
    }

    #[test]
    fn what_is_made_meanwhile_waits_and_what_is_emptied_is_not_waited_for() {
        let mut position = ScrubPosition::default();
        position.begin(&[2, 3, 5]);
        position.passed(2, true);
        assert_eq!(position.due(&[2, 3, 5, 6]), Some(3));
        assert!(!position.ends(&[2, 5, 6], NOW));
        assert!(position.ends(&[2, 6], NOW), "superblocks 3 and 5 were emptied");
        assert_eq!((position.due(&[2, 6]), position.completed()), (None, Some(NOW)));
        assert!(!position.ends(&[2, 6], Timestamp(0)), "it ended before");
        position.begin(&[]);
        assert_eq!(position.due(&[]), None);
    }

    #[test]
    fn what_cannot_be_read_was_never_scrubbed() {
        let disk = MemDisk::default();
        assert_eq!(ScrubPosition::load(&disk), ScrubPosition::default());
        for text in [
            "",
            "next 1\n",
            "next 1\nend 2\nmore\n",
            "end 2\nnext 1\n",
            "next -1\nend 2\n",
        ] {
            small_file::replace(&disk, NAME, text).unwrap();
            assert_eq!(ScrubPosition::load(&disk), ScrubPosition::default(), "{text:?}");
        }
        disk.plant(NAME, &[b'x'; 100_000]);
        assert_eq!(ScrubPosition::load(&disk), ScrubPosition::default());
    }

    proptest! {
        #[test]
        fn it_is_read_as_it_was_written(next: u32, end: u32, failed: bool, at: Option<i64>) {
            let position = ScrubPosition { next, end, failed, completed: at.map(Timestamp) };
            prop_assert_eq!(ScrubPosition::parse(&position.written()), Some(position));
        }
    }
}
