//! Runs a [`Proposer`] over HTTP: sends what it says, tells it what came back, waits when it asks to.

use std::{collections::HashMap, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{task::JoinSet, time::timeout};
use vstack_chunkpaxos::{Action, Ballot, Outcome, Proposer, Reply, Request, backoff};
use vstack_types::{ChunkId, Digest, NodeRef, NodeUuid};

use crate::{Holder, NodeClient};

/// An acceptor that has not answered by then is silent for this attempt.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// A copy between nodes moves a whole chunk.
const COPY_TIMEOUT: Duration = Duration::from_secs(60);

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

enum Event {
    Replied {
        from: NodeRef,
        ballot: Ballot,
        reply: Option<Reply>,
    },
    Copied {
        to: NodeRef,
        ballot: Ballot,
        copied: bool,
    },
    Told,
}

/// Drives `proposer` to its outcome, for `deadline` at most. News of decisions is sent before this returns, without
/// waiting for those who do not answer.
///
/// # Errors
/// When there is no outcome in time. Something may then have been decided all the same.
pub async fn propose(
    nodes: &NodeClient,
    urls: &NodeUrls,
    chunk: &ChunkId,
    mut proposer: Proposer,
    deadline: Duration,
) -> Result<Outcome, ProposeError> {
    let run = async {
        let mut driver = Driver {
            nodes,
            urls,
            chunk,
            running: JoinSet::new(),
        };
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let mut actions = proposer.retry();
        loop {
            match driver.perform(&proposer, actions) {
                Some(Step::Finish(outcome)) => {
                    driver.settle_news().await;
                    return outcome;
                }
                Some(Step::Backoff(attempt)) => {
                    tokio::time::sleep(backoff(attempt, &mut rng)).await;
                    actions = proposer.retry();
                }
                None => actions = driver.next(&mut proposer).await,
            }
        }
    };
    timeout(deadline, run)
        .await
        .map_err(|_elapsed| ProposeError::Deadline(deadline))
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
}

impl Driver<'_> {
    fn perform(&mut self, proposer: &Proposer, actions: Vec<Action>) -> Option<Step> {
        let mut step = None;
        for action in actions {
            match action {
                Action::Send { to, request } => self.send(to, proposer.ballot(), request),
                Action::Tell { to, request } => self.tell(to, request),
                Action::Copy { to, item, size, from } => self.copy(to, proposer.ballot(), (item, size), &from),
                Action::Backoff { attempt } => step = Some(Step::Backoff(attempt)),
                Action::Finish(outcome) => step = Some(Step::Finish(outcome)),
            }
        }
        step
    }

    fn send(&mut self, to: NodeRef, ballot: Ballot, request: Request) {
        let (nodes, chunk, holder) = (self.nodes.clone(), self.chunk.clone(), self.urls.holder(to));
        self.running.spawn(async move {
            let reply = match holder {
                Some(holder) => timeout(ANSWER_TIMEOUT, nodes.paxos(&holder, &chunk, &request)).await,
                None => {
                    return Event::Replied {
                        from: to,
                        ballot,
                        reply: None,
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
                reply,
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

    fn copy(&mut self, to: NodeRef, ballot: Ballot, (item, size): (Digest, u64), from: &[NodeRef]) {
        let (nodes, chunk) = (self.nodes.clone(), self.chunk.clone());
        let target = self.urls.holder(to);
        let holders: Vec<_> = from.iter().filter_map(|node| self.urls.holder(*node)).collect();
        self.running.spawn(async move {
            let Some(target) = target else {
                return Event::Copied {
                    to,
                    ballot,
                    copied: false,
                };
            };
            let pulled = timeout(COPY_TIMEOUT, nodes.pull(&target, &chunk, item, size, &holders)).await;
            Event::Copied {
                to,
                ballot,
                copied: matches!(pulled, Ok(Ok(()))),
            }
        });
    }

    async fn next(&mut self, proposer: &mut Proposer) -> Vec<Action> {
        match self.running.join_next().await {
            Some(Ok(Event::Replied {
                from,
                ballot,
                reply: Some(reply),
            })) => proposer.on_reply(from, ballot, reply),
            Some(Ok(Event::Replied {
                from,
                ballot,
                reply: None,
            })) => proposer.on_silence(from, ballot),
            Some(Ok(Event::Copied { to, ballot, copied })) => proposer.on_copied(to, ballot, copied),
            Some(Ok(Event::Told)) => Vec::new(),
            Some(Err(error)) => {
                tracing::error!(%error, "a proposer's task ended badly");
                Vec::new()
            }
            None => vec![Action::Backoff { attempt: 1 }],
        }
    }

    /// Lets the news of the decision go out.
    async fn settle_news(&mut self) {
        let drain = async { while self.running.join_next().await.is_some() {} };
        let _rest_is_learned_later = timeout(Duration::from_millis(500), drain).await;
    }
}
