//! What is held, told from memory alone: for those who count a whole cluster.

use vstack_types::FingerprintKey;

use crate::{
    disk::Disk,
    index::{HeldPart, SHARDS},
    reader::Reader,
};

/// Parts in which it is told.
pub const HELD_PARTS: usize = SHARDS;

impl<D: Disk> Reader<D> {
    /// By which what is held goes by short names.
    pub fn fingerprint_key(&self) -> FingerprintKey {
        self.0.index.fingerprint_key()
    }

    /// Items held, damaged ones too until they are replaced.
    pub fn held_items(&self) -> u64 {
        self.0.index.item_count()
    }

    /// Rises with every change of what is told of what is held; counts from 0 in every process. What is read after it
    /// is of this version or a later one.
    pub fn held_version(&self) -> u64 {
        self.0.index.held_version()
    }

    /// The [buckets](crate::held_bucket) of which something else is told now than at version `since`, in order, and the
    /// version of which that is, as by [`Self::held_version`]: what is read of them afterwards, with what was told of
    /// all others at `since`, is of this version or a later one. None when this process had no such version.
    pub fn held_changes(&self, since: u64) -> Option<(u64, Vec<u16>)> {
        self.0.index.held_changes(since)
    }

    /// One of [`HELD_PARTS`] parts of it; nothing when there is no such part.
    pub fn held(&self, part: usize) -> HeldPart {
        if part < HELD_PARTS {
            self.0.index.held(part)
        } else {
            HeldPart::default()
        }
    }

    /// The same, of these buckets alone, which are in order.
    pub fn held_in(&self, part: usize, buckets: &[u16]) -> HeldPart {
        if part < HELD_PARTS {
            self.0.index.held_in(part, buckets)
        } else {
            HeldPart::default()
        }
    }
}
