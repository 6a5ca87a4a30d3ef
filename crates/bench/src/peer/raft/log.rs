//! The Raft log in a peer's journal: entries, the vote, cuts; one sync for an append, bytes included.
//!
//! Every record has a number of its own and is never changed; opening the log replays them in order. Bytes of the newest
//! entries stay in memory for replication, older ones are read from the journal.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    AnyError, Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use serde::{Deserialize, Serialize};
use vstack_engine::{Item, Which};
use vstack_types::ChunkId;

use super::types::{PeerId, StorageError, Types, chunks, chunks_mut, payload_len};
use crate::peer::journal::{Journal, JournalError, Record};

/// Bytes of entries kept in memory: several batches, so that followers never wait for a disk.
const CACHE_BYTES_MAX: usize = 96 << 20;
/// Most bytes given to one replication request, unless a single entry has more.
const READ_BYTES_MAX: usize = 16 << 20;
/// Names of records begin so.
const PREFIX: &str = "raft-log-";

/// What is written down.
#[derive(Serialize, Deserialize)]
enum Written {
    Vote(Vote<PeerId>),
    Entry(Entry<Types>),
    /// Entries from this index on are void.
    Cut(u64),
    /// Entries up to this one are void.
    Purged(LogId<PeerId>),
}

#[derive(Default)]
struct State {
    vote: Option<Vote<PeerId>>,
    entries: BTreeMap<u64, Entry<Types>>,
    purged: Option<LogId<PeerId>>,
    /// Of the next record.
    number: u64,
    /// Indices of the entries whose bytes are in memory, oldest first, with how many.
    cached: VecDeque<(u64, usize)>,
    cached_bytes: usize,
}

impl State {
    fn apply(&mut self, written: Written) {
        match written {
            Written::Vote(vote) => self.vote = Some(vote),
            Written::Entry(entry) => {
                self.entries.insert(entry.log_id.index, entry);
            }
            Written::Cut(from) => {
                self.entries.split_off(&from);
            }
            Written::Purged(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(upto);
            }
        }
    }

    fn insert(&mut self, entry: Entry<Types>) {
        let (index, bytes) = (entry.log_id.index, payload_len(&entry));
        self.entries.insert(index, entry);
        self.cached.push_back((index, bytes));
        self.cached_bytes += bytes;
        while self.cached_bytes > CACHE_BYTES_MAX
            && let Some((oldest, bytes)) = self.cached.pop_front()
        {
            self.cached_bytes -= bytes;
            for chunk in self.entries.get_mut(&oldest).map(chunks_mut).into_iter().flatten() {
                chunk.item = None;
            }
        }
    }

    /// A record of its own for `written`.
    fn record(&mut self, written: &Written) -> io::Result<Record> {
        let id: ChunkId = format!("{PREFIX}{:020}", self.number)
            .parse()
            .map_err(io::Error::other)?;
        self.number += 1;
        let item = Item::new(serde_json::to_vec(written)?);
        Ok(Record { id, item })
    }
}

/// The log of a peer. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    journal: Arc<Journal>,
    state: Arc<Mutex<State>>,
}

impl Log {
    /// Replays what `journal` has.
    pub async fn open(journal: Arc<Journal>) -> anyhow::Result<Self> {
        let mut state = State::default();
        for (_, bytes) in journal.records(&PREFIX.parse()?).await? {
            state.number += 1;
            state.apply(serde_json::from_slice(&bytes)?);
        }
        Ok(Self {
            journal,
            state: Arc::new(Mutex::new(state)),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, written: Written) -> io::Result<()> {
        let slot = self.journal.slot().await.map_err(io::Error::other)?;
        let durable = {
            let mut state = self.state();
            let record = state.record(&written)?;
            state.apply(written);
            slot.write(vec![record])
        };
        durable.durable().await.map_err(io::Error::other)
    }

    /// Brings the bytes of `entry` that are not in memory.
    async fn load(&self, entry: &mut Entry<Types>) -> Result<(), JournalError> {
        for chunk in chunks_mut(entry) {
            if chunk.item.is_none() {
                let found = self.journal.reader().find(&chunk.id, Which::Exact(chunk.sha256));
                let found = found.map_err(|missing| JournalError::Unexpected(missing.to_string()))?;
                chunk.item = Some(Item::new(self.journal.read(found).await?));
            }
        }
        Ok(())
    }

    async fn read<R: RangeBounds<u64>>(&self, range: R, bytes_max: usize) -> Result<Vec<Entry<Types>>, StorageError> {
        let mut bytes = 0;
        let mut entries: Vec<_> = self
            .state()
            .entries
            .range(range)
            .map(|(_, entry)| entry)
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += payload_len(entry);
                first || bytes <= bytes_max
            })
            .cloned()
            .collect();
        for entry in &mut entries {
            let loaded = self.load(entry).await;
            loaded.map_err(|error| StorageIOError::read_log_entry(entry.log_id, AnyError::new(&error)))?;
        }
        Ok(entries)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Types>>, StorageError> {
        self.read(range, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<Types>>, StorageError> {
        self.read(start..end, READ_BYTES_MAX).await
    }
}

fn write_error(error: &io::Error) -> StorageError {
    StorageIOError::write_logs(AnyError::new(error)).into()
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let state = self.state();
        let last = state.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState {
            last_purged_log_id: state.purged,
            last_log_id: last.or(state.purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<PeerId>) -> Result<(), StorageError> {
        let saved = self.write(Written::Vote(*vote)).await;
        saved.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<PeerId>>, StorageError> {
        Ok(self.state().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let slot = self.journal.slot().await;
        let slot = slot.map_err(|error| write_error(&io::Error::other(error)))?;
        let durable = {
            let mut state = self.state();
            let mut records = Vec::new();
            for entry in entries {
                records.extend(chunks(&entry).iter().filter_map(|chunk| {
                    let (id, item) = (chunk.id.clone(), chunk.item.clone()?);
                    Some(Record { id, item })
                }));
                let written = Written::Entry(entry);
                records.push(state.record(&written).map_err(|error| write_error(&error))?);
                if let Written::Entry(entry) = written {
                    state.insert(entry);
                }
            }
            slot.write(records)
        };
        tokio::spawn(async move {
            callback.log_io_completed(durable.durable().await.map_err(io::Error::other));
        });
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<PeerId>) -> Result<(), StorageError> {
        let cut = self.write(Written::Cut(log_id.index)).await;
        cut.map_err(|error| write_error(&error))
    }

    async fn purge(&mut self, log_id: LogId<PeerId>) -> Result<(), StorageError> {
        let purged = self.write(Written::Purged(log_id)).await;
        purged.map_err(|error| write_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use openraft::{
        EntryPayload,
        storage::RaftLogStorageExt as _,
        testing::{StoreBuilder, Suite},
    };

    use super::*;
    use crate::peer::raft::{
        machine::Machine,
        types::{Batch, Chunk},
    };

    struct Builder;

    impl StoreBuilder<Types, Log, Machine, tempfile::TempDir> for Builder {
        async fn build(&self) -> Result<(tempfile::TempDir, Log, Machine), StorageError> {
            let directory = tempfile::tempdir().unwrap();
            let journal = Journal::open(directory.path().to_owned()).unwrap();
            let log = Log::open(Arc::new(journal)).await.unwrap();
            Ok((directory, log, Machine::default()))
        }
    }

    #[test]
    fn log_and_state_machine_pass_the_suite_of_openraft() {
        Suite::test_all(Builder).unwrap();
    }

    fn entry(index: u64, bytes: &'static [u8]) -> Entry<Types> {
        let item = Item::new(bytes);
        let chunk = Chunk {
            id: format!("c-{index}").parse().unwrap(),
            sha256: item.sha256(),
            size: bytes.len(),
            item: Some(item),
        };
        Entry {
            log_id: LogId::new(openraft::CommittedLeaderId::new(1, 0), index),
            payload: EntryPayload::Normal(Batch { chunks: vec![chunk] }),
        }
    }

    #[tokio::test]
    async fn a_log_opened_again_has_its_entries_bytes_cuts_and_vote() {
        let directory = tempfile::tempdir().unwrap();
        let open = async || {
            let journal = Journal::open(directory.path().to_owned()).unwrap();
            Log::open(Arc::new(journal)).await.unwrap()
        };
        let mut log = open().await;
        let vote = Vote::new_committed(3, 1);
        log.save_vote(&vote).await.unwrap();
        let before = log.journal.reader().stats().batches;
        let more = (1..20).map(|index| entry(index, b"more"));
        log.blocking_append([entry(0, b"zero")].into_iter().chain(more))
            .await
            .unwrap();
        // One of its own; a mark, which is a batch too, may come before it and behind it.
        let batches = log.journal.reader().stats().batches - before;
        assert!((1..=3).contains(&batches), "one sync for an append, not {batches}");
        log.truncate(LogId::new(openraft::CommittedLeaderId::new(1, 0), 1))
            .await
            .unwrap();
        log.blocking_append([entry(1, b"other")]).await.unwrap();
        drop(log);
        let mut log = open().await;
        assert_eq!(log.read_vote().await.unwrap(), Some(vote));
        let entries = log.try_get_log_entries(..).await.unwrap();
        let bytes: Vec<_> = entries
            .iter()
            .flat_map(chunks)
            .map(|chunk| chunk.item.as_ref().unwrap().bytes().to_vec())
            .collect();
        assert_eq!(bytes, [b"zero".to_vec(), b"other".to_vec()]);
    }
}
