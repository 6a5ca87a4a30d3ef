//! The smart client with its hands and feet: the sans-io core of `vstack-playback` driven against real nodes.
//!
//! [`play()`] is `vstack play`, [`run`] is `vstack client`, [`ChunkSource`] fetches single chunks for the gateway.
//! Every chunk's SHA-256 is checked while it arrives; nothing unverified leaves this crate. Which node is asked, when,
//! and for how long is decided in the core, not here.

mod beginning;
mod cache;
mod catalog;
mod display;
mod downloads;
mod driver;
mod fetch;
mod joining;
mod play;
mod renewal;
mod service;
mod settings;
mod sink;
mod status_block;

pub use catalog::CatalogError;
pub use driver::{PlayError, Snapshot};
pub use fetch::{ChunkSource, FetchError, FetchSettings};
pub use play::{PlayOptions, PlayReport, play, play_with};
pub use service::{routes, run, serve_on};
pub use settings::Settings;
pub use sink::SinkError;
pub use status_block::status_block;
/// Of [`FetchSettings::one_more`].
pub use vstack_playback::OneMore;
