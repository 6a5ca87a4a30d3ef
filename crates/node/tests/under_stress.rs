//! Full disks, failing writers, readers that do not read, holders that say nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use vstack_api::ErrorCode;
use vstack_chunkpaxos::Reply;
use vstack_client::{ClientError, Holder};
use vstack_engine::{FileDisk, Usage};
use vstack_node::{Node, RunError};
use vstack_types::{Digest, NodeRef, NodeUuid};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_bytes_and_takes_them_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let percent = Arc::new(AtomicU64::new(10));
    let told = Arc::clone(&percent);
    let path = dir.path().to_owned();
    let disk = move || {
        let disk = FileDisk::new(path)?;
        Ok(disk.with_usage(move |_real| Usage {
            used_bytes: told.load(Ordering::SeqCst),
            total_bytes: 100,
        }))
    };
    let node = TestNode::serving(Node::start_on(settings(dir.path(), &[]), disk).await.unwrap());
    let put_vote = async |name: &str| {
        let vote = put0(b"x", &[node.me]);
        peers()
            .put_vote(&node.holder(), &id(name), &vote, b"x".to_vec().into())
            .await
    };
    assert_eq!(node.put("/chunk/before", b"x").await.status(), 201);
    percent.store(96, Ordering::SeqCst);
    until("it is found full", async || node.get("/health").await.status() == 503).await;
    assert_eq!(
        refusal(node.put("/chunk/full", b"x").await).await,
        (507, ErrorCode::DiskFull)
    );
    let refused = put_vote("voted").await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::DiskFull), "{refused}");
    assert_eq!(node.get("/chunk/full").await.status(), 404);
    assert_eq!(node.get("/chunk/before").await.status(), 200, "reads go on");
    percent.store(20, Ordering::SeqCst);
    until("there is room", async || {
        node.put("/chunk/full", b"x").await.status() == 201
    })
    .await;
    assert_eq!(put_vote("voted").await.unwrap(), Reply::Accepted { ballot: ballot(0) });
    assert_eq!(node.get("/health").await.status(), 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_write_no_more_ends_and_goes_on_when_it_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(settings(dir.path(), &[])).await.unwrap();
    let url = format!("http://{}", node.address());
    // Something stands where the next superblock is to be made.
    let in_the_way = dir.path().join("superblock_000001.vsb");
    std::fs::write(&in_the_way, b"").unwrap();
    let ended = tokio::spawn(node.serve(CancellationToken::new()));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut kept = Vec::new();
    for n in 0..20 {
        let put = client
            .put(format!("{url}/chunk/c{n}"))
            .body(bytes(1 << 20))
            .timeout(PATIENCE);
        match put.send().await {
            Ok(answer) if answer.status() == 201 => kept.push(n),
            Ok(answer) => {
                assert_eq!(answer.status(), 503);
                break;
            }
            Err(_) => break,
        }
    }
    assert!((1..20).contains(&kept.len()), "{kept:?}");
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends").unwrap();
    assert!(matches!(ended, Err(RunError::Writer { .. })), "{ended:?}");

    std::fs::remove_file(in_the_way).unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    for n in kept {
        assert_eq!(node.get(&format!("/chunk/c{n}")).await.status(), 200);
    }
    assert_eq!(node.put("/chunk/after", b"x").await.status(), 201);
    node.stop().await;
}

/// A connection on which sixteen times a chunk is asked for, with more headers.
async fn ask_and_do_not_read(node: &TestNode, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let get = format!("GET /chunk/c HTTP/1.1\r\nHost: {}\r\n{more}\r\n", node.address);
    stream.write_all(get.repeat(16).as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_of_what_is_in_the_page_cache_hold_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &["--max-sending-bytes", "1048576"])).await;
    let body = bytes(2 << 20);
    assert_eq!(node.put("/chunk/c", &body).await.status(), 201);
    assert_eq!(
        node.get("/chunk/c").await.bytes().await.unwrap(),
        body,
        "it is verified"
    );
    let waited = metric(&node, "vstack_engine_pieces_waited_total").await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(ask_and_do_not_read(&node, "").await);
    }
    until("all wait to be read", async || {
        let sent = metric(&node, "vstack_engine_pieces_cached_total").await;
        sent >= 8 * 2 && metric(&node, "vstack_sending_bytes").await == 0
    })
    .await;
    assert_eq!(node.get("/chunk/c").await.bytes().await.unwrap(), body);
    assert_eq!(metric(&node, "vstack_engine_pieces_waited_total").await, waited);
    drop(slow);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_slow_readers_hold_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), &["--max-sending-bytes", "2097152"]);
    let path = dir.path().to_owned();
    let copied = move || FileDisk::new(path).map(FileDisk::that_lends_nothing);
    let node = TestNode::serving(Node::start_on(settings, copied).await.unwrap());
    let body = bytes(2 << 20);
    assert_eq!(node.put("/chunk/c", &body).await.status(), 201);
    // More than any socket buffers, asked for and not read, on as many connections as there are pieces of memory.
    let mut slow = Vec::new();
    for _ in 0..2 {
        slow.push(ask_and_do_not_read(&node, "").await);
    }
    assert_eq!(metric(&node, "vstack_slow_readers_cut_off_total").await, 0);
    until("another read finds no room", async || {
        let answer = node.get("/chunk/c").await;
        if answer.status() == 200 {
            return false;
        }
        assert_eq!(header(&answer, "retry-after"), "1");
        assert_eq!(refusal(answer).await, (503, ErrorCode::Unavailable));
        true
    })
    .await;
    assert_eq!(
        node.head("/chunk/c").await.status(),
        200,
        "what sends no bytes needs none"
    );
    drop(slow);
    until("the room is free again", async || {
        let answer = node.get("/chunk/c").await;
        answer.status() == 200 && answer.bytes().await.unwrap() == body
    })
    .await;
    until("no memory is in use", async || {
        metric(&node, "vstack_sending_bytes").await == 0
    })
    .await;
    node.stop().await;
}

/// Bodies of the answers in `bytes`, and how many bytes the last one lacks.
fn bodies(mut bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let mut found = Vec::new();
    while let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let text = std::str::from_utf8(&bytes[..head]).unwrap().to_ascii_lowercase();
        let (_, announced) = text.split_once("content-length: ").unwrap();
        let announced: usize = announced.lines().next().unwrap().parse().unwrap();
        bytes = &bytes[head + 4..];
        let (body, rest) = bytes.split_at(announced.min(bytes.len()));
        found.push(body);
        if body.len() < announced {
            return (found, announced - body.len());
        }
        bytes = rest;
    }
    (found, 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_to_its_end_is_broken_off() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let body = bytes(2 << 20);
    assert_eq!(node.put("/chunk/c", &body).await.status(), 201);
    assert_eq!(node.get("/chunk/c").await.status(), 200, "it is verified");
    // Its superblock is not written to any more: a node ends whose log is cut.
    for filler in 0..8 {
        assert_eq!(node.put(&format!("/chunk/filler-{filler}"), &body).await.status(), 201);
    }
    assert!(dir.path().join("superblock_000001.vsb").exists());
    // A large piece and a small one each, so that most likely it is behind the large one that they wait; and each a
    // little longer than the one before, so that not all of them wait behind a small one.
    let lens = [1_u64, 2, 3, 4].map(|n| (1 << 20) + n * 50_000);
    let mut slow = Vec::new();
    for len in lens {
        let last = len - 1;
        slow.push(ask_and_do_not_read(&node, &format!("Range: bytes=0-{last}\r\n")).await);
    }
    let mut before = 0;
    until("all wait to be read", async || {
        let now = metric(&node, "vstack_engine_read_bytes_total").await;
        std::mem::replace(&mut before, now) == now && now > 8 << 20
    })
    .await;
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join("superblock_000000.vsb"));
    // Between two pages. Of a page that is cut, the kernel makes the rest zero, also where it lies in a socket's queue by
    // then, sent from the page cache: nobody can take that back, and whoever fetches a chunk checks it.
    file.unwrap().set_len(122 * 4096).unwrap();
    let mut broken = 0;
    for (mut stream, len) in slow.into_iter().zip(lens) {
        let mut answers = Vec::new();
        // Closed or reset.
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answers)).await;
        let _ = ended.expect("it ends");
        let (bodies, lacking) = bodies(&answers);
        let len = usize::try_from(len).unwrap();
        for found in &bodies {
            // What is refused is small and is no chunk.
            let sent = found.len() < 1024 || **found == body[..found.len()];
            assert!(sent, "{} bytes of {len} are others", found.len());
        }
        broken += usize::from(lacking > 0);
    }
    assert!(broken > 0);
    node.stop().await;
}

/// Tries of something that other work only ever makes longer: one that is not held up says how long it takes by itself.
const TRIES: usize = 4;

/// The fastest try takes less than `limit`; the first that does is the last.
async fn fastest(limit: Duration, mut attempt: impl AsyncFnMut(usize) -> Duration) {
    let mut took = Vec::new();
    for number in 0..TRIES {
        took.push(attempt(number).await);
        if took.iter().any(|took| *took < limit) {
            return;
        }
    }
    panic!("each of {TRIES} took {limit:?} or more: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_passes_by_holders_that_say_nothing() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = TestNode::start(settings(one.path(), &[])).await;
    let to = TestNode::start(settings(two.path(), &[])).await;
    // It takes connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Holder {
        node: NodeRef::first(NodeUuid::from_bytes([9; 16])),
        url: format!("http://{}", listener.local_addr().unwrap()),
    };
    let holders = [silent.clone(), from.holder()];
    // Less than a holder that says nothing is given up after: the next one is asked beside it.
    fastest(Duration::from_secs(8), async |attempt| {
        let (chunk, body) = (format!("c{attempt}"), bytes(50_000 + attempt));
        assert_eq!(from.put(&format!("/chunk/{chunk}"), &body).await.status(), 201);
        let begun = Instant::now();
        let pulled = peers()
            .pull(
                &to.holder(),
                &id(&chunk),
                Digest::of(&body),
                body.len() as u64,
                &holders,
            )
            .await;
        let took = begun.elapsed();
        if let Err(error) = pulled {
            // A machine that stands still for long enough makes both holders late.
            assert_eq!(error.code(), Some(ErrorCode::NeedBytes), "{error}");
            return Duration::MAX;
        }
        assert_eq!(to.get(&format!("/chunk/{chunk}")).await.bytes().await.unwrap(), body);
        took
    })
    .await;
    fastest(Duration::from_secs(14), async |_attempt| {
        let begun = Instant::now();
        let nowhere = peers()
            .pull(
                &to.holder(),
                &id("d"),
                Digest::of(b"d"),
                1,
                std::slice::from_ref(&silent),
            )
            .await;
        assert_eq!(
            nowhere.as_ref().err().and_then(ClientError::code),
            Some(ErrorCode::NeedBytes)
        );
        begun.elapsed()
    })
    .await;
    from.stop().await;
    to.stop().await;
}
