//! Reading everything again, over and over, a superblock at a time: damage is found before somebody asks for what is
//! damaged.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use vstack_engine::{EngineError, Reader, ScrubPosition, Scrubbed, Stats};

use crate::app::App;

/// A scrub of little data does not go slower than this, in bytes a second.
const RATE_MIN: u64 = 1 << 20;

/// A look at what there is to scrub when there is nothing, and between two rounds.
const IDLE: Duration = Duration::from_secs(60);

/// After a superblock whose scrub failed the next one waits for so long.
const RETRY: Duration = Duration::from_secs(600);

/// Scrubs until `shutdown`, from where the process before got to.
pub(crate) async fn keep(app: Arc<App>, period: Duration, shutdown: CancellationToken) {
    let mut position = kept(&app).await;
    if let Some(at) = position.completed() {
        app.metrics.scrubbed_all(at);
    }
    let mut round = Scrubbed::default();
    loop {
        let wait = match shutdown.run_until_cancelled(next(&app, period, &mut position)).await {
            None => return,
            Some(None) => IDLE.min(period),
            Some(Some(step)) => {
                let ended = position.ends(&app.engine.reader().superblock_numbers(), app.clock.wall());
                // Not given up at the end of the process: the data directory is another one's then.
                keep_position(&app, position).await;
                let wait = step.wait(period);
                if let Some(scrubbed) = step.tell(&app) {
                    round.add(scrubbed);
                }
                if ended {
                    tell_round(&app, &std::mem::take(&mut round), &position);
                    wait.max(IDLE.min(period))
                } else {
                    wait
                }
            }
        };
        if shutdown.run_until_cancelled(sleep(wait)).await.is_none() {
            return;
        }
    }
}

/// One superblock of a round.
struct Step {
    number: u32,
    scrubbed: Result<Scrubbed, EngineError>,
    /// Rounds are spread over the period: so long it may take.
    share: Duration,
    took: Duration,
}

/// Scrubs the superblock that is due; none when there is none.
async fn next(app: &App, period: Duration, position: &mut ScrubPosition) -> Option<Step> {
    // What is held may grow meanwhile, so it is looked at again for each superblock.
    let numbers = app.engine.reader().superblock_numbers();
    if position.due(&numbers).is_none() {
        position.begin(&numbers);
    }
    let number = position.due(&numbers)?;
    let began = app.clock.monotonic();
    let rate = rate(app.engine.reader().stats(), period);
    let mut counted = 0;
    let count = |so_far: &Scrubbed| {
        app.metrics.scrubbed_bytes(so_far.bytes - counted);
        counted = so_far.bytes;
    };
    let scrubbed = app.engine.scrub(number, rate, count).await;
    position.passed(number, scrubbed.is_ok());
    Some(Step {
        number,
        scrubbed,
        share: period / u32::try_from(numbers.len().max(1)).unwrap_or(u32::MAX),
        took: app.clock.monotonic().since(began),
    })
}

impl Step {
    fn wait(&self, period: Duration) -> Duration {
        match self.scrubbed {
            Ok(_) => self.share.saturating_sub(self.took),
            Err(_) => RETRY.min(period),
        }
    }

    fn tell(self, app: &App) -> Option<Scrubbed> {
        match self.scrubbed {
            Ok(scrubbed) => {
                app.metrics.count_scrub(&scrubbed);
                report(self.number, &scrubbed);
                Some(scrubbed)
            }
            Err(error) => {
                tracing::warn!(superblock = self.number, %error, "the superblock could not be scrubbed");
                None
            }
        }
    }
}

async fn kept(app: &App) -> ScrubPosition {
    let kept = app.engine.look_aside(Reader::scrub_position).await;
    kept.unwrap_or_default()
}

async fn keep_position(app: &App, position: ScrubPosition) {
    let keeping = app
        .engine
        .look_aside(move |reader| reader.keep_scrub_position(&position));
    if let Err(error) = keeping.await.flatten() {
        tracing::warn!(%error, "how far the scrub has come could not be kept: after a restart it reads some of it again");
    }
}

fn tell_round(app: &App, round: &Scrubbed, position: &ScrubPosition) {
    if let Some(at) = position.completed() {
        app.metrics.scrubbed_all(at);
    }
    tracing::info!(
        items = round.items,
        bytes = round.bytes,
        damaged = round.damaged.len(),
        "a round of the scrub ended; what this process did of it"
    );
}

fn rate(stats: Stats, period: Duration) -> u64 {
    (stats.chunk_bytes / period.as_secs().max(1)).max(RATE_MIN)
}

fn report(superblock: u32, scrubbed: &Scrubbed) {
    for (id, sha256) in &scrubbed.damaged {
        tracing::error!(superblock, %id, %sha256, "found damaged by the scrub");
    }
    if scrubbed.mended + scrubbed.unnamed + scrubbed.stretches > 0 {
        let Scrubbed {
            mended,
            unnamed,
            stretches,
            ..
        } = scrubbed;
        tracing::error!(
            superblock,
            mended,
            unnamed,
            stretches,
            "records found damaged by the scrub"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrub_takes_the_period_and_no_longer() {
        let stats = |chunk_bytes| Stats {
            chunk_bytes,
            ..Stats::default()
        };
        let week = Duration::from_secs(604_800);
        assert_eq!(rate(stats(10 << 40), week), (10 << 40) / 604_800);
        assert_eq!(rate(stats(1 << 30), week), RATE_MIN);
    }
}
