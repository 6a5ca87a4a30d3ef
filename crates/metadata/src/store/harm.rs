//! The book of harm, kept.

use vstack_upkeep::harm::{Book, Changes};

use super::Answer;

/// Calls about copies that were found harmed.
pub trait Harms: Send + Sync + 'static {
    /// What was entered and did not leave, the sums, and which shards are none of their chunk.
    fn harms(&self) -> Answer<'_, Book>;
    /// Writes changes into the book, all or none: what is in it already is not found again, and what is not in it does not
    /// leave.
    fn note_harms(&self, changes: Changes) -> Answer<'_, ()>;
}
