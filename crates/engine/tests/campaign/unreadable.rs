//! Reads that fail, on a copy of a disk: what cannot be read now is neither taken for what was cut off nor for what was
//! never there, and nothing of it is forgotten.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use vstack_engine::{
    Disk, DiskFile, IdentityError, MemDisk, Now, OpenError, ReadError, Store, StoreOptions, Usage, Which,
};

use super::{Verdict, damage};

/// Most reads that fail one after the other.
const FAILING_MAX: u64 = 4;

/// A disk of which some reads fail, as those of a bad sector do.
#[derive(Debug, Clone)]
struct Unreadable {
    disk: MemDisk,
    reads: Arc<Reads>,
}

/// Reads are counted from 1.
#[derive(Debug, Default)]
struct Reads {
    done: AtomicU64,
    fail_from: AtomicU64,
    fail_to: AtomicU64,
    failed: AtomicU64,
}

impl Reads {
    /// Of the reads from now on, `count` fail after the next `after`.
    fn fail(&self, after: u64, count: u64) {
        let from = self.done.load(Ordering::Relaxed) + 1 + after;
        self.fail_from.store(from, Ordering::Relaxed);
        self.fail_to.store(from + count, Ordering::Relaxed);
    }

    fn read(&self) -> io::Result<()> {
        let number = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let fails = self.fail_from.load(Ordering::Relaxed)..self.fail_to.load(Ordering::Relaxed);
        if fails.contains(&number) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return Err(io::Error::other("the sector cannot be read"));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct UnreadableFile {
    file: <MemDisk as Disk>::File,
    reads: Arc<Reads>,
}

impl Unreadable {
    fn file(&self, file: <MemDisk as Disk>::File) -> UnreadableFile {
        let reads = Arc::clone(&self.reads);
        UnreadableFile { file, reads }
    }
}

impl Disk for Unreadable {
    type File = UnreadableFile;
    type Lock = <MemDisk as Disk>::Lock;

    fn lock(&self) -> io::Result<Self::Lock> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<UnreadableFile> {
        self.disk.open(name).map(|file| self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<UnreadableFile> {
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

impl DiskFile for UnreadableFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.read()?;
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

    fn data_from(&self, from: u64) -> io::Result<Option<u64>> {
        self.file.data_from(from)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Opens a copy of `disk` while reads fail, and reads everything of it while others do. Gives the copy, on which
/// everything must be as it was, and how many reads failed. All that is drawn comes from `seed`.
pub fn suffer(disk: &MemDisk, seed: u64, options: &StoreOptions, now: Now) -> Verdict<(MemDisk, usize)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let copy = damage::copy(disk);
    let unreadable = Unreadable {
        disk: copy.clone(),
        reads: Arc::default(),
    };
    let reads = Arc::clone(&unreadable.reads);
    reads.fail(rng.random_range(0..40), rng.random_range(1..=FAILING_MAX));
    match Store::open(unreadable.clone(), options.clone(), now) {
        Ok(_) | Err(OpenError::Io(_) | OpenError::End { .. } | OpenError::Identity(IdentityError::Io(_))) => {}
        Err(error) => return Err(format!("a read that failed is taken for something else: {error}")),
    }
    // Nothing fails any more.
    reads.fail(0, 0);
    let store = Store::open(unreadable, options.clone(), now).map_err(|error| format!("not opened: {error}"))?;
    for listed in store.reader().list_items(0, usize::MAX, None).unwrap().entries {
        let Ok(found) = store.reader().find(&listed.id, Which::Exact(listed.sha256)) else {
            continue;
        };
        reads.fail(0, 1);
        match store.reader().read(&found, None, now.monotonic) {
            Err(ReadError::Io(_) | ReadError::Corrupt) => {}
            Ok(_) => return Err(format!("{} is served, and it cannot be read", listed.id)),
        }
    }
    drop(store);
    let failed = usize::try_from(reads.failed.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    Ok((copy, failed))
}
