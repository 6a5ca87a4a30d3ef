//! A real directory in which one payload is never written: where it belongs stays a hole, which reads as its zeros.
//! Nothing is synced, and nothing is prepared ahead: no use but for making test data.

use std::{
    io::{self, IoSlice},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use vstack_engine::{DataFile, Disk, DiskFile, FileDisk, Usage};

/// See the module. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SparseDisk {
    disk: FileDisk,
    left_out: LeftOut,
}

/// What is not written, told by where it is in memory.
#[derive(Debug, Clone)]
struct LeftOut {
    zeros: Bytes,
    written_bytes: Arc<AtomicU64>,
}

impl LeftOut {
    fn holds(&self, piece: &[u8]) -> bool {
        let (zeros, piece) = (self.zeros.as_ptr_range(), piece.as_ptr_range());
        zeros.contains(&piece.start) && piece.end <= zeros.end
    }
}

impl SparseDisk {
    /// `zeros`, and parts of it, are left out of what is written in `root`.
    pub fn new(root: &Path, zeros: &Bytes) -> io::Result<Self> {
        Ok(Self {
            disk: FileDisk::new(root)?,
            left_out: LeftOut {
                zeros: zeros.clone(),
                written_bytes: Arc::default(),
            },
        })
    }

    /// Bytes that were written.
    pub fn written_bytes(&self) -> u64 {
        self.left_out.written_bytes.load(Ordering::Relaxed)
    }

    fn file(&self, file: DataFile) -> SparseFile {
        SparseFile {
            file,
            left_out: self.left_out.clone(),
        }
    }
}

impl Disk for SparseDisk {
    type File = SparseFile;
    type Lock = <FileDisk as Disk>::Lock;

    fn lock(&self) -> io::Result<Self::Lock> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<SparseFile> {
        self.disk.open(name).map(|file| self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<SparseFile> {
        self.disk.create(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn usage(&self) -> io::Result<Usage> {
        self.disk.usage()
    }
}

/// A file of a [`SparseDisk`].
#[derive(Debug)]
pub struct SparseFile {
    file: DataFile,
    left_out: LeftOut,
}

impl DiskFile for SparseFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.left_out.holds(bytes) {
            return Ok(());
        }
        self.left_out
            .written_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_at(bytes, offset)
    }

    fn write_pieces_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for piece in pieces {
            self.write_at(piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len.max(self.file.size()?))
    }

    fn data_from(&self, from: u64) -> io::Result<Option<u64>> {
        self.file.data_from(from)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
