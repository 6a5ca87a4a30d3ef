//! Whether the machine stood still while a test ran on it: suspended, or busy with others. What a test shows of timeouts
//! says nothing then, and is to be shown again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Between two looks at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks at the clock all the time, and notes by how much a look came late.
pub struct Stillness {
    longest_ms: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl Stillness {
    pub fn watch() -> Self {
        let (longest_ms, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (longest, stopped) = (Arc::clone(&longest_ms), Arc::clone(&stop));
        let looking = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let before = Instant::now();
                std::thread::sleep(LOOK_EVERY);
                let late = before.elapsed().saturating_sub(LOOK_EVERY);
                longest.fetch_max(u64::try_from(late.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Self {
            longest_ms,
            stop,
            looking: Some(looking),
        }
    }

    /// For how long at once it stood still, at most, since this was asked last.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Stillness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(looking) = self.looking.take() {
            let _ended = looking.join();
        }
    }
}
