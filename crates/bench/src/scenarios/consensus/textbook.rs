//! The proposer of textbook Paxos: data, prepare, accept, each to all acceptors, each waited for until a majority answered.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use rand::RngExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::JoinSet;
use uuid::Uuid;
use vstack_types::{ChunkId, Digest};

use super::trio::{NODES, Trio};
use crate::peer::{
    Caller,
    single_decree::{ACCEPT, Accept, Answer, Ballot, DATA, Data, PREPARE, Prepare, Value, choose},
};

/// More attempts than a proposer without rivals ever needs.
const ATTEMPTS_MAX: u64 = 20;

/// A proposer.
pub struct Client {
    caller: Caller,
    urls: Arc<[String]>,
    proposer: Uuid,
}

/// Requests under way that a majority did not wait for.
type Late<A> = JoinSet<anyhow::Result<A>>;

impl Client {
    /// Of these nodes.
    pub fn of(trio: &Trio) -> anyhow::Result<Self> {
        Ok(Self {
            caller: Caller::new(trio.secret.clone())?,
            urls: trio.urls().into(),
            proposer: Uuid::new_v4(),
        })
    }

    /// Gives the time until a majority had accepted; returns when all acceptors have answered everything.
    pub async fn commit(&self, chunk: &ChunkId, bytes: &Bytes) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let value = Value {
            sha256: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        let data = Data {
            chunk: chunk.clone(),
            value,
        };
        let (_, stored) = self.ask::<_, ()>(DATA, data, vec![bytes.clone()]).await?;
        let mut late = Vec::new();
        for round in 1..=ATTEMPTS_MAX {
            match self.attempt(chunk, value, round, &mut late).await? {
                ControlFlow::Break(decided) => {
                    ensure!(decided == value, "another value was decided for {chunk}");
                    let decided = started.elapsed();
                    all(stored).await?;
                    for rest in late {
                        all(rest).await?;
                    }
                    return Ok(decided);
                }
                ControlFlow::Continue(()) => {
                    let pause = Duration::from_millis(rand::rng().random_range(5..50));
                    tokio::time::sleep(pause).await;
                }
            }
        }
        anyhow::bail!("nothing was decided for {chunk}")
    }

    /// One ballot; gives the value decided, if one was.
    async fn attempt(
        &self,
        chunk: &ChunkId,
        own: Value,
        round: u64,
        late: &mut Vec<Late<Answer>>,
    ) -> anyhow::Result<ControlFlow<Value>> {
        let ballot = Ballot {
            round,
            proposer: self.proposer,
        };
        let prepare = Prepare {
            chunk: chunk.clone(),
            ballot,
        };
        let (answers, rest) = self.ask(PREPARE, prepare, Vec::new()).await?;
        late.push(rest);
        let promises = answers.into_iter().filter_map(|answer| match answer {
            Answer::Promised(accepted) => Some(accepted),
            Answer::Accepted | Answer::Refused(_) => None,
        });
        let promises: Vec<_> = promises.collect();
        if promises.len() * 2 <= NODES {
            return Ok(ControlFlow::Continue(()));
        }
        let value = choose(&promises, own);
        let accept = Accept {
            chunk: chunk.clone(),
            ballot,
            value,
        };
        let (answers, rest) = self.ask(ACCEPT, accept, Vec::new()).await?;
        late.push(rest);
        let votes = answers.iter().filter(|answer| **answer == Answer::Accepted).count();
        Ok(if votes * 2 > NODES {
            ControlFlow::Break(value)
        } else {
            ControlFlow::Continue(())
        })
    }

    /// Asks all and waits for a majority; gives their answers, and what is still under way.
    async fn ask<Q, A>(&self, path: &'static str, question: Q, payload: Vec<Bytes>) -> anyhow::Result<(Vec<A>, Late<A>)>
    where
        Q: Serialize + Send + Sync + 'static,
        A: DeserializeOwned + Send + 'static,
    {
        let (question, mut asked) = (Arc::new(question), JoinSet::new());
        for node in 0..self.urls.len() {
            let (caller, urls) = (self.caller.clone(), Arc::clone(&self.urls));
            let (question, payload) = (Arc::clone(&question), payload.clone());
            asked.spawn(async move { Ok(caller.call(&urls[node], path, &*question, payload).await?) });
        }
        let mut answers = Vec::new();
        while answers.len() * 2 <= NODES {
            let answer = asked.join_next().await.context("no majority answered")?;
            answers.push(answer.context("a call ended badly")??);
        }
        Ok((answers, asked))
    }
}

async fn all<A: 'static>(mut late: Late<A>) -> anyhow::Result<()> {
    while let Some(answer) = late.join_next().await {
        answer.context("a call ended badly")??;
    }
    Ok(())
}
