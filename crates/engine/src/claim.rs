//! The log sequence number that this disk claims where it registers: the `claim` file of a data directory.
//!
//! A disk that went back in time is known by a log sequence number below one it was seen with before. But its log
//! grows on, with every start and by bytes that need no vote, and would pass that number. So the number it had when it
//! was opened is written down, and it claims no other, start after start, until it is accepted with that one.

use std::io;

use crate::{
    disk::Disk,
    small_file::{self, Small},
};

pub(crate) const NAME: &str = "claim";
const FIELD: &str = "log_seq ";

/// All that the file says once the disk is accepted. It stays: a removal that a power cut undoes could leave an empty
/// file, and so a claim of nothing.
const OVER: &str = "accepted\n";

/// What is known of it while the data directory is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Nothing to claim: accepted, or never to register.
    Over,
    /// In the file.
    Written(u64),
    /// There was no room for it yet. A log that grew before it is written down would be claimed as long as it is then.
    Unwritten(u64),
}

impl Held {
    pub(crate) const fn log_seq(self) -> Option<u64> {
        match self {
            Self::Over => None,
            Self::Written(log_seq) | Self::Unwritten(log_seq) => Some(log_seq),
        }
    }

    /// As it is once it is on the disk.
    pub(crate) fn written(log_seq: Option<u64>) -> Self {
        log_seq.map_or(Self::Over, Self::Written)
    }
}

/// What it has to claim; none when it was accepted. A file that cannot be read claims nothing.
pub(crate) fn load<D: Disk>(disk: &D) -> io::Result<Option<u64>> {
    Ok(match small_file::read(disk, NAME)? {
        Small::Absent => None,
        Small::Whole(text) if text == OVER => None,
        Small::Whole(text) => Some(parse(&text).unwrap_or(0)),
        Small::Damaged => Some(0),
    })
}

/// Whether there is a claim, held or over.
pub(crate) fn is_there<D: Disk>(disk: &D) -> io::Result<bool> {
    Ok(small_file::read(disk, NAME)? != Small::Absent)
}

fn parse(text: &str) -> Option<u64> {
    let log_seq = text.strip_prefix(FIELD)?.strip_suffix('\n')?.parse().ok()?;
    (written(log_seq) == text).then_some(log_seq)
}

fn written(log_seq: u64) -> String {
    format!("{FIELD}{log_seq}\n")
}

/// Writes it down, or that it is over.
pub(crate) fn save<D: Disk>(disk: &D, log_seq: Option<u64>) -> io::Result<()> {
    match log_seq {
        Some(log_seq) => small_file::replace(disk, NAME, &written(log_seq)),
        None if small_file::read(disk, NAME)? == Small::Absent => Ok(()),
        None => small_file::replace(disk, NAME, OVER),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mem_disk::{Fault, MemDisk};

    #[test]
    fn a_claim_outlives_a_crash_until_it_is_accepted() {
        let disk = MemDisk::default();
        assert_eq!(load(&disk).unwrap(), None);
        save(&disk, Some(17)).unwrap();
        disk.crash(1);
        assert_eq!(load(&disk).unwrap(), Some(17));
        disk.plant(NAME, b"log_seq 1");
        assert_eq!(load(&disk).unwrap(), Some(0), "cut short");
        save(&disk, None).unwrap();
        disk.crash(2);
        assert_eq!(load(&disk).unwrap(), None);
        save(&disk, None).unwrap();
    }

    #[test]
    fn a_power_cut_leaves_the_old_claim_or_the_new_one() {
        for (before, after) in [(Some(17), None), (Some(17), Some(40)), (None, Some(40))] {
            for at in 1..=5 {
                for seed in 0..40 {
                    let disk = MemDisk::default();
                    save(&disk, Some(3)).unwrap();
                    save(&disk, before).unwrap();
                    disk.plan(disk.changes() + at, Fault::PowerCut);
                    let done = save(&disk, after).is_ok();
                    disk.crash(seed);
                    let left = load(&disk).unwrap();
                    let context = format!("{before:?} to {after:?}, cut at {at}, seed {seed}: {left:?}");
                    assert!(left == after || !done && left == before, "{context}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn numbers_have_one_way_to_be_written(log_seq in any::<u64>(), text in "(log_seq )?[+0]{0,2}[0-9]{0,21}\n?") {
            prop_assert_eq!(parse(&written(log_seq)), Some(log_seq));
            if let Some(read) = parse(&text) {
                prop_assert_eq!(written(read), text);
            }
        }
    }
}
