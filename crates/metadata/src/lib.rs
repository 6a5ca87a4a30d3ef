//! The metadata service: which videos there are, what their chunks are called and where they lie, which nodes there
//! are and how they are doing.
//!
//! Its database is a view. What is true about a chunk is decided by its acceptors, on the nodes that hold it; here
//! it is learned. The service also proposes: the classic path for scripts, and the removal of what failed or was
//! deleted.
//!
//! Pure: [`admission`], [`registry`], [`lifecycle`], [`redundancy`], [`manifest`], [`survival`]. Shells around them: `http`,
//! the background workers, the stores.

pub mod admission;
mod app;
mod attention;
mod coded;
mod commit;
mod consensus;
mod events;
mod given_up;
mod hearing;
mod http;
pub mod keeping;
mod lifecycle;
pub mod manifest;
mod reaper;
pub mod redundancy;
pub mod refused;
mod registry;
mod run;
mod settings;
mod silence;
pub mod store;
mod survival;
mod trace;
mod unheard;
mod upkeep;
mod watch;

pub use reaper::{CHUNKS_AT_ONCE as REAPED_CHUNKS_AT_ONCE, ReaperPace, VIDEOS_AT_ONCE as REAPED_VIDEOS_AT_ONCE};
pub use run::{Backing, Parts, RunError, run, serve_at, serve_with};
pub use settings::Settings;
