//! Writing what is wanted of a superblock again behind the log, and emptying the superblock.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use vstack_types::planted;

use super::{Comes, Store};
use crate::{
    disk::{Disk, DiskFile},
    index::{Entry, REGISTER_BYTES, State, item_bytes},
    live::ByKind,
    log::{Spot, Written},
    op::{Move, Now, WriteError},
    record::{Change, Kind},
    superblock::{self, Emptied, Head},
    superblocks::Superblock,
};

/// What a record that was moved takes beyond what is counted for it, with its entry in the list of its batch.
pub(super) fn beyond(change: &Change, spot: &Spot) -> ByKind {
    let all = i64::from(spot.record_len) + i64::from(spot.entry_len);
    let counted = if change.register.is_some() { REGISTER_BYTES } else { 0 };
    match change.kind {
        Kind::Item => {
            // It stands in both of them.
            let registers = 2 * i64::from(spot.register_len);
            ByKind {
                items: all - registers - item_bytes(change.size),
                registers: registers - counted,
            }
        }
        _ if change.register.is_some() => ByKind::registers(all - counted),
        // Nothing is counted for a deletion, and others like it.
        _ => ByKind::items(all),
    }
}

impl<D: Disk> Store<D> {
    /// Notes what of the batch that was written is no waste, though it is not counted either.
    pub(super) fn note_moved(&mut self, closing_len: u64) {
        let Some(mut moved) = self.moved.take() else { return };
        let closing = i64::try_from(closing_len).unwrap_or(0);
        moved += if moved.items == 0 {
            ByKind::registers(closing)
        } else {
            ByKind::items(closing)
        };
        if let Some(superblock) = self.shared.superblocks.get(self.log.tail.number) {
            superblock.live.takes_beyond(moved);
        }
    }

    /// Writes again what of `moves` still counts; says how many records that was.
    pub(super) fn move_all(&mut self, moves: &[Move], now: Now, position: usize) -> Result<u64, WriteError> {
        let mut moved = 0;
        for one in moves {
            moved += u64::from(self.move_one(one, now, position)?);
        }
        Ok(moved)
    }

    fn move_one(&mut self, one: &Move, now: Now, position: usize) -> Result<bool, WriteError> {
        let entry = self.entry(&one.change.id)?;
        let holds_register = entry.register.as_ref().is_some_and(|stored| stored.place == one.place);
        let register = one.change.register.clone().filter(|_| holds_register);
        let item = entry.item(one.change.sha256);
        let here = item.filter(|item| item.place == one.place);
        let kind = match one.change.kind {
            Kind::Item => match here {
                Some(item) if !item.is_corrupt() => {
                    let time = item.time;
                    if !one.is_sound && !planted!("a rotten item is moved as a whole one") {
                        return self.move_damaged(one, &entry, now, position);
                    }
                    let written = Written {
                        time,
                        superblock: one.origin,
                    };
                    let change = Change {
                        register,
                        ..one.change.clone()
                    };
                    // It was hashed on its way, and nobody has read it where it is now.
                    let comes = Comes::Moved {
                        written,
                        state: State::ARRIVED,
                    };
                    self.stage_as(&change, &one.payload, &comes, now, position)?;
                    let bytes = one.payload.len() as u64;
                    self.shared.counters.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
                    return Ok(true);
                }
                Some(_) => return self.move_damaged(one, &entry, now, position),
                None => holds_register.then_some(Kind::Vote),
            },
            Kind::Vote => holds_register.then_some(Kind::Vote),
            Kind::Tombstone => {
                let needed = item.is_none() && self.reader().may_come_back(one.place.superblock(), one.origin);
                if planted!("a deletion is not kept when its superblock is emptied") {
                    None
                } else if needed {
                    Some(Kind::Tombstone)
                } else {
                    holds_register.then_some(Kind::Vote)
                }
            }
            Kind::Quarantine => match item {
                Some(item) if item.state == State::QUARANTINED && item.place.superblock() != one.place.superblock() => {
                    Some(Kind::Quarantine)
                }
                _ => holds_register.then_some(Kind::Vote),
            },
            Kind::Touch => {
                let elsewhere = item.filter(|item| item.place.superblock() != one.place.superblock());
                let counts = elsewhere.is_some_and(|item| item.time.0 / 1000 <= one.time.0 / 1000);
                counts.then_some(Kind::Touch)
            }
            Kind::Commit => None,
        };
        let Some(kind) = kind else { return Ok(false) };
        self.restage(
            one,
            Change {
                kind,
                size: 0,
                register,
                ..one.change.clone()
            },
            now,
            position,
        )?;
        Ok(true)
    }

    fn restage(&mut self, one: &Move, change: Change, now: Now, position: usize) -> Result<(), WriteError> {
        let comes = Comes::Moved {
            written: Written {
                time: one.time,
                superblock: one.origin,
            },
            state: State::UNCHECKED,
        };
        self.stage_as(&change, &Bytes::new(), &comes, now, position)
    }

    /// A damaged item is not written again: what its register says of it is, and that it is gone.
    fn move_damaged(&mut self, one: &Move, entry: &Entry, now: Now, position: usize) -> Result<bool, WriteError> {
        let sha256 = one.change.sha256;
        if entry.item(sha256).is_some_and(|item| item.state != State::QUARANTINED) {
            self.quarantine(&one.change.id, sha256, now, position)?;
        }
        let stored = self.entry(&one.change.id)?.register;
        let register = stored
            .filter(|stored| stored.place == one.place)
            .map(|stored| stored.register);
        let change = Change {
            kind: Kind::Tombstone,
            size: 0,
            register,
            ..one.change.clone()
        };
        // The item may have been moved more than once: every superblock so far may hold a copy, not only those up to the
        // one it came to first.
        let deletion = Move {
            origin: self.log.tail.number,
            ..one.clone()
        };
        self.restage(&deletion, change, now, position)?;
        Ok(true)
    }

    /// Writes registers again of which one copy is left.
    pub(super) fn mend(&mut self, id: &vstack_types::ChunkId, now: Now, position: usize) -> Result<bool, WriteError> {
        let entry = self.entry(id)?;
        let mut mended = false;
        for item in entry.items.iter().filter(|item| item.state == State::CORRUPT) {
            self.quarantine(id, item.sha256, now, position)?;
            mended = true;
        }
        let Some(stored) = self.entry(id)?.register else {
            return Ok(mended);
        };
        if !stored.register.votes_lost() {
            self.stage_vote(id, stored.register, now, position)?;
            mended = true;
        }
        Ok(mended)
    }

    /// Empties a superblock of which nothing is wanted any more: from then on it is not read. Nobody may read it now.
    /// Says whether it is empty; it is not when something in it still counts.
    pub(super) fn empty(&mut self, number: u32, now: Now, position: usize) -> Result<bool, WriteError> {
        self.seal(now)?;
        self.durable_ops = position;
        let Some(superblock) = self
            .shared
            .superblocks
            .get(number)
            .filter(|_| number != self.log.tail.number)
        else {
            return Ok(false);
        };
        let (items, registers) = self.shared.index.cells_in(number);
        let only_lost = items.iter().all(|cell| cell.state().is_corrupt());
        if (!registers.is_empty() || !only_lost) && !planted!("what still counts is emptied") {
            return Ok(false);
        }
        let Some(last_lsn) = self.last_lsn_of(number) else {
            return Ok(false);
        };
        for cell in &items {
            self.shared.index.forget_lost(cell);
        }
        let written = self.write_emptied(&superblock, last_lsn);
        written.map_err(|error| {
            self.failed = true;
            WriteError::Failed {
                error: error.to_string(),
            }
        })?;
        self.shared.counters.emptied.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// The last sequence number of a superblock that is not the last: the next one says with which it begins.
    fn last_lsn_of(&self, number: u32) -> Option<u64> {
        let open = self
            .shared
            .superblocks
            .all()
            .into_iter()
            .map(|superblock| superblock.head);
        let mut heads = open.chain(self.emptied.values().copied());
        let next = heads.find(|head| head.first_number() == number + 1);
        next.and_then(|head| head.first_lsn.checked_sub(1))
    }

    fn write_emptied(&mut self, superblock: &Superblock<D::File>, last_lsn: u64) -> std::io::Result<()> {
        let number = superblock.head.number;
        let before = self
            .emptied
            .values()
            .find(|head| head.number + 1 == number && head.uuid == superblock.head.uuid);
        let before = before.copied();
        let head = Head {
            first_lsn: before.map_or(superblock.head.first_lsn, |before| before.first_lsn),
            emptied: Some(Emptied {
                last_lsn,
                covers: before.map_or(number, |before| before.first_number()),
            }),
            ..superblock.head
        };
        self.shared.superblocks.remove(number);
        if planted!("a superblock is cut before its heads say so") {
            superblock.file.set_len(superblock::RECORDS_AT)?;
        }
        write_head(&*superblock.file, &head)?;
        self.emptied.insert(number, head);
        superblock.file.set_len(superblock::RECORDS_AT)?;
        if let Some(before) = before {
            self.remove_head(before.number)?;
        }
        self.join_with_next(head)
    }

    /// One head speaks for a whole row of emptied superblocks.
    fn join_with_next(&mut self, head: Head) -> std::io::Result<()> {
        let next = self
            .emptied
            .values()
            .find(|next| next.first_number() == head.number + 1 && next.uuid == head.uuid);
        let Some(next) = next.copied() else { return Ok(()) };
        let joined = Head {
            first_lsn: head.first_lsn,
            emptied: next.emptied.map(|emptied| Emptied {
                covers: head.first_number(),
                ..emptied
            }),
            ..next
        };
        let file = self.shared.disk.open(&superblock::file_name(next.number))?;
        write_head(&file, &joined)?;
        self.emptied.insert(next.number, joined);
        self.remove_head(head.number)
    }

    fn remove_head(&mut self, number: u32) -> std::io::Result<()> {
        self.emptied.remove(&number);
        self.shared.disk.remove(&superblock::file_name(number))?;
        self.shared.disk.sync_dir()
    }
}

/// One copy after the other: there is a whole one at every moment.
fn write_head<F: DiskFile>(file: &F, head: &Head) -> std::io::Result<()> {
    let pages = head.encode();
    let (first, second) = pages.split_at(pages.len() / 2);
    file.write_at(second, first.len() as u64)?;
    if !planted!("both heads are replaced at once") {
        file.sync_data()?;
    }
    file.write_at(first, 0)?;
    file.sync_data()
}
