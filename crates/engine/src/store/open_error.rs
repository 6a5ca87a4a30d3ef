//! Why a store cannot be opened.

use std::io;

use vstack_types::NodeUuid;

use crate::{
    identity::IdentityError,
    op::WriteError,
    superblock::{FORMAT_VERSION, SUPERBLOCK_BYTES_MIN},
};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data directory is in use by another process")]
    Locked,
    /// The disk fails.
    #[error("the data directory cannot be read or written")]
    Io(#[from] io::Error),
    /// The process may not write to it. That is no damage: nothing is given up for it.
    #[error(
        "{name} in the data directory may not be written to: give the user that runs the node read and write permission, or mount the filesystem for writing"
    )]
    NotWritable {
        /// Which file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The end of the log cannot be read.
    #[error("superblock {number}, in which the log ends, cannot be read")]
    End {
        /// Which superblock.
        number: u32,
        /// What the disk said.
        source: io::Error,
    },
    /// What it claims where it registers cannot be written down. Without, a log that went back would outgrow the number
    /// it is known by, start after start.
    #[error("how far the log has to be known cannot be written to the data directory")]
    Claim(#[source] io::Error),
    /// Its identity is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It is somebody else's directory.
    #[error(
        "the data directory holds {name}, which is no file of a storage node, and no identity: name an empty directory, or the data directory of a node"
    )]
    NotEmpty {
        /// One of the files.
        name: String,
    },
    /// There are superblocks, and nothing says whose.
    #[error(
        "the data directory has superblocks but no identity file: restore it, keep the chunks under a new identity with `vstack node adopt`, or start the node with an empty data directory"
    )]
    IdentityMissing,
    /// There is an identity, and everything that was voted under it is gone.
    #[error(
        "the data directory has lost all its superblocks, and the votes in them: restore them, give up its identity with `vstack node adopt`, or start the node with an empty data directory"
    )]
    SuperblocksMissing,
    /// A newer vstack wrote it.
    #[error(
        "superblock {number} has disk format {version}, this vstack knows up to {FORMAT_VERSION}: use a newer vstack"
    )]
    Newer {
        /// Which superblock.
        number: u32,
        /// Its format.
        version: u32,
    },
    /// A superblock of another disk.
    #[error("superblock {number} belongs to disk {uuid}: it was copied here from another data directory")]
    Foreign {
        /// Which superblock.
        number: u32,
        /// Whose it is.
        uuid: NodeUuid,
    },
    /// A superblock that cannot follow the one before it.
    #[error("superblock {number} begins before the one before it ends: the data directory was put together from parts")]
    OutOfOrder {
        /// Which superblock.
        number: u32,
    },
    /// Nearly everything before a superblock is missing.
    #[error(
        "superblock {number} is there and the {missing} before it are not: restore them, or move the file away if it does not belong here"
    )]
    Missing {
        /// Which superblock.
        number: u32,
        /// How many.
        missing: u32,
    },
    /// The superblock size asked for is of no use.
    #[error("a superblock has at least {SUPERBLOCK_BYTES_MIN} bytes and at most 4 GiB")]
    SuperblockSize,
    /// What recovery found cannot be written down.
    #[error(transparent)]
    Write(#[from] WriteError),
}
