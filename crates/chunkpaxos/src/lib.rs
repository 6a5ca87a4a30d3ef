//! ChunkPaxos: agreeing, per chunk, which storage nodes hold it and in which form.
//!
//! Single-decree Paxos made rewritable (CASPaxos, Rystsov 2018) with three things of its own: the first
//! vote rides on the chunk's bytes, acceptor state lives with the data, and a vote vouches for bytes.
//! `docs/chunk-paxos.md` is the protocol with its reasons; this crate is the only place that implements it.
//!
//! Sans-io: [`acceptor::handle`] and [`Proposer`] take a message and return messages, and say what must be
//! durable before they are sent. There is no clock, no socket and no file here. The node, the uploader, the
//! metadata service, the simulation and the model checker all run this code.

pub mod acceptor;
pub mod beyond;
mod brief;
mod choose;
mod codec;
mod message;
mod placement;
mod proposal;
mod proposer;
mod rename;

pub use acceptor::Register;
pub use brief::Brief;
pub use codec::DecodeError;
pub use message::{Reply, Request, Stage, Vote};
pub use placement::{Ballot, Layout, LayoutError, Placement, Shard, ShardSet, Sources};
pub use proposal::{Action, Change, Outcome, Refusal};
pub use proposer::{Proposer, backoff};
