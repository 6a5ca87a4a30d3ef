//! How fast repairs go, by the cluster's own figures, and what the disk gives in the same run.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
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

/// Superblocks that are copied from, and bytes of each.
const PARTS: usize = 25;
const PART_BYTES: u64 = 16 << 20;
/// Bytes that are read and written at once.
const BLOCK: usize = 1 << 20;

/// Bytes a second of a plain copy of what a node holds, who is to die next: parts of its superblocks, evenly from the oldest to
/// the newest, are read from the disk, each from its beginning, and written to one file in `directory`, which is synced once.
///
/// What was written long ago may be read more slowly than what was written just now, where the disk has a memory of its own.
pub fn of_a_plain_copy(node: &Path, directory: &Path) -> f64 {
    let full = full_superblocks(node);
    let parts = spread(&full);
    assert!(!parts.is_empty(), "{} has nothing to be copied", node.display());
    let mut copy = tempfile::tempfile_in(directory).unwrap();
    let mut block = vec![0_u8; BLOCK];
    let mut copied = 0;
    let began = Instant::now();
    for path in parts {
        let source = File::open(path).unwrap();
        fadvise(&source, 0, None, Advice::DontNeed).unwrap();
        let mut part = source.take(PART_BYTES);
        loop {
            let len = part.read(&mut block).unwrap();
            if len == 0 {
                break;
            }
            copy.write_all(&block[..len]).unwrap();
            copied += len;
        }
    }
    copy.sync_all().unwrap();
    copied as f64 / began.elapsed().as_secs_f64()
}

/// Those that have all their bytes, oldest first: a hole is read from no disk.
fn full_superblocks(node: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(node).unwrap().map(|entry| entry.unwrap().path());
    let mut full: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "vsb"))
        .filter(|path| {
            let metadata = path.metadata().unwrap();
            metadata.blocks() * 512 >= metadata.len() / 10 * 9
        })
        .collect();
    full.sort();
    full
}

fn spread(superblocks: &[PathBuf]) -> Vec<&PathBuf> {
    let count = PARTS.min(superblocks.len());
    (0..count)
        .map(|n| &superblocks[n * superblocks.len() / count])
        .collect()
}
