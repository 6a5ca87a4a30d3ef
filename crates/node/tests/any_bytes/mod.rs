//! A node whose connections are ends of a pipe in memory, on a clock that jumps: what anybody may send it comes to an
//! answer or to an end, and never to a panic or to the node's own fault. Fuzz targets use it too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each user takes a part")]

use std::{sync::Arc, time::Duration};

use axum::Router;
use clap::Parser;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use vstack_client::{HttpClient, Timeouts};
use vstack_engine::{BoxedDisk, MemDisk, Runs};
use vstack_node::{OpenNode, Parts, Settings};
use vstack_service::Entrance;
use vstack_types::{Clock, Monotonic, Timestamp};

/// As the listener has it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// A head, and a body that does not come: nobody is waited for longer.
const END: Duration = Duration::from_secs(200);

/// More than any answer here.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Then the node is made anew: its disk is in memory.
const INPUTS_OF_A_NODE: u32 = 2000;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

/// The clock of the runtime.
struct OfTheRuntime(tokio::time::Instant);

impl Clock for OfTheRuntime {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(self.0.elapsed())
    }

    fn wall(&self) -> Timestamp {
        let elapsed = i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp(1_000_000_000_000 + elapsed)
    }
}

/// A node.
pub struct Served {
    runtime: Runtime,
    router: Router,
    inputs: u32,
}

impl Served {
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let router = runtime.block_on(start());
        Self {
            runtime,
            router,
            inputs: 0,
        }
    }

    /// Sends `bytes` on a connection of their own and judges what comes back.
    pub fn try_bytes(&mut self, bytes: &[u8]) {
        self.inputs += 1;
        if self.inputs > INPUTS_OF_A_NODE {
            *self = Self::new();
        }
        let answer = self.answer(bytes);
        judge(bytes, &answer);
        if self.inputs.is_multiple_of(64) {
            let ping = self.answer(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert!(ping.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&ping));
        }
    }

    /// All that comes back until the connection ends.
    pub fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        self.runtime.block_on(exchange(self.router.clone(), bytes))
    }
}

async fn start() -> Router {
    let settings = Flags::parse_from([
        "node",
        "--max-superblock-size",
        "8388608",
        "--max-chunk-size",
        "65536",
        "--scrub-period",
        "0",
        "--cluster-secret",
        "the secret of any bytes",
    ]);
    let secret = "the secret of any bytes".parse().unwrap();
    let parts = Parts {
        disk: BoxedDisk::new(MemDisk::default()),
        runs: Runs::AsATask(Arc::new(|| Duration::ZERO)),
        clock: Arc::new(OfTheRuntime(tokio::time::Instant::now())),
        http: HttpClient::new(Some(secret), Timeouts::default()).unwrap(),
    };
    let node = OpenNode::open(parts, settings.settings).await.unwrap();
    let (give, given) = oneshot::channel();
    let entrance = Entrance::new(move |router, stop: CancellationToken| async move {
        let _ = give.send(router);
        stop.cancelled().await;
    });
    tokio::spawn(node.serve(entrance, "http://node".to_owned(), CancellationToken::new()));
    given.await.unwrap()
}

fn serve(router: Router, stream: DuplexStream) -> tokio::task::JoinHandle<()> {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .half_close(false);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::spawn(async move {
        let _ended_early = connection.await;
    })
}

async fn exchange(router: Router, bytes: &[u8]) -> Vec<u8> {
    let (client, server) = duplex(64 * 1024);
    let mut serving = serve(router, server);
    let (mut read, mut write) = split(client);
    let mut answer = Vec::new();
    let sends = async {
        let _refused = write.write_all(bytes).await;
    };
    let reads = async {
        let mut part = vec![0; 64 * 1024];
        while let Ok(len) = read.read(&mut part).await {
            answer.extend_from_slice(&part[..len]);
            if len == 0 || answer.len() > ANSWER_BYTES_MAX {
                break;
            }
        }
    };
    let ended = timeout(END, async { tokio::join!(sends, reads) }).await;
    // A stream of events has no end.
    let is_stream = answer.windows(17).any(|part| part == b"text/event-stream");
    assert!(ended.is_ok() || is_stream, "{}", String::from_utf8_lossy(&answer));
    drop((read, write));
    if timeout(END, &mut serving).await.is_err() {
        panic!("nobody is there any more, and it is still served");
    }
    answer
}

/// Whatever it was, it is answered by HTTP, and the fault is the sender's.
fn judge(bytes: &[u8], answer: &[u8]) {
    if answer.is_empty() {
        return;
    }
    let said = || (String::from_utf8_lossy(bytes), String::from_utf8_lossy(answer));
    let status = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
    let Some(status) = status else {
        panic!("no answer of HTTP: {:?}", said())
    };
    assert!((100..600).contains(&status) && status != 500, "{:?}", said());
}

const METHODS: [&str; 8] = ["GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS", "PATCH", "TRACE"];

const PATHS: [&str; 14] = [
    "/chunk/",
    "/chunks?limit=",
    "/chunks?cursor=",
    "/registers?limit=",
    "/consensus/",
    "/ping",
    "/health",
    "/ready",
    "/metrics",
    "/paxos",
    "/paxos/",
    "/paxos-challenge",
    "/paxos/a/item/",
    "/paxos/a/pull?",
];

const HEADERS: [&str; 14] = [
    "Range: ",
    "If-None-Match: ",
    "Content-Length: ",
    "Transfer-Encoding: ",
    "Expect: ",
    "Content-Type: ",
    "X-Chunk-Checksum: ",
    "X-Chunk-Size: ",
    "X-VStack-Vote: ",
    "X-VStack-Mac: ",
    "X-VStack-Node: ",
    "Origin: ",
    "Accept-Encoding: ",
    "X-Request-Id: ",
];

const VALUES: [&str; 14] = [
    "",
    "0",
    "1",
    "18446744073709551616",
    "-1",
    "bytes=0-",
    "bytes=-1",
    "bytes=5-2,9-",
    "*",
    "chunked",
    "100-continue",
    "%00%ff%2f..",
    "a",
    "\"\"",
];

/// A request that looks like one: what it is made of is chosen by `bytes`, and what they leave is text in it and its body.
pub fn request_of(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes.iter().copied();
    let mut next = || usize::from(rest.next().unwrap_or_default());
    let method = METHODS[next() % METHODS.len()];
    let path = PATHS[next() % PATHS.len()];
    let id = VALUES[next() % VALUES.len()];
    let mut head = format!("{method} {path}{id} HTTP/1.1\r\nHost: x\r\n").into_bytes();
    for _ in 0..next() % 5 {
        head.extend_from_slice(HEADERS[next() % HEADERS.len()].as_bytes());
        match next() {
            known if known < 200 => head.extend_from_slice(VALUES[known % VALUES.len()].as_bytes()),
            len => (0..len % 40).for_each(|_| head.push(u8::try_from(next()).unwrap_or_default())),
        }
        head.extend_from_slice(b"\r\n");
    }
    let announced = next();
    let body: Vec<u8> = rest.collect();
    if announced % 3 > 0 {
        let len = if announced % 3 == 1 { body.len() } else { announced };
        head.extend_from_slice(format!("Content-Length: {len}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(&body);
    head
}
