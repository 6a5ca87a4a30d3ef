//! When what others are told of the index last became something else, by buckets of fingerprints.
//!
//! Whoever counts a cluster knows what was told at some version, and asks for what changed behind it. A change that is
//! missed here is a chunk that is counted wrongly until everything is told again. So no cell can be changed but by
//! [`CellsMut`](super::cells::CellsMut), which notes its fingerprint here, and by what puts others in the place of all of
//! them, which notes all. Both do so under the lock of the shard, and versions and buckets are under one lock, so:
//!
//! - what [`Changes::since`] leaves out is told as it was at the version asked for, or changes behind the one given;
//! - what changes while it is told has a later version than was given with it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buckets of fingerprints. Of a million chunks, each has some fifteen.
pub const HELD_BUCKETS: usize = 1 << 16;

/// The bucket of a fingerprint: its highest bits, so that each is one stretch of a table.
pub const fn held_bucket(fingerprint: u64) -> u16 {
    (fingerprint >> 48) as u16
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Changes(Mutex<Noted>);

#[derive(Debug)]
struct Noted {
    /// Rises with every change.
    version: u64,
    /// The last change that may have been of any bucket.
    of_all: u64,
    /// The last change of each bucket.
    of: Box<[u64]>,
}

impl Default for Noted {
    fn default() -> Self {
        Self {
            version: 0,
            of_all: 0,
            of: vec![0; HELD_BUCKETS].into(),
        }
    }
}

impl Changes {
    /// Nothing is left half done under it.
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told of this fingerprint is something else now.
    pub(crate) fn note(&self, fingerprint: u64) {
        let mut noted = self.noted();
        noted.version += 1;
        noted.of[usize::from(held_bucket(fingerprint))] = noted.version;
    }

    /// Whatever is told may be something else now.
    pub(crate) fn note_all(&self) {
        let mut noted = self.noted();
        noted.version += 1;
        noted.of_all = noted.version;
    }

    /// Rises with every change; 0 before the first one.
    pub(crate) fn version(&self) -> u64 {
        self.noted().version
    }

    /// The buckets that changed behind version `since`, in order, and the version up to which these are all; none when
    /// there was no such version.
    pub(crate) fn since(&self, since: u64) -> Option<(u64, Vec<u16>)> {
        let noted = self.noted();
        if since > noted.version {
            return None;
        }
        if since == noted.version {
            return Some((since, Vec::new()));
        }
        let is_later = |of: u64| of.max(noted.of_all) > since;
        let all = (0..=u16::MAX).zip(&*noted.of);
        let changed = all.filter(|(_, of)| is_later(**of)).map(|(bucket, _)| bucket);
        Some((noted.version, changed.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn fingerprint(bucket: u16) -> u64 {
        (bucket as u64) << 48 | 0x1234
    }

    #[test]
    fn what_changed_is_known_behind_every_version() {
        let changes = Changes::default();
        assert_eq!((changes.version(), changes.since(0)), (0, Some((0, vec![]))));
        assert_eq!(changes.since(1), None, "that is no version of this process");
        for bucket in [7, u16::MAX, 7, 0] {
            changes.note(fingerprint(bucket));
        }
        assert_eq!(changes.since(0), Some((4, vec![0, 7, u16::MAX])));
        assert_eq!(changes.since(1), Some((4, vec![0, 7, u16::MAX])));
        assert_eq!(changes.since(2), Some((4, vec![0, 7])));
        assert_eq!(changes.since(3), Some((4, vec![0])));
        assert_eq!(changes.since(4), Some((4, vec![])));
        assert_eq!(changes.since(5), None);
        changes.note_all();
        let (version, all) = changes.since(4).unwrap();
        assert_eq!((version, all.len()), (5, HELD_BUCKETS));
        assert!(all.is_sorted());
        assert_eq!(changes.since(5), Some((5, vec![])));
        changes.note(fingerprint(9));
        assert_eq!(changes.since(5), Some((6, vec![9])));
    }
}
