//! From any video file to chunks that browsers play, and from chunks to playlists.
//!
//! Pure parts: [`verdict`] (what to do with a file), [`fmp4`] (reading what ffmpeg writes), [`cutter`] (packing
//! fragments into chunks), [`playlist`] and [`virtual_mp4`] (showing chunks as HLS and as one file). Shells:
//! [`probe`], [`ingest`] and [`sample`] run ffprobe and ffmpeg as fenced child processes.
//!
//! Nothing here knows HTTP, storage nodes or consensus.

pub mod cutter;
mod fence;
pub mod fmp4;
pub mod ingest;
pub mod playlist;
pub mod probe;
pub mod sample;
pub mod verdict;
pub mod virtual_mp4;

pub use fence::{FenceError, Limits};
