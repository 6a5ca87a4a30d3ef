//! Gives up what nothing known explains, because somebody says so.
//!
//! Nobody's bytes are deleted behind the protocol's back: as of any other chunk the deletion is decided, by the nodes that
//! decide about it as these themselves tell, and each node collects its bytes in its time. Only what a look found, and named
//! as explained by nothing, is given up, and each is judged once more. Nothing of it is kept here, so it may be said again
//! at any time, by several at once, and broken off: what was begun is like a proposer that died.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use vstack_api::census::{GivenUp, KeptOrphan};
use vstack_chunkpaxos::{Reply, Request, Vote};
use vstack_client::Holder;
use vstack_types::{ChunkId, Monotonic, NodeRef};

use super::{Strays, Verdict, judge};
use crate::{
    app::App,
    coded::ANY,
    reaper::{Asked, Left, delete},
    store::StoreError,
    upkeep::locked,
};

/// For one chunk: who asks waits no longer for the answer.
const WITHIN: Duration = Duration::from_secs(8);
/// For what a node says of it.
const SAID_WITHIN: Duration = Duration::from_secs(3);

const KNOWN: &str = "it is known what it is: it is given up by itself as soon as nobody needs it";
const UNNAMED: &str = "the census does not name it as unexplained: `vstack orphans` lists what it names";
const NOWHERE: &str = "no node that answers has anything of it";
const UNDECIDED: &str = "too few of the nodes that decide about it took that: bring back those that are silent, or say with \
                         `vstack remove` which are lost for good, and say it again";
const MUTE: &str = "what decides about it is lost: its node abstains, and nobody else has a vote. It goes with that disk: \
                    stop the node, empty its directory, start it, and say with `vstack remove` that the old disk is gone";

/// Has the deletion of these chunks decided.
pub(crate) async fn give_up(app: &App, chunks: Vec<ChunkId>) -> Result<GivenUp, StoreError> {
    let asked = Asked::as_of_now(app).await?;
    let ended = join_all(chunks.iter().map(|chunk| one(app, &asked, chunk))).await;
    let mut told = GivenUp::default();
    for (chunk, ended) in chunks.into_iter().zip(ended) {
        match ended? {
            Ok(()) => told.given_up.push(chunk),
            Err(why) => told.kept.push(KeptOrphan {
                chunk_id: chunk,
                why: why.to_owned(),
            }),
        }
    }
    app.upkeep.count_now.notify_one();
    Ok(told)
}

/// Why nothing came of it, where that is so.
type Ended = Result<(), &'static str>;

async fn one(app: &App, asked: &Asked, chunk: &ChunkId) -> Result<Ended, StoreError> {
    let is_unknown = matches!(judge(app, chunk).await?, Verdict::Keep(_));
    if !is_unknown || app.store.chunk(chunk.clone()).await?.is_some() {
        return Ok(Err(KNOWN));
    }
    Ok(timeout(WITHIN, end(app, asked, chunk)).await.unwrap_or(Err(UNDECIDED)))
}

async fn end(app: &App, asked: &Asked, chunk: &ChunkId) -> Ended {
    let registers = registers(app, asked, chunk).await;
    if registers.is_empty() {
        return Err(NOWHERE);
    }
    if !registers.iter().all(Register::is_deleted) {
        if !app.upkeep.strays.is_unexplained(chunk) {
            return Err(UNNAMED);
        }
        let votes = || registers.iter().filter_map(|register| register.vote.as_ref());
        let left = Left {
            learned: None,
            seen_at: registers.iter().map(|register| register.node).collect(),
            // A first version names the chunk's first acceptors, and no others.
            first: votes()
                .find(|vote| vote.placement.version == 1)
                .map(|vote| vote.placement.nodes()),
        };
        // It is no chunk of a video that is known: nobody is told of it.
        let video = chunk.video().unwrap_or(ANY);
        if !delete(app, asked, video, chunk, &left).await {
            return Err(if votes().next().is_none() { MUTE } else { UNDECIDED });
        }
        tracing::info!(%chunk, "a chunk that nothing known explains is given up, because somebody said so");
    }
    app.upkeep.strays.forget(chunk);
    Ok(())
}

/// What a node has of a chunk beside its bytes.
struct Register {
    node: NodeRef,
    vote: Option<Vote>,
    decided: bool,
}

impl Register {
    /// It is known there that nothing is left.
    fn is_deleted(&self) -> bool {
        let vote = self.vote.as_ref().filter(|_| self.decided);
        vote.is_some_and(|vote| vote.placement.layout.is_deleted())
    }
}

/// Of all nodes that belong to the cluster and answer, those that have one.
async fn registers(app: &App, asked: &Asked, chunk: &ChunkId) -> Vec<Register> {
    let trusted = asked.nodes.iter().filter(|node| node.trusted);
    let holders: Vec<Holder> = trusted.filter_map(|node| asked.urls.holder(node.acceptor?)).collect();
    let said = join_all(holders.iter().map(|holder| read(app, holder, chunk))).await;
    said.into_iter().flatten().collect()
}

async fn read(app: &App, holder: &Holder, chunk: &ChunkId) -> Option<Register> {
    let read = timeout(SAID_WITHIN, app.nodes.paxos(holder, chunk, &Request::Read)).await;
    match read {
        Ok(Ok(Reply::State {
            accepted,
            decided,
            damaged,
            ..
        })) if accepted.is_some() || damaged => Some(Register {
            node: holder.node,
            vote: accepted,
            decided,
        }),
        _ => None,
    }
}

impl Strays {
    fn is_unexplained(&self, chunk: &ChunkId) -> bool {
        let looked = locked(&self.looked);
        let mut named = looked.values().flat_map(|looked| &looked.remembered.named);
        named.any(|kept| kept.chunk == *chunk && !kept.explained)
    }

    /// It is kept no more. Its nodes are looked at again soon: there may be others, of which there was no room to tell.
    fn forget(&self, chunk: &ChunkId) {
        for looked in locked(&self.looked).values_mut() {
            let before = looked.remembered.named.len();
            looked.remembered.named.retain(|kept| kept.chunk != *chunk);
            if looked.remembered.named.len() < before {
                looked.again = Monotonic::default();
                looked.again_unchanged = Monotonic::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use vstack_types::{NodeUuid, VideoId};

    use super::*;
    use crate::upkeep::strays::{
        Kept, Looked,
        kept::{Came, Remembered},
    };

    /// As many as are named of a node, and more, of which somebody gives up what is named.
    #[test]
    fn what_there_was_no_room_to_name_is_unexplained_when_all_that_is_named_was_given_up() {
        let video = VideoId::from_bytes([3; 16]);
        let node = NodeRef::first(NodeUuid::from_bytes([7; 16]));
        let unknown = |sequence: u32| Kept {
            chunk: ChunkId::of_video(video, sequence),
            why: String::new(),
            explained: false,
            lends: None,
        };
        let of = |chunks: u32| {
            let strays = Strays::default();
            let remembered = Remembered::default();
            let kept = (0..chunks).map(unknown).collect();
            let looked = Looked {
                remembered: remembered.after(kept, &BTreeSet::new(), Came::Through, |_| true),
                ..Looked::default()
            };
            locked(&strays.looked).insert(node, looked);
            for (_, kept) in strays.kept() {
                strays.forget(&kept.chunk);
            }
            (
                strays.kept().len(),
                strays.any_unexplained(),
                strays.with_more_unexplained().len(),
            )
        };
        assert_eq!(of(201), (0, true, 1));
        assert_eq!(of(200), (0, false, 0));
    }
}
