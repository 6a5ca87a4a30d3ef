//! What the index keeps in memory of an item and of a register, and a part of the index that is locked as one.

use std::{collections::HashMap, mem, sync::Arc};

use vstack_chunkpaxos::Brief;
use vstack_types::ChunkId;

use super::entry::{Entry, Place, State, StoredItem};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    pub(crate) fn set_state(&mut self, state: State) {
        self.state = pack(state, self.wanted());
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
        let size = self.size as i64;
        if size >= 64 * 1024 { size + 2 * 4096 } else { size + 512 }
    }
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

/// A part of the index.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub items: Table<ItemCell>,
    pub registers: Table<RegisterCell>,
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

impl Shard {
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
    pub(crate) fn learn(&mut self, id: &ChunkId, fingerprint: u64, item: &StoredItem, learnt: State) {
        let Some(cell) = self.items.find_mut(fingerprint, |cell| cell.is(item.place, item.tag())) else {
            return;
        };
        let state = cell.state().then(learnt);
        cell.set_state(state);
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
