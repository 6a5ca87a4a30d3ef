//! Shards as whoever checks a history makes and reads them: by the code that nodes use, and with no node's help.

use bytes::Bytes;
use vstack_erasure::{ReadError, ReedSolomon, Shape};
use vstack_types::{Digest, Hashed};

/// Why shards do not give a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// They are too few, or none of its code.
    Few,
    /// Each as it should be, they give another chunk.
    Another,
}

/// The `data + parity` shards of `chunk`, in order.
pub(crate) fn encode(chunk: &Bytes, data: u8, parity: u8) -> Vec<Bytes> {
    let shape = Shape::new(data, parity).expect("a code that the simulation chose, or that was agreed on");
    vstack_erasure::encode(&ReedSolomon::new(shape), chunk)
}

/// The chunk of `size` bytes with this SHA-256, from shards given with their indexes.
pub(crate) fn decode(
    shards: &[(u8, Bytes)],
    (data, parity): (u8, u8),
    size: usize,
    sha256: Digest,
) -> Result<Bytes, Unread> {
    let shape = Shape::new(data, parity).map_err(|_impossible| Unread::Few)?;
    let read = vstack_erasure::read(&ReedSolomon::new(shape), size, sha256, shards);
    read.map(Hashed::into_bytes).map_err(|error| match error {
        ReadError::Digest => Unread::Another,
        _ => Unread::Few,
    })
}
