//! Leaving a failed node alone: open after a failure, half-open after a while, closed by a success.
//!
//! A node that answers pings and fails transfers (a full disk, a broken path for large packets) must not be called
//! well by its pings, so a failure of transfers is only healed by a transfer. The trial transfer waits for a ping to
//! come back, so that no chunk is spent on a node that is still gone.

use std::time::Duration;

use vstack_types::Monotonic;

/// Whether a node may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    Ready,
    /// It failed a while ago and answers pings again: one transfer may try.
    Probe,
    /// It failed just now: others first.
    BackingOff,
}

/// What went wrong or right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    Ping,
    Transfer,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Breaker(Option<Open>);

#[derive(Debug, Clone, Copy)]
struct Open {
    until: Monotonic,
    failures: u32,
    by: Evidence,
    /// A ping came back since.
    answered: bool,
}

impl Breaker {
    pub(crate) fn gate(&self, now: Monotonic) -> Gate {
        match self.0 {
            None => Gate::Ready,
            Some(open) if now >= open.until && open.answered => Gate::Probe,
            Some(_) => Gate::BackingOff,
        }
    }

    /// When the node may be tried again, when it is not well.
    pub(crate) fn until(&self) -> Option<Monotonic> {
        self.0.map(|open| open.until)
    }

    /// `first` doubles with each failure up to `max`, times `jitter`. Failures during a pause do not prolong it:
    /// four transfers that die together are one failure.
    pub(crate) fn fail(&mut self, now: Monotonic, by: Evidence, first: Duration, max: Duration, jitter: f64) {
        let before = match self.0 {
            Some(open) if now < open.until => {
                let by = if by == Evidence::Transfer { by } else { open.by };
                self.0 = Some(Open {
                    by,
                    answered: false,
                    ..open
                });
                return;
            }
            other => other,
        };
        let failures = before.map_or(1, |open| open.failures.saturating_add(1));
        let by = before.map_or(by, |open| if by == Evidence::Transfer { by } else { open.by });
        let pause = doubled(first, max, failures).mul_f64(jitter);
        self.0 = Some(Open {
            until: now + pause,
            failures,
            by,
            answered: false,
        });
    }

    pub(crate) fn succeed(&mut self, by: Evidence) {
        self.0 = match self.0 {
            Some(open) if by == Evidence::Ping && open.by == Evidence::Transfer => {
                Some(Open { answered: true, ..open })
            }
            _ => None,
        };
    }
}

/// `first` for the first time, twice that for the second, and so on, up to `max`.
pub(crate) fn doubled(first: Duration, max: Duration, times: u32) -> Duration {
    first
        .saturating_mul(1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(8);

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn pauses_double_up_to_the_limit() {
        let pauses: Vec<u64> = (1..=7)
            .map(|times| u64::try_from(doubled(FIRST, MAX, times).as_millis()).unwrap())
            .collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(doubled(FIRST, MAX, 1000), MAX);
    }

    #[test]
    fn a_failed_node_rests_is_probed_and_closes_on_success() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.gate(at(0)), Gate::Ready);
        breaker.fail(at(0), Evidence::Transfer, FIRST, MAX, 1.0);
        breaker.fail(at(10), Evidence::Transfer, FIRST, MAX, 1.0);
        assert_eq!(breaker.gate(at(499)), Gate::BackingOff);
        assert_eq!(breaker.gate(at(500)), Gate::BackingOff, "no ping came back yet");
        breaker.succeed(Evidence::Ping);
        assert_eq!(breaker.gate(at(500)), Gate::Probe);
        breaker.fail(at(500), Evidence::Transfer, FIRST, MAX, 1.0);
        assert_eq!(breaker.gate(at(1499)), Gate::BackingOff);
        breaker.succeed(Evidence::Ping);
        assert_eq!(
            breaker.gate(at(1499)),
            Gate::BackingOff,
            "a ping does not heal failed transfers"
        );
        breaker.succeed(Evidence::Transfer);
        assert_eq!(breaker.gate(at(1499)), Gate::Ready);
    }

    #[test]
    fn a_ping_heals_failed_pings() {
        let mut breaker = Breaker::default();
        breaker.fail(at(0), Evidence::Ping, FIRST, MAX, 1.0);
        breaker.succeed(Evidence::Ping);
        assert_eq!(breaker.gate(at(0)), Gate::Ready);
        breaker.fail(at(0), Evidence::Ping, FIRST, MAX, 1.0);
        breaker.fail(at(1), Evidence::Transfer, FIRST, MAX, 1.0);
        breaker.succeed(Evidence::Ping);
        assert_eq!(breaker.gate(at(2)), Gate::BackingOff);
    }
}
