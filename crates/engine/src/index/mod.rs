//! What is where: for every chunk id its items and its register.
//!
//! Memory holds a cell of 32 bytes for an item and one of 20 for a register, found by a keyed fingerprint of the id; the
//! ids themselves, digests and registers are read from the records that cells point to, and the id there is compared.
//! What was used lately is kept as it was read. Holds only what is durable: the writer changes copies of entries and
//! puts them here after the sync.
//!
//! No lock is held while the disk is read: what changed meanwhile is noticed, and read again.

mod cells;
mod changes;
#[cfg(test)]
pub(crate) mod collisions;
mod entry;
mod load;
mod of_video;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use vstack_chunkpaxos::Brief;
use vstack_types::{ChunkId, Digest, FingerprintKey, NodeRef, planted};

pub use self::{
    cells::Wanted,
    changes::{HELD_BUCKETS, held_bucket},
};
pub(crate) use self::{
    cells::{ItemCell, RegisterCell, item_bytes},
    entry::{Entry, Logged, Origin, Place, State, StoredItem, StoredRegister, tag_of},
};
use crate::{
    disk::DiskFile,
    live::ByKind,
    superblocks::Superblocks,
    table::{Cell, Table},
};
use cells::{CellsMut, Shard};
use changes::Changes;

/// Parts that are locked and grow by themselves.
pub(crate) const SHARDS: usize = 256;

/// Makes fingerprints unpredictable, so that nobody can choose ids that are slow to find.
pub(crate) type Key = [u8; 16];

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
    /// Of what others are told: of bytes that are well, nothing is when more is learnt of them.
    changes: Changes,
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
            changes: Changes::default(),
        }
    }

    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    pub(crate) const fn fingerprint_key(&self) -> FingerprintKey {
        FingerprintKey::from_bytes(self.key)
    }

    pub(crate) fn fingerprint(&self, id: &ChunkId) -> u64 {
        #[cfg(test)]
        if self.key == collisions::KEY {
            return collisions::FINGERPRINT;
        }
        self.fingerprint_key().of(id)
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
        self.each_shard(|shard| (shard.items().bytes() + shard.registers().bytes()) as u64)
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

    fn wanted(&self, entry: &Entry, item: &StoredItem) -> Wanted {
        if entry.keeps(self.me, item.sha256) {
            Wanted::Placed
        } else if entry.is_staging() {
            Wanted::Staged
        } else {
            Wanted::Left
        }
    }

    /// Puts `new` in the place of `old`, which is what is there under `id`. Gives the items that nobody finds any more.
    pub(crate) fn put<F: DiskFile>(
        &self,
        id: &ChunkId,
        old: &Entry,
        new: Entry,
        superblocks: &Superblocks<F>,
    ) -> Vec<StoredItem> {
        let fingerprint = self.fingerprint(id);
        let mut new = new;
        let mut shard = self.write(fingerprint);
        let mut cells = shard.cells_of(fingerprint, &self.changes);
        let same = |a: &StoredItem, b: &StoredItem| a.place == b.place && a.sha256 == b.sha256;
        let mut gone = Vec::new();
        for item in &old.items {
            if !new.items.iter().any(|kept| same(kept, item))
                && let Some(removed) = self.remove_item(&mut cells, item)
            {
                superblocks.add_live(item.place, ByKind::items(-removed.footprint()));
                gone.push(item.clone());
            }
        }
        let places: Vec<Place> = new.items.iter().map(|item| item.place).collect();
        for index in 0..new.items.len() {
            let wanted = self.wanted(&new, &new.items[index]);
            let item = &mut new.items[index];
            if let Some(known) = cells.state(item) {
                // A reader may have learnt something of it since the copy was made.
                item.state = known.then(item.state);
                cells.put_item(item, wanted);
            } else {
                let cell = cells.put_item(item, wanted);
                self.items.fetch_add(1, Ordering::Relaxed);
                self.item_bytes.fetch_add(u64::from(item.size), Ordering::Relaxed);
                superblocks.add_live(item.place, ByKind::items(cell.footprint()));
            }
        }
        // Those of which nothing was left, and that are given up now, or here again: only they. Another id with this
        // fingerprint may have the same bytes.
        for tag in old.gone.iter().filter(|tag| !new.gone.contains(tag)) {
            self.remove_lost(&mut cells, *tag, &places, superblocks);
        }
        let place_of = |entry: &Entry| entry.register.as_ref().map(|stored| stored.place);
        let (before, after) = (place_of(old), place_of(&new));
        if before != after {
            if let Some(place) = before {
                if cells.remove_register(place).is_some() {
                    self.registers.fetch_sub(1, Ordering::Relaxed);
                }
                superblocks.add_live(place, ByKind::registers(-REGISTER_BYTES));
            }
            if let (Some(place), Some(stored)) = (after, &new.register) {
                cells.insert_register(place, stored.register.brief(self.me));
                self.registers.fetch_add(1, Ordering::Relaxed);
                superblocks.add_live(place, ByKind::registers(REGISTER_BYTES));
            }
        }
        drop(cells);
        shard.change(id, (!new.is_empty()).then(|| Arc::new(new)));
        gone
    }

    /// Removes the item of which nothing is left: whatever is left of one is at one of `places`.
    fn remove_lost<F: DiskFile>(
        &self,
        cells: &mut CellsMut<'_>,
        tag: u32,
        places: &[Place],
        superblocks: &Superblocks<F>,
    ) {
        let is_lost = |there: &ItemCell| there.tag == tag && !places.contains(&there.place);
        if let Some(lost) = cells.remove_item(is_lost) {
            self.items.fetch_sub(1, Ordering::Relaxed);
            self.item_bytes.fetch_sub(u64::from(lost.size), Ordering::Relaxed);
            superblocks.add_live(lost.place, ByKind::items(-lost.footprint()));
        }
    }

    fn remove_item(&self, cells: &mut CellsMut<'_>, item: &StoredItem) -> Option<ItemCell> {
        let removed = cells.remove_item(|cell| cell.is(item.place, item.tag()))?;
        self.items.fetch_sub(1, Ordering::Relaxed);
        self.item_bytes.fetch_sub(u64::from(item.size), Ordering::Relaxed);
        Some(removed)
    }

    /// Counts anew what every superblock has that is wanted.
    pub(crate) fn count_live<F: DiskFile>(&self, superblocks: &Superblocks<F>) {
        let per_shard = self.each_shard(|shard| {
            let mut live: BTreeMap<u32, ByKind> = BTreeMap::new();
            for cell in shard.items().iter() {
                live.entry(cell.place.superblock()).or_default().items += cell.footprint();
            }
            for cell in shard.registers().iter() {
                live.entry(cell.place.superblock()).or_default().registers += REGISTER_BYTES;
            }
            live
        });
        let mut all: BTreeMap<u32, ByKind> = BTreeMap::new();
        per_shard
            .flatten()
            .for_each(|(number, bytes)| *all.entry(number).or_default() += bytes);
        for superblock in superblocks.all() {
            let live = all.get(&superblock.head.number).copied().unwrap_or_default();
            superblock.live.set(live);
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
            found.extend(shard.items().iter().filter(due).copied());
            if found.len() >= limit {
                return (found, (number + 1) % SHARDS);
            }
        }
        (found, from)
    }

    /// What a superblock has of registers, and of items smaller than `below` bytes, about.
    pub(crate) fn bytes_in(&self, number: u32, below: u64) -> u64 {
        let sums = self.each_shard(|shard| {
            let small = shard.items().iter();
            let small = small.filter(|cell| cell.place.superblock() == number && u64::from(cell.size) < below);
            let registers = shard.registers().iter();
            let registers = registers.filter(|cell| cell.place.superblock() == number).count();
            small.map(ItemCell::footprint).sum::<i64>() + REGISTER_BYTES * i64::try_from(registers).unwrap_or(0)
        });
        u64::try_from(sums.sum::<i64>()).unwrap_or(0)
    }

    /// The cells that point into a superblock.
    pub(crate) fn cells_in(&self, number: u32) -> (Vec<ItemCell>, Vec<RegisterCell>) {
        let mut all = (Vec::new(), Vec::new());
        for (items, registers) in self.each_shard(|shard| {
            let items = shard.items().iter().filter(|cell| cell.place.superblock() == number);
            let registers = shard
                .registers()
                .iter()
                .filter(|cell| cell.place.superblock() == number);
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
        let mut cells = shard.items().find(fingerprint);
        let cell = cells.find(|cell| cell.is(item.place, item.tag()));
        cell.map(ItemCell::state)
    }

    /// Notes what was learnt of an item, if it is still there.
    pub(crate) fn learn(&self, id: &ChunkId, item: &StoredItem, learnt: State) {
        let fingerprint = self.fingerprint(id);
        self.write(fingerprint)
            .learn(id, fingerprint, item, learnt, &self.changes);
    }

    /// Whether the item with this digest, whose record is at `place`, is the one that counts, and not corrupt.
    pub(crate) fn is_live_item(&self, id: &ChunkId, place: Place, sha256: Digest) -> bool {
        let fingerprint = self.fingerprint(id);
        let shard = self.read(fingerprint);
        let mut cells = shard.items().find(fingerprint);
        cells.any(|cell| cell.is(place, tag_of(sha256)) && !cell.state().is_corrupt())
    }

    /// Whether the item whose record is at `place` is the one that counts, corrupt or not.
    pub(crate) fn points_at_item(&self, id: &ChunkId, place: Place, tag: u32) -> bool {
        let fingerprint = self.fingerprint(id);
        let shard = self.read(fingerprint);
        shard.items().find(fingerprint).any(|cell| cell.is(place, tag))
    }

    /// Lets the next look at `id` read the disk.
    pub(crate) fn forget_read(&self, id: &ChunkId) {
        self.write(self.fingerprint(id)).change(id, None);
    }

    /// Whether this cell is still there.
    pub(crate) fn has_cell(&self, cell: &ItemCell) -> bool {
        let shard = self.read(cell.fingerprint);
        shard
            .items()
            .find(cell.fingerprint)
            .any(|there| there.is(cell.place, cell.tag))
    }

    /// Lets go of an item of which nothing is left, not even of which chunk it was.
    pub(crate) fn forget_lost(&self, lost: &ItemCell) {
        let mut shard = self.write(lost.fingerprint);
        let removed = shard
            .cells_of(lost.fingerprint, &self.changes)
            .remove_item(|cell| cell.is(lost.place, lost.tag));
        if removed.is_some() {
            self.items.fetch_sub(1, Ordering::Relaxed);
            self.item_bytes.fetch_sub(u64::from(lost.size), Ordering::Relaxed);
        }
        shard.forget_all();
    }

    /// Whether the register in the record at `place` is the one that counts.
    pub(crate) fn is_live_register(&self, id: &ChunkId, place: Place) -> bool {
        let fingerprint = self.fingerprint(id);
        let shard = self.read(fingerprint);
        shard.registers().find(fingerprint).any(|cell| cell.is_at(place))
    }

    /// Takes a shard as a checkpoint has it.
    pub(crate) fn restore(&self, number: usize, items: &[ItemCell], registers: &[RegisterCell]) {
        let mut shard = self.shards[number].write().unwrap_or_else(PoisonError::into_inner);
        shard.restore(items, registers, &self.changes);
        self.items.fetch_add(items.len() as u64, Ordering::Relaxed);
        let bytes: u64 = items.iter().map(|cell| u64::from(cell.size)).sum();
        self.item_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.registers.fetch_add(registers.len() as u64, Ordering::Relaxed);
    }
}

/// What the index holds of one shard, or of some buckets of it, as others are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldPart {
    /// Items: fingerprint, tag, whether the bytes are damaged, who wants them.
    pub items: Vec<(u64, u32, bool, Wanted)>,
    /// Registers: fingerprint, and what they come to.
    pub registers: Vec<(u64, Brief)>,
}

/// To look for the first cell of a bucket takes about as long as to go over so many.
const SEARCH_CELLS: usize = 8;

/// The cells of a table that are in `buckets`, which are sorted.
fn in_buckets<C: Cell, T>(table: &Table<C>, buckets: &[u16], told: impl Fn(&C) -> T) -> Vec<T> {
    if buckets.len() * SEARCH_CELLS < table.len() {
        let bounds = |bucket: &u16| (u64::from(*bucket) << 48, u64::from(*bucket) << 48 | u64::MAX >> 16);
        let bounds = buckets.iter().map(bounds);
        return bounds
            .flat_map(|(first, last)| table.between(first, last))
            .map(told)
            .collect();
    }
    let mut next = 0;
    let is_told = |cell: &&C| {
        let bucket = held_bucket(cell.fingerprint());
        // Both are sorted: what was passed is not met again.
        while buckets.get(next).is_some_and(|passed| *passed < bucket) {
            next += 1;
        }
        buckets.get(next) == Some(&bucket)
    };
    table.iter().filter(is_told).map(told).collect()
}

impl Index {
    /// Of everything that is held; read it before what it is of.
    pub(crate) fn held_version(&self) -> u64 {
        self.changes.version()
    }

    /// The buckets in which others are to be told something else than at version `since`, sorted, and the version up to
    /// which these are all; none when there was no such version.
    pub(crate) fn held_changes(&self, since: u64) -> Option<(u64, Vec<u16>)> {
        self.changes.since(since)
    }

    /// What shard `number` holds.
    pub(crate) fn held(&self, number: usize) -> HeldPart {
        let shard = self.shards[number].read().unwrap_or_else(PoisonError::into_inner);
        HeldPart {
            items: shard.items().iter().map(ItemCell::told).collect(),
            registers: shard.registers().iter().map(RegisterCell::told).collect(),
        }
    }

    /// What shard `number` holds in `buckets`, which are sorted.
    pub(crate) fn held_in(&self, number: usize, buckets: &[u16]) -> HeldPart {
        let shard = self.shards[number].read().unwrap_or_else(PoisonError::into_inner);
        HeldPart {
            items: in_buckets(shard.items(), buckets, ItemCell::told),
            registers: in_buckets(shard.registers(), buckets, RegisterCell::told),
        }
    }
}

/// What a register takes of a superblock, about: where it stands in a record of its own, its record.
pub(crate) const REGISTER_BYTES: i64 = 512;
