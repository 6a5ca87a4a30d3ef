//! A start that reads everything goes through several superblocks at once, on a disk that says that this is worth it; what
//! is read ahead changes nothing of what is found.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use support::*;
use vstack_engine::{Disk, DiskFile, MemDisk, Store, Usage};

/// Longer than any wait for a read that comes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Reads {
    under_way: usize,
    most: usize,
    /// A read waits until so many were under way together.
    wanted: usize,
}

/// A disk on which reads take until enough others are under way, and which counts them.
#[derive(Debug, Clone)]
struct Counted {
    disk: MemDisk,
    at_once: usize,
    reads: Arc<(Mutex<Reads>, Condvar)>,
}

#[derive(Debug)]
struct CountedFile {
    file: <MemDisk as Disk>::File,
    /// Of the log: everything else is read by one alone.
    is_counted: bool,
    reads: Arc<(Mutex<Reads>, Condvar)>,
}

impl Counted {
    fn new(disk: &MemDisk, at_once: usize) -> Self {
        let reads = Reads {
            wanted: at_once + 1,
            ..Reads::default()
        };
        Self {
            disk: disk.clone(),
            at_once,
            reads: Arc::new((Mutex::new(reads), Condvar::new())),
        }
    }

    fn most(&self) -> usize {
        self.reads.0.lock().unwrap().most
    }

    fn file(&self, name: &str, file: <MemDisk as Disk>::File) -> CountedFile {
        CountedFile {
            file,
            is_counted: name.ends_with(".vsb"),
            reads: Arc::clone(&self.reads),
        }
    }
}

impl Disk for Counted {
    type File = CountedFile;
    type Lock = <MemDisk as Disk>::Lock;

    fn lock(&self) -> io::Result<Self::Lock> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<CountedFile> {
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<CountedFile> {
        Ok(self.file(name, self.disk.create(name)?))
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

    fn reads_at_once(&self) -> usize {
        self.at_once
    }

    fn usage(&self) -> io::Result<Usage> {
        self.disk.usage()
    }
}

impl DiskFile for CountedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        // Behind the heads of the superblock: those are read one after the other to find the order.
        let (reads, changed) = &*self.reads;
        if !self.is_counted || offset < 8192 {
            return self.file.read_at(buffer, offset);
        }
        let mut now = reads.lock().unwrap();
        now.under_way += 1;
        now.most = now.most.max(now.under_way);
        changed.notify_all();
        let waits = |reads: &mut Reads| reads.most < reads.wanted;
        let (mut now, waited) = changed.wait_timeout_while(now, PATIENCE, waits).unwrap();
        if waited.timed_out() {
            // Nobody else comes: the others are not kept waiting as long.
            now.wanted = 0;
        }
        drop(now);
        let read = self.file.read_at(buffer, offset);
        reads.lock().unwrap().under_way -= 1;
        read
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

    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        self.file.punch(from, to)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Several superblocks of votes.
fn filled() -> MemDisk {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let mut n = 0;
    while store.reader().superblock_numbers().len() < 10 {
        one(&mut store, put_vote(&format!("c{n}"), &item(n, 60_000))).unwrap();
        n += 1;
    }
    store.mark(at(2)).unwrap();
    disk
}

fn found<D: Disk>(store: &Store<D>) -> Vec<String> {
    assert_eq!(store.report().damage, []);
    assert!(store.report().checkpoint.is_none());
    let listed = store.reader().list_items(0, 1000, None).unwrap().entries;
    let mut all: Vec<_> = listed.iter().map(|one| format!("{} {}", one.id, one.sha256)).collect();
    all.sort();
    all
}

#[test]
fn as_many_reads_are_under_way_as_the_disk_says() {
    let disk = filled();
    let expected = found(&open(&disk));
    let counted = Counted::new(&disk, 4);
    let store = open(&counted);
    assert_eq!(found(&store), expected);
    assert_eq!(counted.most(), 5, "four ahead, and the one that is waited for");
}

#[test]
fn a_disk_on_which_it_brings_nothing_is_read_by_one() {
    let disk = filled();
    let expected = found(&open(&disk));
    let counted = Counted::new(&disk, 0);
    assert_eq!(found(&open(&counted)), expected);
    assert_eq!(counted.most(), 1);
}
