//! Whether a recorded history of concurrent calls is linearizable: whether every call can be given one moment between
//! its invocation and its answer at which it happened all at once, so that the answers are those of one object used by
//! one caller after the other (Herlihy & Wing, *Linearizability*, 1990).
//!
//! [`check`] searches as Wing & Gong (1993) with Lowe's memo of configurations (*Testing for linearizability*, 2017).
//! What an object may answer is a [`Specification`]; [`ChunkRegister`] is that of a `ChunkPaxos` register as its users
//! see it. A call without an answer may have happened at any time after its invocation, or never.
//!
//! Pure: no clock, no randomness, no I/O. It knows nothing of how a history was recorded.

mod chunk_register;
mod history;
mod search;
mod specification;

pub use chunk_register::{Answer, ChunkRegister, Operation, authored};
pub use history::{Call, History, HistoryError};
pub use search::{Step, Verdict, check};
pub use specification::Specification;
