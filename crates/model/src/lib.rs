//! Every history of one ChunkPaxos register, within bounds, checked.
//!
//! What runs is `vstack_chunkpaxos` itself: acceptors, proposers and choices are asked through [`machines`], never
//! written again. [`scope`] says how much may happen, [`world`] and `environment` what the next step can be, [`rules`]
//! what must hold, [`lone`] that somebody can always finish, `forward` that no register goes back, on which rests what
//! `tidy` leaves out, [`mod@search`] goes through all of it. `docs/chunk-paxos.md` has the scopes with what they found.
//!
//! It knows nothing of bytes on disks, of HTTP, nor of time: those are the engine's, the node's and the simulation's.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod delivery;
mod environment;
mod forward;
pub mod intern;
pub mod lone;
pub mod machines;
pub mod names;
pub mod report;
pub mod rules;
pub mod scope;
pub mod scopes;
pub mod search;
pub mod state;
pub mod step;
mod symmetry;
mod tidy;
pub mod world;

pub use rules::{Rule, Violation};
pub use scope::{Begin, Faults, Form, Scope, Wish};
pub use search::{Counterexample, Report, search, search_for, search_without_symmetry};
