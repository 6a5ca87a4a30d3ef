//! What is where: for every chunk id its items and its register, in memory.
//!
//! Holds only what is durable: the writer changes copies of entries and puts them here after the sync.
//! Ordered by id, so that all of one video's are together, and by log sequence number for paging.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use vstack_chunkpaxos::Register;
use vstack_types::{ChunkId, Digest, Monotonic, NodeRef, Timestamp, planted};

use crate::record::{Change, Kind};

/// Where an item's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub superblock: u32,
    /// Of the payload, in bytes from the start of the file.
    pub offset: u64,
}

/// States of [`StoredItem::state`]; any other value is the moment of the last check, in ms, plus [`CHECKED_BASE`].
const UNCHECKED: u64 = 0;
const HASHED_ON_ARRIVAL: u64 = 1;
const CHECKED_BASE: u64 = 2;
const CORRUPT: u64 = u64::MAX;

/// An item of a chunk.
#[derive(Debug)]
pub(crate) struct StoredItem {
    pub sha256: Digest,
    pub size: u32,
    pub place: Place,
    pub lsn: u64,
    pub time: Timestamp,
    /// The log says that it is damaged.
    pub quarantined: bool,
    /// Shared by readers and writer: whoever verifies tells the others.
    state: AtomicU64,
}

impl StoredItem {
    /// The same, with a state of its own from here on.
    fn copy(&self) -> Self {
        Self {
            sha256: self.sha256,
            size: self.size,
            place: self.place,
            lsn: self.lsn,
            time: self.time,
            quarantined: self.quarantined,
            state: AtomicU64::new(self.state.load(Ordering::Acquire)),
        }
    }

    pub(crate) fn is_corrupt(&self) -> bool {
        self.state.load(Ordering::Acquire) == CORRUPT
    }

    /// Its bytes were hashed since the process started: on arrival, or read back.
    pub(crate) fn is_verified(&self) -> bool {
        !matches!(self.state.load(Ordering::Acquire), UNCHECKED | CORRUPT)
    }

    /// Its bytes were read back from the disk and hashed within `period`.
    pub(crate) fn was_read_back(&self, now: Monotonic, period: Duration) -> bool {
        match self.state.load(Ordering::Acquire) {
            UNCHECKED | HASHED_ON_ARRIVAL | CORRUPT => false,
            checked => {
                let at = Monotonic::from_start(Duration::from_millis(checked - CHECKED_BASE));
                now.since(at) <= period
            }
        }
    }

    pub(crate) fn set_checked(&self, now: Monotonic) {
        let ms = u64::try_from(now.since_start().as_millis())
            .unwrap_or(0)
            .saturating_add(CHECKED_BASE);
        // Corrupt is for ever: a page that reads well once again is not trusted.
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (state != CORRUPT).then_some(ms.min(CORRUPT - 1))
        });
    }

    pub(crate) fn set_corrupt(&self) {
        self.state.store(CORRUPT, Ordering::Release);
    }
}

/// A register and when it last changed.
#[derive(Debug)]
pub(crate) struct StoredRegister {
    pub register: Register,
    pub lsn: u64,
    pub time: Timestamp,
}

/// All there is under one id. Cheap to copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub items: Vec<Arc<StoredItem>>,
    pub register: Option<Arc<StoredRegister>>,
}

/// Whether an item's bytes are known to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Written by this process, from bytes it hashed.
    Arrived,
    /// Found in the log.
    Found,
    /// The log says it was here, but not where.
    Lost,
}

/// Where and when a change stands in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logged {
    pub lsn: u64,
    pub time: Timestamp,
    pub place: Place,
    pub origin: Origin,
}

impl Entry {
    /// The item with this digest, corrupt or not.
    pub(crate) fn item(&self, sha256: Digest) -> Option<&Arc<StoredItem>> {
        self.items.iter().find(|item| item.sha256 == sha256)
    }

    /// Items not known to be corrupt.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Arc<StoredItem>> {
        self.items.iter().filter(|item| !item.is_corrupt())
    }

    pub(crate) fn register(&self) -> Register {
        self.register
            .as_ref()
            .map(|stored| stored.register.clone())
            .unwrap_or_default()
    }

    /// Whether the accepted placement's layout assigns the item to `me`: the register vouches for it.
    pub(crate) fn vouches_for(&self, me: NodeRef, sha256: Digest) -> bool {
        let vote = self
            .register
            .as_ref()
            .and_then(|stored| stored.register.accepted.as_ref());
        vote.is_some_and(|vote| vote.placement.items_of(&vote.placement.layout, me).contains(&sha256))
    }

    /// Whether either half of the accepted placement names the item for `me`.
    pub(crate) fn keeps(&self, me: NodeRef, sha256: Digest) -> bool {
        let vote = self
            .register
            .as_ref()
            .and_then(|stored| stored.register.accepted.as_ref());
        vote.is_some_and(|vote| vote.placement.keeps(me, sha256))
    }

    fn replace(&mut self, new: StoredItem) {
        self.items.retain(|item| item.sha256 != new.sha256);
        self.items.push(Arc::new(new));
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.register.is_none()
    }

    /// Makes the change that the log has at `logged`.
    pub(crate) fn apply(&mut self, change: &Change, logged: Logged) {
        match change.kind {
            Kind::Item => {
                self.items.retain(|item| item.sha256 != change.sha256);
                let state = match logged.origin {
                    Origin::Arrived => HASHED_ON_ARRIVAL,
                    Origin::Found if planted!("bytes count as verified after a restart") => HASHED_ON_ARRIVAL,
                    Origin::Found => UNCHECKED,
                    Origin::Lost => CORRUPT,
                };
                self.items.push(Arc::new(StoredItem {
                    sha256: change.sha256,
                    size: change.size,
                    place: logged.place,
                    lsn: logged.lsn,
                    time: logged.time,
                    quarantined: false,
                    state: AtomicU64::new(state),
                }));
            }
            Kind::Tombstone => self.items.retain(|item| item.sha256 != change.sha256),
            Kind::Quarantine => {
                if let Some(item) = self.item(change.sha256) {
                    // Whoever holds the old one is not to serve it either.
                    item.set_corrupt();
                    let quarantined = StoredItem {
                        quarantined: true,
                        ..item.copy()
                    };
                    self.replace(quarantined);
                }
            }
            Kind::Touch => {
                if let Some(item) = self.item(change.sha256) {
                    let touched = StoredItem {
                        time: logged.time,
                        ..item.copy()
                    };
                    self.replace(touched);
                }
            }
            Kind::Vote | Kind::Commit => {}
        }
        if let Some(register) = &change.register {
            let register = register.clone();
            self.register = Some(Arc::new(StoredRegister {
                register,
                lsn: logged.lsn,
                time: logged.time,
            }));
        }
    }
}

/// An item as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedItem {
    /// Log sequence number: the cursor of a page that ends with this one.
    pub lsn: u64,
    /// Of which chunk.
    pub id: ChunkId,
    /// Bytes.
    pub size: u32,
    /// Of its bytes.
    pub sha256: Digest,
    /// The accepted placement names it for this node.
    pub placed: bool,
}

/// A register as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRegister {
    /// Log sequence number: the cursor of a page that ends with this one.
    pub lsn: u64,
    /// Of which chunk.
    pub id: ChunkId,
    /// Its state.
    pub register: Register,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<ChunkId, Entry>,
    items_by_lsn: BTreeMap<u64, (ChunkId, Digest)>,
    registers_by_lsn: BTreeMap<u64, ChunkId>,
    live_bytes: u64,
}

impl Index {
    pub(crate) fn get(&self, id: &ChunkId) -> Option<&Entry> {
        self.entries.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ChunkId, &Entry)> {
        self.entries.iter()
    }

    /// Items held, damaged ones too until they are replaced.
    pub(crate) fn item_count(&self) -> u64 {
        self.items_by_lsn.len() as u64
    }

    pub(crate) fn register_count(&self) -> u64 {
        self.registers_by_lsn.len() as u64
    }

    pub(crate) fn item_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Puts `entry` in the place of what is there under `id`.
    pub(crate) fn put(&mut self, id: ChunkId, entry: Entry) {
        if let Some(old) = self.entries.remove(&id) {
            for item in &old.items {
                self.items_by_lsn.remove(&item.lsn);
                self.live_bytes -= u64::from(item.size);
            }
            if let Some(register) = &old.register {
                self.registers_by_lsn.remove(&register.lsn);
            }
        }
        if entry.is_empty() {
            return;
        }
        for item in &entry.items {
            self.items_by_lsn.insert(item.lsn, (id.clone(), item.sha256));
            self.live_bytes += u64::from(item.size);
        }
        if let Some(register) = &entry.register {
            self.registers_by_lsn.insert(register.lsn, id.clone());
        }
        self.entries.insert(id, entry);
    }

    /// Entries whose id begins with `prefix`.
    fn with_prefix<'a>(&'a self, prefix: &'a ChunkId) -> impl Iterator<Item = (&'a ChunkId, &'a Entry)> {
        self.entries
            .range(prefix.clone()..)
            .take_while(move |(id, _)| id.as_str().starts_with(prefix.as_str()))
    }

    /// At most `limit` items after `cursor`, in log order.
    pub(crate) fn list_items(
        &self,
        me: NodeRef,
        cursor: u64,
        limit: usize,
        prefix: Option<&ChunkId>,
    ) -> Vec<ListedItem> {
        let listed = |id: &ChunkId, entry: &Entry, item: &StoredItem| ListedItem {
            lsn: item.lsn,
            id: id.clone(),
            size: item.size,
            sha256: item.sha256,
            placed: entry.keeps(me, item.sha256),
        };
        let Some(prefix) = prefix else {
            let after = self.items_by_lsn.range(cursor.saturating_add(1)..);
            return after
                .filter_map(|(_, (id, sha256))| {
                    let entry = self.entries.get(id)?;
                    let item = entry.item(*sha256).filter(|item| !item.is_corrupt())?;
                    Some(listed(id, entry, item))
                })
                .take(limit)
                .collect();
        };
        let mut found: Vec<_> = self
            .with_prefix(prefix)
            .flat_map(|(id, entry)| entry.live().map(move |item| (id, entry, item)))
            .filter(|(_, _, item)| item.lsn > cursor)
            .collect();
        found.sort_unstable_by_key(|(_, _, item)| item.lsn);
        found
            .into_iter()
            .take(limit)
            .map(|(id, entry, item)| listed(id, entry, item))
            .collect()
    }

    /// At most `limit` registers after `cursor`, in log order. A register that changes moves to the end.
    pub(crate) fn list_registers(&self, cursor: u64, limit: usize, prefix: Option<&ChunkId>) -> Vec<ListedRegister> {
        let listed = |id: &ChunkId, stored: &StoredRegister| ListedRegister {
            lsn: stored.lsn,
            id: id.clone(),
            register: stored.register.clone(),
        };
        let Some(prefix) = prefix else {
            let after = self.registers_by_lsn.range(cursor.saturating_add(1)..);
            return after
                .filter_map(|(_, id)| Some(listed(id, self.entries.get(id)?.register.as_ref()?)))
                .take(limit)
                .collect();
        };
        let mut found: Vec<_> = self
            .with_prefix(prefix)
            .filter_map(|(id, entry)| Some((id, entry.register.as_ref()?)))
            .filter(|(_, stored)| stored.lsn > cursor)
            .collect();
        found.sort_unstable_by_key(|(_, stored)| stored.lsn);
        found
            .into_iter()
            .take(limit)
            .map(|(id, stored)| listed(id, stored))
            .collect()
    }
}
