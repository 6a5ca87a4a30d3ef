//! Whole sessions against simulated nodes, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, reason = "the simulation counts whole bytes")]

mod coded;
mod faults;
mod order;
mod sim;
mod wrong_shards;
