//! What the taps and the fetchers saw around a fault: which fetches asked the dead node in vain, and how long it took
//! until another node gave them something. Pure.

use std::time::{Duration, Instant};

use crate::tap::{Event, Passed};

/// A chunk somebody fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// Its id.
    pub chunk: String,
    /// When it was wanted.
    pub started: Instant,
    /// When it was there, whole and verified, or given up.
    pub ended: Instant,
    /// It was there.
    pub arrived: bool,
}

/// The node that hurts most when it dies.
pub fn most_asked<'a>(events: impl Iterator<Item = &'a Event>, nodes: usize) -> Option<usize> {
    let mut asked = vec![0; nodes];
    events
        .filter(|event| event.passed == Passed::Asked)
        .for_each(|event| asked[event.node] += 1);
    (0..nodes)
        .max_by_key(|node| asked[*node])
        .filter(|node| asked[*node] > 0)
}

/// For each fetch that asked the dead node in vain: from the loss until another node's first byte. Asking the dead node
/// again is part of what it took.
pub fn failovers(events: &[Event], fetches: &[Fetch], victim: usize, at: Instant) -> Vec<Duration> {
    let failover = |fetch: &Fetch| {
        let during = || {
            events
                .iter()
                .filter(|event| event.chunk == fetch.chunk && (fetch.started..=fetch.ended).contains(&event.at))
        };
        let asked = during()
            .filter(|event| event.node == victim && event.passed == Passed::Asked)
            .map(|event| event.at)
            .min()?;
        let lost = asked.max(at);
        let others = during().filter(|event| event.node != victim && event.passed == Passed::FirstByte);
        others
            .map(|event| event.at)
            .filter(|rescued| *rescued >= lost)
            .min()
            .map(|rescued| rescued - lost)
    };
    fetches
        .iter()
        .filter(|fetch| fetch.ended >= at)
        .filter_map(failover)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Story {
        start: Instant,
        events: Vec<Event>,
        fetches: Vec<Fetch>,
    }

    impl Story {
        fn new() -> Self {
            Self {
                start: Instant::now(),
                events: Vec::new(),
                fetches: Vec::new(),
            }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn event(&mut self, ms: u64, node: usize, chunk: &str, passed: Passed) {
            self.events.push(Event {
                at: self.at(ms),
                node,
                chunk: chunk.to_owned(),
                passed,
            });
        }

        fn fetch(&mut self, chunk: &str, from: u64, to: u64) {
            self.fetches.push(Fetch {
                chunk: chunk.to_owned(),
                started: self.at(from),
                ended: self.at(to),
                arrived: true,
            });
        }

        fn failovers(&self, victim: usize, ms: u64) -> Vec<u128> {
            failovers(&self.events, &self.fetches, victim, self.at(ms))
                .iter()
                .map(Duration::as_millis)
                .collect()
        }
    }

    #[test]
    fn a_transfer_under_way_is_lost_at_the_fault() {
        let mut story = Story::new();
        story.event(90, 0, "a", Passed::Asked);
        story.event(95, 0, "a", Passed::FirstByte);
        story.event(110, 1, "a", Passed::Asked);
        story.event(130, 1, "a", Passed::FirstByte);
        story.fetch("a", 90, 140);
        assert_eq!(story.failovers(0, 100), [30]);
    }

    #[test]
    fn a_request_after_the_fault_is_lost_when_it_is_sent() {
        let mut story = Story::new();
        story.event(150, 0, "a", Passed::Asked);
        story.event(900, 2, "a", Passed::FirstByte);
        story.fetch("a", 149, 950);
        assert_eq!(story.failovers(0, 100), [750]);
    }

    #[test]
    fn asking_the_dead_node_again_does_not_start_the_clock_again() {
        let mut story = Story::new();
        story.event(150, 0, "a", Passed::Asked);
        story.event(650, 0, "a", Passed::Asked);
        story.event(700, 1, "a", Passed::FirstByte);
        story.fetch("a", 150, 710);
        assert_eq!(story.failovers(0, 100), [550]);
    }

    #[test]
    fn whoever_did_not_need_the_dead_node_did_not_fail_over() {
        let mut story = Story::new();
        // Over before the fault.
        story.event(10, 0, "a", Passed::Asked);
        story.fetch("a", 10, 20);
        // Asked another node.
        story.event(120, 1, "b", Passed::Asked);
        story.event(121, 1, "b", Passed::FirstByte);
        story.fetch("b", 120, 130);
        // The dead node's bytes were in the kernel already.
        story.event(99, 0, "c", Passed::Asked);
        story.event(101, 0, "c", Passed::FirstByte);
        story.fetch("c", 99, 105);
        assert!(story.failovers(0, 100).is_empty());
        assert_eq!(most_asked(story.events.iter(), 3), Some(0));
        assert_eq!(most_asked([].iter(), 3), None);
    }
}
