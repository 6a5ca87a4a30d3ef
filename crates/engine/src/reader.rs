//! The reading side: finds items in the index and reads their bytes, verified, beside the writer.
//!
//! The index lock is held for look-ups alone, never while the disk is read or written.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use vstack_chunkpaxos::{Ballot, Register};
use vstack_types::{ByteRange, ChunkId, Digest, Monotonic, NodeRef, planted};

use crate::{
    claim::{self, Held},
    disk::{Disk, DiskFile, Usage},
    index::{Index, ListedItem, ListedRegister, StoredItem},
    select::{self, Missing, Which},
};

/// How long a look at the filesystem's usage is good for.
const USAGE_TTL: Duration = Duration::from_secs(1);

/// Why an item cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its bytes are not what they were; they are never served.
    #[error("the bytes on disk do not match their SHA-256")]
    Corrupt,
    /// The disk did not give them.
    #[error("the bytes cannot be read from disk")]
    Io(#[from] io::Error),
}

/// Counters since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub syncs: AtomicU64,
    pub batches: AtomicU64,
    pub ops: AtomicU64,
    pub bytes_written: AtomicU64,
    pub bytes_read: AtomicU64,
    pub quarantined: AtomicU64,
    pub log_seq: AtomicU64,
    pub votes: AtomicU64,
    pub vote_syncs: AtomicU64,
}

/// What readers and writer share.
pub(crate) struct Shared<D: Disk> {
    pub disk: D,
    pub me: NodeRef,
    pub index: RwLock<Index>,
    pub files: RwLock<BTreeMap<u32, Arc<D::File>>>,
    pub counters: Counters,
    pub usage: Mutex<Option<(Monotonic, Usage)>>,
    pub reverify_after: Duration,
    pub votes_lost: bool,
    pub sealed: AtomicBool,
    pub claim: Mutex<Held>,
    /// What opening has to write down waits for room for the claim.
    pub unfinished: AtomicBool,
}

impl<D: Disk> Shared<D> {
    pub(crate) fn claim(&self) -> Held {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_file(&self, number: u32, file: Arc<D::File>) {
        self.files
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, file);
    }

    /// How full the filesystem is, as of at most a second ago.
    pub(crate) fn usage(&self, now: Monotonic) -> io::Result<Usage> {
        let mut cached = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, usage)) = *cached
            && now.since(at) < USAGE_TTL
        {
            return Ok(usage);
        }
        let usage = self.disk.usage()?;
        *cached = Some((now, usage));
        Ok(usage)
    }

    /// All bytes of `item`, hashed now. Marks the item by what comes out.
    pub(crate) fn read_verified(&self, item: &StoredItem, now: Monotonic) -> Result<Vec<u8>, ReadError> {
        let bytes = match self.read_raw(item, 0, u64::from(item.size)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                item.set_corrupt();
                return Err(ReadError::Corrupt);
            }
            other => other?,
        };
        if Digest::of(&bytes) != item.sha256 {
            item.set_corrupt();
            return Err(ReadError::Corrupt);
        }
        item.set_checked(now);
        Ok(bytes)
    }

    fn read_raw(&self, item: &StoredItem, start: u64, len: u64) -> io::Result<Vec<u8>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let file = files.get(&item.place.superblock).cloned();
        drop(files);
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_at(&mut bytes, item.place.offset + start)?;
        self.counters.bytes_read.fetch_add(len, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// An item that can be read.
#[derive(Debug, Clone)]
pub struct Found {
    id: ChunkId,
    item: Arc<StoredItem>,
}

impl Found {
    /// The register it belongs to: for a fragment, its chunk.
    pub const fn id(&self) -> &ChunkId {
        &self.id
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        u64::from(self.item.size)
    }

    /// Of its bytes.
    pub fn sha256(&self) -> Digest {
        self.item.sha256
    }

    /// Log sequence number of the record that holds it.
    pub fn lsn(&self) -> u64 {
        self.item.lsn
    }

    /// Where it is.
    pub fn superblock(&self) -> u32 {
        self.item.place.superblock
    }
}

/// What the store holds and did since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Items held.
    pub chunk_count: u64,
    /// Bytes in them.
    pub chunk_bytes: u64,
    /// Registers kept.
    pub register_count: u64,
    /// Superblock files.
    pub superblocks: u64,
    /// Syncs of data.
    pub syncs: u64,
    /// Batches written.
    pub batches: u64,
    /// Operations answered.
    pub ops: u64,
    /// Bytes of items written.
    pub bytes_written: u64,
    /// Bytes of items read.
    pub bytes_read: u64,
    /// Items found damaged since the start.
    pub quarantined: u64,
    /// Last durable log sequence number.
    pub log_seq: u64,
    /// Promises and acceptances made durable.
    pub votes: u64,
    /// Syncs that made them durable; fewer when several shared one.
    pub vote_syncs: u64,
}

/// A register in short: which ballots, not for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VoteState {
    /// Highest ballot promised.
    pub promised: Option<Ballot>,
    /// In which it accepted last.
    pub accepted: Option<Ballot>,
    /// Version of what it accepted.
    pub version: Option<u64>,
    /// That is known decided.
    pub decided: bool,
    /// It abstains.
    pub damaged: bool,
    /// Log sequence number of the record that holds it.
    pub log_seq: Option<u64>,
}

/// Reads, at any time, from any thread. Cheap to clone.
pub struct Reader<D: Disk>(pub(crate) Arc<Shared<D>>);

impl<D: Disk> Clone for Reader<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Disk> Reader<D> {
    /// The acceptor this disk is.
    pub fn me(&self) -> NodeRef {
        self.0.me
    }

    /// What `id` stands for here. Looks at memory alone.
    ///
    /// # Errors
    /// Why there is nothing to serve.
    pub fn find(&self, id: &ChunkId, which: Which) -> Result<Found, Missing> {
        let index = self.0.index();
        let found = |id: &ChunkId, item| Found { id: id.clone(), item };
        if let Some(entry) = index.get(id) {
            return select::select(entry, self.0.me, which).map(|item| found(id, item));
        }
        if let Some((chunk, shard)) = select::fragment_of(id)
            && let Some(entry) = index.get(&chunk)
        {
            return select::select_fragment(entry, self.0.me, shard, which).map(|item| found(&chunk, item));
        }
        Err(Missing::NotFound)
    }

    /// The bytes of an item, or the part of them that `range` names. Blocks on the disk.
    ///
    /// All bytes are hashed before the first of them is served after a start or a write, and again when the last
    /// time is long ago.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`]: hand it to the writer as [`crate::Op::Quarantine`].
    pub fn read(&self, found: &Found, range: Option<ByteRange>, now: Monotonic) -> Result<Vec<u8>, ReadError> {
        let item = &found.item;
        if item.is_corrupt() {
            return Err(ReadError::Corrupt);
        }
        let (start, len) = range.map_or((0, found.size()), |range| (range.start, range.len()));
        if item.was_read_back(now, self.0.reverify_after) || planted!("bytes are served unverified") {
            return Ok(self.0.read_raw(item, start, len)?);
        }
        let mut bytes = self.0.read_verified(item, now)?;
        let (start, end) = (
            usize::try_from(start).unwrap_or(0),
            usize::try_from(start + len).unwrap_or(usize::MAX),
        );
        bytes.truncate(end);
        bytes.drain(..start.min(bytes.len()));
        Ok(bytes)
    }

    /// The state of a register; the default one when there is none.
    pub fn register(&self, id: &ChunkId) -> Register {
        self.0
            .index()
            .get(id)
            .map(crate::index::Entry::register)
            .unwrap_or_default()
    }

    /// The state of a register, without what was accepted; the default one when there is none. Copies nothing.
    pub fn vote_state(&self, id: &ChunkId) -> VoteState {
        let index = self.0.index();
        let Some(stored) = index.get(id).and_then(|entry| entry.register.as_ref()) else {
            return VoteState::default();
        };
        let accepted = stored.register.accepted.as_ref();
        VoteState {
            promised: stored.register.promised,
            accepted: accepted.map(|vote| vote.ballot),
            version: accepted.map(|vote| vote.placement.version),
            decided: stored.register.decided,
            damaged: stored.register.damaged,
            log_seq: Some(stored.lsn),
        }
    }

    /// Whether an item is here and not known to be damaged.
    pub fn has_item(&self, id: &ChunkId, sha256: Digest) -> bool {
        self.0
            .index()
            .get(id)
            .and_then(|entry| entry.item(sha256))
            .is_some_and(|item| !item.is_corrupt())
    }

    /// At most `limit` items whose id begins with `prefix`, in log order, after the sequence number `cursor`.
    pub fn list_items(&self, cursor: u64, limit: usize, prefix: Option<&ChunkId>) -> Vec<ListedItem> {
        self.0.index().list_items(self.0.me, cursor, limit, prefix)
    }

    /// At most `limit` registers whose id begins with `prefix`, in log order, after the sequence number `cursor`.
    pub fn list_registers(&self, cursor: u64, limit: usize, prefix: Option<&ChunkId>) -> Vec<ListedRegister> {
        self.0.index().list_registers(cursor, limit, prefix)
    }

    /// Last durable log sequence number.
    pub fn log_seq(&self) -> u64 {
        self.0.counters.log_seq.load(Ordering::Acquire)
    }

    /// How full the filesystem is, as of at most a second ago.
    ///
    /// # Errors
    /// Of the disk.
    pub fn usage(&self, now: Monotonic) -> io::Result<Usage> {
        self.0.usage(now)
    }

    /// Records of which no copy is left may have held votes: this disk votes no more.
    pub fn votes_lost(&self) -> bool {
        self.0.votes_lost
    }

    /// This disk was sealed: it votes no more, for good.
    pub fn is_sealed(&self) -> bool {
        self.0.sealed.load(Ordering::Acquire)
    }

    /// The log sequence number that this disk has to claim where it registers, from start to start, until it is
    /// accepted there; none when it was.
    pub fn claim(&self) -> Option<u64> {
        self.0.claim().log_seq()
    }

    /// Whether it is known after a restart, too. As long as it is not, because the disk is full, nothing is written to
    /// the log.
    pub fn is_claim_durable(&self) -> bool {
        !matches!(self.0.claim(), Held::Unwritten(_))
    }

    /// Writes down what it has to claim, or that it was accepted. Blocks on the disk.
    ///
    /// # Errors
    /// Of the disk. What it has to claim is then as it was, and after a restart may be the new one.
    pub fn set_claim(&self, log_seq: Option<u64>) -> io::Result<()> {
        claim::save(&self.0.disk, log_seq)?;
        *self.0.claim.lock().unwrap_or_else(PoisonError::into_inner) = Held::written(log_seq);
        Ok(())
    }

    /// What is held and was done.
    pub fn stats(&self) -> Stats {
        let counters = &self.0.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let index = self.0.index();
        Stats {
            chunk_count: index.item_count(),
            chunk_bytes: index.item_bytes(),
            register_count: index.register_count(),
            superblocks: self.0.files.read().unwrap_or_else(PoisonError::into_inner).len() as u64,
            syncs: of(&counters.syncs),
            batches: of(&counters.batches),
            ops: of(&counters.ops),
            bytes_written: of(&counters.bytes_written),
            bytes_read: of(&counters.bytes_read),
            quarantined: of(&counters.quarantined),
            log_seq: of(&counters.log_seq),
            votes: of(&counters.votes),
            vote_syncs: of(&counters.vote_syncs),
        }
    }
}
