//! Fragmented MP4 (ISO/IEC 14496-12) as ffmpeg writes it: the init segment, then `moof` + `mdat` pairs.
//!
//! Sans-io and incremental: [`Reader`] takes bytes as they come from a pipe and yields whole pieces. Every size and
//! count is checked against a limit before anything is kept for it, and no input makes it panic. Only what the cutter
//! and the manifest need is read: times, keyframes, codec strings, dimensions. Sample data is never looked at.

mod boxes;
mod codec;
mod fragment;
mod init;
mod reader;

pub use boxes::{Fmp4Error, FourCc};
pub use fragment::Fragment;
pub use init::{InitSegment, Track, TrackKind};
pub use reader::{Event, Reader};
