//! The smart client without I/O: what is known of every node, which node is asked for which chunk, and how full the
//! buffer is.
//!
//! [`Session`] plays one video: a shell tells it what happened ([`Input`]) and does what it says ([`Action`]).
//! [`Selector`] is the part below it that chooses nodes and watches transfers, for shells that fetch single chunks.
//!
//! Time is an argument ([`vstack_types::Monotonic`]), randomness a seeded generator handed in. Bytes never come here:
//! the shell moves, hashes and stores them and reports whether a chunk arrived whole and verified. Nothing here
//! knows HTTP, files or a runtime.

mod attempts;
mod breaker;
mod buffer;
mod estimate;
mod gathering;
mod history;
mod monitor;
mod node;
mod report;
mod scheduler;
mod score;
mod selector;
mod session;
mod settings;
mod speed;

pub use attempts::Attempts;
pub use breaker::Gate;
pub use buffer::Buffer;
pub use gathering::{Arrived, Gathering, Holders, More, OneMore, Part};
pub use monitor::{Monitor, PingId};
pub use node::NodeUrl;
pub use scheduler::{PieceId, Plan, PlanPiece};
pub use score::{Candidate, Explore, Measure, rank, score};
pub use selector::{Begin, Failure, Selector, TransferId, Verdict};
pub use session::{Action, End, Input, Session};
pub use settings::{BufferSettings, MonitorSettings, SchedulerSettings, Settings};
pub use speed::{Factor, Speed, SpeedError};
