//! A node that has nothing to do makes order: what it takes of a real disk comes down to what it holds, and nobody asks for
//! that.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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

use reqwest::Method;
use support::*;
use vstack_client::{HttpClient, Timeouts};
use vstack_engine::{BoxedDisk, FileDisk, Runs};
use vstack_node::{OpenNode, Parts};
use vstack_types::{Clock, Monotonic, SystemClock, Timestamp};

const SUPERBLOCK: u64 = 8 << 20;

/// None is so large that a hole gives it back. Put one by one, a sixth of what they take is waste.
const CHUNK: usize = 30_000;

/// More than one superblock of them.
const CHUNKS: usize = 300;

/// Deleted, all in the first superblock: a quarter of it is waste then, which is not worth it beside other work.
const GONE: usize = 20;

/// Bytes of what is left.
const HELD: u64 = ((CHUNKS - GONE) * CHUNK) as u64;

/// The clock of the machine, ahead by as much as it was moved.
struct Moved {
    system: SystemClock,
    by_seconds: AtomicU64,
}

impl Moved {
    fn start() -> Arc<Self> {
        Arc::new(Self {
            system: SystemClock::start(),
            by_seconds: AtomicU64::new(0),
        })
    }

    /// For longer than a node waits before it gives back what it took ahead.
    fn on(&self) {
        self.by_seconds.fetch_add(11, Ordering::SeqCst);
    }

    fn by(&self) -> Duration {
        Duration::from_secs(self.by_seconds.load(Ordering::SeqCst))
    }
}

impl Clock for Moved {
    fn monotonic(&self) -> Monotonic {
        self.system.monotonic() + self.by()
    }

    fn wall(&self) -> Timestamp {
        self.system.wall().plus(self.by())
    }
}

async fn start(directory: &Path, clock: &Arc<Moved>, more: &[&str]) -> TestNode {
    let mut settings = settings(directory, &[&["--gc-interval", "1"][..], more].concat());
    settings.max_superblock_size = SUPERBLOCK;
    let clock: Arc<dyn Clock> = clock.clone();
    let parts = Parts {
        disk: BoxedDisk::new(FileDisk::new(directory).unwrap()),
        runs: Runs::OnAThread,
        clock,
        http: HttpClient::new(Some(secret()), Timeouts::default()).unwrap(),
    };
    TestNode::serving_on(OpenNode::open(parts, settings).await.unwrap()).await
}

fn path(number: usize) -> String {
    format!("/chunk/c{number}")
}

async fn fill(node: &TestNode) {
    let chunk = bytes(CHUNK);
    for number in 0..CHUNKS {
        assert_eq!(node.put(&path(number), &chunk).await.status(), 201);
    }
    for number in 0..GONE {
        let gone = node.request(Method::DELETE, &path(number)).send().await.unwrap();
        assert_eq!(gone.status(), 204);
    }
}

/// What superblocks take of the filesystem.
fn taken(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let superblocks = files.filter(|file| file.path().extension().is_some_and(|of| of == "vsb"));
    // One may go meanwhile.
    let taken = superblocks.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512));
    taken.sum()
}

async fn holds(node: &TestNode) {
    for number in (0..CHUNKS).step_by(10) {
        let got = node.get(&path(number)).await;
        if number < GONE {
            assert_eq!(got.status(), 404, "{number}");
        } else {
            assert_eq!(got.bytes().await.unwrap(), bytes(CHUNK), "{number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_takes_comes_down_to_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Moved::start();
    let node = start(directory.path(), &clock, &[]).await;
    fill(&node).await;
    until("it takes little more than it holds", async || {
        clock.on();
        taken(directory.path()) * 10 <= HELD * 12
    })
    .await;
    assert!(metric(&node, "vstack_space_emptied_total").await > 0);
    holds(&node).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn less_waste_than_is_asked_for_is_left_and_space_ahead_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Moved::start();
    let node = start(directory.path(), &clock, &["--compact-idle-percent", "90"]).await;
    fill(&node).await;
    let before = taken(directory.path());
    until("space ahead is given back", async || {
        clock.on();
        taken(directory.path()) + SUPERBLOCK / 2 <= before
    })
    .await;
    assert_eq!(metric(&node, "vstack_space_emptied_total").await, 0);
    assert!(taken(directory.path()) * 10 > HELD * 12, "nothing is written again");
    holds(&node).await;
    assert_eq!(node.put("/chunk/next", &bytes(CHUNK)).await.status(), 201);
    assert_eq!(node.get("/chunk/next").await.bytes().await.unwrap(), bytes(CHUNK));
    node.stop().await;
}
