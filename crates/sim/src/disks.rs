//! A node's disk: the engine's memory disk, as one process sees it. When the process is cut off its handle is dead,
//! whatever of it still runs; the next process gets another handle on the same disk. When the disk loses power in the
//! middle of a write, the process is gone with it before it can say another word.

use std::io;

use vstack_engine::{Disk, DiskFile, MemDisk, Usage};

use crate::life::Life;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct SimDisk {
    disk: MemDisk,
    life: Life,
}

impl SimDisk {
    /// A handle on `disk` that dies with `life`.
    pub(crate) const fn new(disk: MemDisk, life: Life) -> Self {
        Self { disk, life }
    }
}

/// A file of it.
#[derive(Debug)]
pub(crate) struct SimFile {
    file: <MemDisk as Disk>::File,
    disk: MemDisk,
    life: Life,
}

/// Whether the process still is.
fn alive(life: &Life) -> io::Result<()> {
    if life.is_over() {
        Err(io::Error::other("the process is gone"))
    } else {
        Ok(())
    }
}

/// What came of a change; the process goes with the power.
fn changed<T>(life: &Life, disk: &MemDisk, result: io::Result<T>) -> io::Result<T> {
    if disk.is_down() {
        life.end();
    }
    result
}

impl SimDisk {
    fn alive(&self) -> io::Result<()> {
        alive(&self.life)
    }

    fn file(&self, file: <MemDisk as Disk>::File) -> SimFile {
        SimFile {
            file,
            disk: self.disk.clone(),
            life: self.life.clone(),
        }
    }
}

impl SimFile {
    fn alive(&self) -> io::Result<()> {
        alive(&self.life)
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
        self.alive()?;
        let file = changed(&self.life, &self.disk, self.disk.create(name))?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.alive()?;
        changed(&self.life, &self.disk, self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.alive()?;
        changed(&self.life, &self.disk, self.disk.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.alive()?;
        changed(&self.life, &self.disk, self.disk.sync_dir())
    }

    fn usage(&self) -> io::Result<Usage> {
        self.alive()?;
        self.disk.usage()
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        self.alive()?;
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.alive()?;
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.alive()?;
        changed(&self.life, &self.disk, self.file.write_at(bytes, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.alive()?;
        changed(&self.life, &self.disk, self.file.set_len(len))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.alive()?;
        changed(&self.life, &self.disk, self.file.preallocate(len))
    }

    fn data_from(&self, from: u64) -> io::Result<Option<u64>> {
        self.alive()?;
        self.file.data_from(from)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.alive()?;
        changed(&self.life, &self.disk, self.file.sync_data())
    }
}
