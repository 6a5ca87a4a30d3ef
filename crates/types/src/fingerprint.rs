//! Chunk ids in eight bytes, under a key.

use crate::{ChunkId, DigestBuilder};

/// Makes fingerprints of chunk ids that nobody without it can foresee, so that nobody can choose ids that collide.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FingerprintKey([u8; 16]);

impl FingerprintKey {
    /// Of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first eight bytes of SHA-256(key, id), little-endian: in four thousand million chunks on one disk, two share
    /// one about every second time.
    pub fn of(&self, id: &ChunkId) -> u64 {
        let mut digest = DigestBuilder::default();
        digest.update(&self.0);
        digest.update(id.as_str().as_bytes());
        let digest = digest.finish();
        u64::from_le_bytes(std::array::from_fn(|i| digest.as_bytes()[i]))
    }
}

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn a_fingerprint_is_the_begin_of_a_digest_of_key_and_id() {
        let id: ChunkId = "a-chunk".parse().unwrap();
        let key = FingerprintKey::from_bytes(*b"0123456789abcdef");
        let digest = Digest::of(b"0123456789abcdefa-chunk");
        assert_eq!(key.of(&id).to_le_bytes()[..], digest.as_bytes()[..8]);
        assert_ne!(key.of(&id), FingerprintKey::from_bytes([0; 16]).of(&id));
    }
}
