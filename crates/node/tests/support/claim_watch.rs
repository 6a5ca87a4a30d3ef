//! A disk in memory on which claims are watched.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use vstack_engine::{Disk, MemDisk, Usage};

/// What a claim is written to before it takes its name.
const NEW_CLAIM: &str = "claim.new";

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct ClaimWatch {
    pub disk: MemDisk,
    tries: Arc<AtomicUsize>,
    refuses: Arc<AtomicBool>,
}

impl ClaimWatch {
    /// How often the node began to write a claim.
    pub fn tries(&self) -> usize {
        self.tries.load(Ordering::SeqCst)
    }

    /// Whether no claim can be written.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }
}

impl Disk for ClaimWatch {
    type File = <MemDisk as Disk>::File;
    type Lock = <MemDisk as Disk>::Lock;

    fn lock(&self) -> io::Result<Self::Lock> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<Self::File> {
        self.disk.open(name)
    }
    fn create(&self, name: &str) -> io::Result<Self::File> {
        if name == NEW_CLAIM {
            self.tries.fetch_add(1, Ordering::SeqCst);
            if self.refuses.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
        self.disk.create(name)
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
