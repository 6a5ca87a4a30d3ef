//! Power that goes, and what it takes with it of what was not synced.

use std::collections::BTreeMap;

use vstack_engine::{Disk as _, MemDisk};

use crate::struck::{Kind, Tally};

/// Records and heads are written in pages.
const PAGE: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The machine of `disk` loses power; `seed` decides what is left of what was not synced.
pub(crate) fn cut(disk: &MemDisk, seed: u64, tally: &Tally) {
    let written = contents(disk);
    disk.crash(seed);
    let left = contents(disk);
    if written != left {
        tally.strikes(Kind::UnsyncedLost);
    }
    let torn = |(name, bytes): (&String, &Vec<u8>)| left.get(name).is_some_and(|left| is_torn(bytes, left));
    if written.iter().any(torn) {
        tally.strikes(Kind::PageTorn);
    }
}

fn contents(disk: &MemDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().unwrap_or_default().into_iter();
    names
        .map(|name| {
            let bytes = disk.contents(&name);
            (name, bytes)
        })
        .collect()
}

/// Whether of one page some sectors are as `written`, and others are not. Sectors of zeros say nothing.
fn is_torn(written: &[u8], left: &[u8]) -> bool {
    let mut pages = written.chunks(PAGE).zip(left.chunks(PAGE));
    pages.any(|(written, left)| {
        let filled = |sector: &[u8]| sector.iter().any(|byte| *byte != 0);
        let sectors = written.chunks(SECTOR).zip(left.chunks(SECTOR));
        let same: Vec<_> = sectors
            .filter(|(written, _)| filled(written))
            .map(|(written, left)| written == left)
            .collect();
        same.contains(&true) && same.contains(&false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_torn_when_a_part_of_it_is_left() {
        let written = [7; 2 * PAGE];
        let mut left = written;
        assert!(!is_torn(&written, &left), "all of it");
        left[PAGE..].fill(0);
        assert!(!is_torn(&written, &left), "one page whole, the other not at all");
        left[SECTOR..2 * SECTOR].fill(0);
        assert!(is_torn(&written, &left));
    }
}
