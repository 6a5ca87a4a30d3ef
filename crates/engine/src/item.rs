//! Bytes together with their SHA-256, computed here: an [`Item`] in hand is an item that was hashed.

use bytes::{Bytes, BytesMut};
use vstack_types::{Digest, DigestBuilder};

/// Bytes to be stored, and their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    bytes: Bytes,
    sha256: Digest,
}

impl Item {
    /// Hashes `bytes`.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            sha256: Digest::of(&bytes),
            bytes,
        }
    }

    /// The bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their SHA-256.
    pub const fn sha256(&self) -> Digest {
        self.sha256
    }
}

/// Collects and hashes bytes as they arrive, so that hashing overlaps with receiving.
#[derive(Default)]
pub struct ItemBuilder {
    bytes: BytesMut,
    digest: DigestBuilder,
}

impl ItemBuilder {
    /// With room for `len` bytes.
    pub fn with_capacity(len: usize) -> Self {
        Self {
            bytes: BytesMut::with_capacity(len),
            digest: DigestBuilder::default(),
        }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.digest.update(bytes);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything added, hashed.
    pub fn finish(self) -> Item {
        Item {
            bytes: self.bytes.freeze(),
            sha256: self.digest.finish(),
        }
    }
}
