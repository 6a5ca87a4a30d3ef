//! What one chunk costs, from the counters of all nodes. Pure.

use crate::metrics::Counters;

/// What a chunk cost, on the mean.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// Requests and answers without which nothing is decided.
    pub deciding_messages: f64,
    /// Requests and answers that tell the nodes what was decided.
    pub news_messages: f64,
    /// Syncs, before an answer.
    pub fsyncs: f64,
}

/// What is about no chunk.
const ABOUT_NO_CHUNK: [&str; 4] = ["/paxos-challenge", "/raft/initialize", "/raft/status", "/raft/vote"];
/// What tells of decisions, in calls of its own.
const NEWS: [&str; 2] = ["/paxos", "/raft/heartbeat"];

impl Tally {
    /// Of `chunks`, between two looks at the counters.
    pub fn of(counters: &Counters, chunks: u32) -> Self {
        let (mut deciding, mut news) = (0, counters.noted);
        for ((method, route), count) in &counters.requests {
            if method == "GET" || ABOUT_NO_CHUNK.contains(&route.as_str()) {
                continue;
            }
            *(if NEWS.contains(&route.as_str()) {
                &mut news
            } else {
                &mut deciding
            }) += count;
        }
        // Those decisions came by the route that the proposer's other messages take.
        deciding = deciding.saturating_sub(counters.noted);
        let each = |count: u64| count as f64 / f64::from(chunks.max(1));
        Self {
            deciding_messages: 2.0 * each(deciding),
            news_messages: 2.0 * each(news),
            fsyncs: each(counters.batches),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_and_what_is_about_no_chunk_decide_nothing() {
        let key = |method: &str, route: &str| (method.to_owned(), route.to_owned());
        let counters = Counters {
            requests: [
                (key("PUT", "/chunk/{id}"), 30),
                (key("POST", "/paxos/{id}"), 90),
                (key("POST", "/paxos"), 3),
                (key("GET", "/metrics"), 6),
                (key("GET", "/chunk/{id}"), 6),
                (key("POST", "/paxos-challenge"), 3),
            ]
            .into(),
            batches: 120,
            syncs: 123,
            noted: 30,
        };
        let expected = Tally {
            deciding_messages: 18.0,
            news_messages: 6.6,
            fsyncs: 12.0,
        };
        assert_eq!(Tally::of(&counters, 10), expected);
    }
}
