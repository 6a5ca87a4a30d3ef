//! Whatever comes over a connection ends in an answer or in the end of the connection: a short run of what the fuzz
//! targets do for long.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod any_bytes;

use any_bytes::{Served, request_of};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

fn run(cases: u32, strategy: impl Strategy<Value = Vec<u8>>, tries: impl Fn(&mut Served, &[u8])) {
    let served = std::cell::RefCell::new(Served::new());
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&strategy, |bytes| {
        tries(&mut served.borrow_mut(), &bytes);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn bytes_that_are_no_requests() {
    let known = [
        &b""[..],
        b"\r\n\r\n",
        b"GET",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PUT /chunk/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        b"PUT /chunk/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /chunk/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET /chunk/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n\x00",
    ];
    let mut served = Served::new();
    known.iter().for_each(|bytes| served.try_bytes(bytes));
    let put = b"PUT /chunk/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab";
    assert!(served.answer(put).starts_with(b"HTTP/1.1 201"));
    let get = b"GET /chunk/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(served.answer(get).ends_with(b"ab"), "it is a node");
    run(10_000, vec(any::<u8>(), 0..300), Served::try_bytes);
}

#[test]
fn requests_of_any_parts() {
    run(20_000, vec(any::<u8>(), 0..120), |served, bytes| {
        served.try_bytes(&request_of(bytes));
    });
}
