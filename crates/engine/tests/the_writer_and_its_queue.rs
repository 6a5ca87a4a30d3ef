//! The writer's thread as others see it: what stands in its queue is bounded in bytes also when nobody waits for it
//! any more, and its end is noticed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use support::{
    ballot,
    gated::{Gate, Gated},
    id, item, me, options, other, placement,
};
use vstack_chunkpaxos::{Layout, Placement, Reply, Request};
use vstack_engine::{
    BufferPool, Disk, Engine, EngineError, Fault, ItemBuilder, MemDisk, PutMode, QUEUE_BYTES_MAX, Which, WriteError,
};
use vstack_types::SystemClock;

/// No wait is longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn opened<D: Disk>(disk: D) -> Engine<D> {
    let options = vstack_engine::StoreOptions {
        superblock_bytes: 4 << 20,
        ..options()
    };
    Engine::open(disk, options, Arc::new(SystemClock::start())).unwrap()
}

async fn fails<D: Disk>(engine: &Engine<D>) {
    tokio::time::timeout(PATIENCE, engine.failed())
        .await
        .expect("it is noticed");
    assert!(engine.is_failed());
}

#[tokio::test]
async fn bytes_that_nobody_waits_for_still_count() {
    const LEN: usize = 1 << 20;
    let disk = Gated::default();
    let engine = opened(disk.clone());
    disk.syncs.set(Gate::Shut);
    let mut context = Context::from_waker(Waker::noop());
    for n in 0..2 * QUEUE_BYTES_MAX / LEN {
        let put = engine.put(id(&format!("c{n}")), item(n as u64, LEN), PutMode::Item);
        // Asked, and gone: the client hangs up.
        assert!(matches!(pin!(put).poll(&mut context), Poll::Pending));
    }
    assert_eq!(engine.queued_bytes(), QUEUE_BYTES_MAX, "and not a byte more");
    disk.syncs.set(Gate::Open);
    // Behind all of them.
    engine.put(id("last"), item(0, 10), PutMode::Item).await.unwrap();
    let stored = u64::try_from(QUEUE_BYTES_MAX / LEN).unwrap();
    assert_eq!(engine.reader().stats().chunk_count, stored + 1);
    assert_eq!(engine.queued_bytes(), 0);
    engine.close().await;
    assert!(!engine.is_failed(), "closed in order");
}

#[tokio::test]
async fn memory_of_items_is_bounded_and_free_when_they_are_written_and_not_before() {
    const LEN: usize = 100_000;
    let pool = BufferPool::new(LEN, 3);
    let disk = Gated::default();
    let engine = opened(disk.clone());
    disk.syncs.set(Gate::Shut);
    let mut context = Context::from_waker(Waker::noop());
    for n in 0..3_u8 {
        let mut builder = ItemBuilder::new(pool.take().await);
        builder.push(&vec![n; LEN]).unwrap();
        let put = engine.put(id(&format!("c{n}")), builder.finish(), PutMode::Item);
        // Asked, and gone: the client hangs up.
        assert!(matches!(pin!(put).poll(&mut context), Poll::Pending));
    }
    assert_eq!((pool.used_bytes(), pool.bytes_max()), (3 * LEN, 3 * LEN));
    let mut fourth = pin!(pool.take());
    assert!(
        matches!(fourth.as_mut().poll(&mut context), Poll::Pending),
        "there is no more"
    );
    disk.syncs.set(Gate::Open);
    drop(tokio::time::timeout(PATIENCE, fourth).await.expect("they are written"));
    // Behind all of them.
    engine.put(id("last"), item(0, 10), PutMode::Item).await.unwrap();
    assert_eq!((pool.used_bytes(), pool.allocated_bytes()), (0, 3 * LEN));
    for n in 0..3_u8 {
        let found = engine.reader().find(&id(&format!("c{n}")), Which::Public).unwrap();
        assert_eq!(engine.read(&found, None).await.unwrap(), vec![n; LEN]);
    }
    engine.close().await;
}

#[tokio::test]
async fn a_failed_sync_is_noticed() {
    let disk = MemDisk::default();
    let engine = opened(disk.clone());
    assert!(!engine.is_failed());
    disk.plan(disk.changes() + 2, Fault::Error);
    let put = engine.put(id("c"), item(1, 100), PutMode::Plain).await;
    assert!(matches!(put, Err(EngineError::Write(WriteError::Failed { .. }))));
    fails(&engine).await;
}

#[tokio::test]
async fn a_panic_of_the_thread_is_noticed() {
    let disk = Gated::default();
    let engine = opened(disk.clone());
    disk.syncs.set(Gate::Panics);
    let put = engine.put(id("c"), item(1, 100), PutMode::Plain).await;
    assert_eq!(put, Err(EngineError::Write(WriteError::Closed)));
    fails(&engine).await;
}

#[tokio::test]
async fn an_end_that_could_not_be_marked_is_marked_when_there_is_room() {
    let disk = MemDisk::default();
    // Where nothing can be preallocated.
    disk.set_sparse(true);
    let engine = opened(disk.clone());
    engine.put(id("c"), item(1, 100), PutMode::Plain).await.unwrap();
    let used = || disk.usage().unwrap().used_bytes;
    disk.set_capacity(Some(used()));
    let before = disk.changes();
    let until = |condition: &dyn Fn() -> bool| {
        let began = std::time::Instant::now();
        while !condition() {
            assert!(began.elapsed() < PATIENCE, "it is not tried again");
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    until(&|| disk.changes() > before);
    let full = used();
    disk.set_capacity(None);
    until(&|| used() > full);
    engine.close().await;
}

/// A vote about a move asks the disk for all bytes that it vouches for.
#[tokio::test]
async fn who_writes_does_not_wait_for_what_a_vote_reads_back() {
    let disk = Gated::default();
    let engine = Arc::new(opened(disk.clone()));
    let bytes = item(1, 100_000);
    let mode = PutMode::Vote {
        ballot: ballot(0),
        placement: placement(&bytes, 1, &[me(), other()]),
    };
    engine.put(id("c"), bytes.clone(), mode).await.unwrap();
    disk.reads.set(Gate::Shut);
    let from = Layout::Replicated {
        nodes: vec![me(), other()],
    };
    let moved = Placement {
        prev: Some(from),
        ..placement(&bytes, 2, &[me()])
    };
    let votes = tokio::spawn({
        let (engine, ballot) = (Arc::clone(&engine), ballot(4));
        let request = Request::Accept {
            ballot,
            placement: moved,
        };
        async move { engine.paxos(id("c"), request).await }
    });
    let reads = disk.reads.clone();
    tokio::task::spawn_blocking(move || reads.is_waited_at()).await.unwrap();
    let put = engine.put(id("new"), item(2, 10), PutMode::Plain);
    let put = tokio::time::timeout(PATIENCE / 2, put).await;
    assert!(!votes.is_finished(), "it vouches for what was not read back");
    disk.reads.set(Gate::Open);
    assert!(put.is_ok_and(|put| put.is_ok()), "it waits for the reads of a vote");
    let reply = votes.await.unwrap().unwrap();
    assert!(matches!(reply, Reply::Accepted { .. }), "{reply:?}");
    engine.close().await;
}
