//! Which videos are kept as replicas and which as shards.
//!
//! What somebody asked for comes first. A new video stays replicated for a while, since most views come early. Then a
//! [`Policy`] scores it, and what scores above the threshold is hot. Around that are the two guards that keep videos from
//! moving to and fro: what was hot stays so until it scores clearly less, and nothing moves again before it stood for a
//! while.

mod decide;
mod heat;
mod policy;

pub use decide::{Changed, Decision, Mode, Rules, Why, decide};
pub use heat::Heat;
pub use policy::{Adaptive, Policy, Seen, Threshold};
