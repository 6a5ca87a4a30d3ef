//! Counts: what was learned against what nodes hold.

mod asking;
mod judging;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::sleep,
};
use vstack_client::Holder;
use vstack_placement::Candidate;
use vstack_types::{Monotonic, NodeRef};
use vstack_upkeep::{census::Part, harm::Book, standing::Standing};

use self::{asking::count, judging::judge};
use super::{Attendance, Summary, Upkeep, leaving, renewal};
use crate::{
    app::App,
    keeping::Decided,
    registry,
    store::{Chunk, StoreError},
};

/// Chunks learned, and harmed copies written down, in one transaction of the store.
const NEWS_PAGE: u32 = 4_096;
/// Of the time of one processor, counting takes about one part in so many at most.
const SHARE: u32 = 60;
/// While there is more to do than is planned at once, one part in so many.
const SHARE_AT_WORK: u32 = 10;
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
            () = until_due(&app.upkeep, wait, busy * SHARE_AT_WORK) => {}
        }
    }
}

/// Waits until the next count is due: after so long, or as soon as somebody wakes it. A plan has no more than so
/// much in it, and who works faster than counts come is not to wait for them: once all of it was begun, it is due after a
/// `rest`.
async fn until_due(upkeep: &Upkeep, wait: Duration, rest: Duration) {
    let worked_off = async {
        upkeep.worked_off.notified().await;
        sleep(rest).await;
    };
    tokio::select! {
        biased;
        () = upkeep.count_now.notified() => {}
        () = worked_off => {}
        () = sleep(wait) => {}
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
    let nodes = app.known_nodes().await?;
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
    let nodes = app.known_nodes().await?;
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
            let book = app.store.harms().await?;
            // What an earlier process found out about shards no count finds again.
            book.recall(&mut app.upkeep.state().census);
            before.book = Some(book);
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

/// Until when the next count is awaited.
fn valid_until(app: &App) -> Monotonic {
    let wait = Duration::from_millis(app.upkeep.wait_ms.load(Ordering::Relaxed));
    app.clock.monotonic() + (wait.max(app.pace.count_every) * 2).max(VALID_MIN)
}

impl Upkeep {
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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    /// Whether it is time for the next count, after `wake`, though it is not awaited for long.
    async fn is_woken(rest: Duration, patience: Duration, wake: impl FnOnce(&Upkeep)) -> bool {
        let upkeep = Upkeep::default();
        wake(&upkeep);
        timeout(patience, until_due(&upkeep, LONG, rest)).await.is_ok()
    }

    #[tokio::test]
    async fn a_plan_that_is_worked_off_wakes_the_count_after_a_rest() {
        let (short, patience) = (Duration::from_millis(20), Duration::from_secs(60));
        assert!(!is_woken(Duration::ZERO, short, |_| {}).await, "nobody does");
        assert!(is_woken(LONG, patience, |upkeep| upkeep.count_now.notify_one()).await);
        let worked_off = |upkeep: &Upkeep| upkeep.worked_off.notify_one();
        assert!(is_woken(Duration::from_millis(1), patience, worked_off).await);
        assert!(!is_woken(LONG, short, worked_off).await, "not before it rested");
        // Also where counts are rare, since there is much to count, it comes in a sixth of the time.
        let (busy, all) = (Duration::from_secs(2), Duration::from_secs(120));
        assert_eq!((busy * SHARE, busy * SHARE_AT_WORK), (all, all / 6));
    }
}
