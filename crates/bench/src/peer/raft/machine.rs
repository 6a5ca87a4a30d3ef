//! The state that the log is applied to: which chunks are committed. Rebuilt from the log when a peer starts.
//!
//! Bytes stay where the log has them. Snapshots hold the list of chunks, and are made only when openraft asks for one,
//! which the comparison never lets it do.

use std::{
    collections::BTreeMap,
    io::Cursor,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    AnyError, BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageIOError, StoredMembership, storage::RaftStateMachine,
};
use serde::{Deserialize, Serialize};
use vstack_types::{ChunkId, Digest};

use super::types::{PeerId, StorageError, Types, chunks};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    applied: Option<LogId<PeerId>>,
    membership: StoredMembership<PeerId, BasicNode>,
    chunks: BTreeMap<ChunkId, Digest>,
}

#[derive(Default)]
struct Shared {
    state: State,
    snapshot: Option<(SnapshotMeta<PeerId, BasicNode>, Vec<u8>)>,
}

/// The state machine. Clones are the same one.
#[derive(Clone, Default)]
pub struct Machine(Arc<Mutex<Shared>>);

impl Machine {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Index of the last entry applied.
    pub fn applied(&self) -> Option<u64> {
        self.shared().state.applied.map(|id| id.index)
    }

    /// How many chunks are committed.
    pub fn chunk_count(&self) -> usize {
        self.shared().state.chunks.len()
    }
}

fn snapshot(meta: SnapshotMeta<PeerId, BasicNode>, bytes: Vec<u8>) -> Snapshot<Types> {
    Snapshot {
        meta,
        snapshot: Box::new(Cursor::new(bytes)),
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let mut shared = self.shared();
        let bytes = serde_json::to_vec(&shared.state);
        let bytes = bytes.map_err(|error| StorageIOError::read_state_machine(AnyError::new(&error)))?;
        let meta = SnapshotMeta {
            last_log_id: shared.state.applied,
            last_membership: shared.state.membership.clone(),
            snapshot_id: format!("upto-{}", shared.state.applied.map_or(0, |id| id.index)),
        };
        shared.snapshot = Some((meta.clone(), bytes.clone()));
        Ok(snapshot(meta, bytes))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<PeerId>>, StoredMembership<PeerId, BasicNode>), StorageError> {
        let state = &self.shared().state;
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let state = &mut self.shared().state;
        let mut count = 0;
        for entry in entries {
            state.applied = Some(entry.log_id);
            for chunk in chunks(&entry) {
                state.chunks.insert(chunk.id.clone(), chunk.sha256);
            }
            if let EntryPayload::Membership(membership) = &entry.payload {
                state.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            count += 1;
        }
        Ok(vec![(); count])
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<PeerId, BasicNode>,
        received: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = received.into_inner();
        let state = serde_json::from_slice(&bytes);
        let state =
            state.map_err(|error| StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&error)))?;
        let mut shared = self.shared();
        shared.state = state;
        shared.snapshot = Some((meta.clone(), bytes));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let current = self.shared().snapshot.clone();
        Ok(current.map(|(meta, bytes)| snapshot(meta, bytes)))
    }
}
