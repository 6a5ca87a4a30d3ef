//! The smart client without I/O: what is known of every node, which node is asked for which chunk, and how full the
//! buffer is.
//!
//! [`Session`] plays one video: a shell tells it what happened ([`Input`]) and does what it says ([`Action`]).
//! [`Gathering`], which fetches one piece, and [`Selector`], which chooses nodes and watches transfers, are the parts below
//! it, for shells that fetch single chunks.
//!
//! Time is an argument ([`vstack_types::Monotonic`]), randomness a seeded generator handed in. Bytes never come here:
//! the shell moves, hashes and stores them, makes pieces of shards, and reports whether what arrived is whole and
//! verified. Nothing here knows HTTP, files or a runtime.

mod attempts;
mod breaker;
mod buffer;
mod estimate;
mod gathering;
mod history;
mod holders;
mod monitor;
mod node;
mod report;
mod scheduler;
mod score;
mod selector;
mod session;
mod sets;
mod settings;
mod speed;

pub use attempts::Attempts;
pub use breaker::Gate;
pub use buffer::Buffer;
pub use gathering::{Arrived, Gathering, More, OneMore};
pub use holders::{Holders, Part, ShardId, Shards};
pub use monitor::{Monitor, PingId};
pub use node::NodeUrl;
pub use scheduler::{PieceId, Plan, PlanPiece};
pub use score::{Candidate, Explore, Measure, rank, score};
pub use selector::{Begin, Failure, Selector, TransferId, Verdict};
pub use session::{Action, End, Input, Session};
pub use sets::sets_with_the_last;
pub use settings::{BufferSettings, MonitorSettings, SchedulerSettings, Settings};
pub use speed::{Factor, Speed, SpeedError};
