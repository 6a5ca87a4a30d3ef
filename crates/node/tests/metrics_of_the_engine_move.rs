//! Every metric of a node's engine that `docs/metrics.md` names moves when what it says happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use reqwest::Method;
use support::*;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};
use vstack_chunkpaxos::Request;
use vstack_engine::FileDisk;
use vstack_node::Node;
use vstack_types::{NodeRef, NodeUuid};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");
/// Shares pages with others: its superblock has to be emptied.
const SMALL: usize = 60_000;
/// More than one superblock of them.
const SMALL_COUNT: usize = 320;
const LARGE: usize = 2 << 20;
/// Those that put while it is looked whether anything waits.
const WRITERS: usize = 4;

/// Names in the document's part on the engine, and what times it has of which operations.
fn documented() -> Vec<String> {
    let (_, section) = DOCUMENT.split_once("## The storage engine of a node\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let named = section.split('`').skip(1).step_by(2);
    let mut names: Vec<_> = named
        .filter(|name| name.starts_with("vstack_"))
        .map(|name| name.split('{').next().unwrap().to_owned())
        .collect();
    let (_, operations) = section.split_once("| operation | from, to |").unwrap();
    let rows = operations.lines().skip(2).take_while(|line| line.starts_with('|'));
    names.extend(rows.map(|row| {
        let operation = row.split('`').nth(1).unwrap();
        format!("vstack_operation_seconds_count{{operation=\"{operation}\"}}")
    }));
    names.sort_unstable();
    names.dedup();
    assert!(names.len() > 35, "{names:?}");
    names
}

/// The largest value of any series of a metric; of a histogram, how often it was observed.
fn largest(text: &str, name: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = rest.strip_prefix("_count").unwrap_or(rest);
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then(|| value.parse::<f64>().unwrap())
    });
    values.fold(0.0, f64::max)
}

/// The largest values so far: some are those of a moment.
struct Seen(BTreeMap<String, f64>);

impl Seen {
    /// Looks, and says whether all of `names` were above zero at some time.
    async fn all(&mut self, node: &TestNode, names: &[&str]) -> bool {
        let text = node.get("/metrics").await.text().await.unwrap();
        for (name, value) in &mut self.0 {
            *value = value.max(largest(&text, name));
        }
        names.iter().all(|name| self.0[*name] > 0.0)
    }

    async fn until(&mut self, node: &TestNode, names: &[&str]) {
        until(&format!("{names:?} move"), async || self.all(node, names).await).await;
    }

    fn still(&self) -> Vec<&String> {
        let still = self.0.iter().filter(|(_, value)| **value == 0.0);
        still.map(|(name, _)| name).collect()
    }
}

/// Bytes that no other chunk has.
fn small(number: usize) -> Vec<u8> {
    let mut bytes = bytes(SMALL);
    bytes[1000..1008].copy_from_slice(&number.to_le_bytes());
    bytes
}

async fn filled(dir: &Path) {
    let node = TestNode::start(settings(dir, &["--gc-interval", "86400"])).await;
    for number in 0..SMALL_COUNT {
        let put = node.put(&format!("/chunk/small-{number}"), &small(number)).await;
        assert_eq!(put.status(), 201);
    }
    assert_eq!(node.put("/chunk/large", &bytes(LARGE)).await.status(), 201);
    assert!(metric(&node, "vstack_superblocks").await > 1);
    node.stop().await;
}

/// A PUT that stays where it is, half sent.
async fn half_a_put(node: &TestNode) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let host = node.address;
    let head = format!("PUT /chunk/half HTTP/1.1\r\nHost: {host}\r\nContent-Length: {LARGE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&bytes(LARGE / 2)).await.unwrap();
    stream
}

/// A reader that asks for more than sockets hold, and reads nothing.
async fn reads_nothing(node: &TestNode) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let get = format!("GET /chunk/large HTTP/1.1\r\nHost: {}\r\n\r\n", node.address);
    stream.write_all(get.repeat(16).as_bytes()).await.unwrap();
    stream
}

async fn delete_half(node: &TestNode) {
    let odd = (1..SMALL_COUNT)
        .step_by(2)
        .map(|number| format!("/chunk/small-{number}"));
    for path in odd.chain(["/chunk/large".to_owned()]) {
        let gone = node.request(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(gone.status(), 204);
    }
}

/// Puts one chunk after the other, so that some wait.
fn writers(node: &Arc<TestNode>) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let node = Arc::clone(node);
        writers.spawn(async move {
            for number in 0.. {
                let put = node.put(&format!("/chunk/w{writer}-{number}"), &bytes(LARGE)).await;
                assert_eq!(put.status(), 201);
            }
        });
    }
    writers
}

#[tokio::test(flavor = "multi_thread")]
async fn none_of_them_stays_at_zero() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let often = [
        "--gc-interval",
        "1",
        "--gc-grace",
        "1",
        "--scrub-period",
        "1",
        "--checkpoint-records",
        "1",
    ];
    let path = dir.path().to_owned();
    // What is lent from the page cache takes no memory.
    let copied = move || FileDisk::new(path).map(FileDisk::that_lends_nothing);
    let node = Node::start_on(settings(dir.path(), &often), copied).await.unwrap();
    let node = Arc::new(TestNode::serving(node));
    let names = documented();
    let mut seen = Seen(names.iter().map(|name| (name.clone(), 0.0)).collect());

    // Twice: read from the disk, and known.
    for _ in 0..2 {
        assert_eq!(node.get("/chunk/small-0").await.bytes().await.unwrap(), small(0));
    }
    let index = ["vstack_index_misses_total", "vstack_index_hits_total"];
    seen.until(&node, &index).await;
    let vote = put0(b"x", &[node.me]);
    let bytes = b"x".to_vec().into();
    peers()
        .put_vote(&node.holder(), &id("voted"), &vote, bytes)
        .await
        .unwrap();
    let prepare = Request::Prepare { ballot: ballot(3) };
    peers().paxos(&node.holder(), &id("voted"), &prepare).await.unwrap();
    // It is elsewhere from now on, and is collected here.
    let moved = Request::Decided {
        ballot: ballot(4),
        placement: placement(b"x", 2, &[NodeRef::first(NodeUuid::random())]),
    };
    peers().paxos(&node.holder(), &id("voted"), &moved).await.unwrap();
    let half = half_a_put(&node).await;
    seen.until(&node, &["vstack_arriving_bytes"]).await;
    drop(half);
    let slow = reads_nothing(&node).await;
    seen.until(&node, &["vstack_sending_bytes"]).await;
    drop(slow);

    damage(dir.path(), &small(2));
    let damaged = ["vstack_scrub_findings_total", "vstack_engine_quarantined_total"];
    seen.until(&node, &damaged).await;
    seen.until(&node, &["vstack_scrub_bytes_total", "vstack_scrub_completed_seconds"])
        .await;

    delete_half(&node).await;
    let space = [
        "vstack_operation_seconds_count{operation=\"collect\"}",
        "vstack_space_moved_bytes_total",
        "vstack_space_emptied_total",
        "vstack_space_reclaimed_bytes_total",
        "vstack_operation_seconds_count{operation=\"checkpoint\"}",
    ];
    seen.until(&node, &space).await;

    let mut writers = writers(&node);
    seen.until(&node, &["vstack_queue_operations", "vstack_queue_bytes"])
        .await;
    writers.shutdown().await;
    assert_eq!(seen.still(), Vec::<&String>::new());
    Arc::into_inner(node).expect("nobody writes any more").stop().await;
}
