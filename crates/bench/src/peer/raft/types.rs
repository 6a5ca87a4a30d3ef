//! What the Raft log carries.

use std::io::Cursor;

use openraft::{BasicNode, Entry, EntryPayload};
use serde::{Deserialize, Serialize};
use vstack_engine::Item;
use vstack_types::{ChunkId, Digest};

openraft::declare_raft_types!(
    /// Of the comparison.
    pub Types:
        D = Batch,
        R = (),
        Node = BasicNode,
);

/// A number of peers, as openraft has it.
pub type PeerId = u64;
/// What cannot be stored or read.
pub type StorageError = openraft::StorageError<PeerId>;

/// A chunk in an entry. Its bytes travel and are stored beside the entry's own encoding, hashed once for each copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Chunk {
    /// Its name.
    pub id: ChunkId,
    /// Of its bytes.
    pub sha256: Digest,
    /// How many.
    pub size: usize,
    /// The bytes; none when they have to be read from the log.
    #[serde(skip)]
    pub item: Option<Item>,
}

/// The content of an entry: the chunks that waited when it was made.
///
/// openraft 0.9 waits for the leader's sync of each entry before it looks at the next request, so that entries of one
/// chunk each could not share a sync.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Batch {
    /// In the order they came.
    pub chunks: Vec<Chunk>,
}

/// The chunks of an entry.
pub fn chunks(entry: &Entry<Types>) -> &[Chunk] {
    match &entry.payload {
        EntryPayload::Normal(batch) => &batch.chunks,
        EntryPayload::Blank | EntryPayload::Membership(_) => &[],
    }
}

/// The same, to be changed.
pub fn chunks_mut(entry: &mut Entry<Types>) -> &mut [Chunk] {
    match &mut entry.payload {
        EntryPayload::Normal(batch) => &mut batch.chunks,
        EntryPayload::Blank | EntryPayload::Membership(_) => &mut [],
    }
}

/// Bytes of all chunks of an entry.
pub fn payload_len(entry: &Entry<Types>) -> usize {
    chunks(entry).iter().map(|chunk| chunk.size).sum()
}
