//! The writing core: operations in, one synced batch out, then the answers.
//!
//! Single-threaded and synchronous; time is an argument. Changes of a batch are made on copies of index entries,
//! seen by the operations behind them, and reach the index that readers see after the sync. When the sync fails
//! they never do.

mod acceptor;
mod collect;
mod open;
mod put;
mod seal;

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering};

use bytes::Bytes;
use vstack_chunkpaxos::Register;
use vstack_types::{ChunkId, Digest, NodeRef, limits::DISK_PERCENT_FULL};

pub use open::{OpenError, StoreOptions};
pub(crate) use open::{lock, superblocks};

use crate::{
    disk::Disk,
    identity::Identity,
    index::{Entry, Logged, Origin},
    log::{self, Log, NoRoom},
    op::{Now, Op, Outcome, WriteError},
    reader::{ReadError, Reader, Shared},
    record::{Change, Kind},
    recovery::OpenReport,
    superblock::Head,
};

/// The store of one data directory, open for writing.
pub struct Store<D: Disk> {
    shared: Arc<Shared<D>>,
    identity: Identity,
    log: Log<D::File>,
    options: StoreOptions,
    next_number: u32,
    /// Entries that the batch changes, as they will be.
    pending: BTreeMap<ChunkId, Entry>,
    /// Operations whose changes are durable, of those being committed.
    durable_ops: usize,
    /// The batch that operations so far were part of could not be written. Set and taken within one commit.
    lost_batch: Option<WriteError>,
    failed: bool,
    /// Something was written since the last mark.
    unmarked: bool,
    /// Promises and acceptances of the batch.
    batch_votes: u64,
    report: OpenReport,
    _lock: D::Lock,
}

impl<D: Disk> Store<D> {
    /// A reader of this store.
    pub fn reader(&self) -> Reader<D> {
        Reader(Arc::clone(&self.shared))
    }

    /// The acceptor this disk is.
    pub fn me(&self) -> NodeRef {
        self.shared.me
    }

    /// What opening found.
    pub const fn report(&self) -> &OpenReport {
        &self.report
    }

    /// Whether a write failed, so that nothing is written until the store is opened again.
    pub const fn is_failed(&self) -> bool {
        self.failed
    }

    /// Does `ops` in order, as one batch, and answers each after everything it did or relied on is durable.
    ///
    /// A batch that does not fit the superblock is cut where it must be; each part is durable before the next
    /// begins.
    pub fn commit(&mut self, ops: Vec<Op>, now: Now) -> Vec<Result<Outcome, WriteError>> {
        let count = ops.len();
        self.durable_ops = 0;
        self.lost_batch = None;
        let mut results = Vec::with_capacity(count);
        for op in ops {
            let result = if self.failed {
                Err(WriteError::Closed)
            } else {
                self.execute(op, now, results.len())
            };
            if let Some(error) = self.lost_batch.take() {
                fail_from(&mut results, self.durable_ops, &error);
                self.durable_ops = results.len() + 1;
            }
            results.push(result);
        }
        if self.seal(now).is_err()
            && let Some(error) = self.lost_batch.take()
        {
            fail_from(&mut results, self.durable_ops, &error);
        }
        self.shared.counters.ops.fetch_add(count as u64, Ordering::Relaxed);
        results
    }

    /// Writes down that everything so far was synced, so that later damage to the last batch is known to be
    /// damage. Worth a write when nothing else is to be written for a while, and before closing.
    ///
    /// # Errors
    /// As for any write.
    pub fn mark(&mut self, now: Now) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::Closed);
        }
        if !self.unmarked {
            return Ok(());
        }
        if self.log.has_room_for_mark() {
            self.write_sealed(now)?;
        } else {
            // That the next superblock exists says the same.
            self.rotate(0)?;
        }
        self.unmarked = false;
        Ok(())
    }

    fn execute(&mut self, op: Op, now: Now, position: usize) -> Result<Outcome, WriteError> {
        match op {
            Op::Put { id, item, mode } => self.put(&id, &item, mode, now, position).map(Outcome::Put),
            Op::Paxos { id, request } => self.paxos(&id, &request, now, position).map(Outcome::Reply),
            Op::Decided { decisions } => self.decided(decisions, now, position).map(|()| Outcome::Noted),
            Op::DeleteStaged { id } => self.delete_staged(&id, now, position).map(Outcome::Deleted),
            Op::Collect { grace, staging_ttl } => {
                self.collect(grace, staging_ttl, now, position).map(Outcome::Collected)
            }
            Op::Quarantine { id, sha256, lsn } => self
                .quarantine_read(&id, sha256, lsn, now, position)
                .map(|()| Outcome::Quarantined),
            Op::Seal => self.seal_disk(now, position).map(|()| Outcome::Sealed),
        }
    }

    /// The entry as the batch so far leaves it.
    fn entry(&self, id: &ChunkId) -> Entry {
        self.pending
            .get(id)
            .cloned()
            .unwrap_or_else(|| self.shared.index().get(id).cloned().unwrap_or_default())
    }

    /// Adds a change to the batch. When the superblock has no room, the batch so far is written and a new
    /// superblock begun; operations before `position` are durable then.
    fn stage(&mut self, change: &Change, payload: &Bytes, now: Now, position: usize) -> Result<(), WriteError> {
        let (lsn, place) = match self.log.plan(change, payload, self.options.superblock_bytes) {
            Ok(planned) => planned,
            Err(NoRoom::TooLarge) => return Err(WriteError::TooLarge { len: payload.len() }),
            Err(NoRoom::Rotate) => {
                self.seal(now)?;
                self.durable_ops = position;
                self.rotate(payload.len())?;
                match self.log.plan(change, payload, self.options.superblock_bytes) {
                    Ok(planned) => planned,
                    // Only when a nearly full disk gave less than it was asked for.
                    Err(_) => return Err(WriteError::DiskFull),
                }
            }
        };
        let mut entry = self.entry(&change.id);
        entry.apply(
            change,
            Logged {
                lsn,
                time: now.wall,
                place,
                origin: Origin::Arrived,
            },
        );
        self.pending.insert(change.id.clone(), entry);
        self.shared
            .counters
            .bytes_written
            .fetch_add(payload.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn rotate(&mut self, payload_len: usize) -> Result<(), WriteError> {
        // A record, its commit record and their pages, generously.
        let needed = payload_len as u64 * 2 + 64 * 1024;
        let tail = match log::create_superblock(
            &self.shared.disk,
            &self.head(),
            self.options.superblock_bytes,
            needed.min(self.options.superblock_bytes),
        ) {
            Ok(tail) => tail,
            Err(error) => {
                self.failed |= matches!(error, WriteError::Failed { .. });
                return Err(error);
            }
        };
        self.shared.add_file(tail.number, Arc::clone(&tail.file));
        self.next_number += 1;
        self.log = Log::new(tail, self.log.next_lsn);
        Ok(())
    }

    fn head(&self) -> Head {
        open::head(self.next_number, self.shared.me.uuid, &self.options, self.log.next_lsn)
    }

    /// Writes and syncs the batch, then shows it to readers.
    fn seal(&mut self, now: Now) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::Closed);
        }
        if self.log.is_batch_empty() {
            return Ok(());
        }
        if let Err(error) = self.write_sealed(now) {
            self.lost_batch = Some(error.clone());
            return Err(error);
        }
        let mut index = self.shared.index_mut();
        for (id, entry) in std::mem::take(&mut self.pending) {
            index.put(id, entry);
        }
        drop(index);
        self.unmarked = true;
        self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes and syncs what the log has planned: a batch, or a mark, which no operation waits for.
    fn write_sealed(&mut self, now: Now) -> Result<(), WriteError> {
        let sealed = self.log.seal(now.wall);
        self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
        let votes = std::mem::take(&mut self.batch_votes);
        if votes > 0 && sealed.is_ok() {
            self.shared.counters.votes.fetch_add(votes, Ordering::Relaxed);
            self.shared.counters.vote_syncs.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(error) = &sealed {
            self.pending.clear();
            self.failed = matches!(error, WriteError::Failed { .. });
        }
        self.shared
            .counters
            .log_seq
            .store(self.log.last_lsn(), Ordering::Release);
        sealed
    }

    fn is_disk_full(&self, now: Now) -> bool {
        // A filesystem that does not answer is found out by the write.
        self.shared
            .usage(now.monotonic)
            .is_ok_and(|usage| usage.percent() > DISK_PERCENT_FULL)
    }

    /// Whether the item is here and matches its SHA-256, reading it back when nobody did since the start.
    /// What does not match is quarantined in this batch.
    fn holds(&mut self, id: &ChunkId, sha256: Digest, now: Now, position: usize) -> Result<bool, WriteError> {
        let entry = self.entry(id);
        if entry
            .item(sha256)
            .is_some_and(|item| item.is_verified() && !item.is_corrupt())
        {
            return Ok(true);
        }
        self.reads_back(id, sha256, now, position)
    }

    /// As [`Store::holds`], on the word of the disk: read back within the period after which readers, too, verify again.
    fn reads_back(&mut self, id: &ChunkId, sha256: Digest, now: Now, position: usize) -> Result<bool, WriteError> {
        let entry = self.entry(id);
        let Some(item) = entry.item(sha256).filter(|item| !item.is_corrupt()) else {
            return Ok(false);
        };
        if item.was_read_back(now.monotonic, self.shared.reverify_after) {
            return Ok(true);
        }
        // What this batch brings is not on the disk yet: what is read there now would condemn it.
        if item.lsn > self.shared.counters.log_seq.load(Ordering::Acquire) {
            return Ok(false);
        }
        match self.shared.read_verified(item, now.monotonic) {
            Ok(_) => Ok(true),
            Err(ReadError::Corrupt) => {
                self.quarantine(id, sha256, now, position)?;
                Ok(false)
            }
            // Unverified: not vouched for, and not condemned either.
            Err(ReadError::Io(error)) => {
                tracing::warn!(%id, %sha256, %error, "an item cannot be read");
                Ok(false)
            }
        }
    }

    /// A reader found the item that was written as `lsn` damaged. It may have been replaced since.
    fn quarantine_read(
        &mut self,
        id: &ChunkId,
        sha256: Digest,
        lsn: u64,
        now: Now,
        position: usize,
    ) -> Result<(), WriteError> {
        let entry = self.entry(id);
        match entry.item(sha256) {
            Some(item) if item.lsn == lsn && !item.quarantined => self.quarantine(id, sha256, now, position),
            Some(_) | None => Ok(()),
        }
    }

    /// Writes down that an item is damaged; a register that vouches for it abstains from now on.
    fn quarantine(&mut self, id: &ChunkId, sha256: Digest, now: Now, position: usize) -> Result<(), WriteError> {
        let entry = self.entry(id);
        let Some(item) = entry.item(sha256) else { return Ok(()) };
        item.set_corrupt();
        let register = entry.register();
        let damaged = entry.vouches_for(self.shared.me, sha256) && !register.damaged;
        tracing::error!(%id, %sha256, superblock = item.place.superblock, vouched_for = damaged, "an item is damaged");
        self.shared.counters.quarantined.fetch_add(1, Ordering::Relaxed);
        let change = Change {
            kind: Kind::Quarantine,
            id: id.clone(),
            sha256,
            size: 0,
            register: damaged.then_some(Register {
                damaged: true,
                ..register
            }),
        };
        self.stage(&change, &Bytes::new(), now, position)
    }
}

fn fail_from(results: &mut [Result<Outcome, WriteError>], from: usize, error: &WriteError) {
    for result in results.iter_mut().skip(from) {
        *result = Err(error.clone());
    }
}
