//! Random chunks to send, made once: making them while measuring would measure the making.

use std::sync::Arc;

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use vstack_types::{Digest, limits::CHUNK_BYTES_MAX};

/// How many different ones there are: 64 MiB, far more than any cache of a processor.
const CHUNKS: usize = 32;

/// A chunk's bytes and their digest.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// 2 MiB.
    pub bytes: Bytes,
    /// Of them.
    pub sha256: Digest,
}

/// Chunks of the largest size, to be used in turn.
#[derive(Debug, Clone)]
pub struct Payload(Arc<[Chunk]>);

impl Payload {
    /// The same bytes in every run.
    pub fn make() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let chunk = |_| {
            let mut bytes = vec![0; CHUNK_BYTES_MAX];
            rng.fill_bytes(&mut bytes);
            Chunk {
                sha256: Digest::of(&bytes),
                bytes: bytes.into(),
            }
        };
        Self((0..CHUNKS).map(chunk).collect())
    }

    /// Chunk number `index` of an endless row.
    pub fn chunk(&self, index: usize) -> &Chunk {
        &self.0[index % self.0.len()]
    }
}
