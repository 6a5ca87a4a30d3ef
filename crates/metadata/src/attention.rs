//! For how long this service has been listening, by clocks that agree.
//!
//! After its start, after a suspended or stalled machine and after a step of the clock, nothing is known of the time
//! before.

use std::time::Duration;

use vstack_types::{Monotonic, Timestamp};

/// Looks further apart than this, by either clock, or clocks that disagree by more: nobody listened meanwhile.
const GAP_MAX: Duration = Duration::from_secs(6);

/// Since when that is so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    since: Timestamp,
    wall: Timestamp,
    monotonic: Monotonic,
}

impl Attention {
    pub(crate) const fn begin(wall: Timestamp, monotonic: Monotonic) -> Self {
        Self {
            since: wall,
            wall,
            monotonic,
        }
    }

    /// Another look; says for how long there was no gap.
    pub(crate) fn look(&mut self, wall: Timestamp, monotonic: Monotonic) -> Duration {
        let by_wall = wall.since(self.wall);
        let by_monotonic = monotonic.since(self.monotonic);
        if wall < self.wall || by_wall.max(by_monotonic) > GAP_MAX {
            *self = Self::begin(wall, monotonic);
        }
        (self.wall, self.monotonic) = (wall, monotonic);
        wall.since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nobody_listened_is_not_counted() {
        let mut attention = Attention::begin(Timestamp(0), Monotonic::default());
        let mut look = |wall_seconds: i64, monotonic_seconds: u64| {
            let monotonic = Monotonic::from_start(Duration::from_secs(monotonic_seconds));
            attention.look(Timestamp(wall_seconds * 1_000), monotonic).as_secs()
        };
        assert_eq!([look(2, 2), look(4, 4), look(9, 9)], [2, 4, 9]);
        // The machine slept: only the wall clock went on.
        assert_eq!([look(3_600, 11), look(3_602, 13)], [0, 2]);
        // The process was stopped: both went on.
        assert_eq!([look(3_700, 111), look(3_705, 116)], [0, 5]);
        // The wall clock was set, back and a little, forward and far; or stood still.
        assert_eq!([look(3_704, 118), look(3_706, 120)], [0, 2]);
        assert_eq!([look(9_000, 122), look(9_002, 124)], [0, 2]);
        assert_eq!([look(9_002, 144), look(9_004, 146)], [0, 2]);
    }
}
