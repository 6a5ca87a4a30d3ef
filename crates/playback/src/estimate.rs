//! Smoothed figures of one node: round trip, rate, reliability. Pure arithmetic.

use std::{collections::VecDeque, time::Duration};

use vstack_types::Monotonic;

/// Weight of a new round trip. Four pings (12 s) replace two thirds of what was thought before.
const LATENCY_WEIGHT: f64 = 0.25;
/// Weight of a new rate in the fast and in the slow mean. The lesser of both is believed: a drop shows at once, a
/// rise has to last (the two-means rule of Shaka Player's bandwidth estimator).
const RATE_WEIGHT_FAST: f64 = 0.5;
const RATE_WEIGHT_SLOW: f64 = 0.15;
/// Outcomes remembered for the success rate.
const OUTCOMES_MAX: usize = 10;
/// Less than this many bytes says more about round trips than about the rate.
const SAMPLE_BYTES_MIN: u64 = 16 * 1024;
/// A transfer that went wrong after so long counts as a (poor) rate; before, it only counts as a failure.
const SAMPLE_TIME_MIN: Duration = Duration::from_millis(250);
/// Transfers from one node that end within so long of each other are one sample: the bytes of a moment between two
/// ends came in a burst and say nothing of the rate.
const SAMPLE_APART_MIN: Duration = Duration::from_millis(50);
/// While transfers run, a rate is taken at least this often, so that a node that slows down shows before they end.
const SAMPLE_TIME_MAX: Duration = Duration::from_secs(1);

/// Exponentially weighted mean; the first sample is taken as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ewma(Option<f64>);

impl Ewma {
    fn add(&mut self, sample: f64, weight: f64) {
        self.0 = Some(self.0.map_or(sample, |mean| mean + weight * (sample - mean)));
    }
}

/// Smoothed round trip of pings, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    mean: Ewma,
    pinged: bool,
}

impl Latency {
    pub(crate) fn add_ping(&mut self, rtt: Duration) {
        if !self.pinged {
            // A time to first byte stood in until now; it holds the node's own work too, so it does not linger.
            *self = Self {
                mean: Ewma::default(),
                pinged: true,
            };
        }
        self.mean.add(rtt.as_secs_f64() * 1000.0, LATENCY_WEIGHT);
    }

    /// Before the first ping is back, the wait for a first byte is the best guess there is.
    pub(crate) fn add_first_byte(&mut self, wait: Duration) {
        if !self.pinged {
            self.mean.add(wait.as_secs_f64() * 1000.0, LATENCY_WEIGHT);
        }
    }

    pub(crate) fn ms(&self) -> Option<f64> {
        self.mean.0
    }
}

/// Smoothed rate of all transfers from a node together, in Mbit/s.
///
/// Four transfers side by side each see a quarter of the rate, so bytes are counted per node over the time during
/// which any transfer runs, the wait for the first byte included: that is the rate at which chunks come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rate {
    fast: Ewma,
    slow: Ewma,
    sampled_at: Option<Monotonic>,
    sampled_while_busy: bool,
    running: u32,
    since: Monotonic,
    bytes: u64,
}

impl Rate {
    pub(crate) fn begin(&mut self, now: Monotonic) {
        if self.running == 0 {
            self.restart(now);
            self.sampled_while_busy = false;
        }
        self.running += 1;
    }

    pub(crate) fn progress(&mut self, now: Monotonic, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if now.since(self.since) >= SAMPLE_TIME_MAX {
            self.sample(now);
        }
    }

    pub(crate) fn end(&mut self, now: Monotonic) {
        self.running = self.running.saturating_sub(1);
        let time = now.since(self.since);
        let whole_busy_time = self.running == 0 && !self.sampled_while_busy;
        let telling = self.bytes >= SAMPLE_BYTES_MIN && (whole_busy_time || time >= SAMPLE_APART_MIN);
        if telling || time >= SAMPLE_TIME_MIN {
            self.sample(now);
        }
    }

    /// A transfer of `bytes` bytes was not over after so long: the rate is no higher than if it had ended now. Others that
    /// ran beside it may have had as much each.
    pub(crate) fn no_more_than(&mut self, now: Monotonic, bytes: u64, after: Duration) {
        let at_once = f64::from(self.running.max(1));
        let most = at_once * bytes as f64 * 8.0 / 1e6 / after.as_secs_f64().max(1e-4);
        if self.mbps().is_some_and(|believed| believed > most) {
            self.fast.add(most, RATE_WEIGHT_FAST);
            self.slow.add(most, RATE_WEIGHT_SLOW);
            self.sampled_at = Some(now);
            self.sampled_while_busy = true;
            self.restart(now);
        }
    }

    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    pub(crate) fn mbps(&self) -> Option<f64> {
        Some(self.fast.0?.min(self.slow.0?))
    }

    pub(crate) fn sampled_at(&self) -> Option<Monotonic> {
        self.sampled_at
    }

    fn sample(&mut self, now: Monotonic) {
        // Below a tenth of a millisecond the clock says nothing.
        let seconds = now.since(self.since).as_secs_f64().max(1e-4);
        let mbps = self.bytes as f64 * 8.0 / 1e6 / seconds;
        self.fast.add(mbps, RATE_WEIGHT_FAST);
        self.slow.add(mbps, RATE_WEIGHT_SLOW);
        self.sampled_at = Some(now);
        self.sampled_while_busy = true;
        self.restart(now);
    }

    fn restart(&mut self, now: Monotonic) {
        self.since = now;
        self.bytes = 0;
    }
}

/// The last pings and transfers, good or bad.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcomes(VecDeque<bool>);

impl Outcomes {
    pub(crate) fn add(&mut self, good: bool) {
        if self.0.len() == OUTCOMES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(good);
    }

    /// Share that went well, 0 to 1; 1 while nothing happened.
    pub(crate) fn reliability(&self) -> f64 {
        if self.0.is_empty() {
            return 1.0;
        }
        self.0.iter().filter(|good| **good).count() as f64 / self.0.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_transfer_that_is_overtaken_lowers_the_rate_that_is_believed_and_never_raises_it() {
        let mut rate = Rate::default();
        rate.begin(at(0));
        rate.no_more_than(at(10), 1_000_000, Duration::from_millis(10));
        assert_eq!(rate.mbps(), None, "what is no rate yet is none by that");
        rate.progress(at(100), 1_000_000);
        rate.end(at(100));
        assert!((rate.mbps().unwrap() - 80.0).abs() < 1e-9);
        // It was asked for just now: it may be as fast as it was.
        rate.begin(at(1_000));
        rate.no_more_than(at(1_010), 1_000_000, Duration::from_millis(10));
        assert!((rate.mbps().unwrap() - 80.0).abs() < 1e-9);
        // 8 Mbit were not here after 0.4 s: 20 Mbit/s at most, the fast mean of which and of 80 is 50.
        rate.no_more_than(at(1_400), 1_000_000, Duration::from_millis(400));
        assert!((rate.mbps().unwrap() - 50.0).abs() < 1e-9);
        rate.end(at(1_400));
        assert!((rate.mbps().unwrap() - 50.0).abs() < 1e-9, "it counts once");
        // Two side by side may have had as much each.
        rate.begin(at(2_000));
        rate.begin(at(2_000));
        rate.no_more_than(at(2_320), 1_000_000, Duration::from_millis(320));
        assert!((rate.mbps().unwrap() - 50.0).abs() < 1e-9);
    }

    #[test]
    fn a_rate_is_bytes_over_busy_time_of_the_node() {
        let mut rate = Rate::default();
        assert_eq!(rate.mbps(), None);
        // Two transfers of 1,000,000 bytes side by side in 0.8 s: 16 Mbit in 0.8 s are 20 Mbit/s.
        rate.begin(at(1000));
        rate.begin(at(1000));
        rate.progress(at(1400), 1_000_000);
        rate.progress(at(1800), 1_000_000);
        rate.end(at(1800));
        rate.end(at(1800));
        assert!((rate.mbps().unwrap() - 20.0).abs() < 1e-9);
        // Idle time does not count. 1,000,000 bytes in 0.8 s are 10 Mbit/s: fast mean 15, slow mean 18.5.
        rate.begin(at(60_000));
        rate.progress(at(60_800), 1_000_000);
        rate.end(at(60_800));
        assert!((rate.mbps().unwrap() - 15.0).abs() < 1e-9);
        // 40 Mbit/s: fast mean 27.5, slow mean 21.725; the lesser is believed.
        rate.begin(at(70_000));
        rate.progress(at(70_200), 1_000_000);
        rate.end(at(70_200));
        assert!((rate.mbps().unwrap() - 21.725).abs() < 1e-9);
    }

    #[test]
    fn ends_close_together_are_one_sample() {
        let mut rate = Rate::default();
        (0..4).for_each(|_| rate.begin(at(0)));
        rate.progress(at(1000), 1_000_000);
        for late in 0..4 {
            rate.progress(at(1000 + late), 50_000);
            rate.end(at(1000 + late));
        }
        // 8 Mbit in 1 s; the last 200,000 bytes came within 3 ms.
        assert_eq!(rate.mbps(), Some(8.0));
    }

    #[test]
    fn small_transfers_say_nothing_and_silent_ones_say_zero() {
        let mut rate = Rate::default();
        rate.begin(at(0));
        rate.progress(at(1), 1000);
        rate.end(at(1));
        assert_eq!(rate.mbps(), None);
        rate.begin(at(10));
        rate.end(at(510));
        assert_eq!(rate.mbps(), Some(0.0));
    }

    #[test]
    fn a_slow_transfer_shows_before_it_ends() {
        let mut rate = Rate::default();
        rate.begin(at(0));
        rate.progress(at(500), 1000);
        assert_eq!(rate.mbps(), None);
        rate.progress(at(1000), 124_000);
        assert_eq!(rate.mbps(), Some(1.0));
    }

    #[test]
    fn reliability_is_that_of_the_last_ten() {
        let mut outcomes = Outcomes::default();
        assert_eq!(outcomes.reliability(), 1.0);
        outcomes.add(false);
        outcomes.add(true);
        assert_eq!(outcomes.reliability(), 0.5);
        for _ in 0..9 {
            outcomes.add(true);
        }
        assert_eq!(outcomes.reliability(), 1.0);
    }

    #[test]
    fn pings_replace_the_first_guess_of_latency() {
        let mut latency = Latency::default();
        latency.add_first_byte(Duration::from_millis(80));
        assert_eq!(latency.ms(), Some(80.0));
        latency.add_ping(Duration::from_millis(20));
        assert_eq!(latency.ms(), Some(20.0));
        latency.add_first_byte(Duration::from_millis(500));
        latency.add_ping(Duration::from_millis(40));
        assert_eq!(latency.ms(), Some(25.0));
    }
}
