//! Giving space back that holes cannot: a superblock of which much is waste is written again, and emptied. Beside other work
//! that is worth it only where much comes back; a node that has nothing else to do makes order, and takes no more of the
//! disk than what it holds needs.

use std::time::Duration;

use vstack_engine::{Stats, Waste};
use vstack_types::Monotonic;

use crate::{app::App, housekeeping::Habits};

/// A node that reads and writes less than this has nothing else to do, in bytes a second.
const IDLE_BYTES: u64 = 1 << 20;

/// And in operations a second: a vote now and then.
const IDLE_OPS: u64 = 4;

/// Space ahead of the log is given back when nothing was written for so long: who writes now and then takes it once.
const REST_AFTER: Duration = Duration::from_secs(10);

/// What was done of it, from one time to the next.
#[derive(Debug)]
pub(crate) struct Emptying {
    habits: Habits,
    /// When it was looked last, and what the engine had done by then.
    before: (Monotonic, Stats),
    /// The end of the log, and since when it is that.
    still: (u64, Monotonic),
}

impl Emptying {
    pub(crate) fn new(app: &App, habits: Habits) -> Self {
        let (now, stats) = (app.clock.monotonic(), app.engine.reader().stats());
        Self {
            habits,
            before: (now, stats),
            still: (stats.log_seq, now),
        }
    }

    /// Empties the superblock that is most worth it, if one is, and gives back what was taken ahead when nothing was
    /// written for long enough. Ending it at any moment loses nothing.
    pub(crate) async fn go_on(&mut self, app: &App) {
        let (now, stats) = (app.clock.monotonic(), app.engine.reader().stats());
        let is_idle = is_idle(&self.before.1, &stats, now.since(self.before.0));
        // A log that is not known to be accepted is left as it is.
        if app.remembers() && !app.engine.is_failed() {
            if !self.empty(app, Waste::BESIDE).await && is_idle {
                self.make_order(app).await;
            }
            // Whoever reads, and whatever was tried: where nothing was written, nothing needs the space.
            if self.still_for(app) >= REST_AFTER {
                rest(app).await;
            }
        }
        // What it did itself is not somebody else's work.
        self.before = (app.clock.monotonic(), app.engine.reader().stats());
    }

    /// For how long nothing was written to the log, from one look to the next.
    fn still_for(&mut self, app: &App) -> Duration {
        let (now, log_seq) = (app.clock.monotonic(), app.engine.reader().log_seq());
        if log_seq != self.still.0 {
            self.still = (log_seq, now);
        }
        now.since(self.still.1)
    }

    /// What is done while there is nothing else to do.
    async fn make_order(&self, app: &App) {
        let (bytes, waste) = (self.habits.superblock_bytes, self.habits.idle_waste);
        let look = app
            .engine
            .look_aside(move |reader| reader.is_tail_wasteful(bytes, waste));
        if look.await.flatten().unwrap_or(false) {
            match app.engine.turn().await {
                Ok(number) => tracing::info!(superblock = number, "the log goes on in a new superblock"),
                Err(error) => tracing::debug!(%error, "the log goes on where it is"),
            }
        }
        self.empty(app, waste).await;
    }

    /// Empties the superblock that is most worth it; says whether there was one.
    async fn empty(&self, app: &App, from: Waste) -> bool {
        let bytes = self.habits.superblock_bytes;
        let look = app
            .engine
            .look_aside(move |reader| reader.most_wasteful(bytes, from, 0..u32::MAX));
        let number = match look.await.flatten() {
            Ok(Some(number)) => number,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(%error, "what superblocks take cannot be seen");
                return false;
            }
        };
        tracing::info!(superblock = number, "a superblock is being emptied");
        let done = app.engine.compact(number, self.habits.compact_rate, |_| {}).await;
        match done {
            Ok(done) if done.emptied => tracing::info!(
                superblock = number,
                moved = done.moved,
                bytes = done.moved_bytes,
                "superblock emptied"
            ),
            Ok(_) => tracing::warn!(
                superblock = number,
                "the superblock holds what cannot be moved, or is still read: it stays for now"
            ),
            Err(error) => tracing::warn!(superblock = number, %error, "the superblock could not be emptied"),
        }
        true
    }
}

async fn rest(app: &App) {
    match app.engine.rest().await {
        Ok(bytes) if bytes > 0 => tracing::debug!(bytes, "space ahead of the log given back"),
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "space ahead of the log could not be given back"),
    }
}

fn is_idle(before: &Stats, now: &Stats, passed: Duration) -> bool {
    let bytes = |stats: &Stats| stats.bytes_read + stats.bytes_written;
    let seconds = passed.as_secs().max(1);
    let done = bytes(now).saturating_sub(bytes(before));
    let ops = now.ops.saturating_sub(before.ops);
    done < IDLE_BYTES * seconds && ops < IDLE_OPS * seconds
}

#[cfg(test)]
mod tests;
