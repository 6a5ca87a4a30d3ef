//! Short scenes for what no history of the campaign comes to.

use std::{sync::Arc, time::Duration};

use vstack_engine::{Disk as _, Engine, MemDisk, Op, Runs, Store, StoreOptions, Which};
use vstack_types::{NodeUuid, SystemClock};

use crate::support::*;

/// A scene, and what is wrong when it is.
pub type Scene = fn() -> Result<(), String>;

fn right(is: bool, wrong: &str) -> Result<(), String> {
    is.then_some(()).ok_or_else(|| wrong.to_owned())
}

/// An item that is deleted is read to its end by who found it before.
pub fn a_reader_outlives_a_deletion() -> Result<(), String> {
    let disk = MemDisk::default();
    let mut store = open(&disk);
    let bytes = item(1, 100_000);
    one(&mut store, put("a", &bytes)).unwrap();
    let reader = store.reader();
    let found = reader.find(&id("a"), Which::Public).unwrap();
    one(&mut store, Op::DeleteStaged { id: id("a") }).unwrap();
    reader.reclaim().unwrap();
    let read = reader.read(&found, None, at(2).monotonic);
    right(
        read.is_ok_and(|read| read == *bytes.bytes()),
        "a reader loses the bytes it found",
    )
}

/// What is wrong with an item is found by one scrub, read before or not.
pub fn a_scrub_finds_what_rotted_after_it_was_read() -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let disk = MemDisk::default();
        // In this thread, where the fault is planted.
        let runs = Runs::AsATask(Arc::new(|| Duration::ZERO));
        let clock = Arc::new(SystemClock::start());
        let engine = Engine::open_as(disk.clone(), options(), clock, runs).unwrap();
        let bytes = item(1, 70_000);
        engine.submit(put_vote("a", &bytes)).await.unwrap();
        let found = engine.reader().find(&id("a"), Which::Public).unwrap();
        engine.read(&found, None).await.unwrap();
        let file = "superblock_000000.vsb";
        let part = &bytes.bytes()[40_000..40_100];
        let contents = disk.contents(file);
        disk.flip(file, contents.windows(100).position(|window| window == part).unwrap());
        let scrubbed = engine.scrub(0, u64::MAX, |_| {}).await.unwrap();
        engine.close().await;
        right(
            scrubbed.damaged == [(id("a"), bytes.sha256())],
            "a scrub does not find what rotted",
        )
    })
}

/// The checkpoint of another disk changes nothing.
pub fn a_checkpoint_of_another_disk_is_left_alone() -> Result<(), String> {
    const CHECKPOINT: &str = "checkpoint";
    let (disk, other) = (MemDisk::default(), MemDisk::default());
    let mut store = open(&disk);
    let names: Vec<String> = (0..10).map(|n| format!("c{n}")).collect();
    for name in &names {
        one(&mut store, put_vote(name, &item(1, 3000))).unwrap();
    }
    drop(store);
    let others = StoreOptions {
        new_uuid: NodeUuid::from_bytes([8; 16]),
        ..options()
    };
    let mut store = Store::open(other.clone(), others, at(0)).unwrap();
    one(&mut store, put("d", &item(2, 3000))).unwrap();
    store.reader().write_checkpoint().unwrap();
    drop(store);
    disk.plant(CHECKPOINT, &other.contents(CHECKPOINT));
    let opened = Store::open(disk.clone(), options(), at(1));
    let store = opened.map_err(|error| format!("not opened: {error}"))?;
    let all = names.iter().all(|name| served(&store.reader(), name).is_some());
    right(all && served(&store.reader(), "d").is_none(), "another disk is opened")?;
    right(disk.list().unwrap().contains(&CHECKPOINT.to_owned()), "it is gone")
}
