//! Latencies, spreads and ratios of measured values. Pure.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency kept apart from longer ones, in microseconds: ten minutes, more than any timeout here.
const LATENCY_MICROS_MAX: u64 = 600_000_000;

/// How long requests took, in microseconds, to three figures.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).expect("constant bounds that are right"))
    }
}

/// Percentiles of the requests of one round, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatencyMs {
    /// Half of the requests took no longer.
    pub p50: f64,
    /// 9 of 10 took no longer.
    pub p90: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// 999 of 1000 took no longer.
    pub p999: f64,
    /// None took longer.
    pub max: f64,
}

impl Latencies {
    /// One more request.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    /// Those of another worker.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many requests.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// None when there was no request.
    pub fn summary(&self) -> Option<LatencyMs> {
        let ms = |micros: u64| micros as f64 / 1e3;
        (!self.0.is_empty()).then(|| LatencyMs {
            p50: ms(self.0.value_at_quantile(0.5)),
            p90: ms(self.0.value_at_quantile(0.9)),
            p99: ms(self.0.value_at_quantile(0.99)),
            p999: ms(self.0.value_at_quantile(0.999)),
            max: ms(self.0.max()),
        })
    }
}

/// How far the rounds of one figure lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Middle; the mean of both when two are in the middle.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// None of no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            f64::midpoint(sorted[half - 1], sorted[half])
        };
        Some(Self { min, median, max })
    }
}

/// The smallest value that `percent` of all values do not exceed (nearest rank). None of no values.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded by the number of values"
    )]
    let rank = (percent.clamp(0.0, 100.0) / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Round by round, `ours` over `theirs`: what was measured one after the other is compared, not means of all.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .filter(|(_, theirs)| **theirs > 0.0)
        .map(|(ours, theirs)| ours / theirs)
        .collect()
}

/// Round by round, the combination of two peers.
pub fn pairwise(one: &[f64], other: &[f64], choose: fn(f64, f64) -> f64) -> Vec<f64> {
    one.iter().zip(other).map(|(one, other)| choose(*one, *other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let twenty: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(percentile(&twenty, 50.0), Some(10.0));
        assert_eq!(percentile(&twenty, 95.0), Some(19.0));
        assert_eq!(percentile(&twenty, 96.0), Some(20.0));
        assert_eq!(percentile(&twenty, 100.0), Some(20.0));
        assert_eq!(percentile(&twenty, 0.0), Some(1.0));
        assert_eq!(percentile(&[7.0], 95.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn a_spread_is_min_median_max() {
        assert_eq!(
            Spread::of(&[3.0, 1.0, 2.0]),
            Some(Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            })
        );
        assert_eq!(
            Spread::of(&[4.0, 1.0, 2.0, 3.0]),
            Some(Spread {
                min: 1.0,
                median: 2.5,
                max: 4.0
            })
        );
        assert_eq!(
            Spread::of(&[5.0]),
            Some(Spread {
                min: 5.0,
                median: 5.0,
                max: 5.0
            })
        );
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn latencies_give_percentiles_of_all_workers_together() {
        let mut one = Latencies::default();
        let mut other = Latencies::default();
        (1..=98).for_each(|_| one.record(Duration::from_millis(10)));
        other.record(Duration::from_millis(200));
        other.record(Duration::from_millis(400));
        one.merge(&other);
        assert_eq!(one.count(), 100);
        let summary = one.summary().unwrap();
        assert!((summary.p50 - 10.0).abs() < 0.02, "{summary:?}");
        assert!((summary.p90 - 10.0).abs() < 0.02, "{summary:?}");
        assert!((summary.p99 - 200.0).abs() < 0.4, "{summary:?}");
        assert!((summary.p999 - 400.0).abs() < 0.8, "{summary:?}");
        assert!((summary.max - 400.0).abs() < 0.8, "{summary:?}");
        assert_eq!(Latencies::default().summary(), None);
    }

    #[test]
    fn a_latency_beyond_the_bounds_is_counted_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(86_400));
        latencies.record(Duration::ZERO);
        assert_eq!(latencies.count(), 2);
        assert!(latencies.summary().unwrap().max >= 600_000.0);
    }

    #[test]
    fn ratios_pair_the_rounds() {
        assert_eq!(ratios(&[2.0, 9.0], &[1.0, 3.0]), [2.0, 3.0]);
        assert_eq!(
            ratios(&[2.0, 9.0], &[0.0, 3.0]),
            [3.0],
            "a peer that did nothing is no measure"
        );
        assert_eq!(pairwise(&[1.0, 5.0], &[2.0, 4.0], f64::min), [1.0, 4.0]);
    }
}
