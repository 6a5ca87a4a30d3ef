//! Runs a [`Proposer`] over HTTP: sends what it says, tells it what came back, waits when it asks to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use vstack_chunkpaxos::{Action, Ballot, Outcome, Proposer, Reply, Request, Stage, backoff};
use vstack_types::{ChunkId, Digest, NodeRef, NodeUuid, ambient};

use crate::{Holder, Make, NodeClient};

/// An acceptor that has not answered by then is silent for this attempt.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// A copy between nodes moves a whole chunk.
const COPY_TIMEOUT: Duration = Duration::from_secs(60);

/// Proposals of one client whose last messages may be under way behind their outcome. Whoever comes on top waits for
/// its own.
pub(crate) const TRAILING_MAX: usize = 1024;

/// Room for the last messages of proposals that have their outcome, shared by the clones of a client.
#[derive(Debug, Clone)]
pub(crate) struct Trailing(Arc<Semaphore>);

impl Trailing {
    /// For so many proposals.
    pub(crate) fn new(proposals: usize) -> Self {
        Self(Arc::new(Semaphore::new(proposals)))
    }
}

/// Where nodes are reached.
#[derive(Debug, Clone, Default)]
pub struct NodeUrls(HashMap<NodeUuid, String>);

impl FromIterator<(NodeUuid, String)> for NodeUrls {
    fn from_iter<I: IntoIterator<Item = (NodeUuid, String)>>(nodes: I) -> Self {
        Self(nodes.into_iter().collect())
    }
}

impl NodeUrls {
    /// The node with its URL, when it is known.
    pub fn holder(&self, node: NodeRef) -> Option<Holder> {
        self.0.get(&node.uuid).map(|url| Holder { node, url: url.clone() })
    }

    /// The URL alone.
    pub fn url(&self, node: NodeUuid) -> Option<&str> {
        self.0.get(&node).map(String::as_str)
    }
}

/// Why a proposal has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// No majority answered, or others were always faster.
    #[error("no majority of the chunk's nodes could be brought to agree within {0:?}; are enough of them up?")]
    Deadline(Duration),
}

/// A proposal that has its outcome.
#[derive(Debug)]
pub struct Proposed {
    /// What came of it.
    pub outcome: Outcome,
    rest: Option<JoinHandle<()>>,
}

impl Proposed {
    /// Waits until its last messages are answered, or given up: votes that nobody had to wait for, and news of the
    /// decision. Dropping it lets them go on by themselves.
    pub async fn rest(self) {
        if let Some(rest) = self.rest {
            let _ended = rest.await;
        }
    }
}

/// What a proposal cost, up to its outcome. News of the decision are not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Requests sent and their answers, copies between nodes among them. An answer that is still under way when the
    /// outcome is known counts as one that comes.
    pub messages: u64,
    /// Waits for an answer, one after the other: the longest chain of requests, each sent because of the answer
    /// before it, that ends with the outcome.
    pub round_trips: u64,
    /// Promises and acceptances received by then.
    pub votes: u64,
}

impl Effort {
    /// A request, and the answer it will have.
    fn sent(&mut self) {
        self.messages += 2;
    }

    /// It has none.
    fn missed(&mut self) {
        self.messages = self.messages.saturating_sub(1);
    }

    fn heard(&mut self, reply: &Reply) {
        self.votes += u64::from(matches!(reply, Reply::Promise { .. } | Reply::Accepted { .. }));
    }
}

enum Event {
    Replied {
        from: NodeRef,
        ballot: Ballot,
        /// What it was asked for.
        stage: Option<Stage>,
        reply: Option<Reply>,
        /// Requests in its chain.
        depth: u64,
    },
    Copied {
        to: NodeRef,
        ballot: Ballot,
        copied: bool,
        depth: u64,
    },
    Told,
}

/// Drives `proposer` to its outcome, for `deadline` at most. News of the decision, and requests that no outcome depends
/// on any more, go on behind it for a few seconds at most: their loss is harmless.
///
/// # Errors
/// When there is no outcome in time. Something may then have been decided all the same.
pub async fn propose(
    nodes: &NodeClient,
    urls: &NodeUrls,
    chunk: &ChunkId,
    proposer: Proposer,
    deadline: Duration,
) -> Result<Outcome, ProposeError> {
    let proposed = propose_counting(nodes, urls, chunk, proposer, deadline, &mut Effort::default()).await?;
    Ok(proposed.outcome)
}

/// As [`propose`]; what it cost is added to `effort`, also when there is no outcome.
///
/// # Errors
/// As [`propose`].
pub async fn propose_counting(
    nodes: &NodeClient,
    urls: &NodeUrls,
    chunk: &ChunkId,
    mut proposer: Proposer,
    deadline: Duration,
    effort: &mut Effort,
) -> Result<Proposed, ProposeError> {
    let run = async {
        let mut driver = Driver {
            nodes,
            urls,
            chunk,
            running: JoinSet::new(),
            depth: 0,
            effort,
        };
        let mut rng = ambient::rng();
        let mut actions = proposer.retry();
        loop {
            match driver.perform(&proposer, actions) {
                Some(Step::Finish(outcome)) => {
                    driver.effort.round_trips += driver.depth;
                    return (outcome, driver);
                }
                Some(Step::Backoff(attempt)) => {
                    tokio::time::sleep(backoff(attempt, &mut rng)).await;
                    actions = proposer.retry();
                }
                None => actions = driver.next(&mut proposer).await,
            }
        }
    };
    let (outcome, driver) = timeout(deadline, run)
        .await
        .map_err(|_elapsed| ProposeError::Deadline(deadline))?;
    // Past the deadline: what is decided is no less so when others have to wait.
    let rest = driver.trail().await;
    Ok(Proposed { outcome, rest })
}

enum Step {
    Finish(Outcome),
    Backoff(u32),
}

struct Driver<'a> {
    nodes: &'a NodeClient,
    urls: &'a NodeUrls,
    chunk: &'a ChunkId,
    running: JoinSet<Event>,
    /// Of the answer heard last.
    depth: u64,
    effort: &'a mut Effort,
}

impl Driver<'_> {
    fn perform(&mut self, proposer: &Proposer, actions: Vec<Action>) -> Option<Step> {
        let mut step = None;
        for action in actions {
            match action {
                Action::Send { to, request } => self.send(to, proposer.ballot(), request),
                Action::Tell { to, request } => self.tell(to, request),
                Action::Copy { to, item, size, from } => {
                    self.copy(proposer, to, (item, size), &from);
                }
                Action::Backoff { attempt } => step = Some(Step::Backoff(attempt)),
                Action::Finish(outcome) => step = Some(Step::Finish(outcome)),
            }
        }
        step
    }

    fn send(&mut self, to: NodeRef, ballot: Ballot, request: Request) {
        let (nodes, chunk, holder) = (self.nodes.clone(), self.chunk.clone(), self.urls.holder(to));
        let (depth, stage) = (self.depth + 1, request.stage());
        if holder.is_some() {
            self.effort.sent();
        }
        self.running.spawn(async move {
            let reply = match holder {
                Some(holder) => timeout(ANSWER_TIMEOUT, nodes.paxos(&holder, &chunk, &request)).await,
                None => {
                    return Event::Replied {
                        from: to,
                        ballot,
                        stage,
                        reply: None,
                        depth,
                    };
                }
            };
            let reply = match reply {
                Ok(Ok(reply)) => Some(reply),
                Ok(Err(error)) => {
                    tracing::debug!(%chunk, node = %to, %error, "acceptor did not answer");
                    None
                }
                Err(_elapsed) => None,
            };
            Event::Replied {
                from: to,
                ballot,
                stage,
                reply,
                depth,
            }
        });
    }

    fn tell(&mut self, to: NodeRef, request: Request) {
        let (nodes, chunk) = (self.nodes.clone(), self.chunk.clone());
        let Some(holder) = self.urls.holder(to) else { return };
        self.running.spawn(async move {
            // Its loss is harmless: whoever needs to know asks again.
            let _news = timeout(ANSWER_TIMEOUT, nodes.paxos(&holder, &chunk, &request)).await;
            Event::Told
        });
    }

    /// Brings an item from whoever has it, or has it made of what there is.
    fn copy(&mut self, proposer: &Proposer, to: NodeRef, (item, size): (Digest, u64), from: &[NodeRef]) {
        let (nodes, chunk, ballot) = (self.nodes.clone(), self.chunk.clone(), proposer.ballot());
        let make = proposer
            .proposed()
            .and_then(|placement| Make::of(placement, self.urls, to, item));
        let target = self.urls.holder(to);
        let depth = self.depth + 1;
        if target.is_some() {
            self.effort.sent();
        }
        let holders: Vec<_> = from.iter().filter_map(|node| self.urls.holder(*node)).collect();
        self.running.spawn(async move {
            let Some(target) = target else {
                return Event::Copied {
                    to,
                    ballot,
                    copied: false,
                    depth,
                };
            };
            let bring = async {
                if nodes.pull(&target, &chunk, item, size, &holders).await.is_ok() {
                    return true;
                }
                let Some(make) = make else { return false };
                let made = nodes.make(&target, &chunk, &make).await;
                made.is_ok_and(|made| made.items == [item])
            };
            Event::Copied {
                to,
                ballot,
                copied: timeout(COPY_TIMEOUT, bring).await.unwrap_or(false),
                depth,
            }
        });
    }

    async fn next(&mut self, proposer: &mut Proposer) -> Vec<Action> {
        match self.running.join_next().await {
            Some(Ok(Event::Replied {
                from,
                ballot,
                reply: Some(reply),
                depth,
                ..
            })) => {
                self.depth = depth;
                self.effort.heard(&reply);
                proposer.on_reply(from, ballot, reply)
            }
            Some(Ok(Event::Replied {
                from,
                ballot,
                stage,
                reply: None,
                depth,
            })) => {
                self.depth = depth;
                if self.urls.url(from.uuid).is_some() {
                    self.effort.missed();
                }
                if vstack_types::planted!("a proposer takes silence for a vote") {
                    return proposer.on_reply(from, ballot, Reply::Accepted { ballot });
                }
                stage.map_or_else(Vec::new, |stage| proposer.on_silence(from, ballot, stage))
            }
            Some(Ok(Event::Copied {
                to,
                ballot,
                copied,
                depth,
            })) => {
                self.depth = depth;
                if !copied && self.urls.url(to.uuid).is_some() {
                    self.effort.missed();
                }
                proposer.on_copied(to, ballot, copied)
            }
            Some(Ok(Event::Told)) => Vec::new(),
            Some(Err(error)) => {
                tracing::error!(%error, "a proposer's task ended badly");
                Vec::new()
            }
            None => vec![Action::Backoff { attempt: 1 }],
        }
    }

    /// Lets what is under way go on behind the outcome, or waits for it here when too much does so already.
    async fn trail(self) -> Option<JoinHandle<()>> {
        if self.running.is_empty() {
            return None;
        }
        let mut running = self.running;
        let drain = async move {
            let all = async { while running.join_next().await.is_some() {} };
            let _rest_is_learned_later = timeout(ANSWER_TIMEOUT, all).await;
        };
        if let Ok(room) = Arc::clone(&self.nodes.trailing().0).try_acquire_owned() {
            return Some(tokio::spawn(async move {
                drain.await;
                drop(room);
            }));
        }
        drain.await;
        None
    }
}

#[cfg(test)]
mod tests;
