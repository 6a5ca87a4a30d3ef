//! What is measured while the store works: how long operations take, and what batches come to.
//!
//! An observation is two additions to atomics that are there from the start: no lock, no memory. Buckets are fixed, so
//! those of many nodes and of two moments can be added and subtracted. What time it is comes from the engine's clock; a
//! store that runs without an engine has none, and measures no times.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use vstack_types::{Clock, Monotonic};

use crate::op::Op;

/// What takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timed {
    /// Bytes stored, from the asking to the answer: waiting in the queue, the write and its sync.
    Put,
    /// A chunk asked for, until the first byte can be sent.
    FirstByte,
    /// A chunk asked for, until all of it was sent, or whoever asked went away.
    Get,
    /// A message to the acceptor, or decisions, from the asking to the answer.
    Paxos,
    /// Bytes that nothing keeps deleted.
    Collect,
    /// Records written again so that a superblock can be emptied, and the emptying.
    Move,
    /// The index written down.
    Checkpoint,
    /// One sync of the log.
    Sync,
}

impl Timed {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::Put,
        Self::FirstByte,
        Self::Get,
        Self::Paxos,
        Self::Collect,
        Self::Move,
        Self::Checkpoint,
        Self::Sync,
    ];

    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::FirstByte => "get_first_byte",
            Self::Get => "get",
            Self::Paxos => "paxos",
            Self::Collect => "collect",
            Self::Move => "move",
            Self::Checkpoint => "checkpoint",
            Self::Sync => "sync",
        }
    }

    pub(crate) const fn of(op: &Op) -> Option<Self> {
        match op {
            Op::Put { .. } => Some(Self::Put),
            Op::Paxos { .. } | Op::Decided { .. } => Some(Self::Paxos),
            Op::Collect { .. } => Some(Self::Collect),
            Op::Move { .. } | Op::Empty { .. } => Some(Self::Move),
            Op::DeleteStaged { .. } | Op::Quarantine { .. } | Op::Seal | Op::Attend | Op::Rest | Op::Turn => None,
            Op::Mend { .. } => None,
        }
    }
}

/// Bounds that double, each with one half-way to the next.
const fn half_doublings<const N: usize>(first: u64) -> [u64; N] {
    let mut bounds = [0; N];
    let mut index = 0;
    while index < N {
        let doubled = first << (index / 2);
        bounds[index] = if index % 2 == 0 { doubled } else { doubled + doubled / 2 };
        index += 1;
    }
    bounds
}

const fn doublings<const N: usize>(first: u64) -> [u64; N] {
    let mut bounds = [0; N];
    let mut index = 0;
    while index < N {
        bounds[index] = first << index;
        index += 1;
    }
    bounds
}

/// 16 µs, less than any operation that leaves memory, to 67 s, more than anybody waits.
static MICROSECONDS: [u64; 45] = half_doublings(16);
/// One operation, to as many as a batch takes.
static OPERATIONS: [u64; 11] = doublings(1);
/// 1 KiB, to a batch's bytes with one of the largest chunks on top.
static BYTES: [u64; 16] = doublings(1024);

/// Counts values by size. A value counts in the first bucket whose bound is not below it.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than there are bounds: the last one has what is above them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted so far. Taken while others count it may lack some of what they are about to add.
    pub fn distribution(&self) -> Distribution {
        let count = |at: usize| self.counts[at].load(Ordering::Relaxed);
        Distribution {
            buckets: self.bounds.iter().copied().zip((0..).map(count)).collect(),
            above: count(self.bounds.len()),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// What a [`Histogram`] counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Upper bounds, rising, and how many values are at most that and above the one before.
    pub buckets: Vec<(u64, u64)>,
    /// Values above the last bound.
    pub above: u64,
    /// Of all values.
    pub sum: u64,
}

impl Distribution {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum::<u64>() + self.above
    }
}

/// Everything that is measured of one store.
#[derive(Debug)]
pub struct Instruments {
    clock: OnceLock<EngineClock>,
    times: [Histogram; Timed::ALL.len()],
    /// Operations of the batches that were committed.
    pub batch_ops: Histogram,
    /// Bytes of the items in them.
    pub batch_bytes: Histogram,
}

struct EngineClock(Arc<dyn Clock>);

impl std::fmt::Debug for EngineClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EngineClock")
    }
}

impl Default for Instruments {
    fn default() -> Self {
        Self {
            clock: OnceLock::new(),
            times: Timed::ALL.map(|_| Histogram::new(&MICROSECONDS)),
            batch_ops: Histogram::new(&OPERATIONS),
            batch_bytes: Histogram::new(&BYTES),
        }
    }
}

impl Instruments {
    /// Times are measured from now on. The first clock stays.
    pub(crate) fn measure_with(&self, clock: Arc<dyn Clock>) {
        let _ = self.clock.set(EngineClock(clock));
    }

    pub(crate) fn now(&self) -> Option<Monotonic> {
        self.clock.get().map(|clock| clock.0.monotonic())
    }

    /// Something that began at `began` is done. Nothing is counted when there was no clock then.
    pub(crate) fn done(&self, what: Timed, began: Option<Monotonic>) {
        if let (Some(began), Some(now)) = (began, self.now()) {
            self.observe(what, now.since(began));
        }
    }

    /// Something took so long.
    pub fn observe(&self, what: Timed, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.times[what as usize].observe(microseconds);
    }

    pub(crate) fn batch(&self, ops: usize, bytes: usize) {
        self.batch_ops.observe(ops as u64);
        self.batch_bytes.observe(bytes as u64);
    }

    /// How long it took, in microseconds.
    pub fn times(&self, what: Timed) -> &Histogram {
        &self.times[what as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_from_the_first_to_the_last() {
        for bounds in [&MICROSECONDS[..], &OPERATIONS, &BYTES] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
        assert_eq!(MICROSECONDS[..4], [16, 24, 32, 48]);
        assert_eq!(MICROSECONDS[44], 1 << 26);
        assert_eq!(OPERATIONS[10], crate::QUEUE_OPS_MAX as u64);
        assert!(BYTES[15] > crate::BATCH_BYTES_MAX as u64);
    }

    #[test]
    fn a_value_counts_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&OPERATIONS);
        for value in [0, 1, 2, 3, 4, 1024, 1025, u64::from(u32::MAX)] {
            histogram.observe(value);
        }
        let found = histogram.distribution();
        assert_eq!(found.buckets[..3], [(1, 2), (2, 1), (4, 2)]);
        assert_eq!((found.buckets[10], found.above, found.count()), ((1024, 1), 2, 8));
        assert_eq!(found.sum, 1 + 2 + 3 + 4 + 1024 + 1025 + u64::from(u32::MAX));
    }

    #[test]
    fn every_label_is_another_and_every_place_its_own() {
        let instruments = Instruments::default();
        for (at, what) in Timed::ALL.into_iter().enumerate() {
            assert_eq!(what as usize, at);
            for _ in 0..=at {
                instruments.observe(what, Duration::from_millis(1));
            }
        }
        let labels: std::collections::BTreeSet<_> = Timed::ALL.map(Timed::as_str).into();
        assert_eq!(labels.len(), Timed::ALL.len());
        for (at, what) in Timed::ALL.into_iter().enumerate() {
            let times = instruments.times(what).distribution();
            assert_eq!((times.count(), times.sum), (at as u64 + 1, 1000 * (at as u64 + 1)));
        }
        instruments.done(Timed::Sync, instruments.now());
        assert_eq!(
            instruments.times(Timed::Sync).distribution().count(),
            8,
            "without a clock"
        );
    }
}
