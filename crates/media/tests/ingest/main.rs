//! Whole runs of the ingest on real ffmpeg: what comes out is what went in, within the limits, or a reason.

#![allow(clippy::unwrap_used, reason = "a failed test is what a panic is for")]

mod damaged_boxes;
mod packet_for_packet;
mod real_files;
mod stopping;
mod support;
