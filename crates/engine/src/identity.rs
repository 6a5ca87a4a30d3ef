//! Who this disk is: the `identity` file of a data directory.
//!
//! Made when the directory is initialised, replaced when the first superblock is there, when the disk is sealed, and
//! when it is adopted. Without it a directory that holds superblocks is refused: a disk that invents a new name for old
//! votes, or votes under an old name without them, breaks ChunkPaxos.
//!
//! A directory that was adopted had other names before. Their superblocks come before its own; what they hold counts,
//! but for the votes.

use std::{fmt, io, str::FromStr};

use vstack_types::{Incarnation, NodeRef, NodeUuid, Timestamp};

use crate::{
    disk::Disk,
    small_file::{self, Small},
    superblock::FORMAT_VERSION,
};

pub(crate) const NAME: &str = "identity";

/// First word of the file; the format version follows.
const MAGIC: &str = "vstack-disk";

const RETIRED: &str = "retired ";
const SEALED: &str = "sealed";

/// Last line, once the log exists.
const BEGUN: &str = "log begun";

/// Most names a directory can have had: the file has a limit, and nobody gives up a disk so often.
pub(crate) const RETIRED_MAX: usize = 32;

/// A name that this directory gave up: it never votes under it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// The name.
    pub uuid: NodeUuid,
    /// Log sequence number with which it ended. The log goes on behind it.
    pub last_lsn: u64,
    /// Number of the first superblock that is not its own.
    pub next_superblock: u32,
    /// When it was given up: from then on its items count as put.
    pub at: Timestamp,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The disk and its life.
    pub node: NodeRef,
    /// Names it had before, oldest first.
    pub retired: Vec<Retired>,
    /// It votes no more, for good.
    pub sealed: bool,
    /// The first superblock under this name was made: a directory that has none any more has lost its votes.
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
        "the identity file of the data directory is damaged: restore it, keep the chunks under a new identity with `vstack node adopt`, or start the node with an empty data directory"
    )]
    Damaged,
}

impl Identity {
    /// Of a directory that was never used.
    pub(crate) const fn new(node: NodeRef) -> Self {
        Self {
            node,
            retired: Vec::new(),
            sealed: false,
            begun: false,
        }
    }

    /// Number of the first superblock under this name.
    pub(crate) fn first_superblock(&self) -> u32 {
        self.retired.last().map_or(0, |retired| retired.next_superblock)
    }

    /// The name under which superblock `number` was written, when it was given up.
    pub(crate) fn retired_owner(&self, number: u32) -> Option<&Retired> {
        self.retired.iter().find(|retired| number < retired.next_superblock)
    }

    /// Whose superblock `number` has to be.
    pub(crate) fn owner(&self, number: u32) -> NodeUuid {
        self.retired_owner(number)
            .map_or(self.node.uuid, |retired| retired.uuid)
    }

    /// Reads the identity of `disk`; none when it has none.
    pub(crate) fn load<D: Disk>(disk: &D) -> Result<Option<Self>, IdentityError> {
        match small_file::read(disk, NAME)? {
            Small::Absent => Ok(None),
            Small::Whole(text) => text.parse().map(Some),
            Small::Damaged => Err(IdentityError::Damaged),
        }
    }

    /// Makes this the identity of `disk`, durably.
    pub(crate) fn save<D: Disk>(&self, disk: &D) -> Result<(), IdentityError> {
        Ok(small_file::replace(disk, NAME, &self.to_string())?)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeRef { uuid, incarnation } = self.node;
        write!(
            f,
            "{MAGIC} {FORMAT_VERSION}\nuuid {uuid}\nincarnation {}\n",
            incarnation.0
        )?;
        for retired in &self.retired {
            let Retired {
                uuid,
                last_lsn,
                next_superblock,
                at,
            } = retired;
            writeln!(f, "{RETIRED}{uuid} {last_lsn} {next_superblock} {}", at.0)?;
        }
        if self.sealed {
            writeln!(f, "{SEALED}")?;
        }
        if self.begun {
            writeln!(f, "{BEGUN}")?;
        }
        Ok(())
    }
}

fn field<'a>(line: Option<&'a str>, name: &str) -> Option<&'a str> {
    line?.strip_prefix(name)?.strip_prefix(' ')
}

fn retired(line: &str) -> Option<Retired> {
    let mut words = line.strip_prefix(RETIRED)?.split(' ');
    Some(Retired {
        uuid: words.next()?.parse().ok()?,
        last_lsn: words.next()?.parse().ok()?,
        next_superblock: words.next()?.parse().ok()?,
        at: Timestamp(words.next()?.parse().ok()?),
    })
}

/// Everything behind the first line.
fn body<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Identity> {
    let uuid: NodeUuid = field(lines.next(), "uuid")?.parse().ok()?;
    let incarnation = Incarnation(field(lines.next(), "incarnation")?.parse().ok()?);
    let mut identity = Identity::new(NodeRef { uuid, incarnation });
    for line in lines {
        match line {
            SEALED => identity.sealed = true,
            BEGUN => identity.begun = true,
            line => identity.retired.push(retired(line)?),
        }
    }
    Some(identity)
}

/// Whether every name ended behind the one before, and none of them is in use.
fn is_in_order(identity: &Identity) -> bool {
    let retired = &identity.retired;
    let rises =
        |pair: &[Retired]| pair[0].last_lsn <= pair[1].last_lsn && pair[0].next_superblock <= pair[1].next_superblock;
    retired.len() <= RETIRED_MAX
        && retired.windows(2).all(rises)
        && retired.iter().all(|retired| retired.uuid != identity.node.uuid)
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let mut lines = text.lines();
        let found: u32 = field(lines.next(), MAGIC)
            .and_then(|version| version.parse().ok())
            .ok_or(IdentityError::Damaged)?;
        if found != FORMAT_VERSION {
            return Err(IdentityError::Newer {
                found,
                known: FORMAT_VERSION,
            });
        }
        let identity = body(lines).ok_or(IdentityError::Damaged)?;
        // One way to write each: what is read is what would be written.
        if is_in_order(&identity) && identity.to_string() == text {
            Ok(identity)
        } else {
            Err(IdentityError::Damaged)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mem_disk::MemDisk;

    prop_compose! {
        fn any_identity()(
            uuid in 1u8..100,
            incarnation in any::<u32>(),
            retired in prop::collection::vec((100u8.., any::<u32>(), 0u32..1000, any::<i64>()), 0..RETIRED_MAX),
            sealed in any::<bool>(),
            begun in any::<bool>(),
        ) -> Identity {
            let (mut last_lsn, mut next_superblock) = (0, 0);
            let retired = retired.into_iter().map(|(uuid, records, superblocks, at)| {
                last_lsn += u64::from(records);
                next_superblock += superblocks;
                Retired { uuid: NodeUuid::from_bytes([uuid; 16]), last_lsn, next_superblock, at: Timestamp(at) }
            }).collect();
            let node = NodeRef { uuid: NodeUuid::from_bytes([uuid; 16]), incarnation: Incarnation(incarnation) };
            Identity { node, retired, sealed, begun }
        }
    }

    proptest! {
        #[test]
        fn an_identity_reads_back(identity in any_identity()) {
            let disk = MemDisk::default();
            identity.save(&disk).unwrap();
            disk.crash(1);
            prop_assert_eq!(Identity::load(&disk).unwrap(), Some(identity));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(
            identity in any_identity(), at in any::<prop::sample::Index>(), piece in "[ -~\n]{0,3}", cut in 0usize..3,
        ) {
            let mut text = identity.to_string();
            let at = at.index(text.len());
            text.replace_range(at..(at + cut).min(text.len()), &piece);
            if let Ok(read) = text.parse::<Identity>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }

        #[test]
        fn rubbish_is_refused(text in "\\PC{0,200}", lines in "(vstack-disk 1\n)?(uuid [0-9a-f-]{0,36}\n)?[ -~\n]{0,100}") {
            prop_assert!(text.parse::<Identity>().is_err());
            let _ = lines.parse::<Identity>();
        }
    }

    #[test]
    fn a_foreign_identity_is_refused() {
        let disk = MemDisk::default();
        assert!(Identity::load(&disk).unwrap().is_none());
        let identity = Identity::new(NodeRef::first(NodeUuid::from_bytes([7; 16])));
        identity.save(&disk).unwrap();
        disk.flip(NAME, 20);
        assert!(matches!(Identity::load(&disk), Err(IdentityError::Damaged)));
        let newer = identity.to_string().replacen('1', "2", 1);
        assert!(matches!(
            newer.parse::<Identity>(),
            Err(IdentityError::Newer { found: 2, known: 1 })
        ));
        let itself = format!("{identity}{RETIRED}{} 1 1 1\n", identity.node.uuid);
        for bad in [
            "",
            "x",
            "vstack-disk 1\n",
            &identity.to_string()[..50],
            &format!("{identity}more\n"),
            &format!("{identity}{BEGUN}\n{SEALED}\n"),
            &itself,
        ] {
            assert!(
                matches!(bad.parse::<Identity>(), Err(IdentityError::Damaged)),
                "{bad:?}"
            );
        }
    }
}
