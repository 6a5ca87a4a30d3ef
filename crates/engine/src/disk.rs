//! What the engine needs of a disk: one flat directory of files with positioned reads and writes.
//!
//! Implementations: [`crate::FileDisk`] on a real directory, [`crate::MemDisk`] in memory with faults. The
//! suite in `tests/disk_conformance.rs` runs against both. Nothing here knows superblocks or records.

use std::io::{self, IoSlice};

use bytes::Bytes;

/// How full the filesystem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use, by anybody.
    pub used_bytes: u64,
    /// Bytes that can be used in all.
    pub total_bytes: u64,
}

impl Usage {
    /// Share in use, in percent.
    #[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 52 bits")]
    pub fn percent(self) -> f64 {
        if self.total_bytes == 0 {
            0.0
        } else {
            self.used_bytes as f64 * 100.0 / self.total_bytes as f64
        }
    }
}

/// Whether a write was refused for want of room: the disk's, or what a quota leaves of it. Room may come back.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A directory of files that belongs to one engine.
pub trait Disk: Send + Sync + 'static {
    /// A file of it.
    type File: DiskFile;
    /// Keeps others out for as long as it lives.
    type Lock: Send + 'static;

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// `WouldBlock` when another holds it.
    fn lock(&self) -> io::Result<Self::Lock>;

    /// Names of the files, sorted.
    ///
    /// # Errors
    /// Of the disk.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, and those of the disk.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Makes an empty file. Its name is durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `AlreadyExists`, and those of the disk.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file over another, atomically. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// Of the disk.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// Of the disk.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    ///
    /// # Errors
    /// Of the disk.
    fn sync_dir(&self) -> io::Result<()>;

    /// Reads that are worth having under way at once beside the one that is waited for; none where that brings nothing.
    fn reads_at_once(&self) -> usize {
        0
    }

    /// How full the filesystem is.
    ///
    /// # Errors
    /// Of the disk.
    fn usage(&self) -> io::Result<Usage>;
}

/// A file: fixed positions, no cursor, so that readers and the writer share it.
pub trait DiskFile: Send + Sync + 'static {
    /// Length, in bytes.
    ///
    /// # Errors
    /// Of the disk.
    fn size(&self) -> io::Result<u64>;

    /// Whether a directory still has it. Of one that was removed everything is gone when nobody has it open any more.
    ///
    /// # Errors
    /// Of the disk.
    fn has_name(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before, and those of the disk.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// As [`DiskFile::read_at`], from the medium and not from a copy in memory, where that is possible: where `buffer` and
    /// `offset` begin at pages.
    ///
    /// # Errors
    /// As [`DiskFile::read_at`].
    fn read_medium_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_at(buffer, offset)
    }

    /// `len` bytes from `offset` on are read next, piece by piece: the disk may be asked for all of them at once. Waits for
    /// none of them.
    fn will_read(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// Fills the beginning of `buffer` with what is to be had from `offset` on without waiting for the disk; says how
    /// many bytes that was. None, when it is not known. An error is left for the read that waits.
    fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> usize {
        let _ = (buffer, offset);
        0
    }

    /// `len` bytes from `offset` on, where they are in memory already; none when they are not, or nobody knows.
    ///
    /// They are for the kernel alone, to be written to a socket: whoever looks at a byte that the medium fails to give is
    /// killed by a signal (`mapped.rs`). They stay what they are as long as the caller holds what keeps them from being
    /// given back.
    fn cached_at(&self, offset: u64, len: usize) -> Option<Bytes> {
        let _ = (offset, len);
        None
    }

    /// Lets go of what made [`DiskFile::cached_at`] quick when nobody asked since the last call.
    fn trim(&self) {}

    /// Writes all of `bytes` from `offset` on. Durable after [`DiskFile::sync_data`].
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` ([`is_full`]), and those of the disk; any part may have been written then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all of `pieces`, one behind the other, from `offset` on. Durable after [`DiskFile::sync_data`].
    ///
    /// # Errors
    /// As [`DiskFile::write_at`].
    fn write_pieces_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for piece in pieces {
            self.write_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// Of the disk.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Extends the file with zeros to `len`, with space behind them where the filesystem can do that.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` ([`is_full`]), and those of the disk.
    fn preallocate(&self, len: u64) -> io::Result<()>;

    /// Takes space for `from` to `to`, which is within the file, where the filesystem can do that; length and contents stay.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` ([`is_full`]), and those of the disk.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let _ = (from, to);
        Ok(())
    }

    /// The first offset from `from` on that may hold anything but zeros; none when all is zeros from there on.
    ///
    /// # Errors
    /// Of the disk.
    fn data_from(&self, from: u64) -> io::Result<Option<u64>> {
        Ok((from < self.size()?).then_some(from))
    }

    /// Gives the space of whole pages from `from` to `to` back to the filesystem; they are zeros then. The length stays.
    ///
    /// # Errors
    /// `Unsupported` where the filesystem cannot do it, and those of the disk.
    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Space that it takes, in bytes; its length where the filesystem does not say.
    ///
    /// # Errors
    /// Of the disk.
    fn allocated(&self) -> io::Result<u64> {
        self.size()
    }

    /// Makes contents and length durable. After an error it is unknown which of them are.
    ///
    /// # Errors
    /// Of the disk.
    fn sync_data(&self) -> io::Result<()>;
}
