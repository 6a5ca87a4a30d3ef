//! Harm done to a disk behind the store's back, to what was synced and is known to be.

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use vstack_engine::{Disk as _, IdentityError, MemDisk, OpenError};

const HEADS: usize = 8192;
const PAGE: usize = 4096;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// Nothing.
    Nothing,
    /// So much that the log ends before where others saw it: the disk is refused.
    WentBack,
    /// One byte of a superblock.
    Byte,
    /// Several bytes of superblocks.
    Bytes,
    /// A run of pages reads as zeros.
    Pages,
    /// A superblock is shorter than it was.
    Cut,
    /// A superblock is gone.
    Lost,
    /// The identity is changed, cut or gone.
    Identity,
}

impl Damaged {
    /// Whether it can cut the end off.
    pub const fn may_shorten(self) -> bool {
        matches!(self, Self::Bytes | Self::Pages | Self::Cut | Self::Lost)
    }

    /// Whether the directory may be refused for it with `error`.
    pub fn may_refuse(self, error: &OpenError) -> bool {
        match error {
            OpenError::IdentityMissing | OpenError::Identity(IdentityError::Damaged) => self == Self::Identity,
            OpenError::SuperblocksMissing => self == Self::Lost,
            _ => false,
        }
    }
}

fn superblocks(disk: &MemDisk) -> Vec<String> {
    let names = disk.list().unwrap();
    names
        .into_iter()
        .filter(|name| name.starts_with("superblock"))
        .collect()
}

/// All files.
pub fn contents(disk: &MemDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list().unwrap();
    names
        .into_iter()
        .map(|name| (name.clone(), disk.contents(&name)))
        .collect()
}

/// A page with bytes that changed by themselves.
pub struct Page {
    name: String,
    at: usize,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// The pages of superblocks that are not what they were `before`.
pub fn changed(disk: &MemDisk, before: &[(String, Vec<u8>)]) -> Vec<Page> {
    let superblocks = before.iter().filter(|(name, _)| name.starts_with("superblock"));
    let pages = superblocks.flat_map(|(name, before)| {
        let after = disk.contents(name);
        let pages = before.chunks(PAGE).zip(after.chunks(PAGE)).enumerate();
        let changed = pages.filter(|(_, (before, after))| before != after);
        let page = |(number, (before, after)): (usize, (&[u8], &[u8]))| Page {
            name: name.clone(),
            at: number * PAGE,
            before: before.to_vec(),
            after: after.to_vec(),
        };
        changed.map(page).collect::<Vec<_>>()
    });
    pages.collect()
}

/// What read badly reads well again, where nothing was written since.
pub fn heal(disk: &MemDisk, pages: &[Page]) {
    for page in pages {
        let mut bytes = disk.contents(&page.name);
        let here = page.at..page.at + page.before.len();
        if bytes.get(here.clone()) == Some(&page.after) {
            bytes[here].copy_from_slice(&page.before);
            disk.plant(&page.name, &bytes);
        }
    }
}

fn flip(disk: &MemDisk, rng: &mut StdRng) {
    let Some(name) = superblocks(disk).choose(rng).cloned() else {
        return;
    };
    let bytes = disk.contents(&name);
    let said: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let records: Vec<usize> = said.iter().copied().filter(|at| *at >= HEADS).collect();
    let among = match rng.random_range(0..8) {
        0 => (0..bytes.len()).collect(),
        1 => said,
        // Where records begin: a page that is mostly head.
        2..=4 => records.iter().copied().filter(|at| at % PAGE < 400).collect(),
        _ => records,
    };
    if let Some(at) = among.choose(rng) {
        disk.flip(&name, *at);
    }
}

fn lose(disk: &MemDisk, name: &str) -> Damaged {
    disk.remove(name).unwrap();
    disk.sync_dir().unwrap();
    Damaged::Lost
}

/// Does harm, of a kind that `rng` chooses.
pub fn inflict(disk: &MemDisk, rng: &mut StdRng) -> Damaged {
    // Where there are several with records, one of them is lost more often: that has to be noticed behind a checkpoint, too.
    let has_records = |name: &String| disk.contents(name).len() > HEADS;
    let full: Vec<String> = superblocks(disk).into_iter().filter(has_records).collect();
    if full.len() > 2
        && rng.random_range(0..2) == 0
        && let Some(name) = full.choose(rng)
    {
        return lose(disk, name);
    }
    let name = superblocks(disk).choose(rng).cloned().unwrap_or_default();
    let mut bytes = disk.contents(&name);
    match rng.random_range(0..12) {
        0..=5 => {
            flip(disk, rng);
            Damaged::Byte
        }
        6 | 7 => {
            (0..rng.random_range(2..6)).for_each(|_| flip(disk, rng));
            Damaged::Bytes
        }
        8 => {
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) / PAGE + 1;
            let from = rng.random_range(0..written);
            let to = (from + rng.random_range(1..4)) * PAGE;
            let end = to.min(bytes.len());
            bytes[(from * PAGE).min(end)..end].fill(0);
            disk.plant(&name, &bytes);
            Damaged::Pages
        }
        9 => {
            bytes.truncate(rng.random_range(0..=bytes.len()));
            disk.plant(&name, &bytes);
            Damaged::Cut
        }
        10 => lose(disk, &name),
        _ => {
            let identity = disk.contents("identity");
            match rng.random_range(0..3) {
                0 => disk.flip("identity", rng.random_range(0..identity.len())),
                1 => disk.plant("identity", &identity[..rng.random_range(0..identity.len())]),
                _ => {
                    disk.remove("identity").unwrap();
                    disk.sync_dir().unwrap();
                }
            }
            Damaged::Identity
        }
    }
}

/// Another disk that holds the same, synced.
pub fn copy(disk: &MemDisk) -> MemDisk {
    let copy = MemDisk::default();
    contents(disk).iter().for_each(|(name, bytes)| copy.plant(name, bytes));
    copy
}

/// A copy of the disk on which the first record of the last batch cannot be read; none when there is no batch.
pub fn without_last_record(disk: &MemDisk) -> Option<MemDisk> {
    const KIND_COMMIT: u8 = 5;
    let begins_batch = |page: &[u8]| page.starts_with(b"VSR1") && page[4] != KIND_COMMIT;
    let copy = copy(disk);
    superblocks(disk).into_iter().rev().find_map(|name| {
        let bytes = disk.contents(&name);
        let page = bytes.chunks(PAGE).rposition(begins_batch)?;
        copy.flip(&name, page * PAGE + 8);
        Some(copy.clone())
    })
}
