//! A chunk that was hashed longer ago than it is told is hashed again before it is served.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use vstack_engine::StoreOptions;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_flipped_after_it_was_served_is_refused_once_its_time_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--reverify-after", "1", "--scrub-period", "0"];
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    let body = bytes(50_000);
    assert_eq!(node.put("/chunk/a", &body).await.status(), 201);
    assert_eq!(node.get("/chunk/a").await.bytes().await.unwrap(), body);
    damage(dir.path(), &body);
    until("the flipped byte is noticed", async || {
        node.get("/chunk/a").await.status() == 500
    })
    .await;
    assert_eq!(metric(&node, "vstack_engine_quarantined_total").await, 1);
    node.stop().await;
}

/// So the test above shows what the setting does.
#[tokio::test(flavor = "multi_thread")]
async fn until_then_chunks_are_hashed_once() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        std::time::Duration::from_secs(settings(dir.path(), &[]).reverify_after),
        StoreOptions::new().reverify_after,
    );
    let node = TestNode::start(settings(dir.path(), &["--scrub-period", "0"])).await;
    let body = bytes(50_000);
    assert_eq!(node.put("/chunk/a", &body).await.status(), 201);
    for _ in 0..3 {
        assert_eq!(node.get("/chunk/a").await.bytes().await.unwrap(), body);
    }
    damage(dir.path(), &body);
    assert_eq!(node.get("/chunk/a").await.status(), 200, "a day has not passed");
    node.stop().await;
}
