//! Keeps count of everything, and mends what is not whole.
//!
//! One part listens who is there. One counts: it learns what is new from the store, asks nodes what they hold, compares,
//! and plans. Another mends what the plan names, the most endangered first. One finds out what it is that nobody expects
//! where it is. One reads, when little else is to be done, whether the shards of each chunk give it. Counting comes from
//! memory on both sides; mending goes by the protocol's own moves. All of it can be lost at any moment: it is counted again.

mod agreement;
mod auditing;
mod bettering;
mod counting;
mod diagnosis;
#[cfg(test)]
mod fixtures;
mod grace;
mod keepings;
mod leaving;
mod listening;
mod mender;
mod mending;
mod metrics;
mod reason;
mod renewal;
mod salvage;
mod seen;
mod shards;
mod strays;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{sync::Notify, task::JoinSet};
use vstack_types::{ChunkId, Digest, Monotonic, NodeRef, ProcessUuid, Timestamp, VideoId};
use vstack_upkeep::{
    balance::{Placed, Zones},
    census::{Census, Part},
    harm::Totals,
    migrate::Migrations,
    plan::{Due, Stuck},
    report::Report,
    standing::Seen,
};

use crate::app::Shared;
pub(crate) use keepings::{keepings, migration};
use listening::Attendance;
pub(crate) use mending::Mending;
use metrics::Metrics;
pub(crate) use strays::give_up;
use strays::{Strange, Strays};
pub(crate) use view::{census, of_video, repairs, stored_health};

/// What was counted of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    /// Of which process, which version of what it holds; none while something is to be counted, whatever changed there.
    version: Option<(ProcessUuid, u64)>,
    /// What it told last was of that process and version, whatever is to be counted besides: it is asked for what changed
    /// behind it. None where everything is to be told.
    told: Option<(ProcessUuid, u64)>,
    /// When everything was told.
    whole_at: Monotonic,
    at: Option<Timestamp>,
    items: u64,
    /// What is placed there and nobody expects.
    orphans: u64,
    /// Of which chunks that is.
    strange: Strange,
    /// Its disk votes no more.
    is_mute: bool,
    trouble: Option<String>,
}

impl Counted {
    /// Everything it holds was compared with what is known, and nothing is left that nothing known explains.
    const fn has_nothing_else(&self) -> bool {
        self.version.is_some() && self.orphans == 0
    }

    /// Nothing that is made of it would be something else.
    fn is_like(&self, other: &Self) -> bool {
        let told = |counted: &Self| {
            (
                counted.version.is_some(),
                counted.at.is_some(),
                counted.items,
                counted.orphans,
                counted.is_mute,
            )
        };
        told(self) == told(other) && self.trouble == other.trouble
    }
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) census: Census,
    /// How far the store's news are in it.
    cursor: u64,
    /// Everything that the store knows is in it.
    caught_up: bool,
    counted: BTreeMap<NodeRef, Counted>,
    /// Rises with everything that may change what is planned.
    news: u64,
}

impl State {
    /// A node has an item again. What its register says now is to be counted, whether or not anything changes there, as
    /// all else that is noted in the census.
    fn has_again(&mut self, node: NodeRef, key: (VideoId, Part), sha256: Digest) {
        self.note(node, key, sha256, Seen::Whole);
    }

    /// What a node is to have is no shard of the chunk.
    fn found_wrong(&mut self, node: NodeRef, key: (VideoId, Part), sha256: Digest) {
        self.note(node, key, sha256, Seen::Wrong);
    }

    /// Nobody else is: what others hold when they are back is to be asked for anew.
    fn are_up(&mut self, up: &BTreeSet<NodeRef>) {
        for (node, counted) in &mut self.counted {
            if !up.contains(node) && (counted.version.is_some() || counted.trouble.is_none()) {
                self.news += 1;
                counted.version = None;
                counted.trouble.get_or_insert_with(|| "it does not answer".to_owned());
            }
        }
    }

    fn note(&mut self, node: NodeRef, (video, part): (VideoId, Part), sha256: Digest, seen: Seen) {
        self.news += 1;
        self.census.note(node, video, part, sha256, seen);
        if let Some(counted) = self.counted.get_mut(&node) {
            counted.version = None;
        }
    }

    /// Which shards of a settled chunk are none of it, by their index; all others are. Says whether that is news.
    fn note_wrong(&mut self, (video, part): (VideoId, Part), version: u32, wrong: &[u8]) -> bool {
        let is_news = self.census.note_wrong(video, part, version, wrong);
        if is_news {
            self.news += 1;
            self.is_uncounted(video, part);
        }
        is_news
    }

    /// Some of the shards of a settled chunk are none of it, and it is not known which. Says whether that is news.
    fn note_doubt(&mut self, (video, part): (VideoId, Part), version: u32) -> bool {
        let is_news = self.census.note_doubt(video, part, version);
        self.news += u64::from(is_news);
        is_news
    }

    /// The registers of a chunk are to be counted again, whether or not anything changes at its nodes.
    fn ask_again(&mut self, video: VideoId, part: Part) {
        self.news += 1;
        self.census.ask_again(video, part);
        self.is_uncounted(video, part);
    }

    /// The nodes of a chunk are to be counted.
    fn is_uncounted(&mut self, video: VideoId, part: Part) {
        let Some(row) = self.census.row(video, part) else {
            return;
        };
        let nodes: Vec<NodeRef> = row
            .items
            .iter()
            .filter_map(|item| self.census.node(item.node))
            .collect();
        for node in nodes {
            if let Some(counted) = self.counted.get_mut(&node) {
                counted.version = None;
            }
        }
    }
}

/// Copies that were found damaged or missing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Harmed {
    totals: Totals,
    /// Being repaired, or beyond repair.
    open: u64,
    beyond_repair: u64,
}

/// What the last pass came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// When it ended; none before the first.
    pub(crate) at: Option<Timestamp>,
    pub(crate) report: Arc<Report>,
    /// Everything known was compared with what every node holds that is up, and no other is waited for.
    complete: bool,
    pub(crate) nodes: BTreeMap<NodeRef, Counted>,
    /// It says how things are until then; the next is late after.
    valid_until: Monotonic,
    /// Who was there.
    attendance: Arc<Attendance>,
    /// What decisions place at nodes; none before everything was learned.
    pub(crate) placed: Option<BTreeMap<NodeRef, Placed>>,
    /// Chunks that are to be moved next so that nodes hold more nearly the same.
    pub(crate) uneven: usize,
    harmed: Harmed,
    /// Disks that vote no more, and that no chunk names any more.
    dispensable: Vec<NodeRef>,
    /// Chunks about which nothing is done until somebody does something, by what that is.
    stuck: BTreeMap<Stuck, u64>,
    /// Chunks of each node that have nowhere else to go.
    penned: BTreeMap<NodeRef, u64>,
    /// Chunks of each node that are lost; of none where no chunk is.
    mourned: BTreeMap<NodeRef, Mourned>,
    /// None where no node was given one.
    zones: Option<Zones>,
    /// What has another form than it is to have.
    pub(crate) migrations: Arc<Migrations>,
}

/// What chunks that are lost have to do with a node.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mourned {
    /// So many name it.
    lost: u64,
    /// And others do, too.
    any_other: bool,
}

/// What counting and mending share with handlers.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Held for as long as a million chunks take to be gone through: handlers never ask for it.
    state: Mutex<State>,
    summary: Mutex<Arc<Summary>>,
    /// What is to be mended, the worst last.
    plan: Mutex<Vec<Planned>>,
    pub(crate) mending: Mending,
    /// What is placed where nobody expects it.
    pub(crate) strays: Strays,
    metrics: Metrics,
    /// What evens nodes out may move as much as repairs do, until they are even.
    hurried: AtomicBool,
    attendance: Mutex<Arc<Attendance>>,
    /// Nodes that some placement names.
    named: Mutex<BTreeSet<NodeRef>>,
    mute: Mutex<Arc<BTreeSet<NodeRef>>>,
    /// Why nodes that are to go are still there.
    staying: Mutex<BTreeMap<NodeRef, String>>,
    /// Share of one processor that counting takes, in thousandths of a percent.
    share: AtomicU64,
    /// How long the last count was to be followed by none.
    wait_ms: AtomicU64,
    /// Wakes the count before its time.
    pub(crate) count_now: Notify,
    /// There is something to mend.
    planned: Notify,
    /// All that was planned was begun, and more may be to be done.
    worked_off: Notify,
}

/// Something to mend.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) video: VideoId,
    pub(crate) part: Part,
    /// What it was planned for: where another chunk or another placement stands by now, it is not done.
    pub(crate) id: ChunkId,
    pub(crate) version: u32,
    pub(crate) due: Due,
    pub(crate) purpose: Purpose,
}

/// What something is done for. Where nothing is wrong with a chunk, what is wrong with others comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is not as it should be.
    Mends,
    /// It is to be in another form.
    Migrates,
    /// Nodes are to hold more nearly the same.
    EvensOut,
}

impl Upkeep {
    /// Has `registry` print what is counted and mended.
    pub(crate) fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.metrics.register(registry);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Nodes that some placement names, as of the last count.
    fn named(&self) -> BTreeSet<NodeRef> {
        locked(&self.named).clone()
    }

    /// Disks that vote no more, as their nodes told when they were counted.
    pub(crate) fn mute(&self) -> Arc<BTreeSet<NodeRef>> {
        Arc::clone(&locked(&self.mute))
    }

    fn note_mute(&self) {
        let state = self.state();
        let mute = state.counted.iter().filter(|(_, counted)| counted.is_mute);
        let mute = Arc::new(mute.map(|(node, _)| *node).collect());
        drop(state);
        *locked(&self.mute) = mute;
    }

    /// Why a node that is to go is still there.
    pub(crate) fn stays_because(&self, node: NodeRef) -> Option<String> {
        locked(&self.staying).get(&node).cloned()
    }

    pub(crate) fn processor_percent(&self) -> f64 {
        self.share.load(Ordering::Relaxed) as f64 / 1_000.0
    }

    /// The last count.
    pub(crate) fn summary(&self) -> Arc<Summary> {
        Arc::clone(&locked(&self.summary))
    }

    /// Has nodes evened out as fast as chunks are repaired, until they are even.
    pub(crate) fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
        self.count_now.notify_one();
    }

    /// Whether somebody asked for that, and nodes are not even yet.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Relaxed)
    }

    fn plan(&self) -> MutexGuard<'_, Vec<Planned>> {
        locked(&self.plan)
    }
}

/// Nothing is left half done under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Works until the service stops.
pub(crate) async fn run(app: Shared) {
    // A task of its own: a count of a million chunks keeps its task from everything else, and who is there is to be known
    // in time. The others share what is counted, and would only wait for each other in the way of everybody.
    let mut listening = JoinSet::new();
    let listens = Arc::clone(&app);
    listening.spawn(async move { listening::run(&listens).await });
    tokio::join!(
        counting::run(&app),
        mending::run(&app),
        auditing::run(&app),
        strays::look_after(&app)
    );
    listening.join_all().await;
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;

    /// Had it been there again before the others were counted, all would have been taken for counted.
    #[test]
    fn who_was_silent_is_counted_anew_however_soon_it_is_back() {
        let [here, away] = [1, 2].map(|n| NodeRef::first(NodeUuid::from_bytes([n; 16])));
        let counted = || Counted {
            version: Some((ProcessUuid::from_bytes([1; 16]), 1)),
            at: Some(Timestamp(1)),
            ..Counted::default()
        };
        let mut state = State {
            counted: BTreeMap::from([(here, counted()), (away, counted())]),
            ..State::default()
        };
        state.are_up(&BTreeSet::from([here, away]));
        assert_eq!(state.news, 0);
        state.are_up(&BTreeSet::from([here]));
        assert_eq!(state.news, 1, "what was made of it is made anew");
        assert!(state.counted[&here].has_nothing_else());
        assert!(!state.counted[&away].has_nothing_else());
        assert!(state.counted[&away].trouble.is_some());
        state.are_up(&BTreeSet::from([here]));
        assert_eq!(state.news, 1, "once");
    }
}
