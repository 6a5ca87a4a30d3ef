//! Registers of a chunk that do not say the same: what they say is learned and told to all, unless that would end a chunk
//! whose video lives, or nobody is left who could decide.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use vstack_chunkpaxos::{Reply, Request, Vote, beyond::is_beyond};
use vstack_client::NodeUrls;
use vstack_types::NodeRef;

use super::{
    mender::{Done, Failed, Mender},
    mending::Task,
};
use crate::{given_up::GivenUp, registry, store::Node};

/// For the word of one node.
const ASKED_WITHIN: Duration = Duration::from_secs(5);

/// What a register says.
pub(super) struct Said {
    accepted: Option<Vote>,
    damaged: bool,
    holds: bool,
}

impl Said {
    /// It abstains, and nothing that is brought to it changes that: its votes are lost, and not only bytes.
    pub(super) const fn lost_votes(&self) -> bool {
        self.damaged && (self.holds || self.accepted.is_none())
    }
}

impl Mender<'_> {
    /// Has those who differ and the others say the same. What a majority says without those who differ they may not take
    /// from it, since they have promised more: then they are asked first, and what they know is decided anew.
    pub(super) async fn agree(&self, task: &Task, differing: &[NodeRef]) -> Result<Done, Failed> {
        if task.tries % 2 == 1 {
            let urls = self.with_few_others(differing);
            if let Err(failed) = self.read(task, &urls).await {
                tracing::debug!(chunk = %self.chunk.id, why = failed.why, "those who differ could not be read first");
            }
        }
        match self.read(task, &self.urls).await {
            Ok(_) => Ok(Done::Told),
            Err(failed) => self.cut_off(task, failed).await,
        }
    }

    /// Nothing could be decided, or only that the chunk is deleted, which its video that lives does not want. It may be
    /// that a move was begun that only nodes can end that are lost for good, though all of the chunk's own are there. Then
    /// it is salvaged. A vote that a newer one has overtaken binds nobody.
    async fn cut_off(&self, task: &Task, failed: Failed) -> Result<Done, Failed> {
        let known = &self.chunk.placement;
        let votes = self.votes_of(&known.nodes()).await;
        let named: Vec<NodeRef> = votes.iter().flat_map(|vote| vote.placement.nodes()).collect();
        let mut others: Vec<NodeRef> = named.into_iter().filter(|node| !known.names(*node)).collect();
        others.sort_unstable();
        others.dedup();
        let votes = votes.into_iter().chain(self.votes_of(&others).await);
        let begun = votes
            .filter(|vote| vote.placement.version > known.version)
            .max_by_key(|vote| (vote.placement.version, vote.ballot));
        let Some(Vote { placement: begun, .. }) = begun else {
            return Err(failed);
        };
        if begun.layout.is_deleted() {
            tracing::warn!(
                chunk = %self.chunk.id,
                "a chunk is deleted, or its deletion was begun, and its video lives: the database may be an older one"
            );
            return self.salvage(task).await;
        }
        let given_up = GivenUp::as_of_now(self.app, &self.nodes).await;
        let given_up = given_up.map_err(Failed::because)?;
        if is_beyond(Some(&begun), &[], |node| given_up.has(node)) {
            tracing::warn!(chunk = %self.chunk.id, "a move of a chunk was begun to nodes that are lost for good");
            return self.salvage(task).await;
        }
        let attendance = self.app.upkeep.attendance();
        let silent = begun.nodes().into_iter().filter(|node| !attendance.up.contains(node));
        let names: Vec<String> = silent.map(|node| self.name(node)).collect();
        if names.is_empty() {
            return Err(failed);
        }
        Err(Failed::because(format!(
            "{}; a move of it was begun that only {} can end: bring them back, or, if their disks are gone for good, say \
             so with `vstack remove`",
            failed.why,
            names.join(", ")
        )))
    }

    /// What these accepted last.
    async fn votes_of(&self, nodes: &[NodeRef]) -> Vec<Vote> {
        let states = self.states_of(nodes).await.into_iter();
        states.filter_map(|(_, state)| state.accepted).collect()
    }

    /// What the registers of these say, of those that answer.
    pub(super) async fn states_of(&self, nodes: &[NodeRef]) -> Vec<(NodeRef, Said)> {
        let asked = nodes.iter().filter_map(|node| self.urls.holder(*node));
        let asked = asked.map(|holder| async move {
            let read = self.app.nodes.paxos(&holder, &self.chunk.id, &Request::Read);
            match timeout(ASKED_WITHIN, read).await {
                Ok(Ok(Reply::State {
                    accepted,
                    damaged,
                    holds,
                    ..
                })) => Some((
                    holder.node,
                    Said {
                        accepted,
                        damaged,
                        holds,
                    },
                )),
                _ => None,
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// A node as it is named in commands.
    fn name(&self, node: NodeRef) -> String {
        let known = self.nodes.iter().find(|known| known.acceptor == Some(node));
        known.map_or_else(|| node.to_string(), |known| known.label.clone())
    }

    /// All nodes, but of the chunk's own only as many as a majority of each half takes, these first.
    fn with_few_others(&self, first: &[NodeRef]) -> NodeUrls {
        let placement = &self.chunk.placement;
        let mut asked: Vec<NodeRef> = Vec::new();
        for half in std::iter::once(&placement.layout).chain(&placement.prev) {
            let mut nodes = half.nodes();
            nodes.sort_by_key(|node| !first.contains(node));
            nodes.truncate(nodes.len() / 2 + 1);
            asked.extend(nodes);
        }
        let own = placement.nodes();
        let is_asked = |node: &&Node| {
            let acceptor = node.acceptor;
            acceptor.is_some_and(|node| !own.contains(&node) || asked.contains(&node))
        };
        let nodes: Vec<Node> = self.nodes.iter().filter(is_asked).cloned().collect();
        registry::node_urls(&nodes)
    }
}
