//! Looking after the data directory while nothing is written: somebody may have removed it, cut the superblock that is
//! written to, or put another disk in its place.

use super::Store;
use crate::{
    disk::{Disk, DiskFile},
    identity::Identity,
    log,
    op::WriteError,
    reader::Reader,
    superblocks::Superblock,
};

impl<D: Disk> Reader<D> {
    /// What says that the directory is not there any more, or not this disk's; none when nothing does. One that cannot be
    /// read now may be again. Reads the disk.
    pub fn out_of_place(&self) -> Option<String> {
        let cut = self
            .0
            .superblocks
            .all()
            .pop()
            .and_then(|last| is_as_written(&last).err());
        cut.map(|error| error.to_string()).or_else(|| self.is_another())
    }

    fn is_another(&self) -> Option<String> {
        match Identity::load(&self.0.disk) {
            Ok(Some(found)) if found.node == self.me() => None,
            Ok(Some(found)) => Some(format!(
                "another data directory stands in its place, that of disk {}",
                found.node.uuid
            )),
            Ok(None) => Some("the data directory or its identity file was removed".to_owned()),
            Err(error) => {
                tracing::warn!(%error, "the identity of the data directory cannot be read");
                None
            }
        }
    }
}

fn is_as_written<F: DiskFile>(superblock: &Superblock<F>) -> std::io::Result<()> {
    log::is_as_written(&*superblock.file, superblock.head.number, superblock.end())
}

impl<D: Disk> Store<D> {
    /// Whether the directory is still this disk's; nothing is planned then.
    pub(super) fn is_at_home(&mut self) -> Result<(), WriteError> {
        let Some(error) = self.reader().is_another() else {
            return Ok(());
        };
        self.failed = true;
        Err(WriteError::Failed { error })
    }

    /// What is wrong with the directory ends writing, as a failed write does: what would be acknowledged from here on could
    /// not be found again.
    pub(super) fn attend(&mut self) -> Result<(), WriteError> {
        let Some(error) = self.reader().out_of_place() else {
            return Ok(());
        };
        let error = WriteError::Failed { error };
        self.failed = true;
        // What the batch has so far is not written any more, so nobody is told that it is.
        self.pending.clear();
        self.lost_batch = Some(error.clone());
        Err(error)
    }
}
