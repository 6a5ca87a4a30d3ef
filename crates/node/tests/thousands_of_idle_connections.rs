//! Connections kept alive with nothing to do cost little, and nobody waits for them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CONNECTIONS: u64 = 5_000;

/// Both ends of every connection are in this process, and it has other files.
const FILES: u64 = 2 * CONNECTIONS + 500;

/// Of both ends together: tasks and buffers. What the kernel keeps for its sockets is not in it.
const BYTES_PER_CONNECTION: u64 = 32 * 1024;

fn may_open(files: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < files) {
        return false;
    }
    let enough = limit.current.is_none_or(|now| now >= files);
    let raised = Rlimit {
        current: Some(files),
        maximum: limit.maximum,
    };
    enough || setrlimit(Resource::Nofile, raised).is_ok()
}

/// Memory of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
}

async fn idle_after_an_answer(node: &TestNode) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let head = format!("HEAD /chunk/c HTTP/1.1\r\nHost: {}\r\n\r\n", node.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 2048];
    let mut len = 0;
    while !answer[..len].ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut answer[len..]).await.unwrap();
        assert!(count > 0, "the node closed it");
        len += count;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_of_them_cost_little_and_reads_go_on() {
    if !may_open(FILES) {
        eprintln!("SKIPPED: this process may not open {FILES} files");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let body = bytes(1 << 20);
    assert_eq!(node.put("/chunk/c", &body).await.status(), 201);
    assert_eq!(node.get("/chunk/c").await.bytes().await.unwrap(), body);
    let before = resident_bytes();
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(idle_after_an_answer(&node).await);
    }
    let each = resident_bytes().saturating_sub(before) / CONNECTIONS;
    assert!(each <= BYTES_PER_CONNECTION, "{each} bytes each");
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(node.get("/chunk/c").await.bytes().await.unwrap(), body);
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    // They are still there.
    for stream in idle.iter_mut().step_by(500) {
        let head = format!("HEAD /chunk/c HTTP/1.1\r\nHost: {}\r\n\r\n", node.address);
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(stream.read_u8().await.is_ok());
    }
    drop(idle);
    node.stop().await;
}
