//! The public interfaces as types: JSON bodies, header names, error codes, and the message authentication of the
//! cluster's own calls. Services meet only through this crate and `vstack-client`.
//!
//! Field names and status codes are a contract with scripts that already exist; changing one is breaking them.

pub mod auth;
pub mod census;
pub mod consensus;
mod error;
pub mod headers;
pub mod holdings;
pub mod metadata;
pub mod node;
pub mod redundancy;
mod time;
pub mod uploader;
pub mod web;

pub use error::{ErrorBody, ErrorCode};
pub use time::WallTime;
