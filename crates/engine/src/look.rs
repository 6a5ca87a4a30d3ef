//! Looking at a data directory without changing anything: what a start would find, or what reading everything finds.
//!
//! It is opened by the code that every start runs, on a disk that keeps what is written in memory, so a torn tail is
//! seen and stays. Votes, deletions and repairs are not known here; [`Engine::scrub`](crate::Engine::scrub) mends.

use std::{io, ops::ControlFlow, sync::Arc};

use vstack_types::{ChunkId, Digest, Monotonic};

use crate::{
    checkpoint::Position,
    claim::{self, Held},
    disk::Disk,
    identity::{Identity, IdentityError},
    reader::{Reader, Shared},
    recovery::{self, OpenReport, Reading, Recovered},
    scrub::Read,
    shadow_disk::ShadowDisk,
    store::{self, OpenError, StoreOptions},
    superblock::RECORDS_AT,
};

/// How much is read to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// As much as a start of the node reads: with a checkpoint, what was logged behind it.
    LikeAStart,
    /// Every record.
    Everything,
}

/// What there is of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointSeen {
    /// None, so a start reads everything.
    Absent,
    /// It speaks for everything up to this log sequence number.
    UpTo(u64),
    /// It cannot be used, for this reason. Nothing depends on it: a start reads everything.
    Refused(String),
}

/// Why a directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is no data directory.
    #[error("it holds no storage node's data: name the data directory (DATA_DIR) of a storage node")]
    NoDisk,
}

/// What reading every item came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records looked at.
    pub records: u64,
    /// Items read.
    pub items: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Items whose bytes are not what they were: of which chunk, and what their digest should be.
    pub damaged: Vec<(ChunkId, Digest)>,
    /// Chunks of which one copy of a register is damaged; the scrub writes it again from the other.
    pub mendable: u64,
    /// Commit records that do not say any more what their batch changed: second copies of what its records say.
    pub lists: u64,
    /// It was ended before everything was read.
    pub ended_early: bool,
}

/// A data directory that is looked at. No node can use it while this lives.
pub struct Look<D: Disk> {
    reader: Reader<ShadowDisk<D>>,
    identity: Identity,
    report: OpenReport,
    checkpoint: CheckpointSeen,
    emptied: usize,
    _lock: D::Lock,
}

/// Whether `disk` holds a node's data, damaged or not. Where it does not, opening a store would make one.
///
/// # Errors
/// Of the disk.
pub fn holds_data<D: Disk>(disk: &D) -> io::Result<bool> {
    Ok(!store::superblocks(disk)?.is_empty() || !matches!(Identity::load(disk), Ok(None)))
}

/// Whether the disk registers somewhere, or did: who writes to its log has to keep to what it claims there, see
/// [`StoreOptions::claims`](crate::StoreOptions::claims).
///
/// # Errors
/// Of the disk.
pub fn has_claim<D: Disk>(disk: &D) -> io::Result<bool> {
    claim::is_there(disk)
}

impl<D: Disk> Look<D> {
    /// Takes the directory and reads it. What a superblock that is lost may have held is judged by `superblock_bytes`,
    /// as at a start.
    ///
    /// # Errors
    /// As [`Store::open`](crate::Store::open), and when there is nothing to look at.
    pub fn at(disk: D, depth: Depth, superblock_bytes: u64) -> Result<Self, LookError> {
        if !holds_data(&disk).map_err(OpenError::Io)? {
            return Err(LookError::NoDisk);
        }
        let lock = store::lock(&disk)?;
        let disk = ShadowDisk::new(disk);
        let options = StoreOptions {
            superblock_bytes,
            ..StoreOptions::new()
        };
        let identity = store::identity(&disk, &options)?;
        let reading = options.reading();
        let mut found = recovery::recover(&disk, &identity, reading)?;
        let checkpoint = match (found.report.checkpoint, &found.report.checkpoint_refused) {
            (Some(log_seq), _) => CheckpointSeen::UpTo(log_seq),
            (None, Some(why)) => CheckpointSeen::Refused(why.clone()),
            (None, None) => CheckpointSeen::Absent,
        };
        if depth == Depth::Everything && found.report.checkpoint.is_some() {
            drop(found);
            // What was settled is to be seen again.
            disk.forget_changes();
            let everything = Reading {
                everything: true,
                ..reading
            };
            found = recovery::recover(&disk, &identity, everything)?;
        }
        Self::of(disk, identity, found, checkpoint, lock)
    }

    fn of(
        disk: ShadowDisk<D>,
        identity: Identity,
        found: Recovered<<ShadowDisk<D> as Disk>::File>,
        checkpoint: CheckpointSeen,
        lock: D::Lock,
    ) -> Result<Self, LookError> {
        let position = Position {
            superblock: found.tail.as_ref().map_or(found.next_number, |tail| tail.number),
            offset: found.tail.as_ref().map_or(RECORDS_AT, |tail| tail.end),
            commit_at: 0,
            lsn: found.next_lsn - 1,
        };
        let claim = claim::load(&disk).map_err(|error| OpenError::Identity(IdentityError::Io(error)))?;
        let emptied = found.emptied.len();
        let shared = Shared {
            votes_lost: found.votes_lost,
            sealed: identity.sealed.into(),
            claim: Held::written(claim).into(),
            ..Shared::new(disk, identity.node, found.index, found.superblocks, position)
        };
        Ok(Self {
            reader: Reader(Arc::new(shared)),
            report: OpenReport {
                log_seq: position.lsn,
                ..found.report
            },
            identity,
            checkpoint,
            emptied,
            _lock: lock,
        })
    }

    /// Who the disk is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What reading it found. A torn tail is not cut.
    pub const fn report(&self) -> &OpenReport {
        &self.report
    }

    /// What there is of a checkpoint.
    pub const fn checkpoint(&self) -> &CheckpointSeen {
        &self.checkpoint
    }

    /// Heads of superblocks that were emptied; one may speak for a row of them.
    pub const fn emptied(&self) -> usize {
        self.emptied
    }

    /// Look-ups, lists and counters.
    pub const fn reader(&self) -> &Reader<ShadowDisk<D>> {
        &self.reader
    }

    /// How many items are known to be damaged, and are not served.
    ///
    /// # Errors
    /// Of the disk.
    pub fn quarantined(&self) -> io::Result<u64> {
        Ok(self.reader.damaged(0)?.count)
    }

    /// Reads every item from the medium and hashes it, and compares every second copy of what was voted. Tells after
    /// every item how far it is, and ends when `told` says so. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk does not give the heads of records.
    pub fn verify(&self, mut told: impl FnMut(&Verified) -> ControlFlow<()>) -> io::Result<Verified> {
        let mut verified = Verified::default();
        for number in self.reader.superblock_numbers() {
            let survey = self.reader.survey(number)?;
            verified.records += survey.records;
            verified.mendable += survey.one_copy_left.len() as u64;
            verified.lists += survey.lists;
            for offset in survey.items {
                match self.reader.scrub_item(number, offset, Monotonic::default())? {
                    Read::Good(bytes) => {
                        verified.items += 1;
                        verified.bytes += bytes;
                    }
                    Read::Damaged { id, sha256, .. } => {
                        verified.items += 1;
                        verified.damaged.push((id, sha256));
                    }
                    Read::NotHere => {}
                }
                if told(&verified).is_break() {
                    verified.ended_early = true;
                    return Ok(verified);
                }
            }
        }
        Ok(verified)
    }
}
