//! What there is under one id: its items and its register, as the log has them.

use std::{num::NonZeroU64, time::Duration};

use vstack_chunkpaxos::Register;
use vstack_types::{Digest, Monotonic, NodeRef, Timestamp, planted};

use crate::record::{ALIGN, Change, Kind};

/// Where a record begins: no two do at the same place, and none is ever used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place(NonZeroU64);

impl Place {
    /// `offset` bytes into `superblock`.
    ///
    /// # Panics
    /// When no record can begin there: heads come before the first one, and all begin at multiples of 64 below 4 GiB.
    pub(crate) fn new(superblock: u32, offset: u64) -> Self {
        let unit = u32::try_from(offset / ALIGN as u64).expect("superblocks have at most 4 GiB");
        let packed = u64::from(superblock) << 32 | u64::from(unit);
        Self(NonZeroU64::new(packed).expect("no record begins at the head"))
    }

    /// The same as one number, for a checkpoint.
    pub(crate) const fn packed(self) -> u64 {
        self.0.get()
    }

    pub(crate) fn from_packed(packed: u64) -> Option<Self> {
        NonZeroU64::new(packed).map(Self)
    }

    pub(crate) const fn superblock(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    pub(crate) const fn offset(self) -> u64 {
        (self.0.get() & 0xffff_ffff) * ALIGN as u64
    }
}

/// What is known of an item's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u32);

/// Moments of checks are kept to this length.
const TICK_MS: u128 = 100;

impl State {
    /// Nothing since the process started.
    pub(crate) const UNCHECKED: Self = Self(0);
    /// They were hashed when they came, and written.
    pub(crate) const ARRIVED: Self = Self(1);
    /// They are damaged, or gone.
    pub(crate) const CORRUPT: Self = Self(u32::MAX - 1);
    /// And the log says so.
    pub(crate) const QUARANTINED: Self = Self(u32::MAX);

    /// They were read back and matched at `now`.
    pub(crate) fn checked(now: Monotonic) -> Self {
        let ticks = u32::try_from(now.since_start().as_millis() / TICK_MS).unwrap_or(u32::MAX);
        Self(ticks.saturating_add(2).min(Self::CORRUPT.0 - 1))
    }

    pub(crate) const fn is_corrupt(self) -> bool {
        self.0 >= Self::CORRUPT.0
    }

    /// The bytes were hashed since the process started: on arrival, or read back.
    pub(crate) const fn is_verified(self) -> bool {
        self.0 != Self::UNCHECKED.0 && !self.is_corrupt()
    }

    /// The bytes were read back from the disk and hashed within `period`.
    pub(crate) fn was_read_back(self, now: Monotonic, period: Duration) -> bool {
        if !self.is_verified() || self == Self::ARRIVED {
            return false;
        }
        let at = Duration::from_millis(u64::from(self.0 - 2) * 100);
        now.since(Monotonic::from_start(at)) <= period
    }

    /// What is known when this is learnt as well: that bytes are corrupt is for ever, a page that reads well once again
    /// is not trusted.
    pub(crate) const fn then(self, learnt: Self) -> Self {
        if self.is_corrupt() && self.0 > learnt.0 {
            self
        } else {
            learnt
        }
    }

    /// For a checkpoint: what another process checked counts as unchecked.
    pub(crate) const fn as_found(self) -> Self {
        if self.is_corrupt() { self } else { Self::UNCHECKED }
    }

    pub(crate) const fn code(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_code(code: u32) -> Self {
        Self(code)
    }
}

/// An item of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredItem {
    pub sha256: Digest,
    pub size: u32,
    /// Of the record that holds it; of the commit record that names it when that one is lost.
    pub place: Place,
    /// Of its bytes in the file.
    pub payload_at: u64,
    /// Of the whole record.
    pub record_len: u32,
    pub lsn: u64,
    pub time: Timestamp,
    pub state: State,
}

impl StoredItem {
    /// Tells items of one chunk apart that one commit record names.
    pub(crate) fn tag(&self) -> u32 {
        tag_of(self.sha256)
    }

    pub(crate) const fn is_corrupt(&self) -> bool {
        self.state.is_corrupt()
    }
}

pub(crate) fn tag_of(sha256: Digest) -> u32 {
    let bytes = sha256.as_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A register and when it last changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRegister {
    pub register: Register,
    /// Of the record that holds it; of the commit record that repeats it when that one is lost.
    pub place: Place,
    pub lsn: u64,
    pub time: Timestamp,
}

/// All there is under one id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub items: Vec<StoredItem>,
    pub register: Option<StoredRegister>,
    /// Tags of items that are known to have been here, and of which nothing is left.
    pub gone: Vec<u32>,
}

/// Whether an item's bytes are known to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Written by this process, from bytes it hashed.
    Arrived,
    /// Written by this process, from bytes that it read back and hashed then.
    Moved(State),
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
    pub payload_at: u64,
    pub record_len: u32,
    pub origin: Origin,
}

impl Entry {
    /// The item with this digest, corrupt or not.
    pub(crate) fn item(&self, sha256: Digest) -> Option<&StoredItem> {
        self.items.iter().find(|item| item.sha256 == sha256)
    }

    fn item_mut(&mut self, sha256: Digest) -> Option<&mut StoredItem> {
        self.items.iter_mut().find(|item| item.sha256 == sha256)
    }

    /// Whether an item with this digest was here, and nothing is left of it.
    pub(crate) fn lost(&self, sha256: Digest) -> bool {
        self.gone.contains(&tag_of(sha256))
    }

    /// Items not known to be corrupt.
    pub(crate) fn live(&self) -> impl Iterator<Item = &StoredItem> {
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

    /// Whether no vote stands or ever stood on the items: they vouch for nothing. Where votes were lost, one may stand.
    pub(crate) fn is_staging(&self) -> bool {
        let unvoted = |register: &Register| register.accepted.is_none() && !register.votes_lost();
        self.register.as_ref().is_none_or(|stored| unvoted(&stored.register))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.register.is_none() && self.gone.is_empty()
    }

    /// Makes the change that the log has at `logged`.
    pub(crate) fn apply(&mut self, change: &Change, logged: Logged) {
        match change.kind {
            Kind::Item => {
                self.items.retain(|item| item.sha256 != change.sha256);
                self.gone.retain(|tag| *tag != tag_of(change.sha256));
                self.items.push(StoredItem {
                    sha256: change.sha256,
                    size: change.size,
                    place: logged.place,
                    payload_at: logged.payload_at,
                    record_len: logged.record_len,
                    lsn: logged.lsn,
                    time: logged.time,
                    state: match logged.origin {
                        Origin::Arrived => State::ARRIVED,
                        Origin::Moved(state) => state,
                        Origin::Found if planted!("bytes count as verified after a restart") => State::ARRIVED,
                        Origin::Found => State::UNCHECKED,
                        Origin::Lost => State::CORRUPT,
                    },
                });
            }
            Kind::Tombstone => {
                self.items.retain(|item| item.sha256 != change.sha256);
                // Behind a checkpoint its bytes may be gone already: no loss, it was given up.
                self.gone.retain(|tag| *tag != tag_of(change.sha256));
            }
            Kind::Quarantine => {
                if let Some(item) = self.item_mut(change.sha256) {
                    item.state = State::QUARANTINED;
                }
            }
            Kind::Touch => {
                if let Some(item) = self.item_mut(change.sha256) {
                    item.time = logged.time;
                }
            }
            Kind::Vote | Kind::Commit => {}
        }
        if let Some(register) = &change.register {
            self.register = Some(StoredRegister {
                register: register.clone(),
                place: logged.place,
                lsn: logged.lsn,
                time: logged.time,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_what_they_were_made_of() {
        for (superblock, offset) in [(0, 8192), (7, 64), (u32::MAX, (1 << 32) - 64)] {
            let place = Place::new(superblock, offset);
            assert_eq!((place.superblock(), place.offset()), (superblock, offset));
            assert_eq!(Place::from_packed(place.packed()), Some(place));
        }
        assert!(Place::from_packed(0).is_none());
        assert_eq!(size_of::<Option<Place>>(), 8);
    }

    #[test]
    fn what_is_known_of_bytes() {
        let at = |seconds| Monotonic::from_start(Duration::from_secs(seconds));
        let day = Duration::from_secs(86_400);
        for state in [State::UNCHECKED, State::CORRUPT, State::QUARANTINED] {
            assert!(!state.is_verified() && !state.was_read_back(at(0), day), "{state:?}");
        }
        assert!(State::ARRIVED.is_verified() && !State::ARRIVED.was_read_back(at(0), day));
        let checked = State::checked(at(100));
        assert!(checked.is_verified() && checked.was_read_back(at(100 + 86_400), day));
        assert!(!checked.was_read_back(at(101 + 86_400), day));
        assert_eq!(State::CORRUPT.then(checked), State::CORRUPT);
        assert_eq!(State::CORRUPT.then(State::QUARANTINED), State::QUARANTINED);
        assert_eq!(State::QUARANTINED.then(State::CORRUPT), State::QUARANTINED);
        assert_eq!(State::ARRIVED.then(checked), checked);
        assert!(!State::checked(Monotonic::from_start(Duration::MAX)).is_corrupt());
    }
}
