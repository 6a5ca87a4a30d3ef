//! Where the service keeps what it knows, as traits with two implementations: [`SqliteStore`] for service and
//! [`MemoryStore`] for simulations and tests. One suite (`tests/store_conformance`) runs against both.
//!
//! The database is a view: what is decided about chunks is true on the storage nodes and only learned here. So a
//! placement is replaced by one of a higher version alone, and telling the same news twice changes nothing.
//! Each call is atomic and, once answered, durable. Every list is bounded by its caller or by a limit named here.
//! A store knows nothing of HTTP, of time (moments are arguments) or of policy (who may do what, and when).

mod changes;
mod chunk;
mod harm;
mod keeping;
mod memory;
mod node;
mod salvage;
mod sqlite;
mod video;

use futures_util::future::BoxFuture;

pub use changes::{Changes, Feed};
pub use chunk::{Chunk, Chunks, Footprint, LEARN_CHUNKS_MAX, Learned, ModeTotals, StoredMode, Totals};
pub use harm::Harms;
pub use keeping::{KEEPINGS_MAX, Keeping, Keepings, Turns, Watched};
pub use memory::MemoryStore;
pub use node::{
    DAMAGED_MAX, Decide, DiskLog, HEARTBEAT_AHEAD_MS, Held, HeldTotals, Known, NODES_MAX, Node, NodeBeat, Nodes,
};
pub use salvage::{Salvage, Salvages};
pub use sqlite::{DatabaseUrl, DatabaseUrlError, OpenError, SqliteStore};
pub use video::{
    Completion, CompletionOutcome, GROUPS_MAX, Group, GroupOutcome, Listing, NOTED_AHEAD_MS, NewVideo, Owner,
    PASS_AHEAD_MS, Reap, ReapJob, Sort, SortKey, StatusChange, Video, VideoPage, VideoQuery, Videos,
};

/// What every call of a store gives.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Everything the service needs of its database.
pub trait Store: Videos + Chunks + Nodes + Feed + Salvages + Harms + Keepings {
    /// Whether the database answers.
    fn ping(&self) -> Answer<'_, ()>;
}

/// Why a store could not answer. Whatever the caller did is not durable.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room left on its disk.
    #[error("the disk of the database is full")]
    Full,
    /// Busy, full or out of reach: the same call may succeed later.
    #[error("the database does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It holds something this version did not write.
    #[error("the database holds a {what} that cannot be read: {found}")]
    Unreadable {
        /// Which column.
        what: &'static str,
        /// What stands there.
        found: String,
    },
    /// A row with the same key is there: the caller drew an id twice.
    #[error("{what} exists already")]
    Exists {
        /// What kind of thing.
        what: &'static str,
    },
}
