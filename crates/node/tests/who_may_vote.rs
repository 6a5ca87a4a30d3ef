//! A node that is to register votes once it was accepted, abstains when it was refused, and a directory that went back
//! in time never gets past that, however long it is tried.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{path::Path, sync::Arc};

use support::{
    claim_watch::ClaimWatch,
    registry::{Metadata, serve},
    *,
};
use vstack_api::{ErrorCode, consensus::NodeStanding};
use vstack_chunkpaxos::{Reply, Request};
use vstack_client::{ClientError, HttpClient, Timeouts};
use vstack_engine::{Adoption, BoxedDisk, Disk as _, Engine, FileDisk, OpenError, Reason, Runs, StoreOptions};
use vstack_node::{Node, OpenNode, Parts, RunError, Settings};
use vstack_types::{Clock as _, NodeUuid, SystemClock};

/// Settings of a node "n" that is to register at `url`.
fn registering(dir: &Path, url: &str) -> Settings {
    let flags = [
        "--metadata-service-url",
        url,
        "--node-id",
        "n",
        "--heartbeat-interval",
        "1",
    ];
    settings(dir, &flags)
}

async fn start(dir: &Path, url: &str) -> TestNode {
    TestNode::start(registering(dir, url)).await
}

async fn vote(node: &TestNode, name: &str) -> Result<Reply, ClientError> {
    let vote = put0(b"x", &[node.me]);
    peers()
        .put_vote(&node.holder(), &id(name), &vote, b"x".to_vec().into())
        .await
}

async fn ask(node: &TestNode, request: Request) -> Result<Reply, ClientError> {
    peers().paxos(&node.holder(), &id("asked"), &request).await
}

fn accepted() -> Reply {
    Reply::Accepted { ballot: ballot(0) }
}

fn later(answer: &Result<Reply, ClientError>) -> bool {
    answer.as_ref().err().and_then(ClientError::code) == Some(ErrorCode::Unavailable)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_votes_from_its_first_registration_on_also_when_the_service_goes_away() {
    let (metadata, url, service) = serve(503).await;
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &url).await;
    assert!(later(&vote(&node, "early").await));
    let prepare = || Request::Prepare { ballot: ballot(1) };
    assert!(later(&ask(&node, prepare()).await));
    assert!(later(&ask(&node, Request::Read).await));
    assert_eq!(node.put("/chunk/plain", b"x").await.status(), 201);
    let delete = node
        .request(reqwest::Method::DELETE, "/chunk/plain")
        .send()
        .await
        .unwrap();
    assert_eq!(header(&delete, "retry-after"), "1");
    assert_eq!(refusal(delete).await, (503, ErrorCode::Unavailable));
    assert_eq!(node.get("/chunk/plain").await.status(), 200);
    let decided = Request::Decided {
        ballot: ballot(0),
        placement: placement(b"x", 1, &[node.me]),
    };
    let told = peers().decided(&node.holder(), &[(id("told"), decided)]).await;
    assert!(told.is_ok(), "what others decided is always welcome");

    metadata.lock().unwrap().status = 200;
    until("it votes when it is registered", async || {
        vote(&node, "early").await.ok() == Some(accepted())
    })
    .await;
    metadata.lock().unwrap().status = 503;
    let heard = metadata.lock().unwrap().heartbeats;
    until("it notices", async || metadata.lock().unwrap().heartbeats > heard).await;
    assert_eq!(vote(&node, "away").await.unwrap(), accepted());
    service.abort();
    assert_eq!(vote(&node, "gone").await.unwrap(), accepted());
    node.stop().await;
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_went_back_in_time_never_votes_again() {
    let (metadata, url, service) = serve(200).await;
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &url).await;
    until("it votes", async || vote(&node, "kept").await.is_ok()).await;
    node.stop().await;
    let snapshot = tempfile::tempdir().unwrap();
    copy(dir.path(), snapshot.path());
    let node = start(dir.path(), &url).await;
    until("it votes", async || vote(&node, "forgotten").await.is_ok()).await;
    let known = || metadata.lock().unwrap().known["n"];
    let before = known();
    until("its log is known", async || known() > before + 1).await;
    node.stop().await;

    // The snapshot, started again and again while the service is away, and written to.
    let mut claims = Vec::new();
    for (status, restart) in [(503, 0), (503, 1), (200, 2), (200, 3)] {
        metadata.lock().unwrap().status = status;
        metadata.lock().unwrap().claimed.clear();
        let node = start(snapshot.path(), &url).await;
        for n in 0..10 {
            let put = node.put(&format!("/chunk/plain-{restart}-{n}"), b"x").await;
            assert_eq!(put.status(), 201, "bytes that need no vote are taken");
        }
        if status == 200 {
            until("it is refused", async || {
                vote(&node, "forgotten").await.ok() == Some(Reply::Damaged)
            })
            .await;
            let prepare = Request::Prepare { ballot: ballot(9) };
            assert_eq!(ask(&node, prepare).await.unwrap(), Reply::Damaged);
            let state = ask(&node, Request::Read).await.unwrap();
            assert!(matches!(state, Reply::State { damaged: true, .. }), "{state:?}");
            assert_eq!(node.get("/chunk/kept").await.status(), 200, "reads go on");
        } else {
            until("it has tried", async || !metadata.lock().unwrap().claimed.is_empty()).await;
            assert!(later(&vote(&node, "forgotten").await));
        }
        claims.extend(metadata.lock().unwrap().claimed.iter().copied());
        node.stop().await;
    }
    assert!(claims.iter().all(|claim| *claim == claims[0]), "{claims:?}");
    assert!(claims[0] < known());

    // The directory that it was taken from is as good as before.
    let node = start(dir.path(), &url).await;
    let old = node.me;
    until("it votes", async || vote(&node, "new").await.ok() == Some(accepted())).await;
    node.stop().await;

    // Adopted, the snapshot is another disk, which has the bytes and has voted for nothing.
    let disk = FileDisk::new(snapshot.path()).unwrap();
    let adoption = Adoption::look(disk, 16 << 20, SystemClock::start().wall()).unwrap();
    assert_eq!(adoption.finding().reason, Reason::NotAccepted);
    adoption.adopt(NodeUuid::random()).unwrap();
    let node = start(snapshot.path(), &url).await;
    assert_ne!(node.me, old);
    until("it votes", async || {
        vote(&node, "forgotten").await.ok() == Some(accepted())
    })
    .await;
    assert_eq!(node.get("/chunk/kept").await.status(), 200);
    let state = peers()
        .paxos(&node.holder(), &id("kept"), &Request::Read)
        .await
        .unwrap();
    assert!(
        matches!(
            state,
            Reply::State {
                promised: None,
                accepted: None,
                ..
            }
        ),
        "{state:?}"
    );
    node.stop().await;
    service.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_another_reason_ends_with_it() {
    let (metadata, url, service) = serve(409).await;
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), &url).await;
    until("it is refused", async || {
        vote(&node, "c").await.ok() == Some(Reply::Damaged)
    })
    .await;
    node.put("/chunk/plain", b"x").await;
    metadata.lock().unwrap().status = 200;
    until("it votes", async || vote(&node, "c").await.ok() == Some(accepted())).await;
    node.stop().await;
    // What is left in the directory says nothing against it.
    let node = TestNode::start(settings(dir.path(), &[])).await;
    assert_eq!(vote(&node, "d").await.unwrap(), accepted());
    node.stop().await;
    service.abort();
}

/// Nothing can be written where a directory is in the way.
fn block_claim(dir: &Path) -> std::path::PathBuf {
    let obstacle = dir.join("claim.new");
    std::fs::create_dir(&obstacle).unwrap();
    obstacle
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_start_without_its_claim_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    node.put("/chunk/a", b"x").await;
    node.stop().await;
    let obstacle = block_claim(dir.path());
    let flags = ["--metadata-service-url", "http://127.0.0.1:1"];
    for _ in 0..3 {
        let started = Node::start(settings(dir.path(), &flags)).await;
        let refused = started.err().unwrap();
        assert!(
            matches!(
                refused,
                RunError::Data {
                    source: OpenError::Claim(_),
                    ..
                }
            ),
            "{refused:?}"
        );
    }
    std::fs::remove_dir(obstacle).unwrap();
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    assert!(later(&vote(&node, "c").await));
    node.stop().await;
}

async fn start_on(watch: &ClaimWatch, settings: Settings) -> TestNode {
    let parts = Parts {
        disk: BoxedDisk::new(watch.clone()),
        runs: Runs::OnAThread,
        clock: Arc::new(SystemClock::start()),
        http: HttpClient::new(Some(secret()), Timeouts::default()).unwrap(),
    };
    TestNode::serving_on(OpenNode::open(parts, settings).await.unwrap()).await
}

/// What was claimed until the node tried three times to write its claim. Were it to ask all the same, it would have done
/// so between two of them, or stopped to try.
async fn claimed_meanwhile(watch: &ClaimWatch, metadata: &Metadata) -> usize {
    let claimed = || metadata.lock().unwrap().claimed.len();
    let (tries, before) = (watch.tries(), claimed());
    until("it tries", async || watch.tries() >= tries + 3 || claimed() > before).await;
    claimed() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_served_and_votes_once_there_is_room_for_its_claim() {
    let (metadata, url, service) = serve(200).await;
    let watch = ClaimWatch::default();
    let disk = &watch.disk;
    let dir = tempfile::tempdir().unwrap();
    let start = async |more: &[&str]| start_on(&watch, settings(dir.path(), more)).await;
    let node = start(&[]).await;
    assert_eq!(node.put("/chunk/kept", b"x").await.status(), 201);
    node.stop().await;
    // What is kept for that is used up.
    disk.remove("reserve").unwrap();
    disk.set_capacity(Some(disk.usage().unwrap().used_bytes));
    let node = start(&["--metadata-service-url", &url, "--node-id", "n"]).await;
    assert_eq!(node.get("/chunk/kept").await.status(), 200);
    assert!(later(&ask(&node, Request::Read).await));
    assert_eq!(claimed_meanwhile(&watch, &metadata).await, 0);
    assert!(metadata.lock().unwrap().claimed.is_empty(), "nor did it before");
    disk.set_capacity(None);
    until("it votes", async || vote(&node, "c").await.ok() == Some(accepted())).await;
    node.stop().await;
    service.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_for_nothing_without_its_claim_written_down() {
    let (metadata, url, service) = serve(200).await;
    let watch = ClaimWatch::default();
    let dir = tempfile::tempdir().unwrap();
    let node = start_on(&watch, registering(dir.path(), &url)).await;
    until("it votes", async || vote(&node, "c").await.is_ok()).await;
    watch.refuse(true);
    let heard = metadata.lock().unwrap().heartbeats;
    // Asked to register again: a refusal could not be held against it after a restart.
    metadata.lock().unwrap().status = 404;
    until("it is asked to", async || metadata.lock().unwrap().heartbeats > heard).await;
    let asked = metadata.lock().unwrap().claimed.len();
    assert_eq!(claimed_meanwhile(&watch, &metadata).await, 0);
    assert_eq!(metadata.lock().unwrap().claimed.len(), asked);
    assert_eq!(vote(&node, "d").await.unwrap(), accepted(), "nobody refused it");
    watch.refuse(false);
    metadata.lock().unwrap().status = 200;
    until("it registers", async || metadata.lock().unwrap().claimed.len() > asked).await;
    node.stop().await;
    service.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_have_forgotten_votes_deletes_nothing() {
    let (metadata, url, service) = serve(409).await;
    let dir = tempfile::tempdir().unwrap();
    let more = ["--staging-ttl", "0", "--gc-grace", "0", "--gc-interval", "1"];
    let flags = [&["--metadata-service-url", &url, "--node-id", "n"], &more[..]].concat();
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    node.put("/chunk/staged", b"x").await;
    until("it is refused", async || {
        vote(&node, "c").await.ok() == Some(Reply::Damaged)
    })
    .await;
    let delete = node.request(reqwest::Method::DELETE, "/chunk/staged").send();
    assert_eq!(refusal(delete.await.unwrap()).await, (409, ErrorCode::Placed));
    // Whenever it lets go of bytes on the disk it looks for memory that was idle since it last did, and gives that back
    // first: when the memory of this chunk is gone, it looked twice since, and could have collected both.
    node.put("/chunk/later", b"x").await;
    until("it lets go", async || {
        metric(&node, "vstack_arriving_pool_bytes").await == 0
    })
    .await;
    for chunk in ["/chunk/staged", "/chunk/later"] {
        assert_eq!(node.get(chunk).await.status(), 200, "{chunk}");
    }
    metadata.lock().unwrap().status = 200;
    until("it collects again", async || {
        node.get("/chunk/staged").await.status() == 404
    })
    .await;
    node.stop().await;
    service.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_disk_does_not_say_that_it_votes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(dir.path()).unwrap();
    let options = StoreOptions {
        superblock_bytes: 16 << 20,
        ..StoreOptions::new()
    };
    let engine = Engine::open_as(disk, options, Arc::new(SystemClock::start()), Runs::OnAThread).unwrap();
    engine.seal().await.unwrap();
    engine.close().await;
    drop(engine);
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let view = peers().register(&node.url, &id("c")).await.unwrap();
    assert_eq!(view.standing, NodeStanding::Abstains);
    node.stop().await;
}
