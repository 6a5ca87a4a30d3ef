//! What the index keeps in memory of an item and of a register, and a part of the index that is locked as one.

use std::{collections::HashMap, mem, sync::Arc};

use vstack_chunkpaxos::Brief;
use vstack_types::ChunkId;

use super::{
    HeldPart,
    changes::Changes,
    entry::{Entry, Place, State, StoredItem},
};
use crate::table::{Cell, Table};

/// What has to be known of an item without a look at the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ItemCell {
    pub fingerprint: u64,
    pub place: Place,
    pub size: u32,
    /// Of its digest: see [`StoredItem::tag`].
    pub tag: u32,
    /// When it came, in seconds since 1970.
    pub time_s: u32,
    state: u32,
}

/// The two highest values of a state are the corrupt ones; these bits are not used by any moment of the next 13 years.
const WANTED_BITS: u32 = 30;

/// Who wants an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// The accepted placement names it for this node.
    Placed = 0,
    /// Nothing was ever accepted: it waits for a vote.
    Staged = 1,
    /// What was accepted names it no more, or never did.
    Left = 2,
}

impl ItemCell {
    pub(crate) fn new(fingerprint: u64, item: &StoredItem, wanted: Wanted) -> Self {
        Self {
            fingerprint,
            place: item.place,
            size: item.size,
            tag: item.tag(),
            time_s: u32::try_from(item.time.0 / 1000).unwrap_or(if item.time.0 < 0 { 0 } else { u32::MAX }),
            state: pack(item.state, wanted),
        }
    }

    pub(crate) fn is(&self, place: Place, tag: u32) -> bool {
        self.place == place && self.tag == tag
    }

    pub(crate) const fn state(&self) -> State {
        let code = self.state & ((1 << WANTED_BITS) - 1);
        // The corrupt ones lose their highest bits here, too.
        if code >= (1 << WANTED_BITS) - 2 {
            State::from_code(code | !((1 << WANTED_BITS) - 1))
        } else {
            State::from_code(code)
        }
    }

    pub(crate) const fn wanted(&self) -> Wanted {
        match self.state >> WANTED_BITS {
            0 => Wanted::Placed,
            1 => Wanted::Staged,
            _ => Wanted::Left,
        }
    }

    fn set_state(&mut self, state: State) {
        self.state = pack(state, self.wanted());
    }

    /// What others are told of it: fingerprint, tag, whether the bytes are damaged, who wants them.
    pub(crate) const fn told(&self) -> (u64, u32, bool, Wanted) {
        (self.fingerprint, self.tag, self.state().is_corrupt(), self.wanted())
    }

    /// Its state as another process finds it, for a checkpoint.
    pub(crate) fn as_found(&self) -> u32 {
        pack(self.state().as_found(), self.wanted())
    }

    /// As a checkpoint has it: size, tag, time and state.
    pub(crate) const fn from_parts(fingerprint: u64, place: Place, parts: [u32; 4]) -> Self {
        let [size, tag, time_s, state] = parts;
        Self {
            fingerprint,
            place,
            size,
            tag,
            time_s,
            state,
        }
    }

    /// What its record takes of a superblock, about.
    pub(crate) const fn footprint(&self) -> i64 {
        item_bytes(self.size)
    }
}

/// What an item of `size` bytes takes of a superblock, about.
pub(crate) const fn item_bytes(size: u32) -> i64 {
    size as i64 + 512
}

fn pack(state: State, wanted: Wanted) -> u32 {
    let mask = (1 << WANTED_BITS) - 1;
    let code = if state.is_corrupt() {
        state.code() & mask
    } else {
        state.code().min(mask - 2)
    };
    code | (wanted as u32) << WANTED_BITS
}

impl Cell for ItemCell {
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// Where a register is, and what it comes to. Without packing it took 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(4))]
pub(crate) struct RegisterCell {
    pub fingerprint: u64,
    pub place: Place,
    pub brief: Brief,
}

impl RegisterCell {
    /// A field of a packed struct cannot be borrowed, as comparing does.
    pub(crate) fn is_at(&self, place: Place) -> bool {
        let here = self.place;
        here == place
    }

    /// What others are told of it: fingerprint, and what it comes to.
    pub(crate) const fn told(&self) -> (u64, Brief) {
        (self.fingerprint, self.brief)
    }
}

impl Cell for RegisterCell {
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// Entries that were used lately, of one shard; more are read from the disk.
const RECENT_MAX: usize = 48;

/// Keeps what was used in this generation or the one before.
#[derive(Debug, Default)]
struct Recent {
    young: HashMap<ChunkId, Arc<Entry>>,
    old: HashMap<ChunkId, Arc<Entry>>,
}

impl Recent {
    fn get(&self, id: &ChunkId) -> Option<&Arc<Entry>> {
        self.young.get(id).or_else(|| self.old.get(id))
    }

    fn get_mut(&mut self, id: &ChunkId) -> Option<&mut Arc<Entry>> {
        match self.young.get_mut(id) {
            None => self.old.get_mut(id),
            found => found,
        }
    }

    fn forget(&mut self, id: &ChunkId) {
        self.young.remove(id);
        self.old.remove(id);
    }

    fn insert(&mut self, id: ChunkId, entry: Arc<Entry>) {
        self.old.remove(&id);
        if self.young.len() >= RECENT_MAX / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(id, entry);
    }
}

/// A part of the index. Its cells are changed by [`Shard::cells_of`] and [`Shard::restore`] alone, which note it.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    items: Table<ItemCell>,
    registers: Table<RegisterCell>,
    recent: Recent,
    /// Of everything in it: what was read from the disk for an older one may be outdated.
    version: u64,
}

/// The cells with one fingerprint, and of which version.
#[derive(Debug)]
pub(crate) struct Cells {
    pub items: Vec<ItemCell>,
    pub registers: Vec<RegisterCell>,
    pub version: u64,
}

/// The cells with one fingerprint, to be changed. When that is done, and before anybody else sees the shard, it is
/// noted if others are to be told something else of them than before.
#[derive(Debug)]
pub(crate) struct CellsMut<'a> {
    items: &'a mut Table<ItemCell>,
    registers: &'a mut Table<RegisterCell>,
    fingerprint: u64,
    changes: &'a Changes,
    before: HeldPart,
}

impl CellsMut<'_> {
    fn told(&self) -> HeldPart {
        told_of(self.items, self.registers, self.fingerprint)
    }

    /// What is known of an item, when it is there.
    pub(crate) fn state(&self, item: &StoredItem) -> Option<State> {
        let mut cells = self.items.find(self.fingerprint);
        cells.find(|cell| cell.is(item.place, item.tag())).map(ItemCell::state)
    }

    /// Notes what was learnt of an item; gives what is known of it by now, when it is there.
    fn learn(&mut self, item: &StoredItem, learnt: State) -> Option<State> {
        let is_it = |cell: &ItemCell| cell.is(item.place, item.tag());
        let cell = self.items.find_mut(self.fingerprint, is_it)?;
        let state = cell.state().then(learnt);
        cell.set_state(state);
        Some(state)
    }

    /// Puts an item there, or in the place of the same one.
    pub(crate) fn put_item(&mut self, item: &StoredItem, wanted: Wanted) -> ItemCell {
        let cell = ItemCell::new(self.fingerprint, item, wanted);
        let is_it = |cell: &ItemCell| cell.is(item.place, item.tag());
        match self.items.find_mut(self.fingerprint, is_it) {
            Some(known) => *known = cell,
            None => self.items.insert(cell),
        }
        cell
    }

    /// Takes out an item.
    pub(crate) fn remove_item(&mut self, which: impl Fn(&ItemCell) -> bool) -> Option<ItemCell> {
        self.items.remove(self.fingerprint, which)
    }

    /// Puts a register there.
    pub(crate) fn insert_register(&mut self, place: Place, brief: Brief) {
        self.registers.insert(RegisterCell {
            fingerprint: self.fingerprint,
            place,
            brief,
        });
    }

    /// Takes out a register.
    pub(crate) fn remove_register(&mut self, place: Place) -> Option<RegisterCell> {
        self.registers.remove(self.fingerprint, |cell| cell.is_at(place))
    }
}

impl Drop for CellsMut<'_> {
    fn drop(&mut self) {
        if self.told() != self.before {
            self.changes.note(self.fingerprint);
        }
    }
}

/// What others are told of a fingerprint, in an order of its own: that of the cells says nothing.
fn told_of(items: &Table<ItemCell>, registers: &Table<RegisterCell>, fingerprint: u64) -> HeldPart {
    let mut told = HeldPart {
        items: items.find(fingerprint).map(ItemCell::told).collect(),
        registers: registers.find(fingerprint).map(RegisterCell::told).collect(),
    };
    told.items.sort_unstable();
    told.registers.sort_unstable();
    told
}

impl Shard {
    pub(crate) const fn items(&self) -> &Table<ItemCell> {
        &self.items
    }

    pub(crate) const fn registers(&self) -> &Table<RegisterCell> {
        &self.registers
    }

    /// The cells with this fingerprint, to be changed under the lock of this shard.
    pub(crate) fn cells_of<'a>(&'a mut self, fingerprint: u64, changes: &'a Changes) -> CellsMut<'a> {
        CellsMut {
            before: told_of(&self.items, &self.registers, fingerprint),
            items: &mut self.items,
            registers: &mut self.registers,
            fingerprint,
            changes,
        }
    }

    /// Puts these cells in the place of all that there are.
    pub(crate) fn restore(&mut self, items: &[ItemCell], registers: &[RegisterCell], changes: &Changes) {
        self.items = Table::with_room(items.len());
        self.registers = Table::with_room(registers.len());
        items.iter().for_each(|cell| self.items.insert(*cell));
        registers.iter().for_each(|cell| self.registers.insert(*cell));
        self.forget_all();
        changes.note_all();
    }

    pub(crate) fn recent(&self, id: &ChunkId) -> Option<Arc<Entry>> {
        self.recent.get(id).cloned()
    }

    pub(crate) fn cells(&self, fingerprint: u64) -> Cells {
        Cells {
            items: self.items.find(fingerprint).copied().collect(),
            registers: self.registers.find(fingerprint).copied().collect(),
            version: self.version,
        }
    }

    /// Keeps what was read from the disk for `version`; says whether that is still the one.
    pub(crate) fn keep(&mut self, id: &ChunkId, entry: &Arc<Entry>, version: u64) -> bool {
        if self.version == version {
            self.recent.insert(id.clone(), Arc::clone(entry));
        }
        self.version == version
    }

    /// The shard without what was read lately, for whoever changes cells.
    pub(crate) fn change(&mut self, id: &ChunkId, entry: Option<Arc<Entry>>) {
        self.version += 1;
        match entry {
            Some(entry) => self.recent.insert(id.clone(), entry),
            None => self.recent.forget(id),
        }
    }

    /// Forgets what was read lately, for whoever changes cells without knowing their ids.
    pub(crate) fn forget_all(&mut self) {
        self.version += 1;
        self.recent = Recent::default();
    }

    /// Notes what was learnt of an item.
    pub(crate) fn learn(
        &mut self,
        id: &ChunkId,
        fingerprint: u64,
        item: &StoredItem,
        learnt: State,
        changes: &Changes,
    ) {
        let learnt = self.cells_of(fingerprint, changes).learn(item, learnt);
        let Some(state) = learnt else { return };
        self.version += 1;
        if let Some(entry) = self.recent.get_mut(id)
            && let Some(known) = Arc::make_mut(entry)
                .items
                .iter_mut()
                .find(|known| known.place == item.place && known.sha256 == item.sha256)
        {
            known.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vstack_types::{Digest, Monotonic, Timestamp};

    use super::*;

    fn item(state: State) -> StoredItem {
        StoredItem {
            sha256: Digest::of(b"x"),
            size: 7,
            place: Place::new(3, 8192),
            payload_at: 12288,
            record_len: 8192,
            lsn: 1,
            time: Timestamp(5_000),
            state,
        }
    }

    #[test]
    fn cells_are_small_and_keep_state_and_want_apart() {
        assert_eq!(
            (size_of::<Option<ItemCell>>(), size_of::<Option<RegisterCell>>()),
            (32, 20)
        );
        let checked = State::checked(Monotonic::from_start(Duration::from_secs(1_000_000)));
        for wanted in [Wanted::Placed, Wanted::Staged, Wanted::Left] {
            for state in [
                State::UNCHECKED,
                State::ARRIVED,
                State::CORRUPT,
                State::QUARANTINED,
                checked,
            ] {
                let mut cell = ItemCell::new(1, &item(state), wanted);
                assert_eq!((cell.state(), cell.wanted(), cell.time_s), (state, wanted, 5));
                cell.set_state(State::ARRIVED);
                assert_eq!((cell.state(), cell.wanted()), (State::ARRIVED, wanted));
            }
        }
        let late = ItemCell::new(
            1,
            &item(State::checked(Monotonic::from_start(Duration::MAX))),
            Wanted::Placed,
        );
        assert!(late.state().is_verified());
    }
}
