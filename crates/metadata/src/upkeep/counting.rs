//! Counts: what was learned against what nodes hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::runtime::{Handle, RuntimeFlavor};
use vstack_api::holdings::{Page, Request, Told};
use vstack_client::{ClientError, Holder};
use vstack_placement::{Candidate, Liveness};
use vstack_types::{Monotonic, NodeRef};
use vstack_upkeep::{
    balance::{placed, zones_of},
    census::{Asking, Outcome, Part, Row},
    harm::{Book, Changes},
    plan::{Cluster, Due, Job, Outlook, Stuck},
    report::{Report, report},
    standing::Standing,
};

use super::{
    Attendance, Counted, Harmed, Mourned, Planned, Purpose, State, Strange, Summary,
    bettering::{Bettering, SOON, in_turns},
    leaving, renewal,
};
use crate::{
    app::App,
    keeping::Decided,
    registry,
    store::{Chunk, StoreError},
};

/// Chunks learned, and harmed copies written down, in one transaction of the store.
const NEWS_PAGE: u32 = 4_096;
/// What a node is to tell takes no longer, however much it is.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// Nodes tell what changed. That this comes to the same as everything is tested, and once in so long it is not relied on.
const WHOLE_EVERY: Duration = Duration::from_secs(24 * 3600);
const EVERYTHING: Request = Request::Everything { from: 0 };
/// Things to mend that are kept at once: more come with the next count.
const PLAN_MAX: usize = 10_000;
/// Of the time of one processor, counting takes about one part in so many at most.
const SHARE: u32 = 60;
/// And no wait is longer, however much there is to count. What cannot wait so long, as a node that is gone, wakes it.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// A count is valid for twice as long as the next is awaited after it, and as long as this at least.
const VALID_MIN: Duration = Duration::from_secs(120);
/// Nodes that tell what they hold at the same time.
const ASKED_AT_ONCE: usize = 2;

/// Works until the service stops.
pub(super) async fn run(app: &App) {
    let mut before = Before::default();
    loop {
        let began = app.clock.monotonic();
        let busy = Busy::default();
        let counted = tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            counted = pass(app, &mut before, &busy) => counted,
        };
        if let Err(error) = counted {
            tracing::warn!(%error, "what is stored could not be counted; it is tried again");
        }
        let busy = busy.so_far();
        let wait = app.pace.count_every.max((busy * SHARE).min(WAIT_MAX));
        app.upkeep.note_wait(wait);
        let share = busy.as_secs_f64() / (app.clock.monotonic().since(began) + wait).as_secs_f64();
        app.upkeep.note_share(share);
        app.upkeep.metrics.was_busy(busy.as_secs_f64());
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = app.upkeep.count_now.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Time of a processor that counting took.
#[derive(Debug, Default)]
struct Busy(AtomicU64);

impl Busy {
    fn so_far(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// Work that takes its time, without keeping others waiting where there are others.
    fn with<T>(&self, app: &App, work: impl FnOnce() -> T) -> T {
        let began = app.clock.monotonic();
        let done = match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
            _ => work(),
        };
        let took = app.clock.monotonic().since(began).as_micros();
        self.0
            .fetch_add(u64::try_from(took).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }
}

/// What the last pass left to the next.
#[derive(Debug, Default)]
struct Before {
    seen: Seen,
    /// As the store has it; none before it was read.
    book: Option<Book>,
}

/// What the last plan was made from: of the same, the same would be made.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    news: u64,
    candidates: Vec<Candidate>,
    attendance: Arc<Attendance>,
    caught_up: bool,
    /// How videos are to be kept.
    decided: Arc<Decided>,
    /// Somebody asked for nodes to be evened out: where nothing changed, it is seen anew that there is nothing to do.
    hurried: bool,
    /// Something was planned, or is being done.
    unsettled: bool,
}

/// Which part of its video a chunk is.
pub(super) fn part_of(chunk: &Chunk) -> Part {
    chunk.place.map_or(Part::Init, |place| Part::Chunk(place.sequence_num))
}

async fn learn(app: &App, busy: &Busy) -> Result<(), StoreError> {
    loop {
        let after = app.upkeep.state().cursor;
        let news = app.store.changes(after, NEWS_PAGE).await?;
        let now_s = seconds(app);
        let more = news.more;
        busy.with(app, || {
            let mut state = app.upkeep.state();
            state.news += u64::from(!news.chunks.is_empty() || !news.gone.is_empty());
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

async fn pass(app: &App, before: &mut Before, busy: &Busy) -> Result<(), StoreError> {
    learn(app, busy).await?;
    let nodes = app.store.nodes().await?;
    let urls = registry::node_urls(&nodes);
    let attendance = app.upkeep.attendance();
    // Also who is back by the time that everybody was asked: nobody knows yet what it holds.
    app.upkeep.state().are_up(&attendance.up);
    let asked: Vec<Holder> = attendance.up.iter().filter_map(|node| urls.holder(*node)).collect();
    // Of a million chunks, each tells some fifteen megabytes at first, and what changed after that.
    let counted = stream::iter(asked).for_each_concurrent(ASKED_AT_ONCE, |holder| count(app, holder, busy));
    counted.await;
    app.upkeep.note_mute();
    // Counting may have taken long: who is there now?
    let nodes = app.store.nodes().await?;
    let (named, caught_up, news) = {
        let state = app.upkeep.state();
        let named: BTreeSet<NodeRef> = state.census.nodes().into_iter().collect();
        (named, state.caught_up, state.news)
    };
    super::locked(&app.upkeep.named).clone_from(&named);
    let mut seen = Seen {
        news,
        candidates: app.candidates(&nodes),
        attendance: app.upkeep.attendance(),
        caught_up,
        decided: app.keeping.decided(),
        hurried: app.upkeep.is_hurried(),
        unsettled: false,
    };
    if before.seen == seen {
        app.upkeep.still_so(app);
    } else {
        if before.book.is_none() {
            before.book = Some(app.store.harms().await?);
        }
        let book = before.book.get_or_insert_default();
        let judged = busy.with(app, || judge(app, &seen, book));
        for page in judged.harm.pages(NEWS_PAGE as usize) {
            app.store.note_harms(page.clone()).await?;
            book.apply(&page);
        }
        seen.unsettled = judged.unsettled;
        before.seen = seen;
    }
    let found = leaving::Found {
        named: &named,
        caught_up,
        attendance: &app.upkeep.attendance(),
    };
    leaving::go(app, &nodes, &urls, &found).await?;
    renewal::go(app, &urls).await
}

/// What a node told, and what it was asked besides what changed there.
struct Answer {
    asking: Asking,
    page: Page,
}

/// Counts one node, unless nothing changed.
async fn count(app: &App, holder: Holder, busy: &Busy) {
    let answer = match tokio::time::timeout(TOLD_WITHIN, ask(app, &holder)).await {
        Ok(Ok(Some(answer))) => answer,
        Ok(Ok(None)) => {
            let mut state = app.upkeep.state();
            if let Some(counted) = state.counted.get_mut(&holder.node) {
                counted.at = Some(app.now());
            }
            return;
        }
        Ok(Err(error)) => return trouble(app, holder.node, error.to_string()),
        Err(_elapsed) => return trouble(app, holder.node, "it does not tell in time what it holds".to_owned()),
    };
    busy.with(app, || take(app, holder.node, &answer));
}

/// Compares what a node told with what is expected of it.
fn take(app: &App, node: NodeRef, Answer { asking, page }: &Answer) {
    let settled = seconds(app).saturating_sub(u32::try_from(app.pace.settled_after.as_secs()).unwrap_or(u32::MAX));
    let is_whole = page.told == Told::Everything;
    app.upkeep.metrics.told(is_whole, &page.holdings);
    let now = app.clock.monotonic();
    let mut state = app.upkeep.state();
    let State {
        census, counted, news, ..
    } = &mut *state;
    let outcome = census.count_told(node, asking, page, settled);
    let before = counted.remove(&node).unwrap_or_default();
    if outcome == Outcome::Unknown {
        // It was forgotten meanwhile what was known of it.
        *news += 1;
        let anew = Counted {
            version: None,
            told: None,
            ..before
        };
        counted.insert(node, anew);
        return;
    }
    if page.is_mute {
        census.silence(node);
    }
    let strangers = census.strangers(node);
    let told = (page.process, page.version);
    let after = Counted {
        // What may only be late is looked at again, whether or not anything changes.
        version: (!census.has_uncounted(node)).then_some(told),
        told: Some(told),
        whole_at: if is_whole { now } else { before.whole_at },
        at: Some(app.now()),
        items: page.items_held,
        orphans: strangers.len() as u64,
        strange: Strange::of(strangers, page.key, Some(&before.strange), now),
        is_mute: page.is_mute,
        trouble: None,
    };
    if outcome == Outcome::News || !after.is_like(&before) {
        *news += 1;
    }
    counted.insert(node, after);
}

/// What a node holds in which anything changed, there or in what is expected of it; none when nothing did.
async fn ask(app: &App, holder: &Holder) -> Result<Option<Answer>, ClientError> {
    let (asking, known, was_mute) = {
        let state = app.upkeep.state();
        let asking = state.census.asking(holder.node);
        let counted = state.counted.get(&holder.node);
        let is_lately = |counted: &&Counted| app.clock.monotonic().since(counted.whole_at) < WHOLE_EVERY;
        let lately = counted.filter(is_lately).filter(|_| asking.key.is_some());
        let was_mute = counted.is_some_and(|counted| counted.is_mute);
        (asking, lately.and_then(|counted| counted.told), was_mute)
    };
    let request = known.map_or(EVERYTHING, |(process, version)| Request::Since {
        process,
        version,
        besides: asking.due.clone(),
    });
    let mut page = app.nodes.holdings(holder, &request).await?;
    if let Told::Buckets(buckets) = &page.told {
        // Those of another key say nothing; nor does any bucket say what registers are that were taken for silent.
        if asking.key != Some(page.key) || (was_mute && !page.is_mute) {
            page = app.nodes.holdings(holder, &EVERYTHING).await?;
        } else if buckets.is_empty() && page.is_mute == was_mute && is_counted(app, holder.node) {
            return Ok(None);
        }
    }
    Ok(Some(Answer { asking, page }))
}

/// Whether nothing came in between that makes a count of it necessary, whatever it told.
fn is_counted(app: &App, node: NodeRef) -> bool {
    let state = app.upkeep.state();
    let counted = state.counted.get(&node);
    counted.is_some_and(|counted| counted.version.is_some())
}

fn trouble(app: &App, node: NodeRef, why: String) {
    tracing::debug!(%node, why, "a node could not be counted");
    let mut state = app.upkeep.state();
    state.news += 1;
    let counted = state.counted.entry(node).or_default();
    counted.version = None;
    counted.trouble = Some(why);
}

/// What judging came to.
struct Judged {
    /// Something is to be done, or is being done.
    unsettled: bool,
    /// To be written into the book.
    harm: Changes,
}

/// Sums everything up, and plans what is to be done.
fn judge(app: &App, seen: &Seen, book: &Book) -> Judged {
    let attendance = &seen.attendance;
    let now = app.clock.monotonic();
    let tries = app.upkeep.mending.tries(now);
    // Nothing new goes to who did not take it lately, as long as there are others.
    let mut candidates = seen.candidates.clone();
    for candidate in candidates.iter_mut().filter(|it| tries.resting.contains(&it.node)) {
        candidate.liveness = candidate.liveness.max(Liveness::Degraded);
    }
    let cluster = Cluster {
        nodes: &candidates,
        gone: &attendance.gone,
        lost: &attendance.lost,
        copies: app.settings.replication_factor,
    };
    let mut state = app.upkeep.state();
    let kept = |node: &NodeRef| attendance.up.contains(node) || attendance.silent.contains(node);
    state.counted.retain(|node, _| kept(node));
    state.are_up(&attendance.up);
    let outlook = Outlook::new(&state.census, cluster);
    let report = report(&outlook);
    let mut book = book.clone();
    let mut harm = Changes::default();
    if seen.caught_up {
        harm = book.compare(&outlook);
        book.apply(&harm);
    }
    let harmed = Harmed {
        totals: book.totals,
        open: book.open.len() as u64,
        beyond_repair: book.beyond_repair(&outlook),
    };
    let mut plan: Vec<Planned> = Vec::new();
    let (mut stuck, mut penned) = (BTreeMap::new(), BTreeMap::new());
    for (video, row) in state.census.rows() {
        let key = (video, row.part);
        let avoided = tries.avoided.get(&key).map_or(&[][..], Vec::as_slice);
        // What is left for a while takes no room from what is not.
        if tries.held_back.contains(&key) {
            continue;
        }
        let (standing, job) = outlook.judge(video, row, avoided);
        let Some(job) = job else {
            note_stuck(&mut stuck, &mut penned, &outlook, (row, standing));
            continue;
        };
        plan.push(Planned {
            video,
            part: row.part,
            id: state.census.id(video, row.part),
            version: row.version,
            due: Due { standing, job },
            purpose: Purpose::Mends,
        });
        if plan.len() > 2 * PLAN_MAX {
            keep_worst(&mut plan);
        }
    }
    keep_worst(&mut plan);
    // Forgotten as soon as all is well: what comes then is another matter.
    app.upkeep.mending.keep_tried(now, |(video, part)| {
        let row = state.census.row(*video, *part);
        let is_well = |row| outlook.standing(row) == Standing::Whole && outlook.due(*video, row, &[]).is_none();
        row.is_some_and(|row| !is_well(row))
    });
    // Once nothing can be done about anything that is wrong.
    let at_rest = plan.is_empty() && !tries.any_moved;
    let held_back = |video, part| tries.held_back.contains(&(video, part));
    let migrates = plan.is_empty() && !seen.decided.paused;
    let bettering = Bettering {
        wished: &seen.decided.wished,
        evens_out: at_rest,
        // As many bytes as are migrated until it is looked at again.
        migrated_soon: if migrates {
            app.settings.migration_rate.saturating_mul(SOON.as_secs())
        } else {
            0
        },
    };
    let (shifts, migrations) = bettering.plan(&outlook, held_back);
    let zones = zones_of(&outlook);
    let all_are_counted = |node: &NodeRef| {
        let counted = state.counted.get(node);
        counted.is_some_and(|counted| counted.trouble.is_none() && counted.at.is_some())
    };
    for (node, _) in state.counted.iter().filter(|(_, counted)| counted.has_nothing_else()) {
        app.upkeep.strays.explain(*node);
    }
    let complete = seen.caught_up
        && attendance.complete
        // Who does not come back has nothing to be compared with.
        && attendance.silent.iter().all(|node| attendance.lost.contains(node))
        && attendance.up.iter().all(all_are_counted)
        && attendance.up.iter().all(|node| app.upkeep.strays.is_explained(*node))
        && report.tally.uncounted == 0;
    // Also where somebody is missed: what can be evened out is.
    let is_known = seen.caught_up && attendance.complete && report.tally.uncounted == 0;
    if at_rest && is_known && shifts.is_empty() {
        app.upkeep.hurried.store(false, Ordering::Relaxed);
    }
    let uneven = shifts.len();
    let is_mute = |node: &&NodeRef| state.counted.get(*node).is_some_and(|counted| counted.is_mute);
    // Its bytes may be the last good ones of what names it, however whole the other copies were when they were last read.
    // What nobody expects there may be of a film that only a newer database than this knows.
    let is_empty = |node: &&NodeRef| state.counted.get(*node).is_some_and(Counted::has_nothing_else);
    let mute = attendance.up.iter().filter(|_| complete).filter(is_mute);
    let mut empty = mute.filter(is_empty).peekable();
    let named = empty.peek().is_some().then(|| state.census.nodes());
    let dispensable = named.map_or_else(Vec::new, |named| {
        empty.filter(|node| !named.contains(node)).copied().collect()
    });
    let migrating = migrations.next.iter().filter(|_| migrates).map(|migration| Planned {
        video: migration.video,
        part: migration.part,
        id: state.census.id(migration.video, migration.part),
        version: migration.version,
        due: Due {
            standing: Standing::Whole,
            job: migration.job.clone(),
        },
        purpose: Purpose::Migrates,
    });
    let evening_out = shifts.into_iter().map(|shift| Planned {
        video: shift.video,
        part: shift.part,
        id: state.census.id(shift.video, shift.part),
        version: shift.version,
        due: Due {
            standing: Standing::Whole,
            job: Job::Move { to: shift.to },
        },
        purpose: Purpose::EvensOut,
    });
    if seen.hurried {
        // Somebody waits for it.
        plan.extend(evening_out.chain(migrating));
    } else {
        plan.extend(in_turns(migrating, evening_out));
    }
    let summary = Summary {
        at: Some(app.now()),
        complete,
        nodes: state.counted.clone(),
        valid_until: valid_until(app),
        attendance: Arc::clone(attendance),
        placed: state.caught_up.then(|| placed(&state.census)),
        uneven,
        harmed,
        dispensable,
        stuck,
        penned,
        mourned: mourned(&outlook, &report),
        report: Arc::new(report),
        zones,
        migrations: Arc::new(migrations),
    };
    drop(state);
    // The worst is taken from the end.
    plan.reverse();
    let (any, waiting) = (!plan.is_empty(), plan.len() as u64);
    *app.upkeep.plan() = plan;
    let orphans = summary.nodes.values().map(|counted| counted.orphans).sum();
    let tally = &summary.report.tally;
    app.upkeep.metrics.counted(tally, summary.complete, orphans, waiting);
    app.upkeep.metrics.harmed(&summary.harmed);
    app.upkeep.metrics.kept(&summary, app.settings.replication_factor);
    app.upkeep.set_summary(summary);
    if any {
        app.upkeep.planned.notify_one();
    }
    Judged {
        unsettled: any || !tries.held_back.is_empty() || !tries.resting.is_empty() || !tries.avoided.is_empty(),
        harm,
    }
}

/// Different reasons that are told apart; they are as many as there are sets of nodes that may be missed together.
const REASONS_MAX: usize = 200;

/// Notes why nothing is done about a chunk, and which nodes that are to go it stays on.
fn note_stuck(
    stuck: &mut BTreeMap<Stuck, u64>,
    penned: &mut BTreeMap<NodeRef, u64>,
    outlook: &Outlook<'_>,
    (row, standing): (&Row, Standing),
) {
    let Some(why) = outlook.stuck(row, standing) else {
        return;
    };
    if why == Stuck::NowhereToGo {
        for node in row.items.iter().filter_map(|item| outlook.census.node(item.node)) {
            *penned.entry(node).or_default() += 1;
        }
    }
    if stuck.len() < REASONS_MAX || stuck.contains_key(&why) {
        *stuck.entry(why).or_default() += 1;
    }
}

/// Of each node that a chunk names that is lost: how many such chunks do, and whether any other does.
fn mourned(outlook: &Outlook<'_>, report: &Report) -> BTreeMap<NodeRef, Mourned> {
    let mut mourned: BTreeMap<NodeRef, Mourned> = BTreeMap::new();
    if report.tally.lost == 0 {
        return mourned;
    }
    for (_, row) in outlook.census.rows() {
        let is_lost = outlook.standing(row) == Standing::Lost;
        for node in row.items.iter().filter_map(|item| outlook.census.node(item.node)) {
            let of_node = mourned.entry(node).or_default();
            of_node.lost += u64::from(is_lost);
            of_node.any_other |= !is_lost;
        }
    }
    mourned
}

/// Until when the next count is awaited.
fn valid_until(app: &App) -> Monotonic {
    let wait = Duration::from_millis(app.upkeep.wait_ms.load(Ordering::Relaxed));
    app.clock.monotonic() + (wait.max(app.pace.count_every) * 2).max(VALID_MIN)
}

/// The worst first, and no more than are kept.
fn keep_worst(plan: &mut Vec<Planned>) {
    plan.sort_by_key(|planned| (planned.due.standing, planned.video, planned.part));
    plan.truncate(PLAN_MAX);
}

impl super::Upkeep {
    fn set_summary(&self, summary: Summary) {
        *super::locked(&self.summary) = Arc::new(summary);
    }

    /// Everything was looked at again, and is as it was.
    fn still_so(&self, app: &App) {
        let nodes = app.upkeep.state().counted.clone();
        let summary = Summary {
            at: Some(app.now()),
            valid_until: valid_until(app),
            nodes,
            ..(*self.summary()).clone()
        };
        self.set_summary(summary);
    }

    fn note_wait(&self, wait: Duration) {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.wait_ms.store(ms, Ordering::Relaxed);
    }

    fn note_share(&self, share: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 100,000"
        )]
        let thousandths = (share * 100_000.0) as u64;
        self.share.store(thousandths, Ordering::Relaxed);
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
