//! The storage node: a disk's chunks and votes over HTTP.
//!
//! Handlers translate: headers and bodies to engine operations, outcomes to statuses. Which votes are cast is
//! decided in `vstack-chunkpaxos`, what is durable in `vstack-engine`; `docs/wire.md` binds their messages to HTTP.
//! Refusals are made from headers and memory before a body is read.
//!
//! Knows nothing of videos, manifests or other nodes, except those that a signed pull names. Works alone; with a
//! metadata service it registers and sends heartbeats, and serves on when that is away.

mod app;
mod background;
mod body;
mod cluster;
mod consensus;
mod damage;
mod delete;
mod emptying;
mod gaps;
mod get;
mod holdings;
mod housekeeping;
mod lender;
mod lists;
mod make;
mod measured;
mod membership;
mod metrics;
mod open_files;
mod openapi;
mod pull;
mod put;
mod reply;
mod routes;
mod run;
mod scrubbing;
mod sending;
mod settings;
mod standing;
mod status;
mod trace;

pub use run::{Node, OpenNode, Parts, Queues, RunError, run};
pub use settings::Settings;
