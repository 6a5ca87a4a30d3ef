//! Keeps count of everything, and mends what is not whole.
//!
//! One task counts: it learns what is new from the store, asks nodes what they hold, compares, and plans. Another mends
//! what the plan names, the most endangered first. Counting comes from memory on both sides; mending goes by the
//! protocol's own moves. All of it can be lost at any moment: it is counted again.

mod counting;
mod grace;
mod leaving;
mod mending;
mod metrics;
mod view;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;
use vstack_api::holdings::Holdings;
use vstack_types::{FingerprintKey, NodeRef, ProcessUuid, Timestamp, VideoId};
use vstack_upkeep::{
    balance::Placed,
    census::{Census, Part, Stranger},
    plan::Due,
    report::Report,
};

use crate::app::Shared;
pub(crate) use mending::Mending;
use metrics::Metrics;
pub(crate) use view::{census, repairs};

/// What was counted of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    /// Of which process, which version of what it holds.
    version: Option<(ProcessUuid, u64)>,
    /// How much was learned by then.
    learned: u64,
    at: Option<Timestamp>,
    items: u64,
    strangers: Vec<Stranger>,
    trouble: Option<String>,
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
}

impl State {
    /// The registers of a chunk are to be counted again, whether or not anything changes at its nodes.
    fn ask_again(&mut self, video: VideoId, part: Part) {
        self.census.ask_again(video, part);
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

/// What the last pass came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// When it ended; none before the first.
    pub(crate) at: Option<Timestamp>,
    pub(crate) report: Report,
    /// Everything known was compared with every node that is up, and no other is waited for.
    pub(crate) complete: bool,
    pub(crate) nodes: BTreeMap<NodeRef, Counted>,
    pub(crate) processor_percent: f64,
    /// What decisions place at nodes; none before everything was learned.
    pub(crate) placed: Option<BTreeMap<NodeRef, Placed>>,
    /// Chunks that are to be moved next so that nodes hold more nearly the same.
    pub(crate) uneven: usize,
}

/// What counting and mending share with handlers.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    state: Mutex<State>,
    summary: Mutex<Arc<Summary>>,
    /// What is to be mended, the worst last.
    plan: Mutex<Vec<Planned>>,
    pub(crate) mending: Mending,
    metrics: Metrics,
    /// What evens nodes out may move as much as repairs do, until they are even.
    hurried: AtomicBool,
    /// Wakes the count before its time.
    pub(crate) count_now: Notify,
    /// There is something to mend.
    planned: Notify,
}

/// Something to mend.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) video: VideoId,
    pub(crate) part: Part,
    pub(crate) due: Due,
    /// It evens out what nodes hold; nothing is wrong with it.
    pub(crate) evens_out: bool,
}

impl Upkeep {
    /// Has `registry` print what is counted and mended.
    pub(crate) fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.metrics.register(registry);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last count.
    pub(crate) fn summary(&self) -> Arc<Summary> {
        Arc::clone(&self.summary.lock().unwrap_or_else(PoisonError::into_inner))
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
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node holds, as it was asked for.
struct Told {
    version: (ProcessUuid, u64),
    key: FingerprintKey,
    holdings: Holdings,
}

/// Works until the service stops.
pub(crate) async fn run(app: Shared) {
    tokio::join!(counting::run(&app), mending::run(&app));
}
