//! What every V-Stack HTTP service shares, so that all of them behave alike: one error body, the same limits and
//! timeouts, request ids, metrics, an API description, cluster authentication, and settings read the same way.
//!
//! Knows HTTP and nothing of videos, chunks or consensus.

mod aside;
mod body;
mod cluster;
pub mod commit_costs;
mod cross_site;
mod entrance;
mod error;
pub mod event_ring;
pub mod event_stream;
mod extract;
mod logging;
mod metrics;
mod progress;
mod serve;
mod service;
pub mod settings;

pub use aside::aside;
pub use body::{drain, waits_for_continue};
pub use cluster::{ClusterAuth, ClusterCall, VerifiedCall};
pub use entrance::Entrance;
pub use error::{ApiError, ApiResult};
pub use extract::{Json, Path, Query, Whole};
pub use logging::{LogFormat, LogLevel, init as init_logging};
pub use prometheus_client;
pub use serve::{ServeError, bind, serve};
pub use service::{Cors, Service};
pub use settings::Common;

/// The version every service reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
