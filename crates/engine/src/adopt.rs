//! Adopting a data directory: its bytes go on under a new name, its votes do not.
//!
//! For a disk that forgot votes, or may have: records are gone of which no copy is left, its identity is lost, or it
//! went back in time. Under its old name it must never vote again, so the directory gets a new one, and the superblocks
//! written so far are read for their items alone. To everybody else it is a new disk that happens to have bytes staged.
//!
//! One file says all of this, and it is replaced atomically: a power cut leaves the old disk or the new one. When and
//! whether to adopt is not known here.

use std::io;

use vstack_types::{NodeRef, NodeUuid, Timestamp, planted};

use crate::{
    claim,
    disk::Disk,
    identity::{Identity, IdentityError, RETIRED_MAX, Retired},
    recovery::{self, OpenReport},
    store::{self, OpenError},
    superblock::{self, Head, HeadRead},
};

/// What speaks for giving up a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Records of which no copy is left may have held votes.
    VotesLost,
    /// The identity file is gone.
    IdentityMissing,
    /// The identity file is damaged.
    IdentityDamaged,
    /// All superblocks are gone.
    SuperblocksMissing,
    /// The metadata service has not accepted the log that the directory had when it was started last. It refuses one
    /// that went back in time; it may also never have been asked.
    NotAccepted,
    /// Nothing that can be seen from here.
    NothingSeen,
}

/// What a directory holds, and why its name would be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name it has.
    pub uuid: NodeUuid,
    /// Why it would be given up.
    pub reason: Reason,
    /// It was adopted and not used since: there is nothing to do.
    pub adopted_already: bool,
    /// Items that are kept.
    pub items: u64,
    /// Bytes in them.
    pub item_bytes: u64,
    /// Registers whose votes are given up, of those that are known.
    pub registers: u64,
    /// What reading it found.
    pub report: OpenReport,
}

/// Why a directory cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is no data directory.
    #[error("it holds no storage node's data: name the data directory (DATA_DIR) of a storage node")]
    NoDisk,
    /// There is nothing in it.
    #[error("nothing was ever stored in it, so there is nothing to adopt: start the node on it as it is")]
    Nothing,
    /// Too many names.
    #[error("the data directory was adopted {RETIRED_MAX} times: start the node with an empty data directory")]
    TooOften,
}

impl From<io::Error> for AdoptError {
    fn from(error: io::Error) -> Self {
        Self::Open(OpenError::Io(error))
    }
}

impl From<IdentityError> for AdoptError {
    fn from(error: IdentityError) -> Self {
        Self::Open(OpenError::Identity(error))
    }
}

/// A directory that was looked at and may be adopted. Nobody else can use it while this lives.
pub struct Adoption<D: Disk> {
    disk: D,
    identity: Identity,
    finding: Finding,
    /// Behind everything that was ever written under the names so far.
    next_lsn: u64,
    next_superblock: u32,
    /// When its name is given up.
    at: Timestamp,
    _lock: D::Lock,
}

impl<D: Disk> Adoption<D> {
    /// Takes the directory and looks at it. Changes nothing but what every start of a node does: a write that was cut
    /// off is wiped.
    ///
    /// # Errors
    /// When it is in use, has nothing to adopt, or cannot be read.
    pub fn look(disk: D, superblock_bytes: u64, at: Timestamp) -> Result<Self, AdoptError> {
        // Nothing is left behind, not even a lock, in what is none of ours.
        if store::superblocks(&disk)?.is_empty() && matches!(Identity::load(&disk), Ok(None)) {
            return Err(AdoptError::NoDisk);
        }
        let lock = store::lock(&disk)?;
        let numbers = store::superblocks(&disk)?;
        let (identity, unreadable) = match Identity::load(&disk) {
            Ok(Some(identity)) => (identity, None),
            Ok(None) => (told_by_heads(&disk, &numbers, at)?, Some(Reason::IdentityMissing)),
            Err(IdentityError::Damaged) => (told_by_heads(&disk, &numbers, at)?, Some(Reason::IdentityDamaged)),
            Err(error) => return Err(error.into()),
        };
        let claimed = claim::load(&disk)?.is_some();
        let reading = recovery::Reading {
            superblock_bytes,
            // Fingerprints made with it are forgotten at the end.
            key: [0; 16],
            everything: true,
            // Its votes are given up in any case.
            blind: true,
        };
        let found = recovery::recover(&disk, &identity, reading)?;
        let superblocks_missing = identity.begun && found.next_number == identity.first_superblock();
        let reason = if let Some(reason) = unreadable {
            reason
        } else if superblocks_missing {
            Reason::SuperblocksMissing
        } else if found.votes_lost {
            Reason::VotesLost
        } else if claimed {
            Reason::NotAccepted
        } else {
            Reason::NothingSeen
        };
        let adopted_already = !identity.begun && !identity.retired.is_empty() && unreadable.is_none();
        if !identity.begun && !adopted_already {
            return Err(AdoptError::Nothing);
        }
        let finding = Finding {
            uuid: identity.node.uuid,
            reason,
            adopted_already,
            items: found.index.item_count(),
            item_bytes: found.index.item_bytes(),
            registers: found.index.register_count(),
            report: OpenReport {
                log_seq: found.next_lsn - 1,
                ..found.report
            },
        };
        Ok(Self {
            disk,
            identity,
            finding,
            next_lsn: found.next_lsn,
            next_superblock: found.next_number,
            at,
            _lock: lock,
        })
    }

    /// What was found.
    pub const fn finding(&self) -> &Finding {
        &self.finding
    }

    /// Gives the directory the name `new`, durably. One that was adopted and not used since keeps the name it got then.
    /// Says which name it has.
    ///
    /// # Errors
    /// When it cannot be written, or had too many names. After a failed write it has the old name or the new one.
    pub fn adopt(self, new: NodeUuid) -> Result<NodeUuid, AdoptError> {
        let uuid = if self.finding.adopted_already {
            self.identity.node.uuid
        } else {
            self.rename(new)?
        };
        // What the old disk had to claim. The new one is not known to anybody.
        claim::save(&self.disk, None)?;
        Ok(uuid)
    }

    fn rename(&self, new: NodeUuid) -> Result<NodeUuid, AdoptError> {
        let mut retired = self.identity.retired.clone();
        if retired.len() == RETIRED_MAX {
            return Err(AdoptError::TooOften);
        }
        retired.push(Retired {
            uuid: self.identity.node.uuid,
            last_lsn: self.next_lsn - 1,
            next_superblock: self.next_superblock,
            at: self.at,
        });
        if planted!("an adopted disk keeps its name") {
            return Ok(self.identity.node.uuid);
        }
        let identity = Identity {
            retired,
            ..Identity::new(NodeRef::first(new))
        };
        identity.save(&self.disk)?;
        Ok(new)
    }
}

/// The identity that a directory must have had, by the heads of its superblocks: each name ends where the next begins.
fn told_by_heads<D: Disk>(disk: &D, numbers: &[u32], at: Timestamp) -> Result<Identity, AdoptError> {
    let mut identity: Option<Identity> = None;
    for head in numbers.iter().map(|number| head_of(disk, *number)) {
        let Some(head) = head? else { continue };
        match &mut identity {
            None => {
                identity = Some(Identity {
                    begun: true,
                    ..Identity::new(NodeRef::first(head.uuid))
                });
            }
            Some(identity) if identity.node.uuid != head.uuid => {
                identity.retired.push(Retired {
                    uuid: identity.node.uuid,
                    last_lsn: head.first_lsn.saturating_sub(1),
                    // One that was emptied may speak for those before it, too.
                    next_superblock: head.first_number(),
                    at,
                });
                identity.node = NodeRef::first(head.uuid);
            }
            Some(_) => {}
        }
    }
    identity.ok_or(AdoptError::Nothing)
}

fn head_of<D: Disk>(disk: &D, number: u32) -> io::Result<Option<Head>> {
    let file = disk.open(&superblock::file_name(number))?;
    Ok(match recovery::read_head(&file, number)? {
        HeadRead::Valid { head, .. } if head.number == number => Some(head),
        _ => None,
    })
}
