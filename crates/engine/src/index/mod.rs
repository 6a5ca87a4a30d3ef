//! What is where: for every chunk id its items and its register.
//!
//! Memory holds a cell of 32 bytes for an item and one of 16 for a register, found by a keyed fingerprint of the id; the
//! ids themselves, digests and registers are read from the records that cells point to, and the id there is compared.
//! What was used lately is kept as it was read. Holds only what is durable: the writer changes copies of entries and
//! puts them here after the sync.
//!
//! No lock is held while the disk is read: what changed meanwhile is noticed, and read again.

mod cells;
mod entry;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use vstack_chunkpaxos::Register;
use vstack_types::{ChunkId, Digest, DigestBuilder, NodeRef, Timestamp, planted};

pub(crate) use self::{
    cells::{Cells, ItemCell, RegisterCell, Wanted},
    entry::{Entry, Logged, Origin, Place, State, StoredItem, StoredRegister, tag_of},
};
use crate::{
    batches::{self, Batches},
    disk::DiskFile,
    record::{Body, Change, Kind},
    scan::{Scanned, Scanner},
    superblock::RECORDS_AT,
    superblocks::{Superblock, Superblocks},
    table::Table,
};
use cells::Shard;

/// Parts that are locked and grow by themselves.
pub(crate) const SHARDS: usize = 256;

/// Makes fingerprints unpredictable, so that nobody can choose ids that are slow to find.
pub(crate) type Key = [u8; 16];

/// An entry that was changed more often than this while it was read is given up, as unreadable.
const TRIES_MAX: usize = 1000;

/// The index.
#[derive(Debug)]
pub(crate) struct Index {
    key: Key,
    me: NodeRef,
    shards: Box<[RwLock<Shard>]>,
    items: AtomicU64,
    item_bytes: AtomicU64,
    registers: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

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
    pub(crate) fn new(key: Key, me: NodeRef) -> Self {
        Self {
            key,
            me,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            items: AtomicU64::new(0),
            item_bytes: AtomicU64::new(0),
            registers: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn fingerprint(&self, id: &ChunkId) -> u64 {
        let mut digest = DigestBuilder::default();
        digest.update(&self.key);
        digest.update(id.as_str().as_bytes());
        let digest = digest.finish();
        u64::from_le_bytes(std::array::from_fn(|i| digest.as_bytes()[i]))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lowest bits")]
    fn shard(&self, fingerprint: u64) -> &RwLock<Shard> {
        &self.shards[fingerprint as usize % SHARDS]
    }

    fn read(&self, fingerprint: u64) -> RwLockReadGuard<'_, Shard> {
        self.shard(fingerprint).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, fingerprint: u64) -> RwLockWriteGuard<'_, Shard> {
        self.shard(fingerprint).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Items held, damaged ones too until they are replaced.
    pub(crate) fn item_count(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    pub(crate) fn register_count(&self) -> u64 {
        self.registers.load(Ordering::Relaxed)
    }

    pub(crate) fn item_bytes(&self) -> u64 {
        self.item_bytes.load(Ordering::Relaxed)
    }

    /// Memory of all cells.
    pub(crate) fn bytes(&self) -> u64 {
        self.each_shard(|shard| (shard.items.bytes() + shard.registers.bytes()) as u64)
            .sum()
    }

    /// Looks that were answered from memory, and those that read the disk.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Looks at one shard after the other.
    pub(crate) fn each_shard<T>(&self, look: impl Fn(&Shard) -> T) -> impl Iterator<Item = T> {
        self.shards
            .iter()
            .map(move |shard| look(&shard.read().unwrap_or_else(PoisonError::into_inner)))
    }

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
            Ok(Some(scanned)) => self.take(id, sought, &superblock, scanned)?,
            // Cut off, as when the file was shortened.
            Ok(None) => self.second_copy(id, place, sought, &superblock)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.second_copy(id, place, sought, &superblock)?
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

    /// What the commit record of its batch says of the damaged record at `place`.
    fn second_copy<F: DiskFile>(
        &self,
        id: &ChunkId,
        place: Place,
        sought: Sought,
        superblock: &Superblock<F>,
    ) -> io::Result<Option<Told>> {
        let scanner = Scanner::new(&*superblock.file, &superblock.head, RECORDS_AT, superblock.end(), 0);
        let mut batches = Batches::new(scanner, RECORDS_AT);
        while let Some(batch) = batches.next()? {
            let Some(commit) = batch.commit.as_ref().filter(|commit| commit.offset > place.offset()) else {
                continue;
            };
            let missing = batch.missing();
            let list = batches::list_of(&*superblock.file, commit)?.unwrap_or_default();
            let told = (batch.first..)
                .zip(list)
                .filter(|(lsn, change)| missing.contains(lsn) && sought.is(change) && change.id == *id);
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

    fn wanted(&self, entry: &Entry, item: &StoredItem) -> Wanted {
        if entry.keeps(self.me, item.sha256) {
            Wanted::Placed
        } else if entry.is_staging() {
            Wanted::Staged
        } else {
            Wanted::Left
        }
    }

    /// Puts `new` in the place of `old`, which is what is there under `id`.
    pub(crate) fn put<F: DiskFile>(&self, id: &ChunkId, old: &Entry, new: Entry, superblocks: &Superblocks<F>) {
        let fingerprint = self.fingerprint(id);
        let mut new = new;
        let mut guard = self.write(fingerprint);
        let shard = &mut *guard;
        let same = |a: &StoredItem, b: &StoredItem| a.place == b.place && a.sha256 == b.sha256;
        for item in &old.items {
            if !new.items.iter().any(|kept| same(kept, item))
                && let Some(removed) = self.remove_item(shard, fingerprint, item)
            {
                superblocks.add_live(item.place, -removed.footprint());
            }
        }
        for index in 0..new.items.len() {
            let wanted = self.wanted(&new, &new.items[index]);
            let item = &mut new.items[index];
            let known = shard
                .items
                .find_mut(fingerprint, |cell| cell.is(item.place, item.tag()));
            if let Some(cell) = known {
                // A reader may have learnt something of it since the copy was made.
                item.state = cell.state().then(item.state);
                *cell = ItemCell::new(fingerprint, item, wanted);
            } else {
                let cell = ItemCell::new(fingerprint, item, wanted);
                // The same one, of which nothing was left.
                if let Some(lost) = shard.items.remove(fingerprint, |lost| lost.tag == cell.tag) {
                    self.items.fetch_sub(1, Ordering::Relaxed);
                    self.item_bytes.fetch_sub(u64::from(lost.size), Ordering::Relaxed);
                    superblocks.add_live(lost.place, -lost.footprint());
                }
                shard.items.insert(cell);
                self.items.fetch_add(1, Ordering::Relaxed);
                self.item_bytes.fetch_add(u64::from(item.size), Ordering::Relaxed);
                superblocks.add_live(item.place, cell.footprint());
            }
        }
        let place_of = |entry: &Entry| entry.register.as_ref().map(|stored| stored.place);
        let (before, after) = (place_of(old), place_of(&new));
        if before != after {
            if let Some(place) = before {
                if shard
                    .registers
                    .remove(fingerprint, |cell| cell.place == place)
                    .is_some()
                {
                    self.registers.fetch_sub(1, Ordering::Relaxed);
                }
                superblocks.add_live(place, -REGISTER_BYTES);
            }
            if let Some(place) = after {
                shard.registers.insert(RegisterCell { fingerprint, place });
                self.registers.fetch_add(1, Ordering::Relaxed);
                superblocks.add_live(place, REGISTER_BYTES);
            }
        }
        shard.change(id, (!new.is_empty()).then(|| Arc::new(new)));
    }

    fn remove_item(&self, shard: &mut Shard, fingerprint: u64, item: &StoredItem) -> Option<ItemCell> {
        let removed = shard
            .items
            .remove(fingerprint, |cell| cell.is(item.place, item.tag()))?;
        self.items.fetch_sub(1, Ordering::Relaxed);
        self.item_bytes.fetch_sub(u64::from(item.size), Ordering::Relaxed);
        Some(removed)
    }

    /// Counts anew what every superblock has that is wanted.
    pub(crate) fn count_live<F: DiskFile>(&self, superblocks: &Superblocks<F>) {
        let per_shard = self.each_shard(|shard| {
            let mut live: BTreeMap<u32, i64> = BTreeMap::new();
            for cell in shard.items.iter() {
                *live.entry(cell.place.superblock()).or_default() += cell.footprint();
            }
            for cell in shard.registers.iter() {
                *live.entry(cell.place.superblock()).or_default() += REGISTER_BYTES;
            }
            live
        });
        let mut all: BTreeMap<u32, i64> = BTreeMap::new();
        per_shard
            .flatten()
            .for_each(|(number, bytes)| *all.entry(number).or_default() += bytes);
        for superblock in superblocks.all() {
            superblock.set_live(all.get(&superblock.head.number).copied().unwrap_or(0));
        }
    }

    /// Items that nothing keeps as far as memory knows, and that came before: staged ones at the second `staged_s`,
    /// others at `left_s`. About `limit`, from shard `from` on; says where to go on.
    pub(crate) fn unwanted(&self, staged_s: u32, left_s: u32, from: usize, limit: usize) -> (Vec<ItemCell>, usize) {
        let due = |cell: &&ItemCell| match cell.wanted() {
            Wanted::Placed => {
                (planted!("placed bytes are collected as staged ones") && cell.time_s <= staged_s)
                    || (planted!("collecting forgets the other half of a move") && cell.time_s <= left_s)
            }
            Wanted::Staged => cell.time_s <= staged_s,
            Wanted::Left => cell.time_s <= left_s,
        };
        let mut found = Vec::new();
        for turn in 0..SHARDS {
            let number = (from + turn) % SHARDS;
            let shard = self.shards[number].read().unwrap_or_else(PoisonError::into_inner);
            found.extend(shard.items.iter().filter(due).copied());
            if found.len() >= limit {
                return (found, (number + 1) % SHARDS);
            }
        }
        (found, from)
    }

    /// The cells that point into a superblock.
    pub(crate) fn cells_in(&self, number: u32) -> (Vec<ItemCell>, Vec<RegisterCell>) {
        let mut all = (Vec::new(), Vec::new());
        for (items, registers) in self.each_shard(|shard| {
            let items = shard.items.iter().filter(|cell| cell.place.superblock() == number);
            let registers = shard.registers.iter().filter(|cell| cell.place.superblock() == number);
            (
                items.copied().collect::<Vec<_>>(),
                registers.copied().collect::<Vec<_>>(),
            )
        }) {
            all.0.extend(items);
            all.1.extend(registers);
        }
        all
    }

    /// What is known of an item now.
    pub(crate) fn state(&self, id: &ChunkId, item: &StoredItem) -> Option<State> {
        let fingerprint = self.fingerprint(id);
        let shard = self.read(fingerprint);
        let cell = shard
            .items
            .find(fingerprint)
            .find(|cell| cell.is(item.place, item.tag()));
        cell.map(ItemCell::state)
    }

    /// Notes what was learnt of an item, if it is still there.
    pub(crate) fn learn(&self, id: &ChunkId, item: &StoredItem, learnt: State) {
        let fingerprint = self.fingerprint(id);
        self.write(fingerprint).learn(id, fingerprint, item, learnt);
    }

    /// Whether the item with this digest, whose record is at `place`, is the one that counts, and not corrupt.
    pub(crate) fn is_live_item(&self, id: &ChunkId, place: Place, sha256: Digest) -> bool {
        let fingerprint = self.fingerprint(id);
        let shard = self.read(fingerprint);
        let mut cells = shard.items.find(fingerprint);
        cells.any(|cell| cell.is(place, tag_of(sha256)) && !cell.state().is_corrupt())
    }

    /// Whether the item whose record is at `place` is the one that counts, corrupt or not.
    pub(crate) fn points_at_item(&self, id: &ChunkId, place: Place, tag: u32) -> bool {
        let fingerprint = self.fingerprint(id);
        let shard = self.read(fingerprint);
        shard.items.find(fingerprint).any(|cell| cell.is(place, tag))
    }

    /// Lets the next look at `id` read the disk.
    pub(crate) fn forget_read(&self, id: &ChunkId) {
        self.write(self.fingerprint(id)).change(id, None);
    }

    /// Whether this cell is still there.
    pub(crate) fn has_cell(&self, cell: &ItemCell) -> bool {
        let shard = self.read(cell.fingerprint);
        shard
            .items
            .find(cell.fingerprint)
            .any(|there| there.is(cell.place, cell.tag))
    }

    /// Lets go of an item of which nothing is left, not even of which chunk it was.
    pub(crate) fn forget_lost(&self, lost: &ItemCell) {
        let mut shard = self.write(lost.fingerprint);
        if shard
            .items
            .remove(lost.fingerprint, |cell| cell.is(lost.place, lost.tag))
            .is_some()
        {
            self.items.fetch_sub(1, Ordering::Relaxed);
            self.item_bytes.fetch_sub(u64::from(lost.size), Ordering::Relaxed);
        }
        shard.forget_all();
    }

    /// Whether the register in the record at `place` is the one that counts.
    pub(crate) fn is_live_register(&self, id: &ChunkId, place: Place) -> bool {
        let fingerprint = self.fingerprint(id);
        let shard = self.read(fingerprint);
        shard.registers.find(fingerprint).any(|cell| cell.place == place)
    }

    /// Takes a shard as a checkpoint has it.
    pub(crate) fn restore(&self, number: usize, items: &[ItemCell], registers: &[RegisterCell]) {
        let mut shard = self.shards[number].write().unwrap_or_else(PoisonError::into_inner);
        shard.items = Table::with_room(items.len());
        shard.registers = Table::with_room(registers.len());
        for cell in items.iter() {
            shard.items.insert(*cell);
            self.items.fetch_add(1, Ordering::Relaxed);
            self.item_bytes.fetch_add(u64::from(cell.size), Ordering::Relaxed);
        }
        for cell in registers.iter() {
            shard.registers.insert(*cell);
            self.registers.fetch_add(1, Ordering::Relaxed);
        }
    }
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

/// What a register takes of a superblock, about: where it stands in a record of its own, its record.
pub(crate) const REGISTER_BYTES: i64 = 512;
