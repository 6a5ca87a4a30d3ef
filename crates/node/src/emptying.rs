//! Giving space back that holes cannot: a superblock of which much is waste is written again, and emptied. Beside other work
//! that is worth it only where much comes back; a node that has nothing else to do makes order, and takes no more of the
//! disk than what it holds needs.

use std::time::Duration;

use vstack_engine::{Stats, SuperblockSpace, Waste};
use vstack_types::Monotonic;

use crate::{app::App, housekeeping::Habits};

/// A node that reads and writes less than this has nothing else to do, in bytes a second.
const IDLE_BYTES: u64 = 1 << 20;

/// And in operations a second: a vote now and then.
const IDLE_OPS: u64 = 4;

/// Space ahead of the log is given back when nothing was written for so long: who writes now and then takes it once.
const REST_AFTER: Duration = Duration::from_secs(10);

/// What an emptied superblock keeps: its two heads.
const HEADS_BYTES: u64 = 8192;

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

    /// Empties the superblock that is most worth it, if one is, or gives back what was taken ahead. Ending it at any
    /// moment loses nothing.
    pub(crate) async fn go_on(&mut self, app: &App) {
        let (now, stats) = (app.clock.monotonic(), app.engine.reader().stats());
        let is_idle = is_idle(&self.before.1, &stats, now.since(self.before.0));
        if stats.log_seq != self.still.0 {
            self.still = (stats.log_seq, now);
        }
        // A log that is not known to be accepted is left as it is.
        if app.remembers() && !app.engine.is_failed() {
            let emptied = self.empty(app, Waste::BESIDE).await;
            if !emptied && is_idle && !self.make_order(app).await && now.since(self.still.1) >= REST_AFTER {
                rest(app).await;
            }
        }
        // What it did itself is not somebody else's work.
        self.before = (app.clock.monotonic(), app.engine.reader().stats());
    }

    /// What is done while there is nothing else to do; says whether there was something.
    async fn make_order(&mut self, app: &App) -> bool {
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
        self.empty(app, waste).await
    }

    /// Empties the superblock that is most worth it; says whether there was one.
    async fn empty(&self, app: &App, from: Waste) -> bool {
        let bytes = self.habits.superblock_bytes;
        let look = move |reader: &vstack_engine::Reader<_>| {
            let number = reader.most_wasteful(bytes, from, 0..u32::MAX)?;
            Ok::<_, std::io::Error>((number, reader.space()?))
        };
        let (number, before) = match app.engine.look_aside(look).await.flatten() {
            Ok((Some(number), space)) => (number, space),
            Ok((None, _)) => return false,
            Err(error) => {
                tracing::warn!(%error, "what superblocks take cannot be seen");
                return false;
            }
        };
        tracing::info!(superblock = number, "a superblock is being emptied");
        let done = app.engine.compact(number, self.habits.compact_rate, |_| {}).await;
        match done {
            Ok(done) if done.emptied => {
                tracing::info!(
                    superblock = number,
                    moved = done.moved,
                    bytes = done.moved_bytes,
                    "superblock emptied"
                );
                was_it_worth_it(app, number, &before).await;
            }
            Ok(_) => tracing::warn!(
                superblock = number,
                "the superblock holds what cannot be moved, or is still read: it stays for now"
            ),
            Err(error) => tracing::warn!(superblock = number, %error, "the superblock could not be emptied"),
        }
        true
    }
}

/// Where next to nothing came back, what was written again is as close as it gets: its records are small, so that what
/// surrounds them is more than was thought, and it would be written again for ever.
async fn was_it_worth_it(app: &App, number: u32, before: &[SuperblockSpace]) {
    let Some(emptied) = before.iter().find(|one| one.number == number) else {
        return;
    };
    let Ok(after) = app.engine.look_aside(vstack_engine::Reader::space).await.flatten() else {
        return;
    };
    if came_back(emptied, before, &after) * 200 >= emptied.written() {
        return;
    }
    for (number, bytes) in more_waste(before, &after) {
        app.engine.reader().is_unavoidable(number, bytes);
    }
}

/// By how much more of a superblock looks like waste than before: of the one that was written to, and of those behind it.
fn more_waste<'a>(
    before: &'a [SuperblockSpace],
    after: &'a [SuperblockSpace],
) -> impl Iterator<Item = (u32, u64)> + use<'a> {
    let tail = before.last().map_or(0, |tail| tail.number);
    let was = |number| before.iter().find(|one| one.number == number).map_or(0, SuperblockSpace::waste);
    let written = after.iter().filter(move |one| one.number >= tail);
    written.map(move |one| (one.number, one.waste().saturating_sub(was(one.number))))
}

/// What `emptied` took, without what was written again of it: by how far the log got meanwhile, for how much of the disk
/// is taken ahead of it is another matter.
fn came_back(emptied: &SuperblockSpace, before: &[SuperblockSpace], after: &[SuperblockSpace]) -> u64 {
    let ends = |space: &[SuperblockSpace]| space.iter().map(|one| one.end).sum::<u64>();
    let written_again = ends(after).saturating_sub(ends(before).saturating_sub(emptied.end));
    emptied.written().saturating_sub(HEADS_BYTES + written_again)
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
