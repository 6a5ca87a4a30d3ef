//! Who is expected to come back: a node that fell silent is, for `REPAIR_GRACE`. A restart is not a loss.
//!
//! Silence counts only while this service listened, and only as long as the clock by which heartbeats are noted goes as
//! time does: after a step, or when the machine slept, everybody has the whole time again.

use std::{collections::BTreeMap, time::Duration};

use vstack_types::{Monotonic, NodeRef, Timestamp};

/// Since when who is missed.
#[derive(Debug, Default)]
pub(crate) struct Grace {
    missed: BTreeMap<NodeRef, Monotonic>,
    looked: Option<Monotonic>,
    /// Since when there was no gap.
    since: Monotonic,
    /// How far the wall clock was ahead of the other at the last look, in milliseconds.
    ahead: Option<i64>,
}

/// A wall clock that went this much differently from the other was set, or the machine slept.
const STEP_MS: u64 = 3_000;

/// Looks further apart than this: nobody listened meanwhile, and everybody has the whole time again.
const GAP_MAX: Duration = Duration::from_secs(60);

impl Grace {
    /// Another look, at which `silent` are missed; those that were so for `grace` are gone.
    pub(crate) fn look(
        &mut self,
        silent: impl IntoIterator<Item = NodeRef>,
        (now, wall): (Monotonic, Timestamp),
        grace: Duration,
    ) -> Vec<NodeRef> {
        let ahead = wall.0 - i64::try_from(now.since_start().as_millis()).unwrap_or(i64::MAX);
        let stepped = self.ahead.is_some_and(|before| before.abs_diff(ahead) > STEP_MS);
        self.ahead = Some(ahead);
        if stepped {
            tracing::warn!("the clock was set, or the machine slept: who is silent is waited for from now on");
        }
        if stepped || self.looked.is_none_or(|looked| now.since(looked) > GAP_MAX) {
            self.missed.clear();
            self.since = now;
        }
        self.looked = Some(now);
        let before = std::mem::take(&mut self.missed);
        for node in silent {
            let since = before.get(&node).copied().unwrap_or(now);
            self.missed.insert(node, since);
        }
        let gone = self.missed.iter().filter(|(_, since)| now.since(**since) >= grace);
        gone.map(|(node, _)| *node).collect()
    }

    /// For how long it was looked without a gap.
    pub(crate) fn listened(&self, now: Monotonic) -> Duration {
        now.since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use vstack_types::NodeUuid;

    use super::*;

    #[test]
    fn who_is_silent_for_long_enough_without_a_break_is_gone() {
        let node = |n: u8| NodeRef::first(NodeUuid::from_bytes([n; 16]));
        let mut grace = Grace::default();
        let mut set_by = 0;
        let mut look_at = |silent: &[u8], seconds: u32, set: i64| {
            set_by += set;
            let now = Monotonic::from_start(Duration::from_secs(seconds.into()));
            let wall = Timestamp(1_700_000_000_000 + i64::from(seconds) * 1_000 + set_by);
            let silent = silent.iter().map(|n| node(*n));
            grace.look(silent, (now, wall), Duration::from_secs(30))
        };
        let mut look = |silent: &[u8], seconds| look_at(silent, seconds, 0);
        assert_eq!(look(&[1, 2], 0), []);
        assert_eq!(look(&[1], 20), []);
        assert_eq!(look(&[1, 2], 30), [node(1)], "the other one was back in between");
        assert_eq!(look(&[1, 2], 59), [node(1)]);
        assert_eq!(look(&[1, 2], 60), [node(1), node(2)]);
        assert_eq!(look(&[1, 2], 121), [], "nobody listened");
        assert_eq!(look(&[1], 151), [node(1)]);
        assert_eq!(look_at(&[1], 152, 1_000), [node(1)], "as clocks drift");
        assert_eq!(look_at(&[1], 153, -86_400_000), [], "it was set");
        assert_eq!(look_at(&[1], 183, 0), [node(1)]);
        assert_eq!(look_at(&[1], 184, 3_600_000), []);
    }
}
