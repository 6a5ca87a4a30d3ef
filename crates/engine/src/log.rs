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
    disk::{DiskFile, is_full},
    index::Place,
    instruments::{Instruments, Timed},
    op::WriteError,
    record::{self, ALIGN, Binding, Change, Encode, Frame, Kind},
    superblock::{PAGE, RECORDS_AT, Salt},
    tail::Tail,
};

/// Payloads from this size on begin at a page, so that they can be written from where they are: the padding before them
/// is a small part of them. Smaller ones are copied behind their heads.
const IN_PLACE_BYTES_MIN: usize = 64 * 1024;

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
    /// Of its register in it, encoded.
    pub register_len: u32,
    /// Of its entry in the list of its batch.
    pub entry_len: u32,
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
        let entry_len = record::entry_len(change.id.as_str().len(), register.len());
        let list_len = self.list_len + entry_len;
        let end = next.next_multiple_of(PAGE) + commit_len(list_len);
        if end > self.tail.capacity {
            let (_, next) = places(RECORDS_AT, head_len, payload.len(), written.is_some());
            let alone = next.next_multiple_of(PAGE) + commit_len(entry_len);
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
        let register_len = u32::try_from(register.len()).expect("registers have a limit");
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
            register_len,
            entry_len: u32::try_from(entry_len).expect("registers have a limit"),
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

    /// What the batch takes beside its records and their entries: its commit record without those, from a page to a page.
    pub(crate) fn closing_len(&self) -> u64 {
        let commit_at = self.next_offset.next_multiple_of(PAGE);
        commit_at - self.next_offset + commit_len(self.list_len) - self.list_len as u64
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
                self.tail.prepared.set(self.tail.end);
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

/// The salt of a superblock: unpredictable to who does not know `secret`, which is new at every start.
pub(crate) fn salt(secret: [u8; 32], uuid: NodeUuid, number: u32) -> Salt {
    let digest = Digest::of(&[&secret[..], uuid.as_bytes(), &number.to_le_bytes()].concat());
    std::array::from_fn(|i| digest.as_bytes()[i])
}
