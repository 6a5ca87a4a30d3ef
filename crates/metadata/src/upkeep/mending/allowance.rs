//! How many bytes may be moved now.

use std::time::Duration;

use vstack_types::Monotonic;

/// Bytes that may be moved at once are those of so long at the rate: whoever reads meanwhile waits behind them.
const BURST: Duration = Duration::from_millis(100);

/// Bytes that may be moved now: as many as come in a tenth of a second at the rate, and no more are saved up.
#[derive(Debug)]
pub(super) struct Allowance {
    rate: u64,
    at: Monotonic,
    /// May be negative: a chunk is moved as soon as anything is left, and waited for after.
    left: i64,
}

impl Allowance {
    pub(super) const fn new(rate: u64, at: Monotonic) -> Self {
        Self { rate, at, left: 0 }
    }

    /// How long to wait until something may be moved.
    pub(super) fn wait(&mut self, now: Monotonic) -> Duration {
        let earned = now.since(self.at).as_secs_f64() * self.rate as f64;
        self.at = now;
        #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
        let (earned, most) = (earned as i64, (BURST.as_secs_f64() * self.rate as f64) as i64);
        // At a low rate, still something.
        self.left = self.left.saturating_add(earned).min(most.max(1));
        if self.left > 0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1 - self.left) as f64 / self.rate as f64)
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_moved_at_the_rate() {
        let at = |ms| Monotonic::from_start(Duration::from_millis(ms));
        let mut allowance = Allowance::new(1_000, at(0));
        assert!(allowance.wait(at(1)) <= Duration::from_millis(1));
        assert_eq!(allowance.wait(at(100)), Duration::ZERO);
        allowance.spend(600);
        // A hundred were there, less what the first look took.
        let wait = allowance.wait(at(100));
        assert!((500..=502).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(allowance.wait(at(100) + wait), Duration::ZERO);
        // What was not used for long is not saved up.
        assert_eq!(allowance.wait(at(60_000)), Duration::ZERO);
        allowance.spend(3_000);
        let wait = allowance.wait(at(60_000));
        assert!((2_899..=2_902).contains(&wait.as_millis()), "{wait:?}");
    }
}
