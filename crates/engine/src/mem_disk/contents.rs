//! What a file of a [`super::MemDisk`] holds: what readers see, what is durable, what lies between, and what a crash
//! makes of it.

use std::collections::BTreeSet;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Space is taken in pages of this size.
pub(super) const PAGE: usize = 4096;

#[derive(Debug, Clone)]
pub(super) enum Dirty {
    Write { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

#[derive(Debug, Default)]
pub(super) struct FileState {
    pub cached: Vec<u8>,
    pub durable: Vec<u8>,
    pub dirty: Vec<Dirty>,
    /// Pages that take space: written or preallocated ones. The others are holes.
    pub pages: BTreeSet<usize>,
}

impl FileState {
    /// Pages from `from` to `to`, in bytes, that do not take space yet.
    pub(super) fn holes(&self, from: usize, to: usize) -> Vec<usize> {
        (from / PAGE..to.div_ceil(PAGE))
            .filter(|page| !self.pages.contains(page))
            .collect()
    }

    pub(super) fn cut(&mut self, len: usize) {
        self.pages.split_off(&len.div_ceil(PAGE));
    }
}

pub(super) fn apply_write(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset..end].copy_from_slice(bytes);
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for choosing what a crash keeps, and the same everywhere.
pub(super) struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound as u64)).unwrap_or(0)
    }
}

/// `style` 0 keeps nothing, 1 everything, 2 a prefix of the writes, 3 each sector by chance.
pub(super) fn crash_file(file: &mut FileState, style: usize, chance: &mut Chance) {
    let dirty = std::mem::take(&mut file.dirty);
    let keep = match style {
        0 => 0,
        2 => chance.below(dirty.len() + 1),
        _ => dirty.len(),
    };
    for change in dirty.into_iter().take(keep) {
        match change {
            Dirty::Len(len) => file.durable.resize(len, 0),
            Dirty::Write { offset, bytes } => {
                let mut at = 0;
                while at < bytes.len() {
                    let sector_end = (offset + at) / SECTOR * SECTOR + SECTOR;
                    let until = (sector_end - offset).min(bytes.len());
                    if style != 3 || chance.next() & 1 == 0 {
                        apply_write(&mut file.durable, offset + at, &bytes[at..until]);
                    }
                    at = until;
                }
            }
        }
    }
    file.cached.clone_from(&file.durable);
    file.cut(file.cached.len());
}
