//! However many chunks are sent at once, memory for them is bounded, used again, and free when they are written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{sync::Arc, time::Duration};

use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use vstack_chunkpaxos::Reply;

const BUFFER: u64 = 2 << 20;
const AT_ONCE: u64 = 2;
/// Less than a body waits for memory.
const VOTE_TIME: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread")]
async fn memory_for_chunks_that_arrive_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    // As long as a disk takes that syncs slowly: each waits for all before it.
    let flags = ["--max-concurrent-bodies", &AT_ONCE.to_string(), "--body-timeout", "600"];
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    assert_eq!(
        metric(&node, "vstack_arriving_pool_bytes").await,
        0,
        "none before any chunk"
    );
    let node = Arc::new(node);
    let body = |turn: u8| vec![turn; 300_000];
    let mut puts = JoinSet::new();
    for turn in 0..40 {
        let node = Arc::clone(&node);
        puts.spawn(async move {
            assert_eq!(node.put(&format!("/chunk/c{turn}"), &body(turn)).await.status(), 201);
            metric(&node, "vstack_arriving_pool_bytes").await
        });
    }
    while let Some(most) = puts.join_next().await {
        let most = most.unwrap();
        assert!(most > 0 && most <= AT_ONCE * BUFFER, "{most}");
    }
    assert_eq!(metric(&node, "vstack_arriving_bytes").await, 0);
    for turn in 0..40 {
        let found = node.get(&format!("/chunk/c{turn}")).await.bytes().await.unwrap();
        assert!(found == body(turn), "nobody wrote into a buffer that was being written");
    }
    Arc::into_inner(node).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_half_a_chunk_and_goes_gives_its_memory_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--max-concurrent-bodies", &AT_ONCE.to_string()])).await;
    for turn in 0..10 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let head = format!("PUT /chunk/half-{turn} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[1; 500]).await.unwrap();
        stream.shutdown().await.unwrap();
        // Until the node has noticed.
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        closed.expect("the node closes").unwrap();
    }
    assert_eq!(node.put("/chunk/whole", &bytes(1000)).await.status(), 201);
    until("memory comes back", async || {
        metric(&node, "vstack_arriving_bytes").await == 0
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_find_memory_however_many_strangers_send_slowly() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--max-concurrent-bodies", &AT_ONCE.to_string()])).await;
    let mut slow = Vec::new();
    for turn in 0..2 * AT_ONCE {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let head = format!("PUT /chunk/slow-{turn} HTTP/1.1\r\nHost: x\r\nContent-Length: 2097152\r\n\r\nab");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    until("one of them is being received", async || {
        metric(&node, "vstack_arriving_bytes").await > 0
    })
    .await;
    let (body, peers) = (bytes(100_000), peers());
    for turn in 0..4 {
        let (to, chunk, vote) = (node.holder(), id(&format!("v{turn}")), put0(&body, &[node.me]));
        let vote = peers.put_vote(&to, &chunk, &vote, body.clone().into());
        // Sooner than any of the slow ones is given up, or the wait for memory.
        let voted = tokio::time::timeout(VOTE_TIME, vote).await.expect("a vote in time");
        assert_eq!(voted.unwrap(), Reply::Accepted { ballot: ballot(0) });
    }
    drop(slow);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_announces_a_chunk_and_sends_none_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--max-concurrent-bodies", &AT_ONCE.to_string()])).await;
    let mut silent = Vec::new();
    for turn in 0..20 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let head = format!("PUT /chunk/silent-{turn} HTTP/1.1\r\nHost: x\r\nContent-Length: 2097152\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    // Whichever of them the node has seen by then.
    for turn in 0..10 {
        let (path, body) = (format!("/chunk/c{turn}"), bytes(1000));
        let put = node.put(&path, &body);
        let put = tokio::time::timeout(VOTE_TIME, put)
            .await
            .expect("nobody waits for them");
        assert_eq!(put.status(), 201);
    }
    drop(silent);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_a_chunk_and_falls_silent_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--max-concurrent-bodies", "2", "--body-pause", "1"];
    let node = TestNode::start(settings(dir.path(), &flags)).await;
    let mut streams = Vec::new();
    for begun in ["", "ab"] {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let head = format!("PUT /chunk/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2097152\r\n\r\n{begun}");
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    for mut stream in streams {
        let mut answer = [0; 12];
        let read = tokio::time::timeout(VOTE_TIME, stream.read_exact(&mut answer)).await;
        read.expect("long before a body is given up").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
    }
    assert_eq!(node.put("/chunk/x", &bytes(1000)).await.status(), 201);
    node.stop().await;
}
