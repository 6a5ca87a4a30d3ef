//! Uploads from the request to the end, against the real metadata service and nodes that keep everything in memory but
//! vote through the real acceptor and can be made to fail in every way.

#![allow(clippy::unwrap_used, reason = "a failed test is what a panic is for")]

mod coded;
mod endings;
mod front_door;
mod groups;
mod node;
mod replicas;
mod support;
