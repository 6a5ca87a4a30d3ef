//! When requests are due. Pure: the same seed gives the same times, whoever is asked.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// How due times lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Evenly.
    #[cfg_attr(not(test), expect(dead_code, reason = "the other pace, for whoever wants no bursts"))]
    Fixed,
    /// As requests of many that know nothing of each other come: a Poisson process.
    Poisson,
}

/// Due times, counted from the start, in order and without end.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    mean_gap_secs: f64,
    next_secs: f64,
    rng: StdRng,
}

impl Schedule {
    /// `rate` requests a second.
    pub fn new(pace: Pace, rate: f64, seed: u64) -> Self {
        assert!(rate.is_finite() && rate > 0.0, "a schedule has a rate");
        Self {
            pace,
            mean_gap_secs: 1.0 / rate,
            next_secs: 0.0,
            rng: StdRng::seed_from_u64(seed),
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.next_secs += match self.pace {
            Pace::Fixed => self.mean_gap_secs,
            // The inverse of the exponential distribution; `random` is below 1, so the logarithm is of more than 0.
            Pace::Poisson => -(1.0 - self.rng.random::<f64>()).ln() * self.mean_gap_secs,
        };
        Duration::try_from_secs_f64(self.next_secs).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(pace: Pace, rate: f64, seed: u64, count: usize) -> Vec<f64> {
        let mut before = 0.0;
        Schedule::new(pace, rate, seed)
            .take(count)
            .map(|due| {
                let gap = due.as_secs_f64() - before;
                before = due.as_secs_f64();
                gap
            })
            .collect()
    }

    #[test]
    fn fixed_times_are_evenly_apart() {
        assert!(
            gaps(Pace::Fixed, 100.0, 1, 1000)
                .iter()
                .all(|gap| (gap - 0.01).abs() < 1e-6)
        );
    }

    #[test]
    fn poisson_times_have_the_rate_and_its_spread() {
        let gaps = gaps(Pace::Poisson, 100.0, 1, 20_000);
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        assert!((mean - 0.01).abs() < 0.0003, "{mean}");
        assert!(
            (variance.sqrt() / mean - 1.0).abs() < 0.03,
            "as far apart as they are long: {variance}"
        );
        let long = gaps.iter().filter(|gap| **gap > 0.02).count() as f64 / count;
        assert!((long - (-2.0_f64).exp()).abs() < 0.01, "{long}");
    }

    #[test]
    fn a_seed_gives_the_same_times_again() {
        assert_eq!(gaps(Pace::Poisson, 50.0, 7, 100), gaps(Pace::Poisson, 50.0, 7, 100));
        assert_ne!(gaps(Pace::Poisson, 50.0, 7, 100), gaps(Pace::Poisson, 50.0, 8, 100));
    }
}
