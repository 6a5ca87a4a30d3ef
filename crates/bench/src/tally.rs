//! How many targets were reached, and what that makes of the exit code.

use crate::{machine::Disturbance, report::Section};

/// Targets, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Measured, and good enough.
    pub reached: usize,
    /// Measured, and not good enough.
    pub missed: usize,
    /// No figure.
    pub unmeasured: usize,
    /// Scenarios beside which other work kept the machine busy: what they say of targets means nothing.
    pub void: usize,
}

impl Tally {
    /// Counts.
    pub fn of(scenarios: &[Section]) -> Self {
        let mut tally = Self::default();
        for section in scenarios {
            tally.void += usize::from(section.disturbance.as_ref().is_some_and(Disturbance::voids));
            for verdict in &section.verdicts {
                match (verdict.measured, verdict.reached) {
                    (None, _) => tally.unmeasured += 1,
                    (Some(_), true) => tally.reached += 1,
                    (Some(_), false) => tally.missed += 1,
                }
            }
        }
        tally
    }

    /// Whether every target is shown to be reached.
    pub const fn shows_all_reached(self) -> bool {
        self.missed == 0 && self.unmeasured == 0 && self.void == 0 && self.reached > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::PUT_RATE;

    fn section(rounds: &[&[f64]], busy_percent: f64) -> Section {
        let mut section = Section::new("put", "about");
        for rounds in rounds {
            section.judge_rounds(PUT_RATE, "c8", rounds);
        }
        section.disturbance = Some(Disturbance {
            busy_percent_before: busy_percent,
            busy_percent_after: 0.0,
        });
        section
    }

    #[test]
    fn a_missed_an_unmeasured_and_a_disturbed_target_are_not_reached() {
        let all = |rounds: &[&[f64]], busy| Tally::of(&[section(rounds, busy)]).shows_all_reached();
        assert!(all(&[&[0.9], &[0.8]], 0.0));
        assert!(!all(&[&[0.9], &[0.7]], 0.0), "missed");
        assert!(!all(&[&[0.9], &[]], 0.0), "not measured");
        assert!(!all(&[&[0.9]], 90.0), "disturbed");
        assert!(!all(&[], 0.0), "nothing was measured");
        let tally = Tally::of(&[section(&[&[0.9], &[0.7], &[0.6], &[]], 90.0)]);
        assert_eq!(
            tally,
            Tally {
                reached: 1,
                missed: 2,
                unmeasured: 1,
                void: 1
            }
        );
    }
}
