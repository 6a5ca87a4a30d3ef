//! The superblocks that are open for reading: their files, how far they are durable, and where in them a sequence number
//! is.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use vstack_types::planted;

use crate::{
    disk::DiskFile,
    index::Place,
    live::{ByKind, Live},
    pins::{Pin, Pins},
    scan::{self, Scanned},
    superblock::{Head, RECORDS_AT},
    tail::{Prepared, Tail},
};

/// A list that begins somewhere reads at most so many bytes of a superblock in vain.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Where a batch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Milestone {
    /// Of its first record.
    pub lsn: u64,
    pub offset: u64,
}

/// A superblock that is open.
#[derive(Debug)]
pub(crate) struct Superblock<F> {
    pub head: Head,
    pub file: Arc<F>,
    /// Who reads what was found in it.
    pub readers: Pins,
    /// Everything of it below is durable, and may be read.
    end: AtomicU64,
    /// Everything of it below is known to be durable by a later record, too.
    marked: AtomicU64,
    /// What of it is still wanted.
    pub live: Live,
    /// Up to where space was taken for it; of the one that is written to, ahead of the log.
    prepared: Prepared,
    /// Its last sequence number, as the next one says; 0 as long as that is not known.
    last_lsn: AtomicU64,
    /// It was seen shorter than what was written to it.
    cut: AtomicBool,
    milestones: RwLock<Vec<Milestone>>,
}

impl<F: DiskFile> Superblock<F> {
    pub(crate) fn new(head: Head, file: Arc<F>, end: u64) -> Self {
        Self {
            head,
            file,
            readers: Pins::default(),
            end: AtomicU64::new(end),
            marked: AtomicU64::new(end),
            live: Live::default(),
            prepared: Prepared::up_to(end),
            last_lsn: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            milestones: RwLock::default(),
        }
    }

    /// The one that `tail` appends to.
    pub(crate) fn of_tail(head: Head, tail: &Tail<F>) -> Self {
        Self {
            prepared: tail.prepared.clone(),
            ..Self::new(head, Arc::clone(&tail.file), tail.end)
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Whether it is as long as what was written to it, and was whenever that was asked. Of one that was cut, what was
    /// hashed before says nothing: it may have been made long again, and what is missing reads as zeros.
    pub(crate) fn reaches_its_end(&self) -> bool {
        // The end first: it only grows, and the file is as long before it does.
        let shorter = || {
            let end = self.end();
            self.file.size().is_ok_and(|size| size < end)
        };
        if !self.cut.load(Ordering::Relaxed) && shorter() && !self.cut.swap(true, Ordering::Relaxed) {
            tracing::error!(
                superblock = self.head.number,
                "a superblock was cut behind the node's back"
            );
        }
        !self.cut.load(Ordering::Relaxed)
    }

    /// Everything below is durable and is known to be by a record behind it.
    pub(crate) fn marked(&self) -> u64 {
        self.marked.load(Ordering::Acquire)
    }

    /// The batch whose first record has `lsn` is durable from `offset` up to `end`.
    pub(crate) fn advance(&self, lsn: u64, offset: u64, end: u64) {
        self.milestone(lsn, offset);
        self.marked.store(offset, Ordering::Release);
        self.end.store(end, Ordering::Release);
    }

    /// It is written to from here on.
    pub(crate) fn ends_at(&self, end: u64) {
        self.end.store(end, Ordering::Release);
        self.marked.store(end, Ordering::Release);
        // What was taken ahead of it before is not known.
        self.prepared.set(end);
    }

    /// There is a superblock behind it: all of it is known to be durable.
    pub(crate) fn set_marked(&self) {
        self.marked.store(self.end(), Ordering::Release);
    }

    /// The one behind it begins after this sequence number.
    pub(crate) fn ended_with(&self, last_lsn: u64) {
        self.last_lsn.store(last_lsn, Ordering::Release);
    }

    /// Its last sequence number; 0 when that is not known.
    pub(crate) fn last_lsn(&self) -> u64 {
        self.last_lsn.load(Ordering::Acquire)
    }

    /// A batch that begins at `offset` with `lsn`.
    pub(crate) fn milestone(&self, lsn: u64, offset: u64) {
        let mut milestones = self.milestones.write().unwrap_or_else(PoisonError::into_inner);
        if milestones.last().is_none_or(|last| offset >= last.offset + STEP_BYTES) {
            milestones.push(Milestone { lsn, offset });
        }
    }

    pub(crate) fn milestones(&self) -> Vec<Milestone> {
        self.milestones.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A place before every record from `lsn` on, and the sequence number before it.
    pub(crate) fn before(&self, lsn: u64) -> u64 {
        let milestones = self.milestones.read().unwrap_or_else(PoisonError::into_inner);
        let behind = milestones.partition_point(|milestone| milestone.lsn <= lsn);
        behind.checked_sub(1).map_or(RECORDS_AT, |last| milestones[last].offset)
    }

    /// Where a batch begins, the last that is known to begin before `offset`.
    pub(crate) fn batch_before(&self, offset: u64) -> u64 {
        let milestones = self.milestones.read().unwrap_or_else(PoisonError::into_inner);
        let behind = milestones.partition_point(|milestone| milestone.offset <= offset);
        behind.checked_sub(1).map_or(RECORDS_AT, |last| milestones[last].offset)
    }

    /// Up to where space was taken, for the log to be appended to it.
    pub(crate) fn prepared(&self) -> Prepared {
        self.prepared.clone()
    }

    /// Bytes of the space that was taken ahead of the log.
    pub(crate) fn ahead(&self) -> u64 {
        if planted!("space ahead of the log counts as written") {
            return 0;
        }
        self.prepared.get().saturating_sub(self.end())
    }

    /// Milestones from before those that are known.
    pub(crate) fn put_milestones_first(&self, before: &[Milestone]) {
        let mut milestones = self.milestones.write().unwrap_or_else(PoisonError::into_inner);
        let first = milestones.first().map_or(u64::MAX, |first| first.offset);
        let kept = before.iter().filter(|milestone| milestone.offset < first);
        *milestones = kept.copied().chain(milestones.drain(..)).collect();
    }

    /// The record that begins at `offset`; none when there is none, or it is damaged.
    pub(crate) fn record(&self, offset: u64) -> io::Result<Option<Scanned>> {
        scan::read_record(&*self.file, &self.head, offset, self.end())
    }
}

/// All of them, by number.
#[derive(Debug)]
pub(crate) struct Superblocks<F>(RwLock<BTreeMap<u32, Arc<Superblock<F>>>>);

impl<F> Default for Superblocks<F> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<F: DiskFile> Superblocks<F> {
    pub(crate) fn get(&self, number: u32) -> Option<Arc<Superblock<F>>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
    }

    /// A reader of superblock `number`; none when there is no such one.
    pub(crate) fn pin(&self, number: u32) -> Option<Pin> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&number).map(|superblock| superblock.readers.pin())
    }

    pub(crate) fn insert(&self, superblock: Arc<Superblock<F>>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(superblock.head.number, superblock);
    }

    pub(crate) fn remove(&self, number: u32) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Lets go of what makes reading quicker and was not used since the last call.
    pub(crate) fn trim(&self) {
        for superblock in self.all() {
            superblock.file.trim();
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Superblock<F>>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The record at `place`; none when its superblock is gone, or no valid record begins there.
    pub(crate) fn record(&self, place: Place) -> io::Result<Option<Scanned>> {
        match self.get(place.superblock()) {
            Some(superblock) => superblock.record(place.offset()),
            None => Ok(None),
        }
    }

    /// Counts bytes of records that came to be wanted, or are no more.
    pub(crate) fn add_live(&self, place: Place, bytes: ByKind) {
        if let Some(superblock) = self.get(place.superblock()) {
            superblock.live.add(bytes);
        }
    }
}
