//! The last verified chunks, by their digest, within a limit of bytes. The least recently used goes first.

use std::collections::HashMap;

use bytes::Bytes;
use vstack_types::Digest;

#[derive(Debug)]
pub(crate) struct Cache {
    limit: usize,
    held: usize,
    /// Bytes of the limit that are others'.
    left: usize,
    clock: u64,
    /// When each was last used, and its bytes.
    entries: HashMap<Digest, (u64, Bytes)>,
}

impl Cache {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            held: 0,
            left: 0,
            clock: 0,
            entries: HashMap::new(),
        }
    }

    pub(crate) fn get(&mut self, digest: &Digest) -> Option<Bytes> {
        self.clock += 1;
        let (used, bytes) = self.entries.get_mut(digest)?;
        *used = self.clock;
        Some(bytes.clone())
    }

    pub(crate) fn put(&mut self, digest: Digest, bytes: Bytes) {
        if bytes.len() > self.limit {
            return;
        }
        self.clock += 1;
        self.held += bytes.len();
        if let Some((_, old)) = self.entries.insert(digest, (self.clock, bytes)) {
            self.held -= old.len();
        }
        self.keep_within();
    }

    /// Leaves so many bytes of the limit to others.
    pub(crate) fn leave(&mut self, bytes: usize) {
        self.left = bytes;
        self.keep_within();
    }

    fn keep_within(&mut self) {
        // A linear search: some dozens of chunks are held, and each took a transfer.
        while self.held + self.left > self.limit {
            let Some(oldest) = self
                .entries
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(digest, _)| *digest)
            else {
                return;
            };
            if let Some((_, bytes)) = self.entries.remove(&oldest) {
                self.held -= bytes.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let chunk = |byte: u8| (Digest::of(&[byte]), Bytes::from(vec![byte; 10]));
        let mut cache = Cache::new(30);
        for byte in 0..3 {
            let (digest, bytes) = chunk(byte);
            cache.put(digest, bytes);
        }
        assert!(cache.get(&chunk(0).0).is_some());
        let (digest, bytes) = chunk(3);
        cache.put(digest, bytes.clone());
        cache.put(digest, bytes);
        let left: Vec<bool> = (0..4).map(|byte| cache.get(&chunk(byte).0).is_some()).collect();
        assert_eq!(left, [true, false, true, true]);
        assert_eq!(cache.held, 30);
        cache.put(Digest::of(b"large"), Bytes::from(vec![0; 31]));
        assert_eq!(cache.get(&Digest::of(b"large")), None);
    }

    #[test]
    fn what_is_left_to_others_is_not_used() {
        let chunk = |byte: u8| (Digest::of(&[byte]), Bytes::from(vec![byte; 10]));
        let mut cache = Cache::new(30);
        for (left, held) in [(0, 30), (5, 20), (40, 0), (10, 20)] {
            cache.leave(left);
            for byte in 0..3 {
                let (digest, bytes) = chunk(byte);
                cache.put(digest, bytes);
            }
            assert_eq!(cache.held, held, "{left} are left");
        }
        cache.leave(11);
        assert_eq!(cache.held, 10, "at once");
    }
}
