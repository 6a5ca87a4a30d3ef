//! Mends one chunk: the steps of each job.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use vstack_api::{ErrorCode, holdings::tag_of};
use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer, Refusal};
use vstack_client::{ClientError, Holder, NodeUrls};
use vstack_redundancy::Mode;
use vstack_types::{Digest, NodeRef, ProcessUuid, VideoId};
use vstack_upkeep::plan::Job;

use super::mending::Task;
use crate::{
    app::App,
    commit::learned,
    registry,
    store::{Chunk, Node},
};

/// For one copy from node to node.
pub(super) const COPIED_WITHIN: Duration = Duration::from_secs(60);

/// What came of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// As it should be, with so many bytes that went from node to node.
    Mended {
        /// Those.
        bytes: u64,
    },
    /// Everybody was told what is decided. Whether that was it, the next count says.
    Told,
}

impl Done {
    pub(super) const fn bytes(self) -> u64 {
        match self {
            Self::Mended { bytes } => bytes,
            Self::Told => 0,
        }
    }
}

/// Why it did not work out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) why: String,
    /// Where: after a few times, others take its place.
    pub(super) at: Option<NodeRef>,
    /// It says nothing of how that node does with other chunks.
    pub(super) of_this_alone: bool,
    /// That node made something else of the chunk than others do: nothing of it is made there for a while.
    pub(super) made_otherwise: bool,
}

impl Failed {
    pub(super) fn because(why: impl std::fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            at: None,
            of_this_alone: true,
            made_otherwise: false,
        }
    }

    pub(super) fn at(node: NodeRef, why: impl std::fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            at: Some(node),
            of_this_alone: false,
            made_otherwise: false,
        }
    }

    /// There, for this chunk, and at once.
    pub(super) fn only_at(node: NodeRef, why: impl std::fmt::Display) -> Self {
        Self {
            of_this_alone: true,
            ..Self::at(node, why)
        }
    }

    /// There, where something else was made of the chunk than others make of it.
    pub(super) fn made_otherwise(node: NodeRef) -> Self {
        Self {
            made_otherwise: true,
            ..Self::only_at(node, "it made something else of the chunk than others do")
        }
    }
}

/// Whether a copy failed for a reason that holds nobody up with others: those who should give it did not, or the disk has
/// no room, which its node tells everybody.
pub(super) fn is_of_this_alone(error: &ClientError) -> bool {
    matches!(error.code(), Some(ErrorCode::NeedBytes | ErrorCode::DiskFull))
}

const fn mended(bytes: u64) -> Done {
    Done::Mended { bytes }
}

/// The form into which a job brings a chunk that has the other one.
const fn comes_into(job: &Job) -> Option<Mode> {
    match job {
        Job::Encode { .. } => Some(Mode::Coded),
        Job::Decode { .. } => Some(Mode::Replicated),
        Job::Salvage
        | Job::Read { .. }
        | Job::Restore { .. }
        | Job::Settle
        | Job::TurnBack
        | Job::Move { .. }
        | Job::Correct { .. } => None,
    }
}

/// Does what is to be done about one chunk.
pub(super) async fn attempt(app: &App, task: &Task) -> Result<Done, Failed> {
    let nodes = app.known_nodes().await.map_err(Failed::because)?;
    let known = app
        .store
        .chunk(task.planned.id.clone())
        .await
        .map_err(Failed::because)?;
    let Some((video, chunk)) = known else {
        return Err(Failed::because("it is not known any more"));
    };
    if u32::try_from(chunk.placement.version).unwrap_or(u32::MAX) != task.planned.version {
        // The next count sees what is to be done about where it is now.
        return Ok(Done::Told);
    }
    if let Some(mode) = comes_into(&task.planned.due.job)
        && !app.may_become(video, mode).await.map_err(Failed::because)?
    {
        return Err(Failed::because("its video is to stay in the form it has for now"));
    }
    let urls = registry::node_urls(&nodes);
    let lenders = app.upkeep.strays.lenders(task.key(), &chunk.id);
    let at = Mender {
        app,
        video,
        besides: lenders.into_iter().filter_map(|node| urls.holder(node)).collect(),
        chunk,
        urls,
        nodes,
    };
    match &task.planned.due.job {
        Job::Restore { node, tag } => at.restore(task, *node, *tag).await,
        Job::Read { differing } => at.agree(task, differing).await,
        Job::Settle => at.settle(task).await,
        Job::TurnBack => at.turn_back(task).await,
        Job::Move { to } if at.is_coded() => at.move_shards(task, to).await,
        Job::Move { to } => at.move_to(task, to.clone()).await,
        Job::Correct { to } => at.correct(task, to).await,
        Job::Salvage => at.salvage_if_lost(task).await,
        Job::Encode { data, to } => at.encode(task, data.get(), to).await,
        Job::Decode { to } => at.decode(task, to).await,
    }
}

/// One chunk, as it was learned.
pub(super) struct Mender<'a> {
    pub(super) app: &'a App,
    pub(super) video: VideoId,
    pub(super) chunk: Chunk,
    pub(super) nodes: Vec<Node>,
    pub(super) urls: NodeUrls,
    /// Who has a whole copy of it where it is not placed.
    pub(super) besides: Vec<Holder>,
}

impl Mender<'_> {
    /// Has a node fetch an item again that it should have.
    async fn restore(&self, task: &Task, node: NodeRef, tag: u32) -> Result<Done, Failed> {
        if vstack_types::planted!("missing copies are not brought") {
            return Ok(mended(0));
        }
        let placement = &self.chunk.placement;
        let mut items = placement.items_of(&placement.layout, node);
        items.extend(placement.prev.iter().flat_map(|prev| placement.items_of(prev, node)));
        let Some(item) = items.into_iter().find(|item| tag_of(*item) == tag) else {
            // It was moved since.
            return Ok(Done::Told);
        };
        self.bring(task, node, item).await.map(mended)
    }

    /// Has a node fetch an item, and notes that it has it; gives how many bytes that were.
    async fn bring(&self, task: &Task, node: NodeRef, item: Digest) -> Result<u64, Failed> {
        let to = self
            .urls
            .holder(node)
            .ok_or_else(|| Failed::at(node, "its node is not there"))?;
        let mut from = self.holders(node, item);
        if item == self.chunk.placement.sha256 {
            from.extend(self.besides.iter().filter(|holder| holder.node != node).cloned());
        }
        if from.is_empty() {
            // Each shard is at one node, and what is made of the others is the same.
            return self.remake(task, node, item).await;
        }
        let size = self.chunk.placement.item_size(item);
        let pull = self.app.nodes.pull(&to, &self.chunk.id, item, size, &from);
        match timeout(COPIED_WITHIN, pull).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if is_of_this_alone(&error) => return Err(Failed::only_at(node, error)),
            Ok(Err(error)) => return Err(Failed::at(node, error)),
            Err(_elapsed) => return Err(Failed::at(node, "the copy took too long")),
        }
        let mut state = self.app.upkeep.state();
        state.has_again(node, task.key(), item);
        Ok(size)
    }

    /// Who should have an item, but for `not`.
    pub(super) fn holders(&self, not: NodeRef, item: Digest) -> Vec<Holder> {
        let placement = &self.chunk.placement;
        let layouts = std::iter::once(&placement.layout).chain(&placement.prev);
        let mut holders: Vec<NodeRef> = Vec::new();
        for node in layouts.flat_map(Layout::nodes) {
            if node != not && !holders.contains(&node) && placement.keeps(node, item) {
                holders.push(node);
            }
        }
        // Who is silent may cost much time before anybody else is asked.
        let attendance = self.app.upkeep.attendance();
        holders.sort_by_key(|node| !attendance.up.contains(node));
        holders.into_iter().filter_map(|node| self.urls.holder(node)).collect()
    }

    fn is_coded(&self) -> bool {
        matches!(self.chunk.placement.layout, Layout::Coded { .. })
    }

    async fn propose(&self, change: Change) -> Result<Outcome, Failed> {
        self.propose_at(&self.urls, change).await
    }

    async fn propose_at(&self, urls: &NodeUrls, change: Change) -> Result<Outcome, Failed> {
        let known = &self.chunk.placement;
        // Whatever is done about a chunk here is done because its video lives.
        let mut proposer = Proposer::new(ProcessUuid::random(), known.nodes(), change.clone()).sparing();
        if change != Change::Read {
            proposer = proposer.expecting(known.version).knowing(known.clone());
        }
        let proposed = self
            .app
            .propose(urls, &self.chunk.id, proposer, self.app.pace.decided_within);
        proposed.await.map_err(Failed::because)
    }

    /// Writes down what was decided.
    async fn learn(&self, placement: Placement) -> Result<(), Failed> {
        if placement.layout.is_deleted() {
            return Err(Failed::because("it is deleted, and its video lives"));
        }
        let chunk = Chunk {
            placement,
            ..self.chunk.clone()
        };
        let told = learned(self.app, self.video, vec![chunk]).await;
        told.map_err(Failed::because)
    }

    /// Learns what a majority says, which tells everybody else.
    pub(super) async fn read(&self, task: &Task, urls: &NodeUrls) -> Result<Placement, Failed> {
        match self.propose_at(urls, Change::Read).await? {
            Outcome::Decided(vote) => {
                if vote.placement.version > self.chunk.placement.version {
                    self.learn(vote.placement.clone()).await?;
                }
                let mut state = self.app.upkeep.state();
                let (video, part) = task.key();
                state.ask_again(video, part);
                Ok(vote.placement)
            }
            Outcome::Nothing => Err(Failed::because("nobody knows of it")),
            Outcome::Refused(refusal) => Err(Failed::because(refusal)),
        }
    }

    /// Ends a move where it goes.
    async fn settle(&self, task: &Task) -> Result<Done, Failed> {
        match self.propose(Change::Settle).await? {
            Outcome::Decided(vote) => self.learn(vote.placement).await.map(|()| mended(0)),
            // Somebody was faster.
            Outcome::Refused(Refusal::Version(_) | Refusal::Settled) => {
                self.read(task, &self.urls).await.map(|_| Done::Told)
            }
            Outcome::Refused(refusal) => Err(Failed::because(refusal)),
            Outcome::Nothing => Err(Failed::because("nobody knows of it")),
        }
    }

    /// Gives a move up.
    async fn turn_back(&self, task: &Task) -> Result<Done, Failed> {
        match self.propose(Change::TurnBack).await? {
            Outcome::Decided(vote) => self.learn(vote.placement).await.map(|()| mended(0)),
            Outcome::Refused(Refusal::Version(_) | Refusal::Settled) => {
                self.read(task, &self.urls).await.map(|_| Done::Told)
            }
            Outcome::Refused(refusal) => Err(Failed::because(refusal)),
            Outcome::Nothing => Err(Failed::because("nobody knows of it")),
        }
    }

    /// Moves the chunk. Its bytes are at its new nodes before anything is decided: where they came from they are collected
    /// as soon as the move has ended.
    async fn move_to(&self, task: &Task, to: Vec<NodeRef>) -> Result<Done, Failed> {
        let placement = &self.chunk.placement;
        let new = to.iter().filter(|node| !placement.names(**node));
        let brought = join_all(new.map(|node| self.bring(task, *node, placement.sha256))).await;
        let bytes = brought.into_iter().sum::<Result<u64, Failed>>()?;
        self.app.upkeep.mending.brought(task.key());
        self.app.upkeep.planned.notify_one();
        self.change_to(task, Layout::Replicated { nodes: to }, bytes).await
    }

    /// Decides on another layout, whose items are at its nodes, and ends the move.
    pub(super) async fn change_to(&self, task: &Task, to: Layout, bytes: u64) -> Result<Done, Failed> {
        let change = Change::Move { to };
        let joint = match self.propose(change).await? {
            Outcome::Decided(vote) => vote.placement,
            Outcome::Refused(Refusal::Version(_) | Refusal::Joint(_)) => {
                return self.read(task, &self.urls).await.map(|_| Done::Told);
            }
            Outcome::Refused(refusal) => return Err(Failed::because(refusal)),
            Outcome::Nothing => return Err(Failed::because("nobody knows of it")),
        };
        self.learn(joint.clone()).await?;
        let moved = Mender {
            app: self.app,
            video: self.video,
            chunk: Chunk {
                placement: joint,
                ..self.chunk.clone()
            },
            urls: self.urls.clone(),
            nodes: Vec::new(),
            besides: Vec::new(),
        };
        match moved.propose(Change::Settle).await? {
            Outcome::Decided(vote) => moved.learn(vote.placement).await?,
            // The next count finds it under way.
            other => tracing::info!(chunk = %self.chunk.id, ?other, "a move is not settled yet"),
        }
        Ok(mended(bytes))
    }
}
