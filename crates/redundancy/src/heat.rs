//! How fast views come, and whether ever faster or slower.

use std::time::Duration;

use vstack_types::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// After so many days a view counts half: little enough to follow a week, and enough not to follow an hour.
const FAST_HALF_LIFE_DAYS: f64 = 1.0;
const SLOW_HALF_LIFE_DAYS: f64 = 4.0;
/// From one day to the next; beyond, it is chance.
const GROWTH_MIN: f64 = 0.5;
const GROWTH_MAX: f64 = 1.15;

/// Views, each counting less the older it is, by two half-lives. Constant in size however many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Heat {
    /// With a half-life of a day.
    pub fast: f64,
    /// With one of four days.
    pub slow: f64,
    /// When they were so.
    pub at: Timestamp,
}

impl Heat {
    /// As it is at `now`, if nothing was added. A clock that went back changes nothing.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        let days = now.since(self.at).as_secs_f64() / DAY.as_secs_f64();
        Self {
            fast: self.fast * (-days / FAST_HALF_LIFE_DAYS).exp2(),
            slow: self.slow * (-days / SLOW_HALF_LIFE_DAYS).exp2(),
            at: if now > self.at { now } else { self.at },
        }
    }

    /// With so many views more.
    #[must_use]
    pub fn with(self, views: u64, now: Timestamp) -> Self {
        let before = self.at(now);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let views = views as f64;
        Self {
            fast: before.fast + views,
            slow: before.slow + views,
            at: before.at,
        }
    }

    /// Views a day, lately.
    pub fn per_day(self) -> f64 {
        self.fast * std::f64::consts::LN_2 / FAST_HALF_LIFE_DAYS
    }

    /// By how much they grow from day to day: the faster mean is younger than the slower one by the difference of their
    /// ages, and how they differ is what happened in between. A video that is younger than that grows by nothing.
    fn growth(self, age: Duration) -> f64 {
        let days = age.as_secs_f64() / DAY.as_secs_f64();
        // What a mean has seen of a video that is not old yet.
        let seen = |half_life: f64| 1.0 - (-days / half_life).exp2();
        let slow = self.slow * std::f64::consts::LN_2 / SLOW_HALF_LIFE_DAYS / seen(SLOW_HALF_LIFE_DAYS);
        let fast = self.per_day() / seen(FAST_HALF_LIFE_DAYS);
        let apart = (SLOW_HALF_LIFE_DAYS - FAST_HALF_LIFE_DAYS) / std::f64::consts::LN_2;
        if days < apart || slow <= 0.0 {
            return 1.0;
        }
        (fast / slow).powf(1.0 / apart).clamp(GROWTH_MIN, GROWTH_MAX)
    }

    /// Views to be expected in the next `days`, of a video of this age, if it goes on as it did.
    pub fn expected(self, age: Duration, days: u32) -> f64 {
        let growth = self.growth(age);
        let mut rate = self.per_day();
        let mut sum = 0.0;
        for _ in 0..days {
            rate *= growth;
            sum += rate;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(days: f64) -> Timestamp {
        #[expect(clippy::cast_possible_truncation, reason = "a few days in milliseconds")]
        let ms = (days * 86_400_000.0) as i64;
        Timestamp(1_700_000_000_000 + ms)
    }

    fn watched(views_of_day: impl Fn(u32) -> u64, days: u32) -> (Heat, Duration) {
        let mut heat = Heat::default().at(day(0.0));
        for of in 0..days {
            for hour in 0..24 {
                let at = f64::from(of) + f64::from(hour) / 24.0;
                heat = heat.with(views_of_day(of) / 24, day(at));
            }
        }
        (heat.at(day(f64::from(days))), DAY * days)
    }

    fn is_about(found: f64, expected: f64) -> bool {
        (found / expected - 1.0).abs() < 0.1
    }

    #[test]
    fn what_goes_on_evenly_is_expected_to() {
        let (heat, age) = watched(|_| 2_400, 30);
        assert!(is_about(heat.per_day(), 2_400.0), "{}", heat.per_day());
        assert!(
            is_about(heat.expected(age, 7), 7.0 * 2_400.0),
            "{}",
            heat.expected(age, 7)
        );
    }

    #[test]
    fn what_fades_is_expected_to_fade() {
        let fades = |day: u32| (0..day).fold(240_000_u64, |views, _| views * 4 / 5);
        let (heat, age) = watched(fades, 14);
        let next: u64 = (14..21).map(fades).sum();
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let next = next as f64;
        let found = heat.expected(age, 7);
        assert!(found > next * 0.7 && found < next * 1.5, "{found} of {next}");
        let level = heat.per_day() * 7.0;
        assert!(found < level, "{found}, and {level} if it went on");
    }

    #[test]
    fn what_nobody_watches_any_more_is_forgotten() {
        let (heat, age) = watched(|day| if day < 3 { 240_000 } else { 0 }, 30);
        assert!(heat.expected(age, 7) < 1.0, "{}", heat.expected(age, 7));
        assert!(Heat::default().expected(age, 7).abs() < f64::EPSILON);
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_hotter() {
        let heat = Heat::default().with(10, day(5.0));
        assert_eq!(heat.at(day(1.0)), heat);
        assert_eq!(heat.with(1, day(1.0)).fast, 11.0);
    }
}
