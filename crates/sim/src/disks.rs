//! A node's disk: the engine's memory disk, as one process sees it. When the process is cut off its handle is dead,
//! whatever of it still runs; the next process gets another handle on the same disk. When the disk loses power in the
//! middle of a write, the process is gone with it before it can say another word.

use std::io;

use vstack_engine::{Disk, DiskFile, MemDisk, Usage};

use crate::{
    life::Life,
    struck::{Kind, Tally},
};

/// What is said when a disk does not give what it has: simulated ones do.
pub const READABLE: &str = "simulated disks give what they have";

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk {
    disk: MemDisk,
    life: Life,
    tally: Tally,
}

/// A file of it.
#[derive(Debug)]
pub(crate) struct SimFile {
    file: <MemDisk as Disk>::File,
    of: SimDisk,
}

impl SimDisk {
    /// A handle on `disk` that dies with `life`; `tally` hears what goes wrong with it.
    pub(crate) const fn new(disk: MemDisk, life: Life, tally: Tally) -> Self {
        Self { disk, life, tally }
    }

    /// Whether the process still is.
    fn alive(&self) -> io::Result<()> {
        if self.life.is_over() {
            Err(io::Error::other("the process is gone"))
        } else {
            Ok(())
        }
    }

    /// Makes a change, of which `failed` is what it is when it merely fails; the process goes with the power.
    fn change<T>(&self, failed: Kind, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.alive()?;
        let planned = self.disk.planned();
        let result = change();
        let came_true = self.disk.planned() < planned;
        let finds_no_space = matches!(&result, Err(error) if error.kind() == io::ErrorKind::StorageFull);
        match (came_true, finds_no_space) {
            (true, true) => self.tally.strikes(Kind::SpaceShort),
            (true, false) if self.disk.is_down() => self.tally.strikes(Kind::PowerCutInChange),
            (true, false) => self.tally.strikes(failed),
            (false, true) => self.tally.strikes(Kind::DiskFull),
            (false, false) => {}
        }
        if self.disk.is_down() {
            self.life.end();
        }
        result
    }

    fn file(&self, file: <MemDisk as Disk>::File) -> SimFile {
        SimFile { file, of: self.clone() }
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    /// One process a disk is what the simulation sees to; the lock of a dead one must not free a living one's.
    type Lock = ();

    fn lock(&self) -> io::Result<()> {
        self.alive()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.alive()?;
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        self.alive()?;
        self.disk.open(name).map(|file| self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let file = self.change(Kind::NameFailed, || self.disk.create(name))?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(Kind::NameFailed, || self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(Kind::NameFailed, || self.disk.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(Kind::NameFailed, || self.disk.sync_dir())
    }

    fn usage(&self) -> io::Result<Usage> {
        self.alive()?;
        self.disk.usage()
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.of.alive()?;
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.of.alive()?;
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.of.change(Kind::WriteFailed, || self.file.write_at(bytes, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.of.change(Kind::WriteFailed, || self.file.set_len(len))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.of.change(Kind::WriteFailed, || self.file.preallocate(len))
    }

    fn data_from(&self, from: u64) -> io::Result<Option<u64>> {
        self.of.alive()?;
        self.file.data_from(from)
    }

    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        self.of.change(Kind::WriteFailed, || self.file.punch(from, to))
    }

    fn allocated(&self) -> io::Result<u64> {
        self.of.alive()?;
        self.file.allocated()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.of.change(Kind::SyncFailed, || self.file.sync_data())
    }
}
