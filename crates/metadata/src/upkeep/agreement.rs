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

/// For what one node says.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// How far the deletion of a chunk has come.
enum Deletion {
    /// It will never be anything else.
    Decided,
    /// Somebody voted for it.
    Begun,
}

/// Whether one of those who were asked knows the chunk as deleted. Its video is none that ended: that is why it is looked
/// at.
fn deletion(words: &[(Vote, bool)]) -> Option<Deletion> {
    let mut known = words.iter().filter(|(vote, _)| vote.placement.layout.is_deleted());
    let first = known.next()?;
    let is_decided = std::iter::once(first).chain(known).any(|(_, decided)| *decided);
    Some(if is_decided { Deletion::Decided } else { Deletion::Begun })
}

impl Mender<'_> {
    /// Has those who differ and the others say the same. What a majority says without those who differ they may not take
    /// from it, since they have promised more: then they are asked first, and what they know is decided anew.
    pub(super) async fn agree(&self, task: &Task, differing: &[NodeRef]) -> Result<Done, Failed> {
        // Reading tells everybody, and who has the last copy gives it up when it hears that the chunk is deleted.
        let words = self.words(differing).await;
        match deletion(&words) {
            Some(Deletion::Decided) => {
                tracing::warn!(
                    chunk = %self.chunk.id,
                    "the nodes of a chunk decided that it is deleted, and its video lives: the database may be an older one"
                );
                return self.salvage().await;
            }
            Some(Deletion::Begun) => {
                return Err(Failed::because(
                    "its deletion was begun, and its video lives: nobody is told of it",
                ));
            }
            None => {}
        }
        if task.tries % 2 == 1 {
            let urls = self.with_few_others(differing);
            if let Err(failed) = self.read(task, &urls).await {
                tracing::debug!(chunk = %self.chunk.id, why = failed.why, "those who differ could not be read first");
            }
        }
        match self.read(task, &self.urls).await {
            Ok(_) => Ok(Done::Told),
            Err(failed) => self.cut_off(failed).await,
        }
    }

    /// Nothing could be decided: it may be that a move was begun that only nodes can end that are lost for good, though all
    /// of the chunk's own are there. Then it is salvaged. A vote that a newer one has overtaken binds nobody.
    async fn cut_off(&self, failed: Failed) -> Result<Done, Failed> {
        let known = &self.chunk.placement;
        let votes = self.words(&known.nodes()).await.into_iter();
        let begun = votes
            .map(|(vote, _)| vote)
            .filter(|vote| vote.placement.version > known.version)
            .max_by_key(|vote| (vote.placement.version, vote.ballot));
        let Some(Vote { placement: begun, .. }) = begun else {
            return Err(failed);
        };
        let given_up = GivenUp::as_of_now(self.app, &self.nodes).await;
        let given_up = given_up.map_err(Failed::because)?;
        if is_beyond(Some(&begun), &[], |node| given_up.has(node)) {
            tracing::warn!(chunk = %self.chunk.id, "a move of a chunk was begun to nodes that are lost for good");
            return self.salvage().await;
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

    /// What these say of the chunk, and whether they know that it was decided.
    async fn words(&self, of: &[NodeRef]) -> Vec<(Vote, bool)> {
        let asked = of.iter().filter_map(|node| self.urls.holder(*node));
        let asked = asked.map(|holder| async move {
            let read = self.app.nodes.paxos(&holder, &self.chunk.id, &Request::Read);
            match timeout(READ_WITHIN, read).await {
                Ok(Ok(Reply::State {
                    accepted: Some(vote),
                    decided,
                    ..
                })) => Some((vote, decided)),
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
