//! A disk of any kind behind one type, so that a node runs on a real one and on a simulated one with the same code.
//!
//! A virtual call is nothing beside what it leads to. Every method of [`Disk`] and [`DiskFile`] is passed on here,
//! those with a default too: a disk that does better than the default must be heard.

use std::{
    fmt,
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile, Usage};

/// What [`Disk`] is without its associated types.
trait AnyDisk: Send + Sync {
    fn lock(&self) -> io::Result<Box<dyn Send>>;
    fn list(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str) -> io::Result<BoxedFile>;
    fn create(&self, name: &str) -> io::Result<BoxedFile>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync_dir(&self) -> io::Result<()>;
    fn reads_at_once(&self) -> usize;
    fn usage(&self) -> io::Result<Usage>;
}

impl<D: Disk> AnyDisk for D {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(Disk::lock(self)?))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        Disk::list(self)
    }
    fn open(&self, name: &str) -> io::Result<BoxedFile> {
        Ok(BoxedFile(Box::new(Disk::open(self, name)?)))
    }
    fn create(&self, name: &str) -> io::Result<BoxedFile> {
        Ok(BoxedFile(Box::new(Disk::create(self, name)?)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Disk::rename(self, from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        Disk::remove(self, name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        Disk::sync_dir(self)
    }
    fn reads_at_once(&self) -> usize {
        Disk::reads_at_once(self)
    }
    fn usage(&self) -> io::Result<Usage> {
        Disk::usage(self)
    }
}

/// See the module. Clones are the same disk.
#[derive(Clone)]
pub struct BoxedDisk(Arc<dyn AnyDisk>);

/// A file of a [`BoxedDisk`].
pub struct BoxedFile(Box<dyn DiskFile>);

impl fmt::Debug for BoxedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxedDisk")
    }
}

impl fmt::Debug for BoxedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxedFile")
    }
}

impl BoxedDisk {
    /// `disk`, whatever it is.
    pub fn new(disk: impl Disk) -> Self {
        Self(Arc::new(disk))
    }
}

impl Disk for BoxedDisk {
    type File = BoxedFile;
    type Lock = Box<dyn Send>;

    fn lock(&self) -> io::Result<Self::Lock> {
        self.0.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str) -> io::Result<BoxedFile> {
        self.0.open(name)
    }
    fn create(&self, name: &str) -> io::Result<BoxedFile> {
        self.0.create(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
    fn reads_at_once(&self) -> usize {
        self.0.reads_at_once()
    }
    fn usage(&self) -> io::Result<Usage> {
        self.0.usage()
    }
}

impl DiskFile for BoxedFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn has_name(&self) -> io::Result<bool> {
        self.0.has_name()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn read_medium_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_medium_at(buffer, offset)
    }
    fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> usize {
        self.0.read_at_once(buffer, offset)
    }
    fn will_read(&self, offset: u64, len: u64) {
        self.0.will_read(offset, len);
    }
    fn cached_at(&self, offset: u64, len: usize) -> Option<Bytes> {
        self.0.cached_at(offset, len)
    }
    fn trim(&self) {
        self.0.trim();
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn write_pieces_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_pieces_at(pieces, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.0.preallocate(len)
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.0.allocate(from, to)
    }
    fn data_from(&self, from: u64) -> io::Result<Option<u64>> {
        self.0.data_from(from)
    }
    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        self.0.punch(from, to)
    }
    fn allocated(&self) -> io::Result<u64> {
        self.0.allocated()
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
