//! Everything a history draws. Each part of the simulation throws its own dice, forked from the seed by name, so that
//! one more throw in one part leaves the others as they were.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use vstack_types::Digest;

/// A seeded generator.
#[derive(Debug)]
pub(crate) struct Dice(StdRng);

impl Dice {
    /// Those of `part` in the history `seed`.
    pub(crate) fn of(seed: u64, part: &str) -> Self {
        let digest = Digest::of(&[&seed.to_le_bytes()[..], part.as_bytes()].concat());
        Self(StdRng::from_seed(*digest.as_bytes()))
    }

    /// Whether something with a chance of `percent` happens.
    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < u64::from(percent)
    }

    /// From 0 to below `bound`, which is above 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    /// The same as an index.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.0.random_range(0..len)
    }

    /// From `low` to `high`, both possible.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// As many milliseconds.
    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// One of them; none when there are none.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() {
            None
        } else {
            of.get(self.index(of.len()))
        }
    }

    /// Bytes for a chunk.
    pub(crate) fn bytes(&mut self, len: usize) -> bytes::Bytes {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes[..]);
        bytes.into()
    }

    /// A seed for something that draws by itself.
    pub(crate) fn seed(&mut self) -> u64 {
        self.0.random()
    }
}
