//! Appending: a batch is planned record by record, then written and synced as one.
//!
//! A batch lies in one superblock, begins at a page and ends with a commit record at a later page, which lists
//! all changes of the batch again: the second copy of every vote. After a failure nothing is written any more
//! until the log is opened again, except when the disk was full and the half-written batch could be wiped.

use std::{io, sync::Arc};

use bytes::Bytes;
use vstack_chunkpaxos::Register;
use vstack_types::{Digest, NodeUuid, Timestamp, planted};

use crate::{
    assembly::Assembly,
    checkpoint::Position,
    disk::{Disk, DiskFile, is_full},
    index::Place,
    instruments::{Instruments, Timed},
    op::WriteError,
    record::{self, ALIGN, Binding, Change, Encode, Frame, Kind},
    superblock::{self, Head, PAGE, RECORDS_AT, SUPERBLOCK_BYTES_MIN, Salt},
};

/// Payloads from this size on begin at a page, so that they can be written from where they are: the padding before them
/// is a small part of them. Smaller ones are copied behind their heads.
const IN_PLACE_BYTES_MIN: usize = 64 * 1024;

/// A superblock being appended to.
pub(crate) struct Tail<F> {
    pub number: u32,
    pub file: Arc<F>,
    pub salt: Salt,
    /// End of the space in the file.
    pub capacity: u64,
    /// Where the next batch begins; everything before is synced.
    pub end: u64,
    /// Up to where space was taken for it.
    prepared: u64,
    /// There may be space behind the end that was taken and is not written to.
    is_loose: bool,
}

/// Space is taken ahead of the log in steps of so many bytes: often enough for a disk with little room, and seldom enough
/// to cost nothing beside what is written.
pub(crate) const STEP_BYTES: u64 = 16 * 1024 * 1024;

impl<F: DiskFile> Tail<F> {
    /// Superblock `number`, with room up to `capacity`, that ends at `end`.
    pub(crate) const fn new(number: u32, file: Arc<F>, salt: Salt, capacity: u64, end: u64) -> Self {
        Self {
            number,
            file,
            salt,
            capacity,
            end,
            prepared: end,
            is_loose: true,
        }
    }

    /// Up to where space was taken.
    pub(crate) const fn prepared(&self) -> u64 {
        self.prepared
    }

    /// Takes space up to `to`, and ahead of that where there is; says whether there was enough.
    fn prepare(&mut self, to: u64) -> bool {
        if to <= self.prepared {
            return true;
        }
        let ahead = (self.prepared + STEP_BYTES).max(to).min(self.capacity);
        let ends = [ahead, to];
        let taken = ends.iter().find_map(|to| match self.file.allocate(self.prepared, *to) {
            Err(error) if is_full(&error) => None,
            Ok(()) => Some(*to),
            Err(error) => {
                // Whether there is room is found out by the write.
                tracing::debug!(%error, superblock = self.number, "no space could be taken ahead of the log");
                Some(*to)
            }
        });
        self.is_loose = true;
        self.prepared = taken.unwrap_or(self.prepared);
        taken.is_some()
    }

    /// Gives back the space behind its end; says up to how much that was.
    fn rest(&mut self) -> u64 {
        if !std::mem::take(&mut self.is_loose) || self.end >= self.capacity {
            return 0;
        }
        let from = if planted!("rest gives back space that holds records") {
            self.end - PAGE
        } else {
            self.end
        };
        match self.file.punch(from, self.capacity) {
            Ok(()) => {
                let given = self.prepared.saturating_sub(self.end);
                if !planted!("what was given back counts as taken") {
                    self.prepared = self.end;
                }
                given
            }
            Err(error) => {
                tracing::debug!(%error, superblock = self.number, "space ahead of the log could not be given back");
                0
            }
        }
    }
}

/// Whether what was synced to superblock `number`, up to `end`, can still be there. Behind a hole that somebody else cut
/// nothing is written: it would look as if all before it were whole.
///
/// # Errors
/// What is wrong with it, and of the disk.
pub(crate) fn is_as_written<F: DiskFile>(file: &F, number: u32, end: u64) -> io::Result<()> {
    let size = file.size()?;
    if size < end {
        let cut = format!("superblock {number} was cut to {size} bytes behind the node's back, it had {end}");
        return Err(io::Error::other(cut));
    }
    if !file.has_name()? {
        let gone = format!("superblock {number} was removed from the data directory behind the node's back");
        return Err(io::Error::other(gone));
    }
    Ok(())
}

struct Planned {
    change: Change,
    register: Vec<u8>,
    payload: Bytes,
    offset: u64,
    payload_at: u64,
    /// When and where it was written first, when that was before.
    written: Option<Written>,
}

/// When and to which superblock something was written first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub time: Timestamp,
    pub superblock: u32,
}

/// Where a planned record will be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub lsn: u64,
    pub place: Place,
    pub payload_at: u64,
    /// To the end of its payload; what is between it and the next one comes on top.
    pub record_len: u32,
}

/// The writing end of the log.
pub(crate) struct Log<F> {
    pub tail: Tail<F>,
    pub next_lsn: u64,
    /// Where the last commit record of this superblock begins; 0 when none was written since it was opened.
    last_commit_at: u64,
    batch: Vec<Planned>,
    /// Where the next record of the batch goes.
    next_offset: u64,
    list_len: usize,
    assembly: Assembly,
    instruments: Arc<Instruments>,
}

/// Why a change cannot join the batch.
pub(crate) enum NoRoom {
    /// A new superblock has room.
    Rotate,
    /// No superblock of this size ever has.
    TooLarge,
}

/// Where the payload of a record that begins at `offset` begins, and the next record. What `is_moved` is packed: it stays,
/// and is copied anyway.
fn places(offset: u64, head_len: u64, payload_len: usize, is_moved: bool) -> (u64, u64) {
    let behind = offset + head_len;
    let payload_at = if payload_len < IN_PLACE_BYTES_MIN || is_moved {
        behind
    } else {
        behind.next_multiple_of(PAGE)
    };
    (
        payload_at,
        (payload_at + payload_len as u64).next_multiple_of(ALIGN as u64),
    )
}

fn commit_len(list_len: usize) -> u64 {
    ((record::head_len(0, 0) + list_len) as u64).next_multiple_of(PAGE)
}

impl<F: DiskFile> Log<F> {
    pub(crate) fn new(tail: Tail<F>, next_lsn: u64, instruments: Arc<Instruments>) -> Self {
        let next_offset = tail.end;
        Self {
            tail,
            next_lsn,
            last_commit_at: 0,
            batch: Vec::new(),
            next_offset,
            list_len: 0,
            assembly: Assembly::default(),
            instruments,
        }
    }

    pub(crate) fn is_batch_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Sequence number of the last durable record.
    pub(crate) fn last_lsn(&self) -> u64 {
        self.next_lsn - 1
    }

    /// Adds a change to the batch; says where it will be.
    pub(crate) fn plan(
        &mut self,
        change: &Change,
        payload: &Bytes,
        written: Option<Written>,
        superblock_bytes: u64,
    ) -> Result<Spot, NoRoom> {
        let register = change.register.as_ref().map(Register::encode).unwrap_or_default();
        let head_len = record::head_len(change.id.as_str().len(), register.len()) as u64;
        let (payload_at, next) = places(self.next_offset, head_len, payload.len(), written.is_some());
        let list_len = self.list_len + record::entry_len(change.id.as_str().len(), register.len());
        let end = next.next_multiple_of(PAGE) + commit_len(list_len);
        if end > self.tail.capacity {
            let (_, next) = places(RECORDS_AT, head_len, payload.len(), written.is_some());
            let alone = next.next_multiple_of(PAGE) + commit_len(list_len - self.list_len);
            return Err(if alone > superblock_bytes {
                NoRoom::TooLarge
            } else {
                NoRoom::Rotate
            });
        }
        if !self.tail.prepare(end) {
            return Err(NoRoom::Rotate);
        }
        let offset = self.next_offset;
        let lsn = self.next_lsn + self.batch.len() as u64;
        self.batch.push(Planned {
            change: change.clone(),
            register,
            payload: payload.clone(),
            offset,
            payload_at,
            written,
        });
        self.next_offset = next;
        self.list_len = list_len;
        Ok(Spot {
            lsn,
            place: Place::new(self.tail.number, offset),
            payload_at: if written.is_some() && planted!("a moved item is looked for at a page") {
                payload_at.next_multiple_of(PAGE)
            } else {
                payload_at
            },
            record_len: u32::try_from(next - offset).expect("superblocks have less than 4 GiB"),
        })
    }

    /// How far the log is, and where its last batch ends.
    pub(crate) const fn position(&self) -> Position {
        Position {
            superblock: self.tail.number,
            offset: self.tail.end,
            commit_at: self.last_commit_at,
            lsn: self.next_lsn - 1,
        }
    }

    /// Whether an empty batch, which only marks the end of what is synced, still fits.
    pub(crate) fn has_room_for_mark(&self) -> bool {
        self.tail.end + commit_len(0) <= self.tail.capacity
    }

    /// Takes the space of a mark; says whether there was enough.
    pub(crate) fn prepare_mark(&mut self) -> bool {
        self.tail.prepare(self.tail.end + commit_len(0))
    }

    /// Gives back the space taken ahead of the log, between two batches; says how much that was.
    pub(crate) fn rest(&mut self) -> u64 {
        if self.batch.is_empty() { self.tail.rest() } else { 0 }
    }

    /// Writes the batch and syncs it. An empty batch writes a mark.
    ///
    /// # Errors
    /// [`WriteError::DiskFull`] when nothing was written and the log can go on; [`WriteError::Failed`] when it
    /// cannot.
    pub(crate) fn seal(&mut self, time: Timestamp) -> Result<(), WriteError> {
        let commit_at = self.next_offset.next_multiple_of(PAGE);
        let commit = self.commit_record(commit_at, time);
        let end = commit_at + commit.len() as u64;
        let records = self.batch.len() as u64 + 1;
        let tail = &self.tail;
        let written = is_as_written(&*tail.file, tail.number, tail.end)
            .and_then(|()| self.write_batch(commit_at, &commit, time))
            .and_then(|()| self.sync());
        let written = if planted!("a write error is swallowed") {
            Ok(())
        } else {
            written
        };
        self.batch.clear();
        self.assembly.clear();
        self.list_len = 0;
        match written {
            Ok(()) => {
                self.last_commit_at = commit_at;
                self.tail.end = end;
                self.next_offset = end;
                self.next_lsn += records;
                Ok(())
            }
            Err(error) => {
                self.next_offset = self.tail.end;
                self.recover_from(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        if planted!("answered before the sync") {
            return Ok(());
        }
        let began = self.instruments.now();
        self.tail.file.sync_data()?;
        self.instruments.done(Timed::Sync, began);
        Ok(())
    }

    /// A disk that was full is usable when what was half-written can be wiped, durably; it could otherwise be
    /// taken for records later. Anything else leaves open what is on the medium.
    fn recover_from(&mut self, error: io::Error) -> Result<(), WriteError> {
        if !is_full(&error) {
            return Err(WriteError::Failed {
                error: error.to_string(),
            });
        }
        let Tail {
            file, end, capacity, ..
        } = &self.tail;
        if planted!("a full disk leaves half a batch") {
            return Err(WriteError::DiskFull);
        }
        let wiped = file
            .set_len(*end)
            .and_then(|()| file.set_len(*capacity))
            .and_then(|()| file.sync_data());
        match wiped {
            Ok(()) => {
                self.tail.prepared = self.tail.end;
                Err(WriteError::DiskFull)
            }
            Err(error) => Err(WriteError::Failed {
                error: error.to_string(),
            }),
        }
    }

    /// Where the next record would begin.
    pub(crate) const fn planned_to(&self) -> u64 {
        self.next_offset
    }

    fn frame(&self, index: usize, time: Timestamp, written: Option<Written>) -> Frame {
        let batch_first = self.next_lsn;
        let here = Written {
            time,
            superblock: self.tail.number,
        };
        let Written { time, superblock } = written.unwrap_or(here);
        Frame {
            lsn: batch_first + index as u64,
            batch_first,
            mark: if planted!("the mark is ahead of the sync") {
                self.next_offset
            } else {
                self.tail.end
            },
            time,
            origin: superblock,
        }
    }

    fn binding(&self, offset: u64) -> Binding {
        Binding {
            salt: self.tail.salt,
            superblock: self.tail.number,
            offset,
        }
    }

    fn commit_record(&self, at: u64, time: Timestamp) -> Vec<u8> {
        let mut list = Vec::with_capacity(self.list_len);
        self.batch
            .iter()
            .for_each(|planned| record::encode_entry(&mut list, &planned.change, second_copy(&planned.register)));
        let len = commit_len(list.len());
        let encode = Encode {
            kind: Kind::Commit,
            id: "",
            register: &[],
            sha256: Digest::of(&list),
            payload_at: u32::try_from(record::head_len(0, 0)).expect("far below"),
            payload_len: u32::try_from(list.len()).expect("a batch fits a superblock"),
            record_len: u32::try_from(len).expect("a batch fits a superblock"),
            frame: self.frame(self.batch.len(), time, None),
        };
        let mut bytes = record::encode_head(&encode, self.binding(at));
        bytes.extend_from_slice(&list);
        bytes.resize(usize::try_from(len).expect("checked above"), 0);
        bytes
    }

    fn write_batch(&mut self, commit_at: u64, commit: &[u8], time: Timestamp) -> io::Result<()> {
        let start = self.tail.end;
        let mut assembly = std::mem::take(&mut self.assembly);
        let len_at = |offset: u64| usize::try_from(offset - start).expect("a batch fits memory");
        for (index, planned) in self.batch.iter().enumerate() {
            let next = self.batch.get(index + 1).map_or(commit_at, |next| next.offset);
            let encode = Encode {
                kind: planned.change.kind,
                id: planned.change.id.as_str(),
                register: &planned.register,
                sha256: planned.change.sha256,
                payload_at: u32::try_from(planned.payload_at - planned.offset).map_err(io::Error::other)?,
                payload_len: planned.change.size,
                record_len: u32::try_from(next - planned.offset).map_err(io::Error::other)?,
                frame: self.frame(index, time, planned.written),
            };
            assembly.pad_to(len_at(planned.offset));
            assembly.push(&record::encode_head(&encode, self.binding(planned.offset)));
            assembly.pad_to(len_at(planned.payload_at));
            assembly.push_payload(&planned.payload);
        }
        assembly.pad_to(len_at(commit_at));
        assembly.push(commit);
        let written = assembly.write(&*self.tail.file, start);
        self.assembly = assembly;
        written
    }
}

fn second_copy(register: &[u8]) -> &[u8] {
    if planted!("the second copy of a vote is not written") {
        &[]
    } else {
        register
    }
}

/// Makes superblock `number`, durably, for `bytes` or, on a disk that is nearly full, less, with space for its begin.
///
/// # Errors
/// [`WriteError::DiskFull`] when it could not be made and nothing is left of the attempt.
pub(crate) fn create_superblock<D: Disk>(
    disk: &D,
    head: &Head,
    bytes: u64,
    needed: u64,
) -> Result<Tail<D::File>, WriteError> {
    let name = superblock::file_name(head.number);
    let failed = |error: &io::Error| WriteError::Failed {
        error: format!("{name}: {error}"),
    };
    match try_create(disk, &name, head, bytes, needed) {
        Ok((file, capacity)) => Ok(Tail::new(head.number, Arc::new(file), head.salt, capacity, RECORDS_AT)),
        Err(error) if is_full(&error) => {
            // A superblock that exists says that the one before it has ended, so this one may not stay.
            match disk.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
                _ => disk.sync_dir().map_err(|error| failed(&error))?,
            }
            Err(WriteError::DiskFull)
        }
        Err(error) => Err(failed(&error)),
    }
}

fn try_create<D: Disk>(disk: &D, name: &str, head: &Head, bytes: u64, needed: u64) -> io::Result<(D::File, u64)> {
    let file = disk.create(name)?;
    let least = needed.max(SUPERBLOCK_BYTES_MIN);
    let begin = bytes.min(STEP_BYTES.max(least));
    let mut taken = begin;
    while let Err(error) = file.preallocate(taken) {
        if !is_full(&error) || taken / 2 < least {
            return Err(error);
        }
        taken = (taken / 2).next_multiple_of(PAGE);
    }
    let capacity = if taken < begin { taken } else { bytes };
    if capacity > taken {
        file.set_len(capacity)?;
    }
    file.write_at(&head.encode(), 0)?;
    file.sync_data()?;
    if !planted!("the directory is not synced") {
        disk.sync_dir()?;
    }
    Ok((file, capacity))
}

/// The salt of a superblock: unpredictable to who does not know `secret`, which is new at every start.
pub(crate) fn salt(secret: [u8; 32], uuid: NodeUuid, number: u32) -> Salt {
    let digest = Digest::of(&[&secret[..], uuid.as_bytes(), &number.to_le_bytes()].concat());
    std::array::from_fn(|i| digest.as_bytes()[i])
}
