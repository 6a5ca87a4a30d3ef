//! Textbook Paxos as a node: one decree for each chunk, the data stored by a request of its own beforehand.
//!
//! Three requests about a chunk, each durable before its answer: the data, the promise, the acceptance.

mod acceptor;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, extract::State, response::Response, routing::post};
use serde::{Deserialize, Serialize};
use vstack_engine::{BufferPool, Item};
use vstack_service::{ApiError, ApiResult};
use vstack_types::{ChunkId, limits::CHUNK_BYTES_MAX};

use self::acceptor::Acceptor;
pub use self::acceptor::{Answer, Ballot, Value, choose};
use super::{
    bodies::Call,
    journal::{Journal, JournalError, Record},
};

/// Path of [`Data`].
pub const DATA: &str = "/single-decree/data";
/// Path of [`Prepare`].
pub const PREPARE: &str = "/single-decree/prepare";
/// Path of [`Accept`].
pub const ACCEPT: &str = "/single-decree/accept";

/// Chunks in memory at once, as many as a storage node takes.
pub const BODIES_MAX: usize = 32;
/// The states of acceptors are stored under names that begin so.
const STATE_PREFIX: &str = "acceptor-";

/// The chunk's bytes, which are the payload.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    /// Which chunk.
    pub chunk: ChunkId,
    /// What it is.
    pub value: Value,
}

/// Phase 1a.
#[derive(Debug, Serialize, Deserialize)]
pub struct Prepare {
    /// The decree.
    pub chunk: ChunkId,
    /// The proposal's number.
    pub ballot: Ballot,
}

/// Phase 2a.
#[derive(Debug, Serialize, Deserialize)]
pub struct Accept {
    /// The decree.
    pub chunk: ChunkId,
    /// The proposal's number.
    pub ballot: Ballot,
    /// Its value.
    pub value: Value,
}

struct Node {
    journal: Arc<Journal>,
    acceptors: Mutex<HashMap<ChunkId, Acceptor>>,
    bodies: BufferPool,
}

/// The routes of a node whose acceptors are in `journal`.
pub async fn routes(journal: Arc<Journal>) -> anyhow::Result<Router> {
    let node = Node {
        acceptors: Mutex::new(recover(&journal).await?),
        journal,
        bodies: BufferPool::new(CHUNK_BYTES_MAX, BODIES_MAX),
    };
    Ok(Router::new()
        .route(DATA, post(data))
        .route(PREPARE, post(prepare))
        .route(ACCEPT, post(accept))
        .with_state(Arc::new(node)))
}

/// What the acceptors have promised and accepted: the last record of each counts.
async fn recover(journal: &Journal) -> anyhow::Result<HashMap<ChunkId, Acceptor>> {
    let mut acceptors = HashMap::new();
    for (id, bytes) in journal.records(&STATE_PREFIX.parse()?).await? {
        if let Some(chunk) = id.as_str().strip_prefix(STATE_PREFIX) {
            acceptors.insert(chunk.parse()?, serde_json::from_slice(&bytes)?);
        }
    }
    Ok(acceptors)
}

impl Node {
    /// Lets `change` work on the acceptor of `chunk`; its answer is given once everything it rests on is synced.
    async fn ask(&self, chunk: ChunkId, change: impl FnOnce(&mut Acceptor) -> Answer) -> Result<Answer, JournalError> {
        let name = format!("{STATE_PREFIX}{chunk}");
        let id = name.parse().map_err(|_too_long| JournalError::Unexpected(name))?;
        let slot = self.journal.slot().await?;
        let (answer, written) = {
            let mut acceptors = self.acceptors.lock().unwrap_or_else(PoisonError::into_inner);
            let acceptor = acceptors.entry(chunk).or_default();
            let answer = change(acceptor);
            // A state that did not change is not written again, and waits for what was written before it.
            let state = serde_json::to_vec(acceptor).map_err(|error| JournalError::Unexpected(error.to_string()))?;
            let item = Item::new(state);
            (answer, slot.write(vec![Record { id, item }]))
        };
        written.durable().await?;
        Ok(answer)
    }
}

async fn data(State(node): State<Arc<Node>>, mut call: Call) -> ApiResult<Response> {
    let Data { chunk, value } = call.head()?;
    let size = usize::try_from(value.size).map_err(ApiError::internal)?;
    let item = call.item(size, value.sha256, node.bodies.take().await).await?;
    let stored = node.journal.write(vec![Record { id: chunk, item }]).await;
    stored.map_err(ApiError::internal)?;
    call.answer(&())
}

async fn prepare(State(node): State<Arc<Node>>, call: Call) -> ApiResult<Response> {
    let Prepare { chunk, ballot } = call.head()?;
    let answer = node.ask(chunk, |acceptor| acceptor.prepare(ballot)).await;
    call.answer(&answer.map_err(ApiError::internal)?)
}

async fn accept(State(node): State<Arc<Node>>, call: Call) -> ApiResult<Response> {
    let Accept { chunk, ballot, value } = call.head()?;
    let answer = node.ask(chunk, |acceptor| acceptor.accept(ballot, value)).await;
    call.answer(&answer.map_err(ApiError::internal)?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use vstack_types::Digest;

    use super::*;

    #[tokio::test]
    async fn an_acceptor_remembers_what_it_answered_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let chunk: ChunkId = "c-1".parse().unwrap();
        let ballot = |round| Ballot {
            round,
            proposer: Uuid::from_bytes([1; 16]),
        };
        let value = Value {
            sha256: Digest::of(b"x"),
            size: 1,
        };
        for start in 0..2 {
            let journal = Arc::new(Journal::open(directory.path().to_owned()).unwrap());
            let node = Node {
                acceptors: Mutex::new(recover(&journal).await.unwrap()),
                journal,
                bodies: BufferPool::new(1, 1),
            };
            if start == 0 {
                let mut syncs = node.journal.reader().stats().batches;
                for round in 1..=2 {
                    let promised = node
                        .ask(chunk.clone(), |acceptor| acceptor.prepare(ballot(round)))
                        .await;
                    assert_eq!(promised.unwrap(), Answer::Promised(None));
                    syncs += 1;
                    assert_eq!(
                        node.journal.reader().stats().batches,
                        syncs,
                        "synced before it answered"
                    );
                }
                let accepted = node
                    .ask(chunk.clone(), |acceptor| acceptor.accept(ballot(2), value))
                    .await;
                assert_eq!(accepted.unwrap(), Answer::Accepted);
            } else {
                let refused = node
                    .ask(chunk.clone(), |acceptor| acceptor.accept(ballot(1), value))
                    .await;
                assert_eq!(refused.unwrap(), Answer::Refused(ballot(2)));
                let promised = node
                    .ask(chunk.clone(), |acceptor| acceptor.prepare(ballot(3)))
                    .await
                    .unwrap();
                assert!(matches!(promised, Answer::Promised(Some(accepted)) if accepted.value == value));
            }
        }
    }
}
