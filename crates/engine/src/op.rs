//! What can be asked of the store's writing side, and what it answers.

use vstack_chunkpaxos::{Ballot, Placement, Reply, Request};
use vstack_types::{ChunkId, Digest, Monotonic, Timestamp};

use std::time::Duration;

use bytes::Bytes;

use crate::{index::Place, item::Item, record::Change};

/// The time, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For measuring.
    pub monotonic: Monotonic,
    /// For records: staging and grace times outlive a restart.
    pub wall: Timestamp,
}

/// How bytes come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutMode {
    /// A plain PUT: refused when other bytes stand under the id.
    Plain,
    /// `PutBytes`: never a conflict, touches no vote.
    Item,
    /// With the owner's vote: bytes and register are one record.
    Vote {
        /// `(0, owner)`.
        ballot: Ballot,
        /// Version 1.
        placement: Placement,
    },
}

/// A request to the store. All of a batch are durable together, then answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Stores bytes.
    Put {
        /// Under which id.
        id: ChunkId,
        /// What.
        item: Item,
        /// In which way.
        mode: PutMode,
    },
    /// A message to the acceptor: anything but `Put0`.
    Paxos {
        /// Of which register.
        id: ChunkId,
        /// What it says.
        request: Request,
    },
    /// Decisions of many registers.
    Decided {
        /// Which register, in which ballot, what.
        decisions: Vec<(ChunkId, Ballot, Placement)>,
    },
    /// Deletes what is staged under an id.
    DeleteStaged {
        /// Which.
        id: ChunkId,
    },
    /// Deletes what nothing keeps, of what was found beside the writer ([`crate::Reader::due`]). Each is looked at again.
    Collect {
        /// What may go.
        due: Due,
    },
    /// A reader found an item damaged.
    Quarantine {
        /// Of which chunk.
        id: ChunkId,
        /// Of what its bytes should be.
        sha256: Digest,
        /// Of the record that was read: bytes written since are others.
        lsn: u64,
    },
    /// Ends voting on this disk, for good.
    Seal,
    /// Looks whether the data directory is still there and still this disk's; when not, nothing is written any more.
    Attend,
    /// Gives back the space that was taken ahead of the log. Taken again by the next write; a running store marks the end of
    /// the log first.
    Rest,
    /// Goes on in a new superblock, so that all there are can be emptied.
    Turn,
    /// Writes records again behind the log, as far as they still count.
    Move {
        /// As they were read.
        moves: Vec<Move>,
    },
    /// Empties a superblock of which nothing counts any more, and which nobody reads.
    Empty {
        /// Its number.
        superblock: u32,
    },
    /// Writes again what of a chunk is known from one copy alone.
    Mend {
        /// Which.
        id: ChunkId,
    },
}

/// Items that nothing keeps, few enough for one operation: those that a decision names no more, after `grace`, and those
/// without a vote, after `staging_ttl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub(crate) items: Vec<(ChunkId, Digest)>,
    /// Since the decision was learnt.
    pub(crate) grace: Duration,
    /// Since the item came.
    pub(crate) staging_ttl: Duration,
    /// There is more to delete than these.
    pub(crate) more: bool,
}

/// A record that is to be written again behind the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub(crate) place: Place,
    pub(crate) change: Change,
    /// Of an item that counts.
    pub(crate) payload: Bytes,
    /// It was compared with its digest.
    pub(crate) is_sound: bool,
    /// When it was written first.
    pub(crate) time: Timestamp,
    /// And to which superblock.
    pub(crate) origin: u32,
}

impl Op {
    /// Bytes it brings.
    pub fn payload_len(&self) -> usize {
        match self {
            Self::Put { item, .. } => item.bytes().len(),
            Self::Move { moves } => moves.iter().map(|one| one.payload.len()).sum(),
            _ => 0,
        }
    }
}

/// The answer to [`Op::Put`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// New here.
    Stored {
        /// Where.
        superblock: u32,
    },
    /// The same bytes were here.
    AlreadyThere {
        /// Where.
        superblock: u32,
    },
    /// Other bytes are staged or placed under the id.
    Conflict,
    /// The acceptor's answer to a PUT with a vote.
    Voted {
        /// What it says.
        reply: Reply,
        /// The bytes are new here.
        stored: bool,
    },
}

/// The answer to [`Op::DeleteStaged`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// They are gone.
    Deleted,
    /// A register names them, or may yet.
    Placed,
    /// There was nothing.
    NotFound,
}

/// The answer to [`Op::Collect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Items deleted.
    pub items: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// There is more to delete: ask again.
    pub more: bool,
}

/// The answer to an [`Op`], of the kind that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// To [`Op::Put`].
    Put(PutOutcome),
    /// To [`Op::Paxos`].
    Reply(Reply),
    /// To [`Op::Decided`].
    Noted,
    /// To [`Op::DeleteStaged`].
    Deleted(DeleteOutcome),
    /// To [`Op::Collect`].
    Collected(Collected),
    /// To [`Op::Quarantine`].
    Quarantined,
    /// To [`Op::Seal`].
    Sealed,
    /// To [`Op::Attend`].
    Attended,
    /// To [`Op::Rest`]: so many bytes were given back.
    Rested(u64),
    /// To [`Op::Turn`]: the number of the superblock that is written to now.
    Turned(u32),
    /// To [`Op::Move`]: so many records were written.
    Moved(u64),
    /// To [`Op::Empty`]: whether it is empty.
    Emptied(bool),
    /// To [`Op::Mend`]: whether there was something to mend.
    Mended(bool),
}

/// Why nothing of an operation was done, or at least nothing is promised of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No space, or past the share of the disk that may be used. Try elsewhere.
    #[error("the disk is too full to take more bytes")]
    DiskFull,
    /// Does not fit a superblock.
    #[error("{len} bytes do not fit a superblock")]
    TooLarge {
        /// Bytes of the item.
        len: usize,
    },
    /// What is known of the chunk cannot be read. Nothing was done.
    #[error("what is known of this chunk cannot be read from the disk ({error})")]
    Unreadable {
        /// What the disk said.
        error: String,
    },
    /// This write failed, and nothing more is written until the store is opened again.
    #[error("a write or sync failed ({error}); restart the node to write again")]
    Failed {
        /// What the disk said.
        error: String,
    },
    /// An earlier write failed, or the store is closing.
    #[error("the store takes no writes until it is opened again")]
    Closed,
}
