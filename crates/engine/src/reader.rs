//! The reading side: finds items in the index and reads their bytes, verified, beside the writer.
//!
//! The index lock is held for look-ups alone, never while the disk is read or written.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use vstack_chunkpaxos::{Ballot, Register};
use vstack_types::{ByteRange, ChunkId, Digest, DigestBuilder, Monotonic, NodeRef, planted};

use crate::{
    checkpoint::{self, Position},
    claim::{self, Held},
    disk::{Disk, DiskFile, Usage, is_full},
    holes::Holes,
    index::{Entry, Index, State, StoredItem},
    instruments::{Instruments, Timed},
    pins::{Pin, Pins},
    reserve::{Reserve, SMALL_FILE_BYTES},
    select::{self, Missing, Which},
    superblock::RECORDS_AT,
    superblocks::Superblocks,
};

/// Bytes that are read and hashed in one go where nobody else wants them: few enough to be in the cache of a processor still
/// when they are hashed.
const VERIFIED_AT_ONCE: usize = 64 * 1024;

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
    pub reclaimed_bytes: AtomicU64,
    pub emptied: AtomicU64,
    pub moved_bytes: AtomicU64,
    pub log_seq: AtomicU64,
    pub votes: AtomicU64,
    pub vote_syncs: AtomicU64,
    pub pieces_cached: AtomicU64,
    pub pieces_waited: AtomicU64,
}

/// What readers and writer share.
pub(crate) struct Shared<D: Disk> {
    pub disk: D,
    pub me: NodeRef,
    pub index: Index,
    pub superblocks: Superblocks<D::File>,
    /// Who looks something up, anywhere; who found it goes on as a reader of its superblock.
    pub lookers: Pins,
    pub holes: Mutex<Holes>,
    /// Room for when the disk is full.
    pub reserve: Mutex<Reserve>,
    /// The shard of the index at which collection goes on.
    pub collect_from: AtomicUsize,
    /// Superblocks that cannot be emptied.
    pub stuck: Mutex<BTreeSet<u32>>,
    /// How far the log is in the index.
    pub position: Mutex<Position>,
    /// The last checkpoint speaks for everything up to this log sequence number.
    pub checkpointed: AtomicU64,
    /// One is written at a time; the last one of this process.
    pub checkpointing: Mutex<Option<Position>>,
    pub counters: Counters,
    pub instruments: Arc<Instruments>,
    pub usage: Mutex<Option<(Monotonic, Usage)>>,
    pub reverify_after: Duration,
    pub votes_lost: bool,
    pub sealed: AtomicBool,
    pub claim: Mutex<Held>,
    /// What opening has to write down waits for room for the claim.
    pub unfinished: AtomicBool,
}

impl<D: Disk> Shared<D> {
    /// Of a disk that was just read: nothing is to be written, nothing was done yet.
    pub(crate) fn new(
        disk: D,
        me: NodeRef,
        index: Index,
        superblocks: Superblocks<D::File>,
        position: Position,
    ) -> Self {
        Self {
            disk,
            me,
            index,
            superblocks,
            lookers: Pins::default(),
            holes: Mutex::default(),
            reserve: Mutex::new(Reserve::of(0)),
            collect_from: AtomicUsize::new(0),
            stuck: Mutex::default(),
            position: Mutex::new(position),
            checkpointed: AtomicU64::new(0),
            checkpointing: Mutex::new(None),
            counters: Counters::default(),
            instruments: Arc::default(),
            usage: Mutex::new(None),
            reverify_after: Duration::ZERO,
            votes_lost: false,
            sealed: AtomicBool::new(false),
            claim: Mutex::new(Held::Over),
            unfinished: AtomicBool::new(false),
        }
    }

    pub(crate) fn claim(&self) -> Held {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn position(&self) -> Position {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_position(&self, position: Position) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    /// Puts `new` in the place of `old` under `id`: it is durable.
    pub(crate) fn put(&self, id: &ChunkId, old: &Entry, new: Entry) {
        let gone = self.index.put(id, old, new, &self.superblocks);
        // Not before: whoever still found them would read what their space is given to.
        self.note_freed(&gone);
    }

    /// What there is under `id`. May read the disk.
    pub(crate) fn entry(&self, id: &ChunkId) -> io::Result<Arc<Entry>> {
        self.index.load(id, &self.superblocks)
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

    /// Whether `item`, which is in `state`, was hashed lately and its superblock was not cut since.
    pub(crate) fn is_fresh(&self, item: &StoredItem, state: State, now: Monotonic) -> bool {
        state.was_read_back(now, self.reverify_after) && self.is_within_its_file(item)
    }

    /// Whether the superblock of `item` is as long as what was written to it.
    pub(crate) fn is_within_its_file(&self, item: &StoredItem) -> bool {
        let superblock = self.superblocks.get(item.place.superblock());
        // One that was emptied is read by those who found the item before.
        superblock.is_none_or(|superblock| superblock.reaches_its_end())
    }

    /// All bytes of `item`, hashed now. Notes what comes out.
    pub(crate) fn read_verified(&self, id: &ChunkId, item: &StoredItem, now: Monotonic) -> Result<Vec<u8>, ReadError> {
        let bytes = match self.read_raw(item, 0, u64::from(item.size)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.index.learn(id, item, State::CORRUPT);
                return Err(ReadError::Corrupt);
            }
            other => other?,
        };
        if Digest::of(&bytes) != item.sha256 {
            self.index.learn(id, item, State::CORRUPT);
            return Err(ReadError::Corrupt);
        }
        self.index.learn(id, item, State::checked(now));
        Ok(bytes)
    }

    /// Whether the disk gives the bytes of `item` as they were, hashed now, a piece at a time. Notes what comes out.
    pub(crate) fn verify(&self, id: &ChunkId, item: &StoredItem, now: Monotonic) -> Result<(), ReadError> {
        let is_well = match self.digest(item) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            digest => digest? == item.sha256,
        };
        let state = if is_well { State::checked(now) } else { State::CORRUPT };
        self.index.learn(id, item, state);
        if is_well { Ok(()) } else { Err(ReadError::Corrupt) }
    }

    fn digest(&self, item: &StoredItem) -> io::Result<Digest> {
        let superblock = self.superblocks.get(item.place.superblock());
        let superblock = superblock.ok_or(io::ErrorKind::NotFound)?;
        // Else the disk were asked for each piece by itself.
        superblock.file.will_read(item.payload_at, u64::from(item.size));
        let mut digest = DigestBuilder::default();
        let mut piece = vec![0; VERIFIED_AT_ONCE.min(item.size as usize)];
        let mut done = 0;
        while done < item.size as usize {
            let len = VERIFIED_AT_ONCE.min(item.size as usize - done);
            superblock
                .file
                .read_at(&mut piece[..len], item.payload_at + done as u64)?;
            digest.update(&piece[..len]);
            done += len;
        }
        self.counters
            .bytes_read
            .fetch_add(u64::from(item.size), Ordering::Relaxed);
        Ok(digest.finish())
    }

    fn read_raw(&self, item: &StoredItem, start: u64, len: u64) -> io::Result<Vec<u8>> {
        let superblock = self.superblocks.get(item.place.superblock());
        let superblock = superblock.ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        superblock.file.read_at(&mut bytes, item.payload_at + start)?;
        self.counters.bytes_read.fetch_add(len, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// An item that can be read, as long as this is kept: its space is not taken back meanwhile.
#[derive(Debug, Clone)]
pub struct Found {
    pub(crate) id: ChunkId,
    pub(crate) item: StoredItem,
    /// Of its superblock. None where that is not there: then there is nothing to take back either.
    pub(crate) pin: Option<Pin>,
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
        self.item.place.superblock()
    }
}

/// What the store holds and did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items held.
    pub chunk_count: u64,
    /// Bytes in them.
    pub chunk_bytes: u64,
    /// Registers kept.
    pub register_count: u64,
    /// Superblock files.
    pub superblocks: u64,
    /// Memory of the index.
    pub index_bytes: u64,
    /// Looks at the index that memory answered.
    pub index_hits: u64,
    /// Looks at the index that read the disk.
    pub index_misses: u64,
    /// The last checkpoint speaks for everything up to this log sequence number; 0 when there is none.
    pub checkpoint_seq: u64,
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
    /// Bytes of items that are gone, given back to the filesystem where they were.
    pub reclaimed_bytes: u64,
    /// Superblocks emptied.
    pub emptied: u64,
    /// Bytes of items written again so that superblocks could be emptied.
    pub moved_bytes: u64,
    /// Last durable log sequence number.
    pub log_seq: u64,
    /// Promises and acceptances made durable.
    pub votes: u64,
    /// Syncs that made them durable; fewer when several shared one.
    pub vote_syncs: u64,
    /// Pieces of items read from the page cache alone.
    pub pieces_cached: u64,
    /// Pieces of items that the disk was waited for.
    pub pieces_waited: u64,
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

    /// Whether what there is under `id` is in memory, or known to be nothing.
    pub fn is_at_hand(&self, id: &ChunkId) -> bool {
        let at_hand = |id: &ChunkId| self.0.index.at_hand(id);
        match at_hand(id) {
            None => false,
            Some(entry) if entry.is_empty() => {
                select::fragment_of(id).is_none_or(|(chunk, _)| at_hand(&chunk).is_some())
            }
            Some(_) => true,
        }
    }

    /// What `id` stands for here. May read the disk.
    ///
    /// # Errors
    /// Why there is nothing to serve.
    pub fn find(&self, id: &ChunkId, which: Which) -> Result<Found, Missing> {
        // Until the superblock of what is found is pinned, see `pins.rs`.
        let _looks = self.0.lookers.pin();
        let found = |id: &ChunkId, item: &StoredItem| Found {
            id: id.clone(),
            item: item.clone(),
            pin: self.0.superblocks.pin(item.place.superblock()),
        };
        let entry = |id: &ChunkId| {
            self.0.entry(id).map_err(|error| {
                tracing::error!(%id, %error, "what is known of a chunk cannot be read");
                Missing::Unreadable
            })
        };
        let here = entry(id)?;
        if !here.is_empty() {
            return select::select(&here, self.0.me, which).map(|item| found(id, item));
        }
        let Some((chunk, shard)) = select::fragment_of(id) else {
            return Err(Missing::NotFound);
        };
        let here = entry(&chunk)?;
        select::select_fragment(&here, self.0.me, shard, which).map(|item| found(&chunk, item))
    }

    /// Whether the bytes found may be served without hashing them first.
    pub fn is_fresh(&self, found: &Found, now: Monotonic) -> bool {
        let state = self.0.index.state(&found.id, &found.item);
        state.is_some_and(|state| self.0.is_fresh(&found.item, state, now))
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
        // Moved since it was found: the bytes are still where they were.
        let state = self.0.index.state(&found.id, item).unwrap_or(item.state);
        if state.is_corrupt() {
            return Err(ReadError::Corrupt);
        }
        let (start, len) = range.map_or((0, found.size()), |range| (range.start, range.len()));
        if self.0.is_fresh(item, state, now) || planted!("bytes are served unverified") {
            return Ok(self.0.read_raw(item, start, len)?);
        }
        let mut bytes = self.0.read_verified(&found.id, item, now)?;
        let (start, end) = (
            usize::try_from(start).unwrap_or(0),
            usize::try_from(start + len).unwrap_or(usize::MAX),
        );
        bytes.truncate(end);
        bytes.drain(..start.min(bytes.len()));
        Ok(bytes)
    }

    /// The state of a register; the default one when there is none. May read the disk.
    ///
    /// # Errors
    /// Of the disk.
    pub fn register(&self, id: &ChunkId) -> io::Result<Register> {
        Ok(self.0.entry(id)?.register())
    }

    /// The state of a register, without what was accepted; the default one when there is none. May read the disk.
    ///
    /// # Errors
    /// Of the disk.
    pub fn vote_state(&self, id: &ChunkId) -> io::Result<VoteState> {
        Ok(VoteState::of(&*self.0.entry(id)?))
    }

    /// The same, when memory knows it, as it does of what was changed just now.
    pub fn vote_state_at_hand(&self, id: &ChunkId) -> Option<VoteState> {
        self.0.index.at_hand(id).map(|entry| VoteState::of(&entry))
    }
}

impl VoteState {
    fn of(entry: &Entry) -> Self {
        let Some(stored) = &entry.register else {
            return Self::default();
        };
        let accepted = stored.register.accepted.as_ref();
        Self {
            promised: stored.register.promised,
            accepted: accepted.map(|vote| vote.ballot),
            version: accepted.map(|vote| vote.placement.version),
            decided: stored.register.decided,
            damaged: stored.register.damaged,
            log_seq: Some(stored.lsn),
        }
    }
}

impl<D: Disk> Reader<D> {
    /// Whether an item is here and not known to be damaged. May read the disk.
    ///
    /// # Errors
    /// Of the disk.
    pub fn has_item(&self, id: &ChunkId, sha256: Digest) -> io::Result<bool> {
        let entry = self.0.entry(id)?;
        Ok(entry.item(sha256).is_some_and(|item| !item.is_corrupt()))
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
        let mut saved = claim::save(&self.0.disk, log_seq);
        if saved.as_ref().is_err_and(is_full) {
            let mut reserve = self.0.reserve.lock().unwrap_or_else(PoisonError::into_inner);
            if reserve.give(&self.0.disk, SMALL_FILE_BYTES)? > 0 {
                saved = claim::save(&self.0.disk, log_seq);
            }
        }
        saved?;
        *self.0.claim.lock().unwrap_or_else(PoisonError::into_inner) = Held::written(log_seq);
        Ok(())
    }

    /// Writes down what the index has, so that the next start reads only what is logged behind it. Says up to which log
    /// sequence number that is; none when there is nothing to gain, or what is known is not all there was. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// Of the disk; the checkpoint from before is as good as it was.
    pub fn write_checkpoint(&self) -> io::Result<Option<u64>> {
        let shared = &self.0;
        let mut last = shared.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        let position = shared.position();
        let is_end_known = position.commit_at != 0 || position.offset == RECORDS_AT;
        if shared.votes_lost || shared.unfinished.load(Ordering::Acquire) || !is_end_known || *last == Some(position) {
            return Ok(None);
        }
        let began = shared.instruments.now();
        checkpoint::save(&shared.disk, &shared.index, shared.me, position, &shared.superblocks)?;
        shared.instruments.done(Timed::Checkpoint, began);
        *last = Some(position);
        shared.checkpointed.store(position.lsn, Ordering::Release);
        Ok(Some(position.lsn))
    }

    /// Log sequence numbers since the last checkpoint.
    pub fn since_checkpoint(&self) -> u64 {
        self.log_seq()
            .saturating_sub(self.0.checkpointed.load(Ordering::Acquire))
    }

    /// Lets go of what makes reading quicker, where nobody read since the last call. May take some milliseconds.
    pub fn trim(&self) {
        self.0.superblocks.trim();
    }

    /// What is measured.
    pub fn instruments(&self) -> &Arc<Instruments> {
        &self.0.instruments
    }

    /// What is held and was done.
    pub fn stats(&self) -> Stats {
        let counters = &self.0.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let index = &self.0.index;
        let (index_hits, index_misses) = index.hits_and_misses();
        Stats {
            index_bytes: index.bytes(),
            index_hits,
            index_misses,
            checkpoint_seq: of(&self.0.checkpointed),
            chunk_count: index.item_count(),
            chunk_bytes: index.item_bytes(),
            register_count: index.register_count(),
            superblocks: self.0.superblocks.len() as u64,
            syncs: of(&counters.syncs),
            batches: of(&counters.batches),
            ops: of(&counters.ops),
            bytes_written: of(&counters.bytes_written),
            bytes_read: of(&counters.bytes_read),
            quarantined: of(&counters.quarantined),
            reclaimed_bytes: of(&counters.reclaimed_bytes),
            emptied: of(&counters.emptied),
            moved_bytes: of(&counters.moved_bytes),
            log_seq: of(&counters.log_seq),
            votes: of(&counters.votes),
            vote_syncs: of(&counters.vote_syncs),
            pieces_cached: of(&counters.pieces_cached),
            pieces_waited: of(&counters.pieces_waited),
        }
    }
}
