//! The player against HTTP servers on real sockets: nodes that serve, break off, stall, or lie.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod coded;
mod fake;
mod fetch;
mod play;
mod service;
