//! Room kept for a disk that is full: the `reserve` file of a data directory.
//!
//! A deletion is written down before it gives anything back. On a disk without any room that is only possible as long as
//! the last superblock has some, and where others fill the disk nothing else ever makes room again. So a little is kept
//! from the beginning, for what brings no bytes: deletions, votes, what is moved so that a superblock can be emptied. It
//! is made again when there is room.

use std::io;

use crate::{
    disk::{Disk, DiskFile, is_full},
    op::WriteError,
    superblock::{Head, SUPERBLOCK_BYTES_MIN},
    tail::{self, Tail},
};

/// Its name.
pub(crate) const NAME: &str = "reserve";

/// It is so small a part of a superblock: 8 MiB of one of 1 GiB, room for a thousand deletions one by one.
const PART: u64 = 128;

/// Whether a superblock with room for `capacity` bytes, where others have `superblock_bytes`, may have been made of it.
pub(crate) const fn may_have_made(capacity: u64, superblock_bytes: u64) -> bool {
    capacity <= superblock_bytes / PART
}

/// Room for one of the small files of a data directory, and for its name.
pub(crate) const SMALL_FILE_BYTES: u64 = 64 * 1024;

/// What is kept.
#[derive(Debug)]
pub(crate) struct Reserve {
    wanted: u64,
    /// All that is wanted was there when it was looked last.
    whole: bool,
}

impl Reserve {
    /// For a store with superblocks of `superblock_bytes`; nothing where that would be less than any superblock.
    pub(crate) const fn of(superblock_bytes: u64) -> Self {
        let part = superblock_bytes / PART;
        let wanted = if part < SUPERBLOCK_BYTES_MIN { 0 } else { part };
        Self { wanted, whole: false }
    }

    /// Keeps what is wanted, as far as there is room. Durable, because the space is, whatever a power cut leaves of
    /// the name.
    ///
    /// # Errors
    /// Of the disk.
    pub(crate) fn keep<D: Disk>(&mut self, disk: &D) -> io::Result<()> {
        if self.whole || self.wanted == 0 {
            return Ok(());
        }
        let file = match disk.create(NAME) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(NAME)?,
            other => other?,
        };
        match file.preallocate(self.wanted) {
            Ok(()) => self.whole = true,
            Err(error) if is_full(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        file.sync_data()?;
        disk.sync_dir()
    }

    /// Gives up at least `bytes` of it, or all of it when there is less; says how much.
    ///
    /// # Errors
    /// Of the disk.
    pub(crate) fn give<D: Disk>(&mut self, disk: &D, bytes: u64) -> io::Result<u64> {
        let file = match disk.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        self.whole = false;
        let size = file.size()?;
        if size > bytes {
            file.set_len(size - bytes)?;
            file.sync_data()?;
            return Ok(bytes);
        }
        drop(file);
        disk.remove(NAME)?;
        disk.sync_dir()?;
        Ok(size)
    }

    /// Makes a superblock of it, for what needs at least `needed` bytes of one.
    ///
    /// # Errors
    /// [`WriteError::DiskFull`] when it is not enough, and when it cannot be given up.
    pub(crate) fn superblock<D: Disk>(
        &mut self,
        disk: &D,
        head: &Head,
        needed: u64,
    ) -> Result<Tail<D::File>, WriteError> {
        let held = disk.open(NAME).and_then(|file| file.size()).unwrap_or(0);
        if held < needed || self.give(disk, u64::MAX).is_err() {
            return Err(WriteError::DiskFull);
        }
        let number = head.number;
        tracing::warn!(
            superblock = number,
            bytes = held,
            "the disk is full: a superblock takes what was kept for that"
        );
        tail::create_superblock(disk, head, held, needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem_disk::MemDisk;

    #[test]
    fn it_is_given_up_in_parts_and_kept_again_when_there_is_room() {
        let disk = MemDisk::default();
        let mut reserve = Reserve::of(32 << 20);
        let used = |disk: &MemDisk| disk.usage().unwrap().used_bytes;
        reserve.keep(&disk).unwrap();
        assert_eq!(used(&disk), 256 << 10);
        assert_eq!(reserve.give(&disk, SMALL_FILE_BYTES).unwrap(), SMALL_FILE_BYTES);
        assert_eq!(used(&disk), 192 << 10);
        disk.set_capacity(Some(192 << 10));
        reserve.keep(&disk).unwrap();
        assert_eq!(
            used(&disk),
            192 << 10,
            "there is no room for more, and none is given up"
        );
        disk.set_capacity(None);
        reserve.keep(&disk).unwrap();
        assert_eq!(reserve.give(&disk, u64::MAX).unwrap(), 256 << 10);
        assert_eq!((used(&disk), reserve.give(&disk, u64::MAX).unwrap()), (0, 0));
        let mut none = Reserve::of(1 << 20);
        none.keep(&disk).unwrap();
        assert_eq!(used(&disk), 0);
    }
}
