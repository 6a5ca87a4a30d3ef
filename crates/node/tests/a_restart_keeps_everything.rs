//! Stopped and started, or dropped where it stands: what was acknowledged is there, under the same identity.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_chunkpaxos::{Reply, Request};
use vstack_node::{Node, RunError};

/// And has the bytes that it vouched for.
async fn keeps_its_vote(node: &TestNode, name: &str) -> bool {
    let state = peers().paxos(&node.holder(), &id(name), &Request::Read).await.unwrap();
    matches!(
        state,
        Reply::State {
            accepted: Some(_),
            holds: true,
            ..
        }
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_started() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let (me, body) = (node.me, bytes(100_000));
    node.put("/chunk/plain", &body).await;
    peers()
        .put_vote(&node.holder(), &id("voted"), &put0(&body, &[me]), body.clone().into())
        .await
        .unwrap();
    let second = Node::start(settings(dir.path(), &[])).await;
    assert!(
        matches!(second, Err(RunError::Data { .. })),
        "one data directory, one node"
    );
    node.stop().await;
    let node = TestNode::start(settings(dir.path(), &[])).await;
    assert_eq!(node.me, me);
    for name in ["plain", "voted"] {
        assert_eq!(node.get(&format!("/chunk/{name}")).await.bytes().await.unwrap(), body);
    }
    assert!(keeps_its_vote(&node, "voted").await);
    node.stop().await;
}

/// Starts a node as soon as the one before has let go of the directory.
async fn reopened(dir: &std::path::Path) -> TestNode {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Node::start(settings(dir, &[])).await {
            Ok(node) => return TestNode::serving(node),
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn dropped_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let body = bytes(100_000);
    // A runtime of its own, dropped with everything on it in mid-air.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let node = TestNode::start(settings(dir.path(), &[])).await;
        for n in 0..10 {
            let name = id(&format!("c{n}"));
            peers()
                .put_vote(&node.holder(), &name, &put0(&body, &[node.me]), body.clone().into())
                .await
                .unwrap();
        }
    });
    runtime.shutdown_background();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let node = reopened(dir.path()).await;
        for n in 0..10 {
            assert_eq!(node.get(&format!("/chunk/c{n}")).await.bytes().await.unwrap(), body);
            assert!(keeps_its_vote(&node, &format!("c{n}")).await);
        }
        node.stop().await;
    });
}
