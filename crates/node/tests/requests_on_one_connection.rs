//! A connection is kept, and what is asked on it at once is answered in order.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Status and body of the first answer in `bytes`, and what is behind it.
fn answer(bytes: &[u8], has_body: bool) -> (u16, &[u8], &[u8]) {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let (head, rest) = (std::str::from_utf8(&bytes[..end]).unwrap(), &bytes[end + 4..]);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_ascii_lowercase();
    let (_, length) = head.split_once("content-length: ").unwrap();
    let length = length.lines().next().unwrap().parse().unwrap();
    let (body, rest) = rest.split_at(if has_body { length } else { 0 });
    (status, body, rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_at_once_is_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let node = TestNode::start(settings(dir.path(), &[])).await;
    let (large, small) = (bytes(2 << 20), bytes(777));
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let mut asked = Vec::new();
    let ask = |method: &str, path: &str, more: &str| {
        let host = node.address;
        format!("{method} /chunk/{path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").into_bytes()
    };
    for (path, body) in [("large", &large), ("small", &small)] {
        asked.extend(ask("PUT", path, &format!("Content-Length: {}\r\n", body.len())));
        asked.extend_from_slice(body);
    }
    for _ in 0..2 {
        // The first time it is hashed, the second time it is lent from the page cache.
        asked.extend(ask("GET", "large", ""));
        asked.extend(ask("HEAD", "large", ""));
        asked.extend(ask("GET", "large", "Range: bytes=1048570-1048590\r\n"));
        asked.extend(ask("GET", "small", ""));
        asked.extend(ask("GET", "none", ""));
        asked.extend(ask("GET", "large", "Range: bytes=-5\r\n"));
    }
    asked.extend(ask("GET", "small", "Connection: close\r\n"));
    let (mut from, mut to) = stream.split();
    let mut answers = Vec::new();
    let both = async { tokio::join!(to.write_all(&asked), from.read_to_end(&mut answers)) };
    let (written, read) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    written.unwrap();
    read.unwrap();

    let mut left = &answers[..];
    let mut next = |has_body: bool| {
        let (status, body, rest) = answer(left, has_body);
        left = rest;
        (status, body)
    };
    assert_eq!([next(true).0, next(true).0], [201, 201]);
    for _ in 0..2 {
        assert!(next(true) == (200, &large[..]));
        assert_eq!(next(false), (200, &b""[..]));
        assert_eq!(next(true), (206, &large[1_048_570..=1_048_590]));
        assert!(next(true) == (200, &small[..]));
        assert_eq!(next(true).0, 404);
        assert_eq!(next(true), (206, &large[large.len() - 5..]));
    }
    assert!(next(true) == (200, &small[..]));
    assert!(left.is_empty());
    node.stop().await;
}
