//! The scrub in the background goes on where the process before was, whatever becomes of the file that says where.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use support::*;

const FIRST: usize = 100_000;
const SECOND: usize = 50_000;

/// Two superblocks that are not scrubbed yet: what is left in the first has `FIRST` bytes, in the second `SECOND`.
async fn two_superblocks(dir: &Path) {
    let node = TestNode::start(settings(dir, &["--scrub-period", "0", "--gc-interval", "86400"])).await;
    assert_eq!(node.put("/chunk/first", &bytes(FIRST)).await.status(), 201);
    let large = bytes(2 << 20);
    for at in 0..8 {
        assert_eq!(node.put(&format!("/chunk/c{at}"), &large).await.status(), 201);
    }
    assert_eq!(node.put("/chunk/second", &bytes(SECOND)).await.status(), 201);
    // A scrub takes its time, so little is left to it.
    for at in 0..8 {
        let gone = node.request(reqwest::Method::DELETE, &format!("/chunk/c{at}"));
        assert!(gone.send().await.unwrap().status().is_success());
    }
    assert_eq!(metric(&node, "vstack_superblocks").await, 2);
    node.stop().await;
}

/// A process that scrubs one superblock, and waits for half a day then: how many bytes it read, and when everything was
/// read.
async fn one_process(dir: &Path, ends_the_round: bool) -> (usize, u64) {
    let position = || std::fs::read(dir.join("scrub")).ok();
    let before = position();
    let node = TestNode::start(settings(dir, &["--scrub-period", "86400", "--gc-interval", "86400"])).await;
    let read = async || metric(&node, "vstack_scrub_bytes_total").await;
    until("a superblock is scrubbed", async || read().await > 0).await;
    until("that is kept", async || position() != before).await;
    let completed = async || metric(&node, "vstack_scrub_completed_seconds").await;
    if ends_the_round {
        until("the round ended", async || completed().await > 0).await;
    }
    let done = (usize::try_from(read().await).unwrap(), completed().await);
    node.stop().await;
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_begins_with_what_was_scrubbed_longest_ago() {
    let dir = tempfile::tempdir().unwrap();
    two_superblocks(dir.path()).await;
    assert_eq!(one_process(dir.path(), false).await, (FIRST, 0));
    let (read, completed) = one_process(dir.path(), true).await;
    assert_eq!(read, SECOND);
    assert_eq!(
        one_process(dir.path(), false).await,
        (FIRST, completed),
        "the next round"
    );
    assert_eq!(one_process(dir.path(), false).await.0, SECOND);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_counted_while_they_are_read() {
    const ITEM: usize = 300_000;
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--scrub-period", "0"])).await;
    for n in 0..10 {
        assert_eq!(node.put(&format!("/chunk/c{n}"), &bytes(ITEM + n)).await.status(), 201);
    }
    node.stop().await;
    // One superblock: at least three seconds.
    let node = TestNode::start(settings(dir.path(), &["--scrub-period", "86400"])).await;
    let mut first = 0;
    until("some of it is read", async || {
        first = metric(&node, "vstack_scrub_bytes_total").await;
        first > 0
    })
    .await;
    assert!(first < 10 * ITEM as u64, "{first}: only when all was read");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_file_everything_counts_as_never_scrubbed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scrub");
    two_superblocks(dir.path()).await;
    assert_eq!(one_process(dir.path(), false).await, (FIRST, 0));
    for rubbish in ["", "next 1\nend 2\ncrc 00000000\n", &"x".repeat(10_000)] {
        assert!(file.exists());
        std::fs::write(&file, rubbish).unwrap();
        assert_eq!(one_process(dir.path(), false).await, (FIRST, 0), "{rubbish:.20}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(one_process(dir.path(), false).await, (FIRST, 0));
}
