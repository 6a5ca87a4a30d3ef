//! What opening found.

use vstack_types::{ChunkId, Digest, NodeUuid};

/// Something that was durable and is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A superblock whose head cannot be read, or whose file is gone: nothing of it is served.
    Superblock {
        /// Its number.
        number: u32,
    },
    /// One of the two heads of a superblock; the other one serves.
    Head {
        /// Of which superblock.
        number: u32,
    },
    /// A stretch of a superblock that holds no valid record, or that the disk does not give.
    Stretch {
        /// Of which superblock.
        superblock: u32,
        /// First byte.
        from: u64,
        /// Behind the last byte.
        to: u64,
    },
    /// An item that the log names and that cannot be found or read.
    Item {
        /// Of which chunk.
        id: ChunkId,
        /// Of its bytes.
        sha256: Digest,
    },
    /// Log records of which neither copy is left. Votes may have been among them: this disk votes no more.
    Votes {
        /// First sequence number.
        first_lsn: u64,
        /// Last sequence number.
        last_lsn: u64,
    },
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Bytes of a batch that was being written when the process or the machine stopped, and is cut.
    pub torn_bytes: u64,
    /// Superblocks read.
    pub superblocks: u64,
    /// Records read.
    pub records: u64,
    /// Last log sequence number found.
    pub log_seq: u64,
    /// Names that the directory had before it was adopted, oldest first.
    pub retired: Vec<NodeUuid>,
    /// Number of the first superblock under the disk's own name: what was lost of those before it was lost to a name that
    /// was given up.
    pub first_superblock: u32,
    /// The disk did not give something. It may the next time, so nothing that is missing was written off; meanwhile this
    /// disk does not vote.
    pub unreadable: bool,
    /// The last log sequence number that a checkpoint spoke for: only what is behind it was read.
    pub checkpoint: Option<u64>,
    /// Why the checkpoint that was there could not be used.
    pub checkpoint_refused: Option<String>,
}
