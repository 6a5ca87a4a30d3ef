//! Who is expected to come back: a node that fell silent is, for `REPAIR_GRACE`. A restart is not a loss.
//!
//! Silence counts only while this service listened.

use std::{collections::BTreeMap, time::Duration};

use vstack_types::{Monotonic, NodeRef};

/// Since when who is missed.
#[derive(Debug, Default)]
pub(crate) struct Grace {
    missed: BTreeMap<NodeRef, Monotonic>,
    looked: Option<Monotonic>,
    /// Since when there was no gap.
    since: Monotonic,
}

/// Looks further apart than this: nobody listened meanwhile, and everybody has the whole time again.
const GAP_MAX: Duration = Duration::from_secs(60);

impl Grace {
    /// Another look, at which `silent` are missed; those that were so for `grace` are gone.
    pub(crate) fn look(
        &mut self,
        silent: impl IntoIterator<Item = NodeRef>,
        now: Monotonic,
        grace: Duration,
    ) -> Vec<NodeRef> {
        if self.looked.is_none_or(|looked| now.since(looked) > GAP_MAX) {
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
        let mut look = |silent: &[u8], seconds: u64| {
            let now = Monotonic::from_start(Duration::from_secs(seconds));
            let silent = silent.iter().map(|n| node(*n));
            grace.look(silent, now, Duration::from_secs(30))
        };
        assert_eq!(look(&[1, 2], 0), []);
        assert_eq!(look(&[1], 20), []);
        assert_eq!(look(&[1, 2], 30), [node(1)], "the other one was back in between");
        assert_eq!(look(&[1, 2], 59), [node(1)]);
        assert_eq!(look(&[1, 2], 60), [node(1), node(2)]);
        assert_eq!(look(&[1, 2], 121), [], "nobody listened");
        assert_eq!(look(&[1], 151), [node(1)]);
    }
}
