//! What is deleted gives its space back, on a real file system too, and a disk that is nearly full gets out of it by
//! itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::cast_precision_loss, reason = "shares in percent")]

mod support;

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use support::{small_file_system::SmallFileSystem, *};
use vstack_engine::{
    Disk, Engine, EngineError, FileDisk, Item, MemDisk, Op, Outcome, StoreOptions, Waste, Which, WriteError,
};
use vstack_types::{Clock, Monotonic, Timestamp};

/// Goes on when it is told to.
#[derive(Default)]
struct Hand(AtomicU64);

impl Hand {
    fn seconds(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn monotonic(&self) -> Monotonic {
        at(self.0.load(Ordering::Relaxed)).monotonic
    }

    fn wall(&self) -> Timestamp {
        at(self.0.load(Ordering::Relaxed)).wall
    }
}

fn of(superblock_bytes: u64) -> StoreOptions {
    StoreOptions {
        superblock_bytes,
        ..options()
    }
}

/// Deletions between two looks at what can be given back.
const BETWEEN_LOOKS: usize = 25;

/// As large as chunks are, and smaller ones, down to a page.
const MIXED: &[usize] = &[4096, 20_000, 70_000, 300_000, 900_000, 2_000_000];
/// None is so large that its pages are given back where they are: its superblock has to be emptied.
const SMALL: &[usize] = &[4096, 20_000, 60_000];

async fn put_one<D: Disk>(engine: &Engine<D>, name: &str, item: &Item) -> Result<(), EngineError> {
    engine.submit(put(name, item)).await.map(|_| ())
}

/// What it took to keep house.
#[derive(Debug, Default)]
struct Kept {
    /// Superblocks.
    emptied: u64,
    /// Of items, written again for that.
    moved_bytes: u64,
}

/// What a node does now and then: space is given back, and superblocks are emptied until none is worth it.
async fn keep_house<D: Disk>(engine: &Engine<D>, superblock_bytes: u64) -> Kept {
    let mut kept = Kept::default();
    loop {
        // What came last is kept until a mark says that it was synced.
        for _ in 0..2 {
            engine
                .look_aside(vstack_engine::Reader::reclaim)
                .await
                .unwrap()
                .unwrap();
        }
        let worth = engine.look_aside(move |reader| reader.most_wasteful(superblock_bytes, Waste::BESIDE, 0..u32::MAX));
        let Some(number) = worth.await.unwrap().unwrap() else {
            return kept;
        };
        let done = engine.compact(number, u64::MAX, |_| {}).await.unwrap();
        assert!(done.emptied, "superblock {number}: {done:?}");
        kept.emptied += 1;
        kept.moved_bytes += done.moved_bytes;
    }
}

/// Bytes that the superblocks of a directory take of the file system, with the last one's unwritten rest and without.
fn taken(root: &Path) -> (u64, u64) {
    let mut names: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "vsb"))
        .collect();
    names.sort();
    let of = |path: &Path| std::fs::metadata(path).unwrap().blocks() * 512;
    let all = names.iter().map(|path| of(path)).sum();
    let last = std::fs::read(names.last().unwrap()).unwrap();
    let written = last.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
    let rest = (last.len() as u64).saturating_sub(written + 1) / 4096 * 4096;
    (all, all - rest.min(of(names.last().unwrap())))
}

async fn half_of(bytes: u64, superblock_bytes: u64, sizes: &[usize]) -> Kept {
    let directory = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(directory.path()).unwrap();
    let clock = Arc::new(Hand::default());
    let engine = Engine::open(disk, of(superblock_bytes), clock).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut held = Vec::new();
    let mut put = 0;
    while put < bytes {
        let seed = rng.random();
        let size = sizes[rng.random_range(0..sizes.len())];
        let (name, item) = (format!("c{}", held.len()), item(seed, size));
        put_one(&engine, &name, &item).await.unwrap();
        put += item.bytes().len() as u64;
        held.push((name, item.sha256(), item.bytes().len() as u64));
    }
    let before = taken(directory.path());
    held.shuffle(&mut rng);
    let gone = held.split_off(held.len() / 2);
    for (name, ..) in &gone {
        engine.delete_staged(id(name)).await.unwrap();
    }
    let kept = keep_house(&engine, superblock_bytes).await;
    let live: u64 = held.iter().map(|(.., size)| size).sum();
    let (all, without_rest) = taken(directory.path());
    println!(
        "{put} bytes in {} superblock bytes, half deleted, {kept:?}: {without_rest} of the file \
         system for {live} live bytes, {:.3} of them; with the unwritten rest of the last superblock {all}, {:.3}",
        before.0,
        without_rest as f64 / live as f64,
        all as f64 / live as f64,
    );
    for (name, sha256, size) in &held {
        let found = engine.reader().find(&id(name), Which::Exact(*sha256)).unwrap();
        assert_eq!(engine.read(&found, None).await.unwrap().len() as u64, *size);
    }
    engine.close().await;
    let (_, after) = taken(directory.path());
    assert!(without_rest * 100 <= live * 115, "{without_rest} for {live} live bytes");
    assert!(after * 100 <= live * 115, "closed: {after} for {live} live bytes");
    kept
}

#[tokio::test]
async fn deleting_half_gives_its_space_back() {
    half_of(96 << 20, 16 << 20, MIXED).await;
}

#[tokio::test]
async fn deleting_half_of_small_records_moves_the_rest_and_empties_superblocks() {
    let (bytes, superblock_bytes) = (24 << 20, 2 << 20);
    let kept = half_of(bytes, superblock_bytes, SMALL).await;
    // All but the last, which is written to: of each, half is wanted and moved.
    assert!(kept.emptied * superblock_bytes * 10 >= bytes * 8, "{kept:?}");
    assert!(kept.moved_bytes * 10 >= bytes * 4, "{kept:?}");
}

#[tokio::test]
#[ignore = "long, and takes 10 GB of disk: make soak"]
async fn deleting_half_of_ten_gigabytes_gives_its_space_back() {
    half_of(10_000_000_000, 1 << 30, MIXED).await;
}

/// 98 % are in use: what is there is read, deleting and emptying superblocks go on, and PUTs come back by themselves.
async fn out_of_a_full_disk<D: Disk>(engine: &Engine<D>, clock: &Hand, superblock_bytes: u64, fill: impl FnOnce()) {
    let mut rng = StdRng::seed_from_u64(2);
    let mut held = Vec::new();
    let refused = loop {
        let (name, item) = (
            format!("c{}", held.len()),
            item(rng.random(), 8000 + rng.random_range(0..90_000)),
        );
        clock.seconds(2);
        match put_one(engine, &name, &item).await {
            Ok(()) => held.push((name, item)),
            Err(error) => break error,
        }
        assert!(held.len() < 100_000, "it never gets full");
    };
    assert_eq!(refused, EngineError::Write(WriteError::DiskFull));
    fill();
    clock.seconds(2);
    let usage = engine.reader().usage(clock.monotonic()).unwrap();
    println!("{} chunks, {:.1} % full", held.len(), usage.percent());
    assert!(usage.percent() >= 97.5, "{usage:?}");
    let reads = |name: String, item: Item| async move {
        let found = engine.reader().find(&id(&name), Which::Exact(item.sha256())).unwrap();
        assert_eq!(engine.read(&found, None).await.unwrap(), item.bytes()[..], "{name}");
    };
    for (name, item) in held.iter().step_by(7) {
        reads(name.clone(), item.clone()).await;
    }
    assert_eq!(
        put_one(engine, "refused", &held[0].1).await,
        Err(EngineError::Write(WriteError::DiskFull))
    );
    held.shuffle(&mut rng);
    let gone = held.split_off(held.len() / 3);
    let mut emptied = 0;
    for some in gone.chunks(BETWEEN_LOOKS) {
        for (name, _) in some {
            let deleted = engine.delete_staged(id(name)).await;
            assert_eq!(deleted, Ok(vstack_engine::DeleteOutcome::Deleted), "{name}");
        }
        emptied += keep_house(engine, superblock_bytes).await.emptied;
    }
    clock.seconds(2);
    let usage = engine.reader().usage(clock.monotonic()).unwrap();
    println!(
        "{} deleted, {emptied} superblocks emptied: {:.1} % full",
        gone.len(),
        usage.percent()
    );
    assert!(emptied > 0);
    put_one(engine, "comes-back", &held[0].1).await.unwrap();
    let outcome = engine.submit(Op::DeleteStaged { id: id("comes-back") }).await;
    assert!(matches!(outcome, Ok(Outcome::Deleted(_))));
    for (name, item) in &held {
        reads(name.clone(), item.clone()).await;
    }
}

#[tokio::test]
async fn a_disk_that_is_98_percent_full_gets_out_of_it() {
    let superblock_bytes = 1 << 20;
    for sparse in [false, true] {
        let disk = MemDisk::default();
        disk.set_sparse(sparse);
        disk.set_capacity(Some(40 << 20));
        let clock = Arc::new(Hand::default());
        let engine = Engine::open(disk.clone(), of(superblock_bytes), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let fill = || {
            let used = disk.usage().unwrap().used_bytes;
            disk.set_capacity(Some((used * 100 / 98).max(used + 64 * 1024)));
        };
        out_of_a_full_disk(&engine, &clock, superblock_bytes, fill).await;
        engine.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_system_that_is_98_percent_full_gets_out_of_it() {
    let Some(small) = SmallFileSystem::new(96 << 20) else {
        eprintln!("SKIPPED: no loop device with ext4 can be mounted here");
        return;
    };
    let superblock_bytes = 2 << 20;
    let data = small.path().join("node");
    let clock = Arc::new(Hand::default());
    let disk = FileDisk::new(&data).unwrap();
    let seen = FileDisk::new(&data).unwrap();
    let engine = Engine::open(disk, of(superblock_bytes), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let ballast = small.path().join("ballast");
    let fill = || {
        // What others put on it.
        let usage = seen.usage().unwrap();
        let wanted = usage.total_bytes * 98 / 100;
        let more = usize::try_from(wanted.saturating_sub(usage.used_bytes)).unwrap() + 64 * 1024;
        std::fs::write(&ballast, vec![1; more]).unwrap();
        std::fs::File::open(&ballast).unwrap().sync_all().unwrap();
    };
    out_of_a_full_disk(&engine, &clock, superblock_bytes, fill).await;
    tokio::time::timeout(Duration::from_secs(60), engine.close())
        .await
        .unwrap();
}

/// Deletions are written down too, and emptying a superblock takes room before it gives any: without any room they wait
/// until there is some, and reads do not.
#[tokio::test]
async fn a_disk_without_any_room_reads_and_goes_on_when_there_is_some() {
    let superblock_bytes = 1 << 20;
    let disk = MemDisk::default();
    disk.set_sparse(true);
    let clock = Arc::new(Hand::default());
    let engine = Engine::open(disk.clone(), of(superblock_bytes), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    // None is so large that its pages are given back where they are.
    let held: Vec<(String, Item)> = (0..200).map(|n| (format!("c{n}"), item(n, 30_000))).collect();
    for (name, item) in &held {
        put_one(&engine, name, item).await.unwrap();
    }
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
    let left: Vec<&str> = held.iter().map(|(name, _)| name.as_str()).step_by(2).collect();
    let full = Err(EngineError::Write(WriteError::DiskFull));
    assert_eq!(engine.delete_staged(id(left[0])).await, full);
    let all_read = || async {
        for (name, item) in held.iter().skip(1).step_by(2) {
            let found = engine.reader().find(&id(name), Which::Exact(item.sha256())).unwrap();
            assert_eq!(engine.read(&found, None).await.unwrap(), item.bytes()[..]);
        }
    };
    all_read().await;
    assert!(!engine.is_failed());
    let room = superblock_bytes;
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes + room));
    for some in left.chunks(BETWEEN_LOOKS) {
        for name in some {
            engine.delete_staged(id(name)).await.unwrap();
        }
        keep_house(&engine, superblock_bytes).await;
    }
    all_read().await;
    clock.seconds(2);
    put_one(&engine, "comes-back", &held[0].1).await.unwrap();
}
