//! Counts: what was learned against what nodes hold.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::runtime::{Handle, RuntimeFlavor};
use vstack_api::metadata::{NodeRole, NodeStatus};
use vstack_client::Holder;
use vstack_placement::Candidate;
use vstack_types::NodeRef;
use vstack_upkeep::{
    balance::{placed, shifts},
    census::Part,
    plan::{Cluster, Due, Job, due},
    report::report,
    standing::Standing,
};

use super::{Counted, Planned, State, Summary, Told, grace::Grace, leaving};
use crate::{
    app::App,
    registry,
    store::{Chunk, Node, StoreError},
};

/// Chunks learned in one transaction of the store.
const NEWS_PAGE: u32 = 4_096;
/// What a node is to tell takes no longer, however much it is.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// Things to mend that are kept at once: more come with the next count.
const PLAN_MAX: usize = 10_000;
/// Chunks that are moved between two counts so that nodes hold more nearly the same.
const SHIFTS_MAX: usize = 512;
/// Of the time of one processor, counting takes about one part in so many at most.
const SHARE: u32 = 60;

/// Works until the service stops.
pub(super) async fn run(app: &App) {
    let mut grace = Grace::default();
    loop {
        let began = app.clock.monotonic();
        let mut busy = Duration::ZERO;
        let counted = tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            counted = pass(app, &mut grace, &mut busy) => counted,
        };
        if let Err(error) = counted {
            tracing::warn!(%error, "what is stored could not be counted; it is tried again");
        }
        let wait = app.pace.count_every.max(busy * SHARE);
        let share = busy.as_secs_f64() / (app.clock.monotonic().since(began) + wait).as_secs_f64();
        app.upkeep.note_share(share * 100.0);
        app.upkeep.metrics.was_busy(busy.as_secs_f64());
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = app.upkeep.count_now.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Work that takes its time, without keeping others waiting where there are others.
fn heavy<T>(app: &App, busy: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = app.clock.monotonic();
    let done = match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    };
    *busy += app.clock.monotonic().since(began);
    done
}

fn part_of(chunk: &Chunk) -> Part {
    chunk.place.map_or(Part::Init, |place| Part::Chunk(place.sequence_num))
}

async fn learn(app: &App, busy: &mut Duration) -> Result<(), StoreError> {
    loop {
        let after = app.upkeep.state().cursor;
        let news = app.store.changes(after, NEWS_PAGE).await?;
        let now_s = seconds(app);
        let more = news.more;
        heavy(app, busy, || {
            let mut state = app.upkeep.state();
            for (video, chunk) in &news.chunks {
                let part = part_of(chunk);
                state.census.learn(*video, part, &chunk.id, &chunk.placement, now_s);
            }
            for video in &news.gone {
                state.census.forget_video(*video);
            }
            state.cursor = news.up_to;
        });
        if !more {
            app.upkeep.state().caught_up = true;
            return Ok(());
        }
    }
}

/// Of this service's clock.
fn seconds(app: &App) -> u32 {
    u32::try_from(app.clock.monotonic().since_start().as_secs()).unwrap_or(u32::MAX)
}

async fn pass(app: &App, grace: &mut Grace, busy: &mut Duration) -> Result<(), StoreError> {
    learn(app, busy).await?;
    let nodes = app.store.nodes().await?;
    let urls = registry::node_urls(&nodes);
    let (now, timeout) = (app.now(), app.settings.node_timeout());
    let up = |node: &&Node| node.trusted && registry::status(node, now, timeout) != NodeStatus::Down;
    let asked: Vec<Holder> = nodes
        .iter()
        .filter(up)
        .filter_map(|node| urls.holder(node.acceptor?))
        .collect();
    // One after the other: of a million chunks, each tells some fifteen megabytes.
    for holder in &asked {
        count(app, holder, busy).await;
    }
    let candidates = registry::candidates(&nodes, app.now(), timeout);
    let answering: BTreeSet<NodeRef> = asked.iter().map(|holder| holder.node).collect();
    let silent: Vec<NodeRef> = {
        let state = app.upkeep.state();
        let named = state.census.nodes().into_iter();
        named.filter(|node| !answering.contains(node)).collect()
    };
    let gone = grace.look(silent.clone(), app.clock.monotonic(), app.settings.repair_grace());
    // Who is to be taken out and does not answer is given up.
    let given_up = |node: &&Node| matches!(node.role, NodeRole::Removing | NodeRole::Sealed);
    let given_up = nodes.iter().filter(given_up).filter_map(|node| node.acceptor);
    let lost: Vec<NodeRef> = given_up.filter(|node| silent.contains(node)).collect();
    let around = Around {
        candidates: &candidates,
        gone: &gone,
        lost: &lost,
        silent: &silent,
        answering: &answering,
    };
    heavy(app, busy, || judge(app, around));
    let (named, caught_up) = {
        let state = app.upkeep.state();
        (state.census.nodes().into_iter().collect(), state.caught_up)
    };
    let found = leaving::Found {
        named: &named,
        caught_up,
        answering: &answering,
    };
    leaving::go(app, &nodes, &urls, &found).await
}

/// Counts one node, unless nothing changed.
async fn count(app: &App, holder: &Holder, busy: &mut Duration) {
    let told = match tokio::time::timeout(TOLD_WITHIN, ask(app, holder)).await {
        Ok(Ok(Some(told))) => told,
        Ok(Ok(None)) => {
            let mut state = app.upkeep.state();
            if let Some(counted) = state.counted.get_mut(&holder.node) {
                counted.at = Some(app.now());
                counted.trouble = None;
            }
            return;
        }
        Ok(Err(error)) => return trouble(app, holder.node, error.to_string()),
        Err(_elapsed) => return trouble(app, holder.node, "it does not tell in time what it holds".to_owned()),
    };
    let settled = seconds(app).saturating_sub(u32::try_from(app.pace.settled_after.as_secs()).unwrap_or(u32::MAX));
    let at = app.now();
    heavy(app, busy, || {
        let mut state = app.upkeep.state();
        let State { census, counted, .. } = &mut *state;
        let learned = census.learned();
        let strangers = census.count(holder.node, &told.holdings, told.key, settled);
        let late = census.has_uncounted(holder.node);
        counted.insert(
            holder.node,
            Counted {
                // What may only be late is looked at again, whether or not anything changes.
                version: (!late).then_some(told.version),
                learned,
                at: Some(at),
                items: told.holdings.items.len() as u64,
                strangers,
                trouble: None,
            },
        );
    });
}

/// What a node holds; none when that and what is expected of it are as they were when it was last counted.
async fn ask(app: &App, holder: &Holder) -> Result<Option<Told>, vstack_client::ClientError> {
    let known = {
        let state = app.upkeep.state();
        let counted = state.counted.get(&holder.node);
        counted
            .filter(|counted| counted.learned == state.census.learned())
            .and_then(|counted| counted.version)
    };
    if let Some(known) = known
        && app.nodes.held_version(holder).await? == known
    {
        return Ok(None);
    }
    let page = app.nodes.holdings(holder).await?;
    Ok(Some(Told {
        version: (page.process, page.version),
        key: page.key,
        holdings: page.holdings,
    }))
}

fn trouble(app: &App, node: NodeRef, why: String) {
    tracing::debug!(%node, why, "a node could not be counted");
    let mut state = app.upkeep.state();
    let counted = state.counted.entry(node).or_default();
    counted.version = None;
    counted.trouble = Some(why);
}

/// The nodes in one pass.
#[derive(Clone, Copy)]
struct Around<'a> {
    candidates: &'a [Candidate],
    /// Not waited for any more.
    gone: &'a [NodeRef],
    /// Given up.
    lost: &'a [NodeRef],
    /// Expected to hold something, and not up.
    silent: &'a [NodeRef],
    /// Up.
    answering: &'a BTreeSet<NodeRef>,
}

/// Sums everything up, and plans what is to be done.
fn judge(app: &App, around: Around<'_>) {
    let cluster = Cluster {
        nodes: around.candidates,
        gone: around.gone,
        lost: around.lost,
        copies: app.settings.replication_factor,
    };
    let mut state = app.upkeep.state();
    let kept = |node: &NodeRef| around.answering.contains(node) || around.silent.contains(node);
    state.counted.retain(|node, _| kept(node));
    let report = report(&state.census, &cluster);
    let mut plan: Vec<Planned> = Vec::new();
    for (video, row) in state.census.rows() {
        if let Some(due) = due(&state.census, &cluster, video, row) {
            let part = row.part;
            plan.push(Planned {
                video,
                part,
                due,
                evens_out: false,
            });
            if plan.len() > 2 * PLAN_MAX {
                keep_worst(&mut plan);
            }
        }
    }
    keep_worst(&mut plan);
    // Once nothing is wrong with anything.
    let shifts = if plan.is_empty() {
        shifts(&state.census, &cluster, SHIFTS_MAX)
    } else {
        Vec::new()
    };
    if plan.is_empty() && shifts.is_empty() {
        app.upkeep.hurried.store(false, Ordering::Relaxed);
    }
    let uneven = shifts.len();
    plan.extend(shifts.into_iter().map(|shift| Planned {
        video: shift.video,
        part: shift.part,
        due: Due {
            standing: Standing::Whole,
            job: Job::Move { to: shift.to },
        },
        evens_out: true,
    }));
    let counted_all = state.counted.values().all(|counted| counted.trouble.is_none());
    let summary = Summary {
        at: Some(app.now()),
        complete: state.caught_up && counted_all && around.silent.is_empty() && report.tally.uncounted == 0,
        report,
        nodes: state.counted.clone(),
        processor_percent: app.upkeep.summary().processor_percent,
        placed: state.caught_up.then(|| placed(&state.census)),
        uneven,
    };
    drop(state);
    // The worst is taken from the end.
    plan.reverse();
    let (any, waiting) = (!plan.is_empty(), plan.len() as u64);
    *app.upkeep.plan() = plan;
    let orphans = summary
        .nodes
        .values()
        .map(|counted| counted.strangers.len() as u64)
        .sum();
    let tally = &summary.report.tally;
    app.upkeep.metrics.counted(tally, summary.complete, orphans, waiting);
    app.upkeep.set_summary(summary);
    if any {
        app.upkeep.planned.notify_one();
    }
}

/// The worst first, and no more than are kept.
fn keep_worst(plan: &mut Vec<Planned>) {
    plan.sort_by_key(|planned| (planned.due.standing, planned.video, planned.part));
    plan.truncate(PLAN_MAX);
}

impl super::Upkeep {
    fn set_summary(&self, summary: Summary) {
        let mut kept = self.summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *kept = Arc::new(summary);
    }

    fn note_share(&self, percent: f64) {
        let mut summary = (*self.summary()).clone();
        summary.processor_percent = percent;
        self.set_summary(summary);
    }
}

/// The word for how a chunk stands.
pub(super) const fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Lost => "lost",
        Standing::OutOfReach => "out_of_reach",
        Standing::Endangered => "endangered",
        Standing::Under { .. } => "under_replicated",
        Standing::Uncounted => "uncounted",
        Standing::Whole => "whole",
    }
}
