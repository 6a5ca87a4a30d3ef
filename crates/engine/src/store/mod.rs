//! The writing core: operations in, one synced batch out, then the answers.
//!
//! Single-threaded and synchronous; time is an argument. Changes of a batch are made on copies of index entries,
//! seen by the operations behind them, and reach the index that readers see after the sync. When the sync fails
//! they never do.

mod acceptor;
mod attend;
mod collect;
mod directory;
mod moving;
mod open;
mod open_error;
mod put;
mod resting;
mod seal;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use bytes::Bytes;
use vstack_chunkpaxos::Register;
use vstack_types::{ChunkId, Digest, NodeRef, limits::DISK_PERCENT_FULL, planted};

pub(crate) use directory::{lock, superblocks};
pub use open::StoreOptions;
pub(crate) use open::identity;
pub use open_error::OpenError;

use crate::{
    disk::Disk,
    identity::Identity,
    index::{Entry, Logged, Origin, State},
    instruments::Instruments,
    live::ByKind,
    log::{Log, NoRoom, Written},
    op::{Now, Op, Outcome, WriteError},
    reader::{ReadError, Reader, Shared},
    record::{Change, Kind},
    recovery::OpenReport,
    superblock::Head,
    superblocks::Superblock,
    tail,
};

/// An entry as it is, and as it will be.
struct Pending {
    old: Arc<Entry>,
    new: Entry,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brings {
    /// New bytes, which have to find room of their own, or what can wait.
    Bytes,
    /// What goes on also when the disk is full, as long as there is more room than deletions may need.
    NoBytes,
    /// What makes room.
    Deletion,
}

impl Brings {
    const fn of(kind: Kind, comes: &Comes) -> Self {
        match (kind, comes) {
            (Kind::Item, Comes::Now) => Self::Bytes,
            (Kind::Tombstone, _) => Self::Deletion,
            _ => Self::NoBytes,
        }
    }
}

/// How a change comes to the log.
enum Comes {
    /// It is new.
    Now,
    /// It was there before, and is only moved.
    Moved { written: Written, state: State },
}

/// The store of one data directory, open for writing.
pub struct Store<D: Disk> {
    shared: Arc<Shared<D>>,
    identity: Identity,
    log: Log<D::File>,
    options: StoreOptions,
    /// The superblock that was made, on a full disk, of what is kept for that: new bytes find room elsewhere or none.
    reserved: Option<u32>,
    next_number: u32,
    /// Entries that the batch changes.
    pending: BTreeMap<ChunkId, Pending>,
    /// What the records that the batch moves, if it does, take beyond what is counted for them.
    moved: Option<ByKind>,
    /// Operations whose changes are durable, of those being committed.
    durable_ops: usize,
    /// The batch that operations so far were part of could not be written. Set and taken within one commit.
    lost_batch: Option<WriteError>,
    failed: bool,
    /// Something was written since the last mark.
    unmarked: bool,
    /// Promises and acceptances of the batch.
    batch_votes: u64,
    /// Entries of which opening found that something of them is lost.
    suspects: BTreeSet<ChunkId>,
    /// Entries whose register is known from a commit record alone.
    second_hand: BTreeSet<ChunkId>,
    /// Superblocks that were emptied: their heads are left, one for each row of them.
    emptied: BTreeMap<u32, Head>,
    report: OpenReport,
    _lock: D::Lock,
}

impl<D: Disk> Store<D> {
    /// A reader of this store.
    pub fn reader(&self) -> Reader<D> {
        Reader(Arc::clone(&self.shared))
    }

    pub(crate) fn instruments(&self) -> &Instruments {
        &self.shared.instruments
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
            if !self.log.prepare_mark() {
                return Err(WriteError::DiskFull);
            }
            self.write_sealed(now)?;
            // A checkpoint may end here, too.
            self.shared.set_position(self.log.position());
        } else {
            // That the next superblock exists says the same.
            self.rotate(0, Brings::Bytes)?;
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
            Op::Collect { due } => self.collect(&due, now, position).map(Outcome::Collected),
            Op::Quarantine { id, sha256, lsn } => self
                .quarantine_read(&id, sha256, lsn, now, position)
                .map(|()| Outcome::Quarantined),
            Op::Move { moves } => self.move_all(&moves, now, position).map(Outcome::Moved),
            Op::Empty { superblock } => self.empty(superblock, now, position).map(Outcome::Emptied),
            Op::Mend { id } => self.mend(&id, now, position).map(Outcome::Mended),
            Op::Seal => self.seal_disk(now, position).map(|()| Outcome::Sealed),
            Op::Attend => self.attend().map(|()| Outcome::Attended),
            Op::Rest => Ok(Outcome::Rested(self.rest())),
            Op::Turn => self.turn(now, position).map(Outcome::Turned),
        }
    }

    /// The entry as the batch so far leaves it.
    fn entry(&self, id: &ChunkId) -> Result<Entry, WriteError> {
        match self.pending.get(id) {
            Some(pending) => Ok(pending.new.clone()),
            None => self.durable_entry(id).map(|entry| (*entry).clone()),
        }
    }

    /// The entry as it is without this batch.
    fn durable_entry(&self, id: &ChunkId) -> Result<Arc<Entry>, WriteError> {
        self.shared.entry(id).map_err(|error| {
            tracing::error!(%id, %error, "what is known of a chunk cannot be read");
            WriteError::Unreadable {
                error: error.to_string(),
            }
        })
    }

    /// Adds a change to the batch. When the superblock has no room, the batch so far is written and a new
    /// superblock begun; operations before `position` are durable then.
    fn stage(&mut self, change: &Change, payload: &Bytes, now: Now, position: usize) -> Result<(), WriteError> {
        self.stage_as(change, payload, &Comes::Now, now, position)
    }

    fn stage_as(
        &mut self,
        change: &Change,
        payload: &Bytes,
        comes: &Comes,
        now: Now,
        position: usize,
    ) -> Result<(), WriteError> {
        let without;
        let change = if self.report.unreadable && change.register.is_some() {
            // Its last state may be in what the disk does not give now, and would be forgotten for good.
            if change.kind == Kind::Vote {
                return Ok(());
            }
            without = Change {
                register: None,
                ..change.clone()
            };
            &without
        } else {
            change
        };
        let (written, origin) = match comes {
            Comes::Now => (None, Origin::Arrived),
            Comes::Moved { written, state } => (Some(*written), Origin::Moved(*state)),
        };
        let superblock_bytes = self.options.superblock_bytes;
        let brings = Brings::of(change.kind, comes);
        // Before anything is planned: an entry that cannot be read leaves no trace.
        self.entry(&change.id)?;
        let planned = if self.is_kept_from(brings) {
            Err(NoRoom::Rotate)
        } else {
            self.log.plan(change, payload, written, superblock_bytes)
        };
        let spot = match planned {
            Ok(spot) => spot,
            Err(NoRoom::TooLarge) => return Err(WriteError::TooLarge { len: payload.len() }),
            Err(NoRoom::Rotate) => {
                self.seal(now)?;
                self.durable_ops = position;
                self.rotate(payload.len(), brings)?;
                // Read again: what comes behind must not fail any more.
                self.entry(&change.id)?;
                match self.log.plan(change, payload, written, superblock_bytes) {
                    Ok(spot) => spot,
                    // Only when a nearly full disk gave less than it was asked for.
                    Err(_) => return Err(WriteError::DiskFull),
                }
            }
        };
        let logged = Logged {
            lsn: spot.lsn,
            time: written.map_or(now.wall, |written| written.time),
            place: spot.place,
            payload_at: spot.payload_at,
            record_len: spot.record_len,
            origin,
        };
        if !self.pending.contains_key(&change.id) {
            let old = self.durable_entry(&change.id)?;
            let new = (*old).clone();
            self.pending.insert(change.id.clone(), Pending { old, new });
        }
        if let Some(pending) = self.pending.get_mut(&change.id) {
            pending.new.apply(change, logged);
        }
        if matches!(comes, Comes::Moved { .. }) {
            *self.moved.get_or_insert_default() += moving::beyond(change, &spot);
        }
        self.shared
            .counters
            .bytes_written
            .fetch_add(payload.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the last superblock was made of what is kept for a full disk, and has no room for this: half of it is for
    /// deletions alone.
    fn is_kept_from(&self, brings: Brings) -> bool {
        let half_used = || self.log.planned_to() > self.log.tail.capacity / 2;
        self.reserved == Some(self.log.tail.number)
            && match brings {
                Brings::Bytes => true,
                Brings::NoBytes => half_used(),
                Brings::Deletion => false,
            }
    }

    fn rotate(&mut self, payload_len: usize, brings: Brings) -> Result<(), WriteError> {
        // A record, its commit record and their pages, generously.
        let needed = payload_len as u64 * 2 + 64 * 1024;
        let needed = needed.min(self.options.superblock_bytes);
        let all = self.options.superblock_bytes;
        // It is made by its name, wherever that leads now.
        self.is_at_home()?;
        let mut created = tail::create_superblock(&self.shared.disk, &self.head(), all, needed);
        let already = self.reserved == Some(self.log.tail.number) && brings != Brings::Deletion;
        if matches!(created, Err(WriteError::DiskFull)) && brings != Brings::Bytes && !already {
            let head = self.head();
            let mut reserve = self.shared.reserve.lock().unwrap_or_else(PoisonError::into_inner);
            created = reserve.superblock(&self.shared.disk, &head, needed);
            if created.is_ok() {
                self.reserved = Some(head.number);
            }
        }
        let tail = match created {
            Ok(tail) => tail,
            Err(error) => {
                self.failed |= matches!(error, WriteError::Failed { .. });
                return Err(error);
            }
        };
        // Nothing is written there any more.
        self.log.rest();
        if let Some(ended) = self.shared.superblocks.get(self.log.tail.number) {
            ended.set_marked();
            ended.ended_with(self.log.last_lsn());
        }
        let superblock = Superblock::of_tail(self.head(), &tail);
        self.shared.superblocks.insert(Arc::new(superblock));
        self.next_number += 1;
        self.log = Log::new(tail, self.log.next_lsn, Arc::clone(&self.shared.instruments));
        self.shared.set_position(self.log.position());
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
        let closing_len = self.log.closing_len();
        if let Err(error) = self.write_sealed(now) {
            self.lost_batch = Some(error.clone());
            return Err(error);
        }
        for (id, Pending { old, new }) in std::mem::take(&mut self.pending) {
            self.shared.put(&id, &old, new);
        }
        self.note_moved(closing_len);
        // Now the index has it.
        self.shared.set_position(self.log.position());
        self.unmarked = true;
        self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes and syncs what the log has planned: a batch, or a mark, which no operation waits for.
    fn write_sealed(&mut self, now: Now) -> Result<(), WriteError> {
        let (first, start) = (self.log.next_lsn, self.log.tail.end);
        let sealed = self.log.seal(now.wall);
        if sealed.is_ok()
            && let Some(superblock) = self.shared.superblocks.get(self.log.tail.number)
        {
            superblock.advance(first, start, self.log.tail.end);
        }
        self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
        let votes = std::mem::take(&mut self.batch_votes);
        if votes > 0 && sealed.is_ok() {
            self.shared.counters.votes.fetch_add(votes, Ordering::Relaxed);
            self.shared.counters.vote_syncs.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(error) = &sealed {
            self.pending.clear();
            self.moved = None;
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
        if self
            .entry(id)?
            .item(sha256)
            .is_some_and(|item| item.state.is_verified() && self.shared.is_within_its_file(item))
        {
            return Ok(true);
        }
        self.reads_back(id, sha256, now, position)
    }

    /// As [`Store::holds`], on the word of the disk: read back within the period after which readers, too, verify again.
    fn reads_back(&mut self, id: &ChunkId, sha256: Digest, now: Now, position: usize) -> Result<bool, WriteError> {
        let entry = self.entry(id)?;
        let Some(item) = entry.item(sha256).filter(|item| !item.is_corrupt()) else {
            self.own_up_to(id, &entry, sha256, now, position)?;
            return Ok(false);
        };
        if self.shared.is_fresh(item, item.state, now.monotonic) {
            return Ok(true);
        }
        // What this batch brings is not on the disk yet: what is read there now would condemn it.
        if item.lsn > self.shared.counters.log_seq.load(Ordering::Acquire) {
            return Ok(false);
        }
        match self.shared.verify(id, item, now.monotonic) {
            Ok(()) => {
                self.learn(id, sha256, State::checked(now.monotonic));
                Ok(true)
            }
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

    /// Writes down that an item is lost, where the log does not say so yet: behind a checkpoint damage is found when it is
    /// come upon.
    fn own_up_to(
        &mut self,
        id: &ChunkId,
        entry: &Entry,
        sha256: Digest,
        now: Now,
        position: usize,
    ) -> Result<(), WriteError> {
        if planted!("lost bytes are vouched for") {
            return Ok(());
        }
        if entry.item(sha256).is_some_and(|item| item.state == State::CORRUPT) {
            return self.quarantine(id, sha256, now, position);
        }
        let register = entry.register();
        if entry.lost(sha256) && entry.vouches_for(self.shared.me, sha256) && !register.damaged {
            let damaged = Register {
                damaged: true,
                ..register
            };
            self.stage_vote(id, damaged, now, position)?;
        }
        Ok(())
    }

    /// Notes what was learnt of an item, in the batch too.
    fn learn(&mut self, id: &ChunkId, sha256: Digest, learnt: State) {
        let item = self.pending.get_mut(id).and_then(|pending| {
            let mut items = pending.new.items.iter_mut();
            items.find(|item| item.sha256 == sha256)
        });
        if let Some(item) = item {
            item.state = item.state.then(learnt);
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
        let entry = self.entry(id)?;
        match entry.item(sha256) {
            Some(item) if item.lsn == lsn && item.state != State::QUARANTINED => {
                self.quarantine(id, sha256, now, position)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Writes down that an item is damaged; a register that vouches for it abstains from now on.
    fn quarantine(&mut self, id: &ChunkId, sha256: Digest, now: Now, position: usize) -> Result<(), WriteError> {
        let entry = self.entry(id)?;
        let Some(item) = entry.item(sha256) else { return Ok(()) };
        // Whatever comes of the record, it is not served any more.
        self.shared.index.learn(id, item, State::CORRUPT);
        let register = entry.register();
        let damaged = entry.vouches_for(self.shared.me, sha256) && !register.damaged;
        tracing::error!(%id, %sha256, superblock = item.place.superblock(), vouched_for = damaged, "an item is damaged");
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
