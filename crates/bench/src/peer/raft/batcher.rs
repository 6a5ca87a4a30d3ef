//! Gathers chunks that wait at the leader into entries, so that they share its sync and one request to each follower.

use std::sync::Arc;

use openraft::Raft;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::types::{Batch, Chunk, Types};

/// Most bytes in an entry, as in a batch of the storage engine.
const ENTRY_BYTES_MAX: usize = 16 << 20;
/// Most chunks in an entry.
const ENTRY_CHUNKS_MAX: usize = 1024;
/// Entries under way: one is synced while another travels.
const ENTRIES_MAX: usize = 2;
/// Chunks that wait.
const QUEUE_MAX: usize = 1024;

/// Committed, or why not.
pub type Committed = Result<(), String>;

/// Where chunks are handed in.
#[derive(Clone)]
pub struct Batcher(mpsc::Sender<(Chunk, oneshot::Sender<Committed>)>);

impl Batcher {
    /// Proposes to `raft` what is handed in.
    pub fn start(raft: Raft<Types>) -> Self {
        let (sender, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(propose(raft, waiting));
        Self(sender)
    }

    /// Waits until `chunk` is committed.
    pub async fn commit(&self, chunk: Chunk) -> Committed {
        let (done, committed) = oneshot::channel();
        let ended = || "the peer ends".to_owned();
        self.0.send((chunk, done)).await.map_err(|_ended| ended())?;
        committed.await.map_err(|_ended| ended())?
    }
}

async fn propose(raft: Raft<Types>, mut waiting: mpsc::Receiver<(Chunk, oneshot::Sender<Committed>)>) {
    let under_way = Arc::new(Semaphore::new(ENTRIES_MAX));
    while let Some(first) = waiting.recv().await {
        let Ok(place) = Arc::clone(&under_way).acquire_owned().await else {
            return;
        };
        let (mut batch, mut answers) = (Batch::default(), Vec::new());
        let (mut bytes, mut next) = (0, Some(first));
        while let Some((chunk, answer)) = next {
            bytes += chunk.size;
            batch.chunks.push(chunk);
            answers.push(answer);
            let full = bytes >= ENTRY_BYTES_MAX || answers.len() >= ENTRY_CHUNKS_MAX;
            next = if full { None } else { waiting.try_recv().ok() };
        }
        let raft = raft.clone();
        tokio::spawn(async move {
            let written = raft.client_write(batch).await;
            let committed = written.map(|_response| ()).map_err(|error| error.to_string());
            for answer in answers {
                // Who asked may have gone away.
                let _ = answer.send(committed.clone());
            }
            drop(place);
        });
    }
}
