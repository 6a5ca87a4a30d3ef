//! What a code does.

use std::fmt::Debug;

use crate::Shape;

/// Fewer shards than the code reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{have} of the {need} shards are there that are needed to read a chunk")]
pub struct TooFew {
    /// Of one chunk.
    pub have: usize,
    /// At least.
    pub need: usize,
}

/// A systematic code over shards of equal length.
pub trait Code: Debug + Send + Sync {
    /// How many shards it makes and needs.
    fn shape(&self) -> Shape;

    /// Writes the parity shards of all data shards, which are in order. All are equally long, and not empty.
    fn parity(&self, data: &[&[u8]], parity: &mut [&mut [u8]]);

    /// Writes the data shards that are not there, given all of the code's shards in their places, each with whether it is
    /// there. Parity that is not there stays so.
    ///
    /// # Errors
    /// Too few are there.
    fn data(&self, shards: &mut [(&mut [u8], bool)]) -> Result<(), TooFew>;
}
