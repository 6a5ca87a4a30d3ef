//! Mends what the plan names, the most endangered first.
//!
//! Some at a time, and no more bytes in a second than `REPAIR_RATE`. Each chunk is taken on by itself: one that cannot be
//! mended now is left for a while, and keeps no other waiting. What is done here is undone by no stop: a copy is
//! verified by the node that takes it, and everything else is decided.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{sleep, timeout};
use vstack_api::holdings::tag_of;
use vstack_chunkpaxos::{Change, Layout, Outcome, Placement, Proposer, Refusal};
use vstack_client::{Holder, NodeUrls};
use vstack_types::{ChunkId, Digest, Monotonic, NodeRef, ProcessUuid, Timestamp, VideoId};
use vstack_upkeep::{
    census::Part,
    plan::Job,
    standing::{Seen, Standing},
};

use super::Planned;
use crate::{app::App, commit::learned, registry, store::Chunk};

/// Chunks that are mended at once.
const AT_ONCE: usize = 8;
/// For one change of a placement.
const DECIDED_WITHIN: Duration = Duration::from_secs(20);
/// For one copy from node to node.
const COPIED_WITHIN: Duration = Duration::from_secs(60);
/// A chunk that could not be mended is left for so long, doubling up to the longest.
const LEFT_FIRST: Duration = Duration::from_secs(2);
const LEFT_MAX: Duration = Duration::from_secs(120);
/// Chunks of which it is remembered that they could not be mended; beyond, those whose time to wait is over are forgotten.
const TRIED_MAX: usize = 10_000;
/// What was done lately, for those who look.
const RECENT_MAX: usize = 200;
/// Of bytes that may be moved at once, in seconds of the rate.
const BURST: Duration = Duration::from_secs(1);

/// Something that was done, or tried.
#[derive(Debug, Clone)]
pub(crate) struct Mended {
    pub(crate) chunk: ChunkId,
    pub(crate) video: VideoId,
    pub(crate) what: &'static str,
    pub(crate) why: Standing,
    pub(crate) began: Timestamp,
    /// None while it goes on.
    pub(crate) took: Option<Duration>,
    pub(crate) bytes: u64,
    /// Why it did not work out.
    pub(crate) failed: Option<String>,
}

#[derive(Debug, Default)]
struct Tried {
    failures: u32,
    not_before: Monotonic,
}

#[derive(Debug, Default)]
struct Ledger {
    running: BTreeMap<(VideoId, Part), Mended>,
    recent: VecDeque<Mended>,
    tried: BTreeMap<(VideoId, Part), Tried>,
    done: u64,
    done_bytes: u64,
    failures: u64,
}

/// What is being mended, and was.
#[derive(Debug, Default)]
pub(crate) struct Mending(Mutex<Ledger>);

/// What there is to see of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) running: Vec<Mended>,
    /// The last first.
    pub(crate) recent: Vec<Mended>,
    pub(crate) done: u64,
    pub(crate) done_bytes: u64,
    pub(crate) failures: u64,
}

impl Mending {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn progress(&self) -> Progress {
        let ledger = self.ledger();
        Progress {
            running: ledger.running.values().cloned().collect(),
            recent: ledger.recent.iter().rev().cloned().collect(),
            done: ledger.done,
            done_bytes: ledger.done_bytes,
            failures: ledger.failures,
        }
    }
}

impl Ledger {
    fn is_due(&self, key: (VideoId, Part), now: Monotonic) -> bool {
        !self.running.contains_key(&key) && self.tried.get(&key).is_none_or(|tried| tried.not_before <= now)
    }

    fn ended(&mut self, key: (VideoId, Part), now: (Timestamp, Monotonic), outcome: Result<u64, String>) {
        let Some(mut mended) = self.running.remove(&key) else {
            return;
        };
        mended.took = Some(now.0.since(mended.began));
        match outcome {
            Ok(bytes) => {
                self.tried.remove(&key);
                self.done += 1;
                self.done_bytes += bytes;
                mended.bytes = bytes;
            }
            Err(why) => {
                if self.tried.len() >= TRIED_MAX {
                    self.tried.retain(|_, tried| tried.not_before > now.1);
                }
                let tried = self.tried.entry(key).or_default();
                tried.failures += 1;
                let wait = LEFT_FIRST.saturating_mul(1 << tried.failures.min(10)).min(LEFT_MAX);
                tried.not_before = now.1 + wait;
                self.failures += 1;
                mended.failed = Some(why);
            }
        }
        self.recent.push_back(mended);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }
}

/// Bytes that may be moved now: as many as come in a second at the rate, and no more are saved up.
#[derive(Debug)]
struct Allowance {
    rate: u64,
    at: Monotonic,
    /// May be negative: a chunk is moved as soon as anything is left, and waited for after.
    left: i64,
}

impl Allowance {
    const fn new(rate: u64, at: Monotonic) -> Self {
        Self { rate, at, left: 0 }
    }

    /// How long to wait until something may be moved.
    fn wait(&mut self, now: Monotonic) -> Duration {
        let earned = now.since(self.at).min(BURST).as_secs_f64() * self.rate as f64;
        self.at = now;
        let most = i64::try_from(self.rate).unwrap_or(i64::MAX);
        #[expect(clippy::cast_possible_truncation, reason = "at most the rate")]
        let earned = earned as i64;
        self.left = self.left.saturating_add(earned).min(most);
        if self.left > 0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1 - self.left) as f64 / self.rate as f64)
    }

    fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Works until the service stops.
pub(super) async fn run(app: &App) {
    if !app.settings.repairs {
        tracing::warn!("REPAIRS=false: nothing is mended");
        return;
    }
    let mut running = FuturesUnordered::new();
    let now = app.clock.monotonic();
    let mut allowance = Allowance::new(app.settings.repair_rate.max(1), now);
    let mut for_evening_out = Allowance::new(app.settings.rebalance_rate.max(1), now);
    loop {
        let mut wait = None;
        while running.len() < AT_ONCE {
            let now = app.clock.monotonic();
            let pause = allowance.wait(now);
            if !pause.is_zero() {
                wait = Some(pause);
                break;
            }
            let evening_out = for_evening_out.wait(now);
            let may_even_out = evening_out.is_zero() || app.upkeep.is_hurried();
            let Some(next) = take(app, may_even_out) else {
                wait = (!may_even_out).then_some(evening_out);
                break;
            };
            allowance.spend(next.moves());
            if next.planned.evens_out {
                for_evening_out.spend(next.moves());
            }
            running.push(mend(app, next));
        }
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            Some(()) = running.next() => {}
            () = app.upkeep.planned.notified() => {}
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
    }
}

/// A chunk that is taken on.
struct Task {
    planned: Planned,
    id: ChunkId,
    size: u64,
}

impl Task {
    /// Bytes that go from node to node for it.
    fn moves(&self) -> u64 {
        match &self.planned.due.job {
            Job::Restore { .. } | Job::Move { .. } => self.size,
            Job::Read | Job::Settle | Job::Salvage => 0,
        }
    }

    const fn what(&self) -> &'static str {
        match &self.planned.due.job {
            Job::Salvage => "salvage",
            Job::Read => "read_registers",
            Job::Restore { .. } => "restore_copy",
            Job::Settle => "end_move",
            Job::Move { .. } if self.planned.evens_out => "even_out",
            Job::Move { .. } => "move",
        }
    }
}

/// The most endangered chunk of the plan that may be taken on now.
fn take(app: &App, may_even_out: bool) -> Option<Task> {
    let now = app.clock.monotonic();
    loop {
        let planned = app.upkeep.plan().pop_if(|planned| may_even_out || !planned.evens_out)?;
        let key = (planned.video, planned.part);
        if !app.upkeep.mending.ledger().is_due(key, now) {
            continue;
        }
        let task = {
            let state = app.upkeep.state();
            let row = state.census.row(planned.video, planned.part);
            let size = row.map(|row| u64::from(row.size));
            let id = state.census.id(planned.video, planned.part);
            size.map(|size| Task { planned, id, size })
        };
        // It is gone since.
        let Some(task) = task else { continue };
        let begun = Mended {
            chunk: task.id.clone(),
            video: task.planned.video,
            what: task.what(),
            why: task.planned.due.standing,
            began: app.now(),
            took: None,
            bytes: 0,
            failed: None,
        };
        app.upkeep.mending.ledger().running.insert(key, begun);
        return Some(task);
    }
}

async fn mend(app: &App, task: Task) {
    let outcome = attempt(app, &task).await;
    match &outcome {
        Ok(bytes) => app.upkeep.metrics.mended(task.what(), *bytes),
        Err(_) => app.upkeep.metrics.failed(),
    }
    if let Err(why) = &outcome {
        tracing::info!(chunk = %task.id, what = task.what(), why, "a chunk is left as it is for a while");
    }
    let key = (task.planned.video, task.planned.part);
    let now = (app.now(), app.clock.monotonic());
    app.upkeep.mending.ledger().ended(key, now, outcome);
}

/// Does what is to be done about one chunk; gives the bytes that were moved.
async fn attempt(app: &App, task: &Task) -> Result<u64, String> {
    let nodes = app.store.nodes().await.map_err(|error| error.to_string())?;
    let known = app
        .store
        .chunk(task.id.clone())
        .await
        .map_err(|error| error.to_string())?;
    let Some((video, chunk)) = known else {
        return Err("it is not known any more".to_owned());
    };
    let at = Mender {
        app,
        video,
        chunk,
        urls: registry::node_urls(&nodes),
    };
    match &task.planned.due.job {
        Job::Restore { node, tag } => at.restore(task, *node, *tag).await,
        Job::Read => at.read(task).await.map(|_| 0),
        Job::Settle => at.settle(task).await,
        Job::Move { to } => at.move_to(task, to.clone()).await,
        Job::Salvage => Err("its register lost its majority for good".to_owned()),
    }
}

/// One chunk, as it was learned.
struct Mender<'a> {
    app: &'a App,
    video: VideoId,
    chunk: Chunk,
    urls: NodeUrls,
}

impl Mender<'_> {
    /// Has a node fetch an item again that it should have.
    async fn restore(&self, task: &Task, node: NodeRef, tag: u32) -> Result<u64, String> {
        let placement = &self.chunk.placement;
        let mut items = placement.items_of(&placement.layout, node);
        items.extend(placement.prev.iter().flat_map(|prev| placement.items_of(prev, node)));
        let Some(item) = items.into_iter().find(|item| tag_of(*item) == tag) else {
            // It was moved since.
            return Ok(0);
        };
        let to = self.urls.holder(node).ok_or("its node is not there")?;
        let from = self.holders(node, item);
        if from.is_empty() {
            return Err("no other node has these bytes".to_owned());
        }
        let size = placement.item_size(item);
        let pull = self.app.nodes.pull(&to, &self.chunk.id, item, size, &from);
        timeout(COPIED_WITHIN, pull)
            .await
            .map_err(|_elapsed| "the copy took too long".to_owned())?
            .map_err(|error| error.to_string())?;
        let (video, part) = (task.planned.video, task.planned.part);
        let mut state = self.app.upkeep.state();
        state.census.note(node, video, part, item, Seen::Whole);
        Ok(size)
    }

    /// Who should have an item, but for `not`.
    fn holders(&self, not: NodeRef, item: Digest) -> Vec<Holder> {
        let placement = &self.chunk.placement;
        let layouts = std::iter::once(&placement.layout).chain(&placement.prev);
        let mut holders: Vec<NodeRef> = Vec::new();
        for node in layouts.flat_map(Layout::nodes) {
            if node != not && !holders.contains(&node) && placement.keeps(node, item) {
                holders.push(node);
            }
        }
        holders.into_iter().filter_map(|node| self.urls.holder(node)).collect()
    }

    async fn propose(&self, change: Change) -> Result<Outcome, String> {
        let known = &self.chunk.placement;
        let mut proposer = Proposer::new(ProcessUuid::random(), known.nodes(), change.clone());
        if change != Change::Read {
            proposer = proposer.expecting(known.version).knowing(known.clone());
        }
        let proposed = self.app.propose(&self.urls, &self.chunk.id, proposer, DECIDED_WITHIN);
        proposed.await.map_err(|error| error.to_string())
    }

    /// Writes down what was decided.
    async fn learn(&self, placement: Placement) -> Result<(), String> {
        let chunk = Chunk {
            placement,
            ..self.chunk.clone()
        };
        learned(self.app, self.video, vec![chunk])
            .await
            .map_err(|error| error.to_string())
    }

    /// Learns what a majority says, which tells everybody else.
    async fn read(&self, task: &Task) -> Result<Placement, String> {
        match self.propose(Change::Read).await? {
            Outcome::Decided(vote) => {
                if vote.placement.version > self.chunk.placement.version {
                    self.learn(vote.placement.clone()).await?;
                }
                let mut state = self.app.upkeep.state();
                state.ask_again(task.planned.video, task.planned.part);
                Ok(vote.placement)
            }
            Outcome::Nothing => Err("nobody knows of it".to_owned()),
            Outcome::Refused(refusal) => Err(refusal.to_string()),
        }
    }

    /// Ends a move, one way or the other.
    async fn settle(&self, task: &Task) -> Result<u64, String> {
        match self.propose(Change::Settle).await? {
            Outcome::Decided(vote) => self.learn(vote.placement).await.map(|()| 0),
            // Somebody was faster.
            Outcome::Refused(Refusal::Version(_) | Refusal::Settled) => self.read(task).await.map(|_| 0),
            Outcome::Refused(Refusal::NotEnough) => self.turn_back(task).await,
            Outcome::Refused(refusal) => Err(refusal.to_string()),
            Outcome::Nothing => Err("nobody knows of it".to_owned()),
        }
    }

    /// Gives a move up whose new nodes do not come; while they may, they are told again what is to be there.
    async fn turn_back(&self, task: &Task) -> Result<u64, String> {
        let placement = self.read(task).await?;
        let here = |node: &NodeRef| self.urls.holder(*node).is_some();
        if placement.back || placement.layout.nodes().iter().all(here) {
            return Err("its new nodes do not have their part yet".to_owned());
        }
        match self.propose(Change::TurnBack).await? {
            Outcome::Decided(vote) => self.learn(vote.placement).await.map(|()| 0),
            Outcome::Refused(refusal) => Err(refusal.to_string()),
            Outcome::Nothing => Err("nobody knows of it".to_owned()),
        }
    }

    /// Moves the chunk, and settles it there.
    async fn move_to(&self, task: &Task, to: Vec<NodeRef>) -> Result<u64, String> {
        let new = to.iter().filter(|node| !self.chunk.placement.names(**node)).count() as u64;
        let change = Change::Move {
            to: Layout::Replicated { nodes: to },
        };
        let joint = match self.propose(change).await? {
            Outcome::Decided(vote) => vote.placement,
            Outcome::Refused(Refusal::Version(_) | Refusal::Joint(_)) => return self.read(task).await.map(|_| 0),
            Outcome::Refused(refusal) => return Err(refusal.to_string()),
            Outcome::Nothing => return Err("nobody knows of it".to_owned()),
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
        };
        match moved.propose(Change::Settle).await? {
            Outcome::Decided(vote) => moved.learn(vote.placement).await?,
            // The next count finds it under way.
            other => tracing::info!(chunk = %self.chunk.id, ?other, "a move is not settled yet"),
        }
        Ok(new * self.chunk.placement.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_moved_at_the_rate() {
        let at = |ms| Monotonic::from_start(Duration::from_millis(ms));
        let mut allowance = Allowance::new(1_000, at(0));
        assert!(allowance.wait(at(1)) <= Duration::from_millis(1));
        assert_eq!(allowance.wait(at(100)), Duration::ZERO);
        allowance.spend(600);
        // A hundred were there, less what the first look took.
        let wait = allowance.wait(at(100));
        assert!((500..=502).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(allowance.wait(at(100) + wait), Duration::ZERO);
        // What was not used for long is not saved up for more than a second.
        assert_eq!(allowance.wait(at(60_000)), Duration::ZERO);
        allowance.spend(3_000);
        let wait = allowance.wait(at(60_000));
        assert!((1_999..=2_001).contains(&wait.as_millis()), "{wait:?}");
    }
}
