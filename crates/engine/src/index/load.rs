//! Looking an entry up: what was used lately from memory, the rest from the records that cells point to.
//!
//! A record that is damaged is known by its batch's commit record. No lock is held while the disk is read: what changed
//! meanwhile is noticed, and read again.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use vstack_chunkpaxos::Register;
use vstack_types::{ChunkId, Timestamp};

use super::{
    Index,
    cells::Cells,
    entry::{Entry, Place, State, StoredItem, StoredRegister, tag_of},
};
use crate::{
    batches::{self, Batches},
    disk::DiskFile,
    record::{Body, Change, Kind},
    scan::{Scanned, Scanner},
    superblocks::{Superblock, Superblocks},
};

/// An entry that was changed more often than this while it was read is given up, as unreadable.
const TRIES_MAX: usize = 1000;

/// The kind of thing a cell points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sought {
    Item { tag: u32 },
    Register,
}

impl Sought {
    fn is(self, change: &Change) -> bool {
        match self {
            Self::Item { tag } => change.kind == Kind::Item && tag_of(change.sha256) == tag,
            Self::Register => change.register.is_some(),
        }
    }
}

/// What a cell turned out to point to.
struct Told {
    change: Change,
    payload_at: u64,
    record_len: u32,
    lsn: u64,
    time: Timestamp,
    /// The record itself is gone: this is what its batch's commit record says of it.
    second_hand: bool,
}

/// What comes of a record that the disk does not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    Fails,
    IsGone,
}

/// What a look at a cell's record comes to.
enum Look {
    Told(Box<Told>),
    /// The record is another chunk's: two ids have one fingerprint.
    Another,
    /// Neither copy of it is left.
    Gone,
}

impl Index {
    /// The entry of `id`, when no look at the disk is needed for it.
    pub(crate) fn at_hand(&self, id: &ChunkId) -> Option<Arc<Entry>> {
        let fingerprint = self.fingerprint(id);
        let shard = self.read(fingerprint);
        let found = shard.recent(id).or_else(|| {
            let cells = shard.cells(fingerprint);
            (cells.items.is_empty() && cells.registers.is_empty()).then(Arc::default)
        });
        drop(shard);
        if found.is_some() {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// The entry of `id`.
    ///
    /// # Errors
    /// When the disk does not give a record. Damage is no error: an item of which nothing is left is not there, and a
    /// register of which nothing is left abstains.
    pub(crate) fn load<F: DiskFile>(&self, id: &ChunkId, superblocks: &Superblocks<F>) -> io::Result<Arc<Entry>> {
        self.load_as(id, superblocks, Unreadable::Fails)
    }

    /// The same, where what the disk does not give counts as gone: for a start, which goes on without it.
    ///
    /// # Errors
    /// When it changes too often.
    pub(crate) fn load_what_is_left<F: DiskFile>(
        &self,
        id: &ChunkId,
        superblocks: &Superblocks<F>,
    ) -> io::Result<Arc<Entry>> {
        self.load_as(id, superblocks, Unreadable::IsGone)
    }

    fn load_as<F: DiskFile>(
        &self,
        id: &ChunkId,
        superblocks: &Superblocks<F>,
        unreadable: Unreadable,
    ) -> io::Result<Arc<Entry>> {
        if let Some(entry) = self.at_hand(id) {
            return Ok(entry);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let fingerprint = self.fingerprint(id);
        for _ in 0..TRIES_MAX {
            let cells = self.read(fingerprint).cells(fingerprint);
            let read = self.read_entry(id, &cells, superblocks, unreadable);
            let mut shard = self.write(fingerprint);
            match read {
                Ok(entry) => {
                    let entry = Arc::new(entry);
                    if shard.keep(id, &entry, cells.version) {
                        return Ok(entry);
                    }
                }
                // A record may have been moved away and its superblock emptied.
                Err(error) if shard.cells(fingerprint).version == cells.version => return Err(error),
                Err(_) => {}
            }
        }
        Err(io::Error::other("the entry changes faster than it can be read"))
    }

    fn read_entry<F: DiskFile>(
        &self,
        id: &ChunkId,
        cells: &Cells,
        superblocks: &Superblocks<F>,
        unreadable: Unreadable,
    ) -> io::Result<Entry> {
        let look = |place, sought| match self.look(id, place, sought, superblocks) {
            Err(error) if unreadable == Unreadable::IsGone => {
                tracing::error!(%id, %error, "a record cannot be read");
                Ok(Look::Gone)
            }
            other => other,
        };
        let mut entry = Entry::default();
        for cell in &cells.items {
            let sought = Sought::Item { tag: cell.tag };
            let looked = look(cell.place, sought)?;
            if matches!(looked, Look::Gone) {
                entry.gone.push(cell.tag);
            }
            if let Look::Told(told) = looked {
                entry.items.push(StoredItem {
                    sha256: told.change.sha256,
                    size: told.change.size,
                    place: cell.place,
                    payload_at: told.payload_at,
                    record_len: told.record_len,
                    lsn: told.lsn,
                    time: touched(told.time, cell.time_s),
                    state: if told.second_hand {
                        State::CORRUPT.then(cell.state())
                    } else {
                        cell.state()
                    },
                });
            }
        }
        entry.items.sort_unstable_by_key(|item| item.lsn);
        for cell in &cells.registers {
            let (register, lsn, time) = match look(cell.place, Sought::Register)? {
                Look::Told(told) => {
                    let Some(register) = told.change.register else { continue };
                    (register, told.lsn, told.time)
                }
                Look::Another => continue,
                Look::Gone => (Register::lost(), 0, Timestamp(0)),
            };
            entry.register = Some(StoredRegister {
                register,
                place: cell.place,
                lsn,
                time,
            });
        }
        Ok(entry)
    }

    fn look<F: DiskFile>(
        &self,
        id: &ChunkId,
        place: Place,
        sought: Sought,
        superblocks: &Superblocks<F>,
    ) -> io::Result<Look> {
        let Some(superblock) = superblocks.get(place.superblock()) else {
            return Ok(Look::Gone);
        };
        let told = match superblock.record(place.offset()) {
            Ok(Some(scanned)) if is_forged(id, sought, &scanned) => {
                let lsn = scanned.record.frame.lsn;
                self.second_copy(id, place, sought, &superblock, Some(lsn))?
            }
            Ok(Some(scanned)) => self.take(id, sought, &superblock, scanned)?,
            // Cut off, as when the file was shortened.
            Ok(None) => self.second_copy(id, place, sought, &superblock, None)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.second_copy(id, place, sought, &superblock, None)?
            }
            Err(error) => return Err(error),
        };
        Ok(match told {
            Some(told) if told.change.id == *id => Look::Told(Box::new(told)),
            Some(_) => Look::Another,
            None => {
                tracing::error!(
                    superblock = place.superblock(),
                    offset = place.offset(),
                    ?sought,
                    "a record is lost"
                );
                Look::Gone
            }
        })
    }

    fn take<F: DiskFile>(
        &self,
        id: &ChunkId,
        sought: Sought,
        superblock: &Superblock<F>,
        scanned: Scanned,
    ) -> io::Result<Option<Told>> {
        let frame = scanned.record.frame;
        let (payload_at, record_len) = (scanned.payload_at(), scanned.record.record_len);
        if let Body::Change(change) = scanned.record.body {
            return Ok(Some(Told {
                change,
                payload_at,
                record_len,
                lsn: frame.lsn,
                time: frame.time,
                second_hand: false,
            }));
        }
        let Some(list) = batches::list_of(&*superblock.file, &scanned)? else {
            return Ok(None);
        };
        let numbered = (frame.batch_first..).zip(list);
        let found = numbered
            .filter(|(_, change)| sought.is(change) && change.id == *id)
            .last();
        Ok(found.map(|(lsn, change)| Told {
            change,
            payload_at,
            record_len: 0,
            lsn,
            time: frame.time,
            second_hand: true,
        }))
    }

    /// What the commit record of its batch says of the damaged record at `place`, or of the one that is `forged`.
    fn second_copy<F: DiskFile>(
        &self,
        id: &ChunkId,
        place: Place,
        sought: Sought,
        superblock: &Superblock<F>,
        forged: Option<u64>,
    ) -> io::Result<Option<Told>> {
        let from = superblock.batch_before(place.offset());
        let scanner = Scanner::new(&*superblock.file, &superblock.head, from, superblock.end(), 0);
        let mut batches = Batches::new(scanner, from);
        while let Some(batch) = batches.next()? {
            let Some(commit) = batch.commit.as_ref().filter(|commit| commit.offset > place.offset()) else {
                continue;
            };
            let missing = batch.missing();
            let list = batches::list_of(&*superblock.file, commit)?.unwrap_or_default();
            let told = (batch.first..)
                .zip(list)
                .filter(|(lsn, _)| missing.contains(lsn) || forged == Some(*lsn))
                .filter(|(_, change)| sought.is(change) && change.id == *id);
            // The last one is the register's state; an item is there once.
            return Ok(told.last().map(|(lsn, change)| Told {
                change,
                payload_at: commit.payload_at(),
                record_len: 0,
                lsn,
                time: commit.record.frame.time,
                second_hand: true,
            }));
        }
        Ok(None)
    }
}

/// Whether the record is of `id` and says something else than the cell that points to it: it was never written there, and
/// its checksum is right because somebody saw to that.
fn is_forged(id: &ChunkId, sought: Sought, scanned: &Scanned) -> bool {
    matches!(&scanned.record.body, Body::Change(change) if change.id == *id && !sought.is(change))
}

/// When the record was written, or, where the cell knows of a later second, the end of that one.
fn touched(written: Timestamp, time_s: u32) -> Timestamp {
    let second = i64::from(time_s);
    if second > written.0.div_euclid(1000) {
        Timestamp(second * 1000 + 999)
    } else {
        written
    }
}
