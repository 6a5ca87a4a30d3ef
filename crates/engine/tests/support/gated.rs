//! A disk on which reads or syncs wait at a gate.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use vstack_engine::{Disk, DiskFile, MemDisk, Usage};

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gate {
    #[default]
    Open,
    Shut,
    Panics,
}

/// A gate, and how many wait at it.
#[derive(Clone, Default)]
pub struct Passage(Arc<(Mutex<(Gate, usize)>, Condvar)>);

impl Passage {
    pub fn set(&self, gate: Gate) {
        self.0.0.lock().unwrap().0 = gate;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut at = self.0.0.lock().unwrap();
        at.1 += 1;
        self.0.1.notify_all();
        let mut at = self.0.1.wait_while(at, |(gate, _)| *gate == Gate::Shut).unwrap();
        at.1 -= 1;
        assert_ne!(at.0, Gate::Panics, "as the test wants it");
    }

    /// Waits until somebody waits at it.
    pub fn is_waited_at(&self) {
        let at = self.0.0.lock().unwrap();
        let nobody = |at: &mut (Gate, usize)| at.1 == 0;
        let (_at, waited) = self.0.1.wait_timeout_while(at, PATIENCE, nobody).unwrap();
        assert!(!waited.timed_out(), "nobody comes");
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct Gated {
    disk: MemDisk,
    pub reads: Passage,
    pub syncs: Passage,
}

pub struct GatedFile {
    file: <MemDisk as Disk>::File,
    reads: Passage,
    syncs: Passage,
}

impl Gated {
    fn file(&self, file: <MemDisk as Disk>::File) -> GatedFile {
        GatedFile {
            file,
            reads: self.reads.clone(),
            syncs: self.syncs.clone(),
        }
    }
}

impl Disk for Gated {
    type File = GatedFile;
    type Lock = <MemDisk as Disk>::Lock;

    fn lock(&self) -> io::Result<Self::Lock> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<GatedFile> {
        self.disk.open(name).map(|file| self.file(file))
    }
    fn create(&self, name: &str) -> io::Result<GatedFile> {
        self.disk.create(name).map(|file| self.file(file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn usage(&self) -> io::Result<Usage> {
        self.disk.usage()
    }
}

impl DiskFile for GatedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.pass();
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file.preallocate(len)
    }
    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.file.allocate(from, to)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.syncs.pass();
        self.file.sync_data()
    }
}
