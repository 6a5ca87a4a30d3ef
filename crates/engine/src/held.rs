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

    /// Rises with every change of what is held; counts from 0 in every process. What is read after it is of this version
    /// or a later one.
    pub fn held_version(&self) -> u64 {
        self.0.index.held_version()
    }

    /// One of [`HELD_PARTS`] parts of it; nothing when there is no such part.
    pub fn held(&self, part: usize) -> HeldPart {
        if part < HELD_PARTS {
            self.0.index.held(part)
        } else {
            HeldPart::default()
        }
    }
}
