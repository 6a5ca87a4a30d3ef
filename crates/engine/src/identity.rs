//! Who this disk is: the `identity` file of a data directory.
//!
//! Made when the directory is initialised, replaced once, when the first superblock is there. Without it a directory that holds
//! superblocks is refused: a disk that invents a new name for old votes, or votes under an old name without
//! them, breaks ChunkPaxos.

use std::{fmt, io, str::FromStr};

use vstack_types::{Incarnation, NodeRef, NodeUuid};

use crate::{disk::Disk, small_file, superblock::FORMAT_VERSION};

const NAME: &str = "identity";

/// First word of the file; the format version follows.
const MAGIC: &str = "vstack-disk";

/// Last line, once the log exists.
const BEGUN: &str = "log begun";

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The disk and its life.
    pub node: NodeRef,
    /// The first superblock was made: a directory that has none any more has lost its votes.
    pub begun: bool,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read or written.
    #[error("the identity file of the data directory cannot be read or written")]
    Io(#[from] io::Error),
    /// A newer vstack made it.
    #[error("the data directory has disk format {found}, this vstack knows up to {known}: use a newer vstack")]
    Newer {
        /// Format of the directory.
        found: u32,
        /// Newest format known here.
        known: u32,
    },
    /// It is not an identity file.
    #[error(
        "the identity file of the data directory is damaged: restore it, or start the node with an empty data directory"
    )]
    Damaged,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeRef { uuid, incarnation } = self.node;
        write!(
            f,
            "{MAGIC} {FORMAT_VERSION}\nuuid {uuid}\nincarnation {}\n",
            incarnation.0
        )?;
        if self.begun {
            writeln!(f, "{BEGUN}")?;
        }
        Ok(())
    }
}

impl FromStr for Identity {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let mut lines = text.lines();
        let mut field = |name: &str| {
            lines
                .next()
                .and_then(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .ok_or(IdentityError::Damaged)
        };
        let found: u32 = field(MAGIC)?.parse().map_err(|_| IdentityError::Damaged)?;
        if found != FORMAT_VERSION {
            return Err(IdentityError::Newer {
                found,
                known: FORMAT_VERSION,
            });
        }
        let uuid: NodeUuid = field("uuid")?.parse().map_err(|_| IdentityError::Damaged)?;
        let incarnation: u32 = field("incarnation")?.parse().map_err(|_| IdentityError::Damaged)?;
        let begun = match lines.next() {
            None => false,
            Some(BEGUN) => true,
            Some(_) => return Err(IdentityError::Damaged),
        };
        if lines.next().is_some() || !text.ends_with('\n') {
            return Err(IdentityError::Damaged);
        }
        Ok(Self {
            node: NodeRef {
                uuid,
                incarnation: Incarnation(incarnation),
            },
            begun,
        })
    }
}

impl Identity {
    /// Reads the identity of `disk`; none when it has none.
    pub(crate) fn load<D: Disk>(disk: &D) -> Result<Option<Self>, IdentityError> {
        let Some(bytes) = small_file::read(disk, NAME)? else {
            return Ok(None);
        };
        std::str::from_utf8(&bytes)
            .map_err(|_| IdentityError::Damaged)?
            .parse()
            .map(Some)
    }

    /// Makes this the identity of `disk`, durably.
    pub(crate) fn save<D: Disk>(&self, disk: &D) -> Result<(), IdentityError> {
        Ok(small_file::replace(disk, NAME, self.to_string().as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem_disk::MemDisk;

    #[test]
    fn an_identity_reads_back_and_a_foreign_one_is_refused() {
        let disk = MemDisk::default();
        assert!(Identity::load(&disk).unwrap().is_none());
        let identity = Identity {
            node: NodeRef {
                uuid: NodeUuid::from_bytes([7; 16]),
                incarnation: Incarnation(2),
            },
            begun: false,
        };
        let begun = Identity {
            begun: true,
            ..identity
        };
        begun.save(&disk).unwrap();
        assert_eq!(Identity::load(&disk).unwrap(), Some(begun));
        identity.save(&disk).unwrap();
        disk.crash(1);
        assert_eq!(Identity::load(&disk).unwrap(), Some(identity));
        let newer = identity.to_string().replacen('1', "2", 1);
        assert!(matches!(
            newer.parse::<Identity>(),
            Err(IdentityError::Newer { found: 2, known: 1 })
        ));
        for bad in [
            "",
            "x",
            "vstack-disk 1\n",
            &identity.to_string()[..50],
            &format!("{identity}more\n"),
        ] {
            assert!(
                matches!(bad.parse::<Identity>(), Err(IdentityError::Damaged)),
                "{bad:?}"
            );
        }
    }
}
