//! The storage engine of a node: chunks and votes in one append-only log of superblock files.
//!
//! What it promises:
//! - What was answered is durable: a batch of operations is appended, synced once, then all are answered.
//! - Bytes are keyed by (chunk id, SHA-256 of the bytes) and never overwritten.
//! - A vote and the bytes it vouches for are one record, and every vote is on disk twice.
//! - Bytes that do not match their SHA-256 are never served; damage is reported, never skipped in silence.
//! - After a failed write or sync nothing more is written until the store is opened again.
//!
//! What it does not know: HTTP, the network, other nodes, and what time it is (the clock is handed in).
//! It decides nothing about votes: [`vstack_chunkpaxos::acceptor`] does. `docs/disk-format.md` has the bytes.
//!
//! [`Store`] is the synchronous core over a [`Disk`]; [`Engine`] runs one on a thread of its own and serves
//! reads beside it.

mod adopt;
mod aligned;
mod aside;
mod assembly;
mod batches;
mod boxed_disk;
mod buffers;
mod checkpoint;
mod claim;
mod compaction;
mod damaged;
mod data_file;
mod disk;
mod due;
mod engine;
mod file_disk;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod held;
mod holes;
mod identity;
mod index;
mod instruments;
mod item;
mod list;
mod live;
mod log;
mod look;
#[cfg(target_os = "linux")]
mod mapped;
mod mem_disk;
mod op;
mod pieces;
mod pins;
mod reader;
mod record;
mod recovery;
mod renewal;
mod reserve;
mod scan;
mod scrub;
mod scrub_position;
mod select;
mod settle;
mod shadow_disk;
mod small_file;
mod space;
mod store;
mod superblock;
mod superblocks;
mod table;
mod tail;
mod vouched;
mod writer;

pub use adopt::{AdoptError, Adoption, Finding, Reason};
pub use boxed_disk::{BoxedDisk, BoxedFile};
pub use buffers::{Buffer, BufferPool, Overflow};
pub use compaction::{CompactError, Compacted};
pub use damaged::Damaged;
pub use data_file::DataFile;
pub use disk::{Disk, DiskFile, Usage, is_full};
pub use engine::{BATCH_BYTES_MAX, Engine, EngineError, QUEUE_BYTES_MAX, QUEUE_OPS_MAX};
pub use file_disk::{FileDisk, Locked};
pub use held::HELD_PARTS;
pub use holes::Reclaimed;
pub use identity::{Identity, IdentityError, Retired};
pub use index::{HELD_BUCKETS, HeldPart, Wanted, held_bucket};
pub use instruments::{Distribution, Histogram, Instruments, Timed};
pub use item::{Item, ItemBuilder};
pub use list::{ListedItem, ListedRegister, Page};
pub use look::{CheckpointSeen, Depth, Look, LookError, Verified, has_claim, holds_data};
pub use mem_disk::{Allocation, Fault, MemDisk};
pub use op::{Collected, DeleteOutcome, Due, Move, Now, Op, Outcome, PutMode, PutOutcome, WriteError};
pub use pieces::Pieces;
pub use reader::{Found, ReadError, Reader, Stats, VoteState};
pub use recovery::{Damage, OpenReport};
pub use renewal::renew;
pub use scrub::{Scrubbed, Survey};
pub use scrub_position::ScrubPosition;
pub use select::{Missing, Which};
pub use shadow_disk::{ShadowDisk, ShadowFile};
pub use space::{SuperblockSpace, Waste};
pub use store::{OpenError, Store, StoreOptions};
pub use superblock::FORMAT_VERSION;
pub use writer::Runs;
