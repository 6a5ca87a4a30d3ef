//! How services call each other: one typed client per service, and the driver that runs a sans-io
//! [`vstack_chunkpaxos::Proposer`] over HTTP.
//!
//! Every call has a timeout and a bound on what it reads. Nothing here retries by itself except the proposer's
//! driver, which follows the protocol's own rule; who calls knows better what a failure means.

mod error;
mod event_parser;
mod http;
mod make;
mod metadata;
mod node;
mod propose;
mod uploader;
mod view;
mod wire;

pub use error::ClientError;
pub use event_parser::{EventParser, EventTooLong, ServerEvent};
pub use http::{HttpClient, Timeouts};
pub use make::{Made, Make, ShardAt, ShardsAt, Want};
pub use metadata::{MetadataClient, Tagged};
pub use node::{Holder, NodeClient, Ping, Proved, Pull};
pub use propose::{Effort, NodeUrls, ProposeError, Proposed, propose, propose_counting};
pub use uploader::UploaderClient;
pub use view::{PlacementShape, placement_view};
pub use wire::{Sending, Wire, WireError};
