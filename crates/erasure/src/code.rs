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

    /// The parity shards of all data shards, which are in order and equally long, and not empty.
    fn parity(&self, data: &[&[u8]]) -> Vec<Vec<u8>>;

    /// The data shards, from any of the code's shards in their places; those that are there come first to be used as
    /// they are. Parity that is missing stays so.
    ///
    /// # Errors
    /// Too few are there.
    fn data(&self, shards: &mut [Option<Vec<u8>>]) -> Result<(), TooFew>;
}
