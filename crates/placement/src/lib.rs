//! Where the chunks of a video go first: the members of its group.
//!
//! A pure function of what is known about the nodes. It does not know how that was learned, does not remember
//! earlier choices and must not be asked again about a group that was already committed: a chunk's first acceptors
//! are those its group names, never those this function would choose today.

mod group;
mod members;
mod rendezvous;
mod shards;
mod takers;

pub use group::{Candidate, GroupRequest, Liveness, NoMajority, choose_group};
pub use members::{MembersRequest, choose_members};
pub use shards::{ShardsRequest, TooFewNodes, choose_shards, losses_survivable, losses_survived};
pub use takers::{Obstacle, Takers};
