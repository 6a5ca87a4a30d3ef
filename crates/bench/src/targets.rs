//! The figures to reach, each with its comparison: the only numbers in this crate that were not measured by it.

use serde::Serialize;

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
    /// Less.
    Below(f64),
}

/// A figure to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Target {
    /// Of what.
    pub figure: &'static str,
    /// How much.
    pub bound: Bound,
    /// `x` for a ratio to the peer.
    pub unit: &'static str,
}

impl Target {
    const fn new(figure: &'static str, bound: Bound, unit: &'static str) -> Self {
        Self { figure, bound, unit }
    }

    /// Whether `measured` is good enough. What is not a number is not.
    pub fn is_reached(&self, measured: f64) -> bool {
        match self.bound {
            Bound::AtLeast(limit) => measured >= limit,
            Bound::AtMost(limit) => measured <= limit,
            Bound::Below(limit) => measured < limit,
        }
    }

    /// `>= 0.8 x`.
    pub fn words(&self) -> String {
        let (sign, limit) = match self.bound {
            Bound::AtLeast(limit) => (">=", limit),
            Bound::AtMost(limit) => ("<=", limit),
            Bound::Below(limit) => ("<", limit),
        };
        format!("{sign} {limit} {}", self.unit)
    }
}

/// Durable PUT of 2 MiB at c1, c8, c32.
pub const PUT_RATE: Target = Target::new(
    "durable PUT rate, to the lesser of the disk's and the CPU's own",
    Bound::AtLeast(0.8),
    "x",
);
/// At c8.
pub const PUT_P99: Target = Target::new("durable PUT, p99 at c8", Bound::AtMost(60.0), "ms");
/// Hot GET of 2 MiB at c1, c8, c64.
pub const GET_RATE: Target = Target::new("hot GET rate, to nginx's better mode", Bound::AtLeast(1.0), "x");
/// At the same concurrency.
pub const GET_P99: Target = Target::new("hot GET p99, to that of nginx's better mode", Bound::AtMost(1.2), "x");
/// On an idle node.
pub const GET_FIRST_BYTE_P99: Target = Target::new("first byte of a hot chunk at c1, p99", Bound::Below(1.0), "ms");
/// Process start to `/health`, with 1,000,000 chunks.
pub const RESTART_CHECKPOINT: Target = Target::new(
    "restart with 1,000,000 chunks, from a checkpoint",
    Bound::AtMost(2.0),
    "s",
);
/// The same, with nothing but the log.
pub const RESTART_SCAN: Target = Target::new("restart with 1,000,000 chunks, by scan", Bound::AtMost(30.0), "s");
/// With 1,000,000 chunks, each with a vote.
pub const INDEX_MEMORY: Target = Target::new("index memory of a chunk", Bound::AtMost(64.0), "bytes");
/// While superblocks of which half was deleted are emptied, beside the same node at rest.
pub const RECLAIM_P99: Target = Target::new(
    "GET p99 while superblocks are emptied, to that of the same node at rest",
    Bound::AtMost(2.0),
    "x",
);
/// Once nothing more comes back.
pub const RECLAIM_SPACE: Target = Target::new(
    "disk space kept after half was deleted, to the live bytes",
    Bound::AtMost(1.15),
    "x",
);
/// Three nodes and the metadata service on one machine, every copy synced.
pub const COMMIT_RATE: Target = Target::new("committed 2 MiB chunks at c8", Bound::AtLeast(100.0), "chunks/s");
/// Three requests and three answers.
pub const COMMIT_MESSAGES: Target = Target::new("messages about one chunk", Bound::AtMost(6.0), "messages");
/// One, and what timers add.
pub const COMMIT_ROUND_TRIPS: Target = Target::new("round trips until decided", Bound::Below(1.5), "round trips");
/// Three nodes on one machine.
pub const SMALL_COMMIT_RATE: Target = Target::new("committed 4 KiB chunks at c64", Bound::AtLeast(3000.0), "chunks/s");
/// On loopback.
pub const STARTUP_P95: Target = Target::new("startup latency, p95", Bound::Below(0.3), "s");
/// A node that resets connections.
pub const FAILOVER_RESET: Target = Target::new(
    "failover after a reset, to the first byte from another node",
    Bound::AtMost(0.3),
    "s",
);
/// A node that says nothing.
pub const FAILOVER_BLACK_HOLE: Target = Target::new(
    "failover from a black hole, to the first byte from another node",
    Bound::AtMost(2.0),
    "s",
);
/// A file that is not transcoded.
pub const INGEST_TIME: Target = Target::new(
    "remux ingest time, to cp + sha256sum + three synced copies",
    Bound::AtMost(2.0),
    "x",
);
/// Its peak.
pub const INGEST_MEMORY: Target = Target::new("peak memory of the uploader", Bound::AtMost(64.0), "MiB");
/// From the start of the metadata service, beside nodes that answer.
pub const CENSUS_FIRST: Target = Target::new(
    "first full census of 1,000,000 chunks on five nodes",
    Bound::AtMost(30.0),
    "s",
);
/// Of the processes of the metadata service and all storage nodes, at rest; with uploads of the metadata service's alone.
pub const CENSUS_SHARE: Target = Target::new(
    "processor time that keeping the census takes, of one core",
    Bound::Below(2.0),
    "%",
);
/// Everything `vstack up` runs.
pub const IDLE_TOTAL: Target = Target::new(
    "idle memory of all processes of `vstack up`",
    Bound::AtMost(200.0),
    "MiB",
);
/// Holding nothing.
pub const IDLE_NODE: Target = Target::new("idle memory of the largest storage node", Bound::AtMost(32.0), "MiB");

/// A chunk of 2 MiB at 3+2, one thread.
pub const CODING_ENCODE: Target = Target::new("coding a chunk, to ISA-L", Bound::AtMost(1.1), "x");
/// The same.
pub const CODING_REBUILD: Target = Target::new("making two data shards anew, to ISA-L", Bound::AtMost(1.1), "x");

/// Chunks of 2 MiB in the page cache; two of five nodes are dead, and known to be.
pub const DEGRADED_MEDIAN: Target = Target::new(
    "reading a chunk without two of its data shards, to one with all, medians",
    Bound::AtMost(1.3),
    "x",
);
/// One of five nodes takes five times as long as the others.
pub const ONE_MORE_P99: Target = Target::new(
    "p99 of reading with one shard more than is needed, to exactly as many, one node slow",
    Bound::Below(1.0),
    "x",
);
/// At 3+2, once nothing more comes back.
pub const OVERHEAD_TAKEN: Target = Target::new(
    "disk space of a library in shards, to the library's bytes",
    Bound::AtMost(1.68),
    "x",
);
/// Both by the same measure.
pub const OVERHEAD_SAVED: Target = Target::new(
    "disk space that shards take less than three copies",
    Bound::AtLeast(44.0),
    "%",
);
/// In either direction.
pub const OVERHEAD_COUNTED: Target = Target::new(
    "disk space as nodes count it, off from that by du",
    Bound::AtMost(2.0),
    "%",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_mean_what_they_say() {
        let reached = |bound, measured| Target::new("x", bound, "x").is_reached(measured);
        assert!(reached(Bound::AtLeast(0.8), 0.8) && !reached(Bound::AtLeast(0.8), 0.79));
        assert!(reached(Bound::AtMost(2.0), 2.0) && !reached(Bound::AtMost(2.0), 2.01));
        assert!(reached(Bound::Below(0.3), 0.29) && !reached(Bound::Below(0.3), 0.3));
        for bound in [Bound::AtLeast(0.0), Bound::AtMost(0.0), Bound::Below(1.0)] {
            assert!(!reached(bound, f64::NAN));
        }
        assert_eq!(PUT_RATE.words(), ">= 0.8 x");
    }
}
