//! Mends what the plan names, the most endangered first.
//!
//! Some at a time, and no more bytes in a second than `REPAIR_RATE`. Each chunk is taken on by itself: one that cannot be
//! mended now is left for a while, and keeps no other waiting. What is done here is undone by no stop: a copy is
//! verified by the node that takes it, and everything else is decided.

mod allowance;
mod ledger;
mod picking;

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::sleep;
use vstack_types::{ChunkId, NodeRef, Timestamp, VideoId};
use vstack_upkeep::{census::Part, plan::Job, standing::Standing};

pub(crate) use self::ledger::Mending;
use self::{
    allowance::Allowance,
    picking::{May, take},
};
use super::{
    Planned, Purpose, Upkeep,
    counting::word,
    mender::{Failed, attempt},
    metrics::RepairLabels,
    reason::Reason,
};
use crate::app::App;

/// Chunks that are mended at once. It is the rate that limits them: on a busy machine one takes half a second and more, most
/// of it in decisions that wait for their turn, and a rate of 50 chunks a second takes as many of them.
const AT_ONCE: usize = 32;

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
    purpose: Purpose,
    pub(crate) reason: Reason,
    /// Who is to get bytes by it.
    pub(crate) to: Vec<NodeRef>,
    /// They are still on their way there.
    copies: bool,
}

#[cfg(test)]
impl Mended {
    /// Of a test: just begun, with bytes on their way to these.
    fn begun(purpose: Purpose, to: &[NodeRef]) -> Self {
        let video = VideoId::from_bytes([1; 16]);
        Self {
            chunk: ChunkId::of_video(video, 0),
            video,
            what: "of no concern",
            why: Standing::Endangered,
            began: Timestamp(0),
            took: None,
            bytes: 0,
            failed: None,
            purpose,
            reason: Reason::default(),
            to: to.to_vec(),
            copies: !to.is_empty(),
        }
    }
}

/// A chunk is one part of a video.
pub(super) type Key = (VideoId, Part);

/// Works until the service stops.
pub(super) async fn run(app: &App) {
    if !app.settings.repairs {
        tracing::warn!("REPAIRS=false: nothing is mended");
        return;
    }
    let mut running = FuturesUnordered::new();
    // Since it was told last that all was.
    let mut any_begun = false;
    let now = app.clock.monotonic();
    let mut allowance = Allowance::new(app.settings.repair_rate.max(1), now);
    let mut for_evening_out = Allowance::new(app.settings.rebalance_rate.max(1), now);
    let mut for_migrating = Allowance::new(app.settings.migration_rate.max(1), now);
    loop {
        let mut wait = None;
        while running.len() < AT_ONCE {
            let now = app.clock.monotonic();
            let pause = allowance.wait(now);
            if !pause.is_zero() {
                wait = Some(pause);
                break;
            }
            let (evening_out, migrating) = (for_evening_out.wait(now), for_migrating.wait(now));
            let may = May {
                even_out: evening_out.is_zero() || app.upkeep.is_hurried(),
                migrate: migrating.is_zero() && !app.keeping.decided().paused,
            };
            let Some(next) = take(app, may) else {
                tell_worked_off(&app.upkeep, &mut any_begun);
                let waits = [evening_out, migrating].into_iter().filter(|wait| !wait.is_zero());
                wait = waits.min();
                break;
            };
            allowance.spend(next.spends);
            match next.planned.purpose {
                Purpose::Mends => {}
                Purpose::EvensOut => for_evening_out.spend(next.spends),
                Purpose::Migrates => for_migrating.spend(next.spends),
            }
            any_begun = true;
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

/// Has more planned once all that was planned was begun, if any was since that was told last.
fn tell_worked_off(upkeep: &Upkeep, any_begun: &mut bool) {
    if std::mem::take(any_begun) && upkeep.plan().is_empty() {
        upkeep.worked_off.notify_one();
    }
}

/// Whether nothing is being mended, moved or brought into another form, and nothing waits for it that could be begun.
pub(super) fn is_idle(app: &App) -> bool {
    if !app.settings.repairs {
        return true;
    }
    let now = app.clock.monotonic();
    let plan = app.upkeep.plan();
    let ledger = app.upkeep.mending.ledger();
    let resting = ledger.busy(now);
    let may_begin = |planned: &Planned| {
        let rests = matches!(&planned.due.job, Job::Restore { node, .. } if resting.contains(node));
        !rests && ledger.may_begin((planned.video, planned.part), now).is_some()
    };
    ledger.running.is_empty() && !plan.iter().any(may_begin)
}

/// A chunk that is taken on.
pub(super) struct Task {
    pub(super) planned: Planned,
    /// Bytes that go from node to node for it.
    pub(super) moves: u64,
    /// What it counts for where so many bytes a second are allowed: whoever reads meanwhile waits behind what nodes write as
    /// behind what they send each other.
    spends: u64,
    /// Who is to get bytes.
    to: Vec<NodeRef>,
    /// How often it was tried before.
    pub(super) tries: u32,
    /// What made it necessary, in one word.
    reason: &'static str,
}

impl Task {
    pub(super) const fn key(&self) -> Key {
        (self.planned.video, self.planned.part)
    }

    fn what(&self) -> &'static str {
        match &self.planned.due.job {
            Job::Salvage => "salvage",
            Job::Read { .. } => "read_registers",
            Job::Restore { .. } => "restore_copy",
            Job::Settle => "end_move",
            Job::TurnBack => "give_move_up",
            Job::Move { .. } if self.planned.purpose == Purpose::EvensOut => "even_out",
            Job::Move { .. } => "move",
            Job::Correct { .. } => "correct_shards",
            Job::Encode { .. } => "encode",
            Job::Decode { .. } => "decode",
        }
    }

    /// For metrics: each of them has few values.
    fn labels(&self) -> RepairLabels {
        RepairLabels {
            what: self.what(),
            why: word(self.planned.due.standing),
            reason: self.reason,
        }
    }
}

async fn mend(app: &App, task: Task) {
    let began = app.clock.monotonic();
    let outcome = attempt(app, &task).await;
    match &outcome {
        Ok(done) => app
            .upkeep
            .metrics
            .mended(task.labels(), done.bytes(), app.clock.monotonic().since(began)),
        Err(_) => app.upkeep.metrics.failed(),
    }
    if let Err(Failed { why, .. }) = &outcome {
        tracing::info!(chunk = %task.planned.id, what = task.what(), why, "a chunk is left as it is for a while");
    }
    let now = (app.now(), app.clock.monotonic());
    app.upkeep.mending.ledger().ended(task.key(), now, outcome);
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use vstack_upkeep::plan::Due;

    use super::*;

    #[test]
    fn that_all_was_begun_is_told_once_and_not_while_something_is_left() {
        let upkeep = Upkeep::default();
        let told = |mut any_begun: bool| {
            tell_worked_off(&upkeep, &mut any_begun);
            assert!(!any_begun);
            upkeep.worked_off.notified().now_or_never().is_some()
        };
        assert!(!told(false), "nothing was begun");
        assert!(told(true));
        assert!(!told(false), "once");
        let video = VideoId::from_bytes([1; 16]);
        upkeep.plan().push(Planned {
            video,
            part: Part::Chunk(0),
            id: ChunkId::of_video(video, 0),
            version: 1,
            due: Due {
                standing: Standing::Endangered,
                job: Job::Settle,
            },
            purpose: Purpose::Mends,
        });
        assert!(!told(true), "something is left");
    }
}
