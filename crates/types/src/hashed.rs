//! Bytes together with their SHA-256, computed here.

use bytes::Bytes;

use crate::Digest;

/// Bytes, and their digest: whoever has one knows that they were hashed, and need not do it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    bytes: Bytes,
    sha256: Digest,
}

impl Hashed {
    /// Hashes `bytes`.
    pub fn new(bytes: Bytes) -> Self {
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

    /// The bytes alone.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}
