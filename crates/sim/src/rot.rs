//! Bytes that were synced and are no longer what they were: which ones, and how.
//!
//! Nothing is done to the last batch of the log. Whether that one was synced only the batch after it says, so an end
//! that is damaged is a write that was cut off, and not what this is about.

use std::{collections::BTreeMap, path::Path, time::Duration};

use vstack_engine::{BoxedDisk, Disk as _, MemDisk, Now, OpenError, Reader, Store, StoreOptions};
use vstack_types::{Monotonic, NodeUuid, Timestamp};

use crate::{dice::Dice, struck::Kind};

/// Records and heads begin at multiples of it.
const PAGE: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Both copies of a superblock's head.
const HEADS: usize = 2 * PAGE;
/// How a record begins, and the kind of those that end a batch.
const MAGIC: &[u8] = b"VSR1";
const COMMIT: u8 = 5;
/// Most pages that go at once.
const PAGES_MAX: usize = 6;

/// What became of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rot {
    /// One byte changed: no vote can be lost by that, since each is written twice.
    Byte,
    /// So much that votes may be lost.
    More,
}

/// What was done to a disk.
pub(crate) struct Rotted {
    pub rot: Rot,
    pub kind: Kind,
    /// Where.
    pub what: String,
}

/// Superblocks, sorted.
fn superblocks(disk: &MemDisk) -> Vec<String> {
    let is_one = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "vsb");
    let mut names: Vec<_> = disk.list().unwrap_or_default().into_iter().filter(is_one).collect();
    names.sort();
    names
}

fn begins(page: &[u8], commit: bool) -> bool {
    page.starts_with(MAGIC) && (page.get(MAGIC.len()) == Some(&COMMIT)) == commit
}

/// Bytes of the last superblock that were synced before its last batch was begun.
fn synced_of_last(bytes: &[u8]) -> usize {
    let pages = bytes.chunks(PAGE).enumerate().skip(HEADS / PAGE);
    let commits: Vec<_> = pages
        .filter(|(_, page)| begins(page, true))
        .map(|(number, _)| number)
        .collect();
    let before_last = commits.len().checked_sub(2).and_then(|index| commits.get(index));
    before_last.map_or(0, |number| (number + 1) * PAGE)
}

/// Each superblock, and how much of it was synced for certain.
fn synced(disk: &MemDisk) -> Vec<(String, usize)> {
    let names = superblocks(disk);
    let last = names.last().cloned();
    let known = names.into_iter().map(|name| {
        let bytes = disk.contents(&name);
        let len = if Some(&name) == last.as_ref() {
            synced_of_last(&bytes)
        } else {
            bytes.len()
        };
        (name, len)
    });
    known.filter(|(_, len)| *len > HEADS).collect()
}

/// Whether there is something that can rot.
pub(crate) fn is_ripe(disk: &MemDisk) -> bool {
    synced(disk).len() > 1
}

/// Something rots; says what.
pub(crate) fn rot(disk: &MemDisk, dice: &mut Dice) -> Option<Rotted> {
    let known = synced(disk);
    match dice.below(10) {
        // Where the log is written, so that the next start has to tell it from a write that was cut off.
        0..3 => byte(disk, dice, known.last()?, Kind::RotAtEnd),
        3..6 => {
            let one = dice.pick(&known)?;
            if dice.chance(50) {
                head(disk, dice, one)
            } else {
                byte(disk, dice, one, Kind::RotByte)
            }
        }
        6 | 7 => pages(disk, dice),
        _ => {
            let (name, _) = known.first()?;
            disk.remove(name).ok()?;
            disk.sync_dir().ok()?;
            Some(Rotted {
                rot: Rot::More,
                kind: Kind::RotFile,
                what: format!("{name} is gone"),
            })
        }
    }
}

fn byte(disk: &MemDisk, dice: &mut Dice, (name, len): &(String, usize), kind: Kind) -> Option<Rotted> {
    let bytes = disk.contents(name);
    // Most of a file may be empty, and what is empty says nothing.
    let filled: Vec<_> = (0..*len).filter(|at| bytes.get(*at) != Some(&0)).collect();
    Some(changed(disk, name, dice.pick(&filled).copied()?, kind))
}

/// A byte of how a record begins: after that the next start does not find the record at all. Bytes of items fill most of
/// a superblock, so that [`byte`] seldom comes upon one.
fn head(disk: &MemDisk, dice: &mut Dice, (name, len): &(String, usize)) -> Option<Rotted> {
    let bytes = disk.contents(name);
    let pages = bytes.chunks(PAGE).enumerate().take(len / PAGE).skip(HEADS / PAGE);
    let heads: Vec<_> = pages
        .filter(|(_, page)| begins(page, false))
        .map(|(number, _)| number * PAGE)
        .collect();
    let offset = dice.pick(&heads)? + dice.index(MAGIC.len());
    Some(changed(disk, name, offset, Kind::RotHead))
}

/// Where in which superblocks the bytes of `item` begin; none unless all of them were synced for certain.
pub(crate) fn places(disk: &MemDisk, item: &[u8]) -> Option<Vec<(String, usize)>> {
    if item.is_empty() {
        return None;
    }
    let synced: BTreeMap<String, usize> = synced(disk).into_iter().collect();
    let mut places = Vec::new();
    for name in superblocks(disk) {
        let until = synced.get(&name).copied().unwrap_or_default();
        let bytes = disk.contents(&name);
        let windows = bytes.windows(item.len()).enumerate();
        for (begin, _) in windows.filter(|(_, window)| *window == item) {
            if begin + item.len() > until {
                return None;
            }
            places.push((name.clone(), begin));
        }
    }
    Some(places).filter(|places| !places.is_empty())
}

/// The same byte of `item` changes wherever the disk has it; says where. Votes are not among its bytes.
pub(crate) fn rot_copy(disk: &MemDisk, item: &[u8], dice: &mut Dice) -> Option<String> {
    let places = places(disk, item)?;
    let at = dice.index(item.len());
    places.iter().for_each(|(name, begin)| disk.flip(name, begin + at));
    Some(format!("byte {at} of a copy changes, which begins at {places:?}"))
}

fn changed(disk: &MemDisk, name: &str, offset: usize, kind: Kind) -> Rotted {
    disk.flip(name, offset);
    Rotted {
        rot: Rot::Byte,
        kind,
        what: format!("byte {offset} of {name} changes"),
    }
}

/// A few pages of a superblock read as zeros.
fn pages(disk: &MemDisk, dice: &mut Dice) -> Option<Rotted> {
    let (name, len) = dice.pick(&synced(disk)).cloned()?;
    let mut bytes = disk.contents(&name);
    let written = bytes.iter().take(len).rposition(|byte| *byte != 0)? / PAGE + 1;
    let from = dice.index(written);
    let to = (from + 1 + dice.index(PAGES_MAX)).min(len / PAGE);
    bytes.get_mut(from * PAGE..to * PAGE)?.fill(0);
    disk.plant(&name, &bytes);
    Some(Rotted {
        rot: Rot::More,
        kind: Kind::RotPages,
        what: format!("pages {from} to {to} of {name} read as zeros"),
    })
}

/// Everything that is on `disk`, as another disk.
pub(crate) fn copy(disk: &MemDisk) -> MemDisk {
    let copy = MemDisk::default();
    for name in disk.list().unwrap_or_default() {
        copy.plant(&name, &disk.contents(&name));
    }
    copy
}

/// A copy of `disk` on which the first record of the last batch that changed anything cannot be read; none when there is
/// no such batch, or nothing says that it was synced.
fn without_a_record(disk: &MemDisk) -> Option<MemDisk> {
    let mut commits_behind = 0;
    for name in superblocks(disk).into_iter().rev() {
        let bytes = disk.contents(&name);
        let pages: Vec<_> = bytes.chunks(PAGE).enumerate().skip(HEADS / PAGE).collect();
        for (number, page) in pages.into_iter().rev() {
            if begins(page, false) {
                return (commits_behind > 1).then(|| {
                    let copy = copy(disk);
                    copy.flip(&name, number * PAGE + 2 * MAGIC.len());
                    copy
                });
            }
            commits_behind += usize::from(begins(page, true));
        }
        // That there is a superblock behind it says the same.
        commits_behind += 1;
    }
    None
}

/// A copy of `disk` as if power had gone while its last batch was written: of the commit record only the beginning is
/// there. None when there is no batch that could be cut off so.
fn torn(disk: &MemDisk) -> Option<MemDisk> {
    let name = superblocks(disk).pop()?;
    let mut bytes = disk.contents(&name);
    let pages = || bytes.chunks(PAGE).enumerate().skip(HEADS / PAGE);
    let commits: Vec<_> = pages()
        .filter(|(_, page)| begins(page, true))
        .map(|(at, _)| at)
        .collect();
    // The last one only says that the batch before it was synced.
    let [.., commit, mark] = commits[..] else { return None };
    let rest = bytes.get_mut(commit * PAGE + SECTOR..(mark + 1) * PAGE)?;
    if rest.iter().take(SECTOR).all(|byte| *byte == 0) {
        return None;
    }
    rest.fill(0);
    let copy = copy(disk);
    copy.plant(&name, &bytes);
    Some(copy)
}

/// What a node would know on a disk whose last write was cut off, and on which a record cannot be read later; none when
/// there was no such write.
pub(crate) fn opened_torn(disk: &MemDisk, superblock_bytes: u64) -> Option<Result<Reader<BoxedDisk>, OpenError>> {
    let torn = torn(disk)?;
    match opened(BoxedDisk::new(torn.clone()), superblock_bytes) {
        Ok(_started_once) => opened_without_a_record(&torn, superblock_bytes),
        refused => Some(refused),
    }
}

/// What a node would know on a copy with a record that cannot be read; none when there is none.
pub(crate) fn opened_without_a_record(
    disk: &MemDisk,
    superblock_bytes: u64,
) -> Option<Result<Reader<BoxedDisk>, OpenError>> {
    Some(opened(BoxedDisk::new(without_a_record(disk)?), superblock_bytes))
}

/// What a node would know on `disk`.
pub(crate) fn opened(disk: BoxedDisk, superblock_bytes: u64) -> Result<Reader<BoxedDisk>, OpenError> {
    let options = StoreOptions {
        superblock_bytes,
        new_uuid: NodeUuid::from_bytes([0; 16]),
        secret: [0; 32],
        reverify_after: Duration::MAX,
        blind: false,
        claims: false,
    };
    let now = Now {
        monotonic: Monotonic::from_start(Duration::ZERO),
        wall: Timestamp(0),
    };
    Store::open(disk, options, now).map(|store| store.reader())
}
