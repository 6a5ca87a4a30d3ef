//! Bytes together with their SHA-256, computed here: an [`Item`] in hand is an item that was hashed.

use bytes::Bytes;
use vstack_types::{Digest, DigestBuilder, Hashed};

use crate::buffers::{Buffer, Overflow};

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

    /// Copies bytes that were hashed where they arrived into the buffer, from where the disk takes them.
    ///
    /// # Errors
    /// When it has no room for them.
    pub fn copied(mut buffer: Buffer, hashed: &Hashed) -> Result<Self, Overflow> {
        buffer.push(hashed.bytes())?;
        Ok(Self {
            bytes: Bytes::from_owner(buffer),
            sha256: hashed.sha256(),
        })
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

/// Collects and hashes bytes as they arrive, so that hashing overlaps with receiving and reads what is still in the
/// processor's cache.
pub struct ItemBuilder {
    buffer: Buffer,
    digest: DigestBuilder,
}

impl ItemBuilder {
    /// Into this buffer, which the item keeps until nobody has it any more.
    pub fn new(buffer: Buffer) -> Self {
        Self {
            buffer,
            digest: DigestBuilder::default(),
        }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// When the buffer has no room for them; none are added then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        self.buffer.push(bytes)?;
        self.digest.update(bytes);
        Ok(())
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.buffer.bytes().len()
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.buffer.bytes().is_empty()
    }

    /// Everything added, hashed.
    pub fn finish(self) -> Item {
        Item {
            bytes: Bytes::from_owner(self.buffer),
            sha256: self.digest.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BufferPool, aligned::begins_at_page};

    #[tokio::test]
    async fn what_arrives_in_parts_is_the_item_and_stands_at_a_page() {
        let pool = BufferPool::new(100, 1);
        let mut builder = ItemBuilder::new(pool.take().await);
        assert!(builder.is_empty());
        for part in [&b"ab"[..], b"", b"cde"] {
            builder.push(part).unwrap();
        }
        assert!(builder.push(&[0; 96]).is_err());
        assert_eq!(builder.len(), 5);
        let item = builder.finish();
        assert_eq!(item, Item::new(&b"abcde"[..]));
        assert!(begins_at_page(item.bytes()));
    }
}
