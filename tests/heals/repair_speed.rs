//! How fast repairs go, by the cluster's own figures, and what the disk gives in the same run.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{Advice, fadvise};
use serde_json::Value;

/// What repairs moved between two moments.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    pub began: Instant,
    pub ended: Instant,
    pub bytes: u64,
}

impl Moved {
    pub fn took(&self) -> Duration {
        self.ended - self.began
    }

    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.took().as_secs_f64()
    }
}

/// Follows `GET /repairs` from before chunks are moved away from who is gone, which is what takes its time.
#[derive(Debug)]
pub struct RepairWatch {
    /// The last look before: when it was asked for, and bytes moved by then.
    before: (Instant, u64),
    /// The first look that found a chunk being moved, or the last one since that found more bytes moved.
    last: Option<(Instant, u64)>,
}

impl RepairWatch {
    /// While nobody is gone yet.
    pub fn start(ask: impl FnOnce() -> Value) -> Self {
        let asked = Instant::now();
        Self {
            before: (asked, moved_bytes(&ask())),
            last: None,
        }
    }

    /// Another look; gives what it found.
    pub fn look(&mut self, ask: impl FnOnce() -> Value) -> Value {
        let asked = Instant::now();
        let repairs = ask();
        let moved = moved_bytes(&repairs);
        match self.last {
            None if is_moving(&repairs) => self.last = Some((Instant::now(), moved)),
            None => self.before = (asked, moved),
            Some((_, known)) if moved > known => self.last = Some((Instant::now(), moved)),
            Some(_) => {}
        }
        repairs
    }

    /// From the last look before the first move to the last one that found more; none before there was any.
    pub fn moved(&self) -> Option<Moved> {
        let (ended, moved) = self.last?;
        let (began, before) = self.before;
        Some(Moved {
            began,
            ended,
            bytes: moved - before,
        })
    }
}

fn moved_bytes(repairs: &Value) -> u64 {
    repairs["done_bytes"].as_u64().unwrap()
}

/// What only evens nodes out is called otherwise.
fn is_moving(repairs: &Value) -> bool {
    let mut running = repairs["running"].as_array().unwrap().iter();
    running.any(|repair| repair["what"] == "move")
}

/// Bytes that are read and written at once, and how often.
const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 400;

/// Bytes a second of a plain copy: a file of 400 MiB that is on the disk and no longer in memory is read from its
/// beginning to its end, written to another beside it, and synced once.
pub fn of_a_plain_copy(directory: &Path) -> f64 {
    let directory = tempfile::Builder::new().prefix("copy-").tempdir_in(directory).unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut block = vec![0_u8; BLOCK];
    File::open("/dev/urandom").unwrap().read_exact(&mut block).unwrap();
    let mut written = File::create(path("source")).unwrap();
    for _ in 0..BLOCKS {
        written.write_all(&block).unwrap();
    }
    written.sync_all().unwrap();
    fadvise(&written, 0, None, Advice::DontNeed).unwrap();
    let mut source = File::open(path("source")).unwrap();
    let mut copy = File::create(path("copy")).unwrap();
    let began = Instant::now();
    for _ in 0..BLOCKS {
        source.read_exact(&mut block).unwrap();
        copy.write_all(&block).unwrap();
    }
    copy.sync_all().unwrap();
    (BLOCK * BLOCKS) as f64 / began.elapsed().as_secs_f64()
}
