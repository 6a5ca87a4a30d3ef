//! A scrub reads a superblock that is emptied under it: what is cut off then is no damage.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    io::{self, IoSlice},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use support::*;
use vstack_engine::{Disk, DiskFile, Engine, MemDisk, Scrubbed, Usage};
use vstack_types::SystemClock;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Step {
    #[default]
    Off,
    /// The next read of records in the first superblock waits.
    Armed,
    Waiting,
    GoesOn,
}

/// Clones are the same disk.
#[derive(Clone, Default)]
struct Holding {
    disk: MemDisk,
    hold: Arc<(Mutex<Step>, Condvar)>,
}

impl Holding {
    fn set(&self, step: Step) {
        *self.hold.0.lock().unwrap() = step;
        self.hold.1.notify_all();
    }

    fn wait_for(&self, step: Step) {
        let held = self.hold.0.lock().unwrap();
        let (held, _) = self
            .hold
            .1
            .wait_timeout_while(held, PATIENCE, |now| *now != step)
            .unwrap();
        assert_eq!(*held, step, "in vain");
    }

    fn pass(&self) {
        {
            let mut step = self.hold.0.lock().unwrap();
            if *step != Step::Armed {
                return;
            }
            *step = Step::Waiting;
        }
        self.hold.1.notify_all();
        self.wait_for(Step::GoesOn);
    }
}

struct HoldingFile {
    file: <MemDisk as Disk>::File,
    disk: Holding,
    is_first: bool,
}

impl Disk for Holding {
    type File = HoldingFile;
    type Lock = <MemDisk as Disk>::Lock;

    fn lock(&self) -> io::Result<Self::Lock> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> io::Result<Self::File> {
        Ok(self.of(name, self.disk.open(name)?))
    }
    fn create(&self, name: &str) -> io::Result<Self::File> {
        Ok(self.of(name, self.disk.create(name)?))
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

impl Holding {
    fn of(&self, name: &str, file: <MemDisk as Disk>::File) -> HoldingFile {
        HoldingFile {
            file,
            disk: self.clone(),
            is_first: name == "superblock_000000.vsb",
        }
    }
}

impl DiskFile for HoldingFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.is_first && offset >= 8192 {
            self.disk.pass();
        }
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn write_pieces_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.file.write_pieces_at(pieces, offset)
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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_emptied_under_a_scrub_is_no_damage() {
    let disk = Holding::default();
    let engine = Engine::open(disk.clone(), options(), Arc::new(SystemClock::start())).unwrap();
    let engine = Arc::new(engine);
    for n in 0..80 {
        let op = put_vote(&format!("c{n}"), &item(n, 8000));
        engine.submit(op).await.unwrap();
    }
    disk.set(Step::Armed);
    let scrubbing = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.scrub(0, u64::MAX, |_| {}).await.unwrap() }
    });
    let waits = disk.clone();
    tokio::task::spawn_blocking(move || waits.wait_for(Step::Waiting))
        .await
        .unwrap();
    let compacted = engine.compact(0, u64::MAX, |_| {}).await.unwrap();
    assert!(compacted.emptied, "{compacted:?}");
    disk.set(Step::GoesOn);
    let scrubbed = scrubbing.await.unwrap();
    assert_eq!(scrubbed, Scrubbed::default());
    for n in 0..80 {
        let name = format!("c{n}");
        assert_eq!(
            served(engine.reader(), &name).as_deref(),
            Some(&item(n, 8000).bytes()[..])
        );
    }
    engine.close().await;
}
