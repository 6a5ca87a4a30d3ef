//! Somebody else cuts, removes or swaps the files of a running node, or of one that starts: what is gone is said to be
//! gone, and nothing is acknowledged that would not be there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{fs::File, path::Path};

use reqwest::{Client, StatusCode};
use support::*;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vstack_api::{
    ErrorBody, ErrorCode,
    node::{DiskStatus, NodeHealth},
};
use vstack_engine::{Adoption, FileDisk};
use vstack_node::{Node, RunError};
use vstack_types::{Clock as _, NodeUuid, SystemClock};

const CHUNK: usize = 2 << 20;

fn superblock(dir: &Path, number: u32) -> std::path::PathBuf {
    dir.join(format!("superblock_{number:06}.vsb"))
}

fn set_len(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// A chunk that differs by its number.
fn chunk(number: u8) -> Vec<u8> {
    let mut chunk = bytes(CHUNK);
    chunk[..100].fill(number);
    chunk
}

/// More chunks than one superblock holds, each of them read once.
async fn fill(node: &TestNode) {
    for number in 0..9 {
        assert_eq!(
            node.put(&format!("/chunk/c{number}"), &chunk(number)).await.status(),
            201
        );
    }
    for number in 0..9 {
        let read = node.get(&format!("/chunk/c{number}")).await.bytes().await.unwrap();
        assert!(read == chunk(number), "{number}");
    }
}

async fn refusal(node: &TestNode, path: &str) -> (StatusCode, ErrorCode) {
    let answer = node.get(path).await;
    let status = answer.status();
    (status, answer.json::<ErrorBody>().await.unwrap().code)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_is_damaged_whenever_it_was_hashed() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    fill(&node).await;
    let first = superblock(dir.path(), 0);
    let whole = first.metadata().unwrap().len();
    // In the middle of the second chunk.
    set_len(&first, 3 << 20);
    let corrupt = (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Corrupt);
    assert_eq!(refusal(&node, "/chunk/c1").await, corrupt);
    assert_eq!(refusal(&node, "/chunk/c5").await, corrupt);
    assert_eq!(node.get("/chunk/c0").await.bytes().await.unwrap(), chunk(0));
    assert_eq!(node.get("/chunk/c8").await.bytes().await.unwrap(), chunk(8));
    assert_eq!(metric(&node, "vstack_engine_quarantined_total").await, 2);
    // It does not become whole by becoming long again, and what nobody asked for meanwhile is not vouched for.
    assert_eq!(
        node.put("/chunk/c3", &chunk(3)).await.status(),
        201,
        "it is stored again"
    );
    set_len(&first, whole);
    assert_eq!(refusal(&node, "/chunk/c1").await, corrupt);
    assert_eq!(
        refusal(&node, "/chunk/c4").await,
        corrupt,
        "its file was seen to be short"
    );
    assert_eq!(node.get("/chunk/c3").await.bytes().await.unwrap(), chunk(3));
    node.stop().await;
}

/// A node that ends by itself, and who asks it.
struct Ending {
    url: String,
    client: Client,
    ended: JoinHandle<Result<(), RunError>>,
}

impl Ending {
    async fn start(dir: &Path, more: &[&str]) -> Self {
        let node = Node::start(settings(dir, more)).await.unwrap();
        Self {
            url: format!("http://{}", node.address()),
            client: Client::builder().no_proxy().build().unwrap(),
            ended: tokio::spawn(node.serve(CancellationToken::new())),
        }
    }

    async fn put(&self, name: &str, body: Vec<u8>) -> Option<StatusCode> {
        let put = self.client.put(format!("{}/chunk/{name}", self.url)).body(body);
        put.timeout(PATIENCE).send().await.ok().map(|answer| answer.status())
    }

    async fn ended(self) {
        let ended = tokio::time::timeout(PATIENCE, self.ended).await.expect("it ends");
        let ended = ended.unwrap();
        assert!(matches!(ended, Err(RunError::Writer { .. })), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_behind_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    let node = Ending::start(dir.path(), &[]).await;
    assert_eq!(node.put("a", bytes(50_000)).await.unwrap(), 201);
    let first = superblock(dir.path(), 0);
    set_len(&first, 8192);
    assert_ne!(node.put("b", bytes(1000)).await, Some(StatusCode::CREATED));
    assert_eq!(first.metadata().unwrap().len(), 8192, "nothing is written behind it");
    node.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_in_a_directory_that_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("data");
    let node = Ending::start(&place, &[]).await;
    assert_eq!(node.put("a", bytes(50_000)).await.unwrap(), 201);
    std::fs::remove_dir_all(&place).unwrap();
    assert_ne!(node.put("b", bytes(1000)).await, Some(StatusCode::CREATED));
    node.ended().await;
    assert!(!place.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_notices_that_its_directory_is_gone_or_another() {
    for another in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("data");
        let node = Ending::start(&place, &["--gc-interval", "1"]).await;
        std::fs::rename(&place, dir.path().join("away")).unwrap();
        if another {
            TestNode::start(settings(&place, &[])).await.stop().await;
        }
        node.ended().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_in_a_superblock_that_is_missing_is_not_called_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    fill(&node).await;
    assert_eq!(refusal(&node, "/chunk/never").await.0, 404);
    node.stop().await;
    let away = dir.path().join("away");
    std::fs::rename(superblock(dir.path(), 0), &away).unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let unknown = (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Incomplete);
    assert_eq!(refusal(&node, "/chunk/c0").await, unknown);
    let head = node.head("/chunk/c0").await;
    assert_eq!(
        (head.status().as_u16(), header(&head, "x-error-code")),
        (503, "incomplete")
    );
    assert_eq!(node.get("/chunk/c8").await.bytes().await.unwrap(), chunk(8));
    let health = node.get("/health").await;
    assert_eq!(health.status(), 200);
    let text = health.text().await.unwrap();
    let health: NodeHealth = serde_json::from_str(&text).unwrap();
    assert_eq!(health.lost_superblocks, [0]);
    assert!(text.contains("\"status\":\"degraded\""), "{text}");
    let kept = node.request(reqwest::Method::DELETE, "/chunk/c8").send().await.unwrap();
    assert_eq!(kept.status(), 409);
    assert!(kept.text().await.unwrap().contains("is not known"));
    node.stop().await;
}

async fn health_of(node: &TestNode) -> NodeHealth {
    node.get("/health").await.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_under_a_name_given_up_is_of_no_more_concern() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    fill(&node).await;
    node.stop().await;
    std::fs::remove_file(superblock(dir.path(), 0)).unwrap();
    let disk = FileDisk::new(dir.path()).unwrap();
    let adoption = Adoption::look(disk, 16 << 20, SystemClock::start().wall()).unwrap();
    adoption.adopt(NodeUuid::random()).unwrap();

    let node = TestNode::start(settings(dir.path(), &[])).await;
    let never_here = (StatusCode::NOT_FOUND, ErrorCode::NotFound);
    assert_eq!(refusal(&node, "/chunk/c0").await, never_here);
    assert_eq!(node.get("/chunk/c8").await.bytes().await.unwrap(), chunk(8));
    let health = health_of(&node).await;
    assert_eq!((health.status, health.lost_superblocks), (DiskStatus::Healthy, vec![]));
    for number in 10..19 {
        let stored = node.put(&format!("/chunk/c{number}"), &chunk(number)).await;
        assert_eq!(stored.status(), 201);
    }
    node.stop().await;

    std::fs::remove_file(superblock(dir.path(), 2)).unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let unknown = (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Incomplete);
    assert_eq!(refusal(&node, "/chunk/c10").await, unknown);
    let health = health_of(&node).await;
    assert_eq!(
        (health.status, health.lost_superblocks),
        (DiskStatus::Degraded, vec![2])
    );
    node.stop().await;
}

async fn refused(settings: vstack_node::Settings) -> String {
    let Err(error) = Node::start(settings).await else {
        panic!("it starts");
    };
    let source = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_somebody_else_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("thesis.odt");
    std::fs::write(&theirs, b"x").unwrap();
    let error = refused(settings(dir.path(), &[])).await;
    assert!(error.contains("thesis.odt"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "not even a lock");
    let error = refused(settings(&theirs, &[])).await;
    assert!(error.contains(theirs.to_str().unwrap()), "{error}");
    // A fresh filesystem is nobody's.
    std::fs::remove_file(theirs).unwrap();
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let error = refused(settings(dir.path(), &[])).await;
    assert!(error.contains("in use by another process"), "{error}");
    node.stop().await;
}
