//! Time in a history: the runtime's paused clock, and a wall clock per host that may be wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use vstack_types::{Clock, Monotonic, Timestamp};

/// When every history begins, by a clock that is right: 2030-01-01.
const BEGIN_MS: i64 = 1_893_456_000_000;

/// How wrong a host's wall clock is; it may be set while the host runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Skew {
    ms: Arc<AtomicI64>,
    was_wrong: Arc<AtomicBool>,
}

impl Skew {
    pub(crate) fn set_ms(&self, ms: i64) {
        self.ms.store(ms, Ordering::Relaxed);
        self.was_wrong.fetch_or(ms != 0, Ordering::Relaxed);
    }

    /// Whether it ever was.
    pub(crate) fn was_wrong(&self) -> bool {
        self.was_wrong.load(Ordering::Relaxed)
    }
}

/// The clock of one process.
#[derive(Debug)]
pub(crate) struct SimClock {
    /// When the history began.
    begun: Instant,
    /// When the process did.
    started: Instant,
    skew: Skew,
}

impl SimClock {
    pub(crate) fn start(begun: Instant, skew: Skew) -> Arc<Self> {
        Arc::new(Self {
            begun,
            started: Instant::now(),
            skew,
        })
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(self.started.elapsed())
    }

    fn wall(&self) -> Timestamp {
        let elapsed = Timestamp(BEGIN_MS).plus(self.begun.elapsed());
        Timestamp(elapsed.0 + self.skew.ms.load(Ordering::Relaxed))
    }
}

/// Milliseconds of `duration`, for lists of events.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
