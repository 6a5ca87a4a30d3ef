//! The engine's thread: many writers share a sync, on real files, and a restart finds everything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use support::{id, item, options, put_vote};
use vstack_engine::{Engine, FileDisk, MemDisk, Op, OpenError, PutMode, Store, Which};
use vstack_types::{Clock, SystemClock};

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::start())
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_wait_together_share_a_sync() {
    const WRITERS: u64 = 64;
    let engine = Arc::new(Engine::open(MemDisk::default(), options(), clock()).unwrap());
    // The thread is given its first batch while the others queue up behind it: the more wait, the fewer syncs.
    let tasks: Vec<_> = (0..WRITERS)
        .map(|n| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                engine
                    .put(id(&format!("c{n}")), item(n, 2000), PutMode::Plain)
                    .await
                    .unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = engine.reader().stats();
    assert_eq!((stats.ops, stats.chunk_count), (WRITERS, WRITERS));
    assert!(stats.syncs <= stats.batches + 1 && stats.batches <= WRITERS);
}

#[test]
fn a_batch_is_one_sync_however_many_operations_it_has() {
    let disk = MemDisk::default();
    let mut store = Store::open(disk.clone(), options(), support::at(0)).unwrap();
    let before = disk.syncs();
    let results = store.commit(
        (0..50).map(|n| put_vote(&format!("c{n}"), &item(n, 1000))).collect(),
        support::at(1),
    );
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(disk.syncs(), before + 1);
    // Nothing to write, nothing to sync.
    store.commit(
        (0..50).map(|n| put_vote(&format!("c{n}"), &item(n, 1000))).collect(),
        support::at(2),
    );
    assert_eq!(disk.syncs(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_files_keep_everything_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = || FileDisk::new(dir.path()).unwrap();
    let engine = Engine::open(disk(), options(), clock()).unwrap();
    for n in 0..30 {
        let Op::Put { id, item, mode } = put_vote(&format!("c{n}"), &item(n, 30_000)) else {
            unreachable!()
        };
        engine.put(id, item, mode).await.unwrap();
    }
    assert!(matches!(
        Engine::open(disk(), options(), clock()),
        Err(OpenError::Locked)
    ));
    let (seq, me) = (engine.reader().log_seq(), engine.reader().me());
    engine.close().await;

    let engine = Engine::open(disk(), options(), clock()).unwrap();
    assert!(engine.report().damage.is_empty() && engine.report().torn_bytes == 0);
    assert_eq!(engine.reader().me(), me);
    assert!(engine.reader().log_seq() > seq);
    assert!(engine.reader().stats().superblocks > 3);
    for n in 0..30 {
        let found = engine.reader().find(&id(&format!("c{n}")), Which::Public).unwrap();
        let bytes = item(n, 30_000);
        assert_eq!(engine.read(&found, None).await.unwrap(), *bytes.bytes());
        let range = vstack_types::ByteRange {
            start: 100,
            end: 29_999,
        };
        assert_eq!(engine.read(&found, Some(range)).await.unwrap(), bytes.bytes()[100..]);
        assert!(
            engine
                .reader()
                .register(&id(&format!("c{n}")))
                .unwrap()
                .accepted
                .is_some()
        );
    }
    engine.close().await;

    // A byte on the medium changes: the copy is never served and the register abstains, also after a restart.
    let path = dir.path().join("superblock_000000.vsb");
    let mut contents = std::fs::read(&path).unwrap();
    let at = contents
        .windows(64)
        .position(|bytes| bytes == &item(0, 30_000).bytes()[..64])
        .unwrap();
    contents[at] ^= 1;
    std::fs::write(&path, contents).unwrap();
    let engine = Engine::open(disk(), options(), clock()).unwrap();
    let found = engine.reader().find(&id("c0"), Which::Public).unwrap();
    engine.read(&found, None).await.unwrap_err();
    assert!(engine.reader().register(&id("c0")).unwrap().damaged);
    engine.close().await;
    let engine = Engine::open(disk(), options(), clock()).unwrap();
    assert!(engine.reader().register(&id("c0")).unwrap().damaged);
    assert!(engine.reader().find(&id("c0"), Which::Public).is_err());
    engine.close().await;
}
