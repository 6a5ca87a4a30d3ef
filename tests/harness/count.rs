//! A TCP proxy that counts HTTP/1.1 messages as they pass on the wire.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A request that passed, and the status of its answer, once that passed too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// `PUT /chunk/x`.
    pub request: String,
    /// `201`.
    pub answer: Option<String>,
    /// From the head of the one to the head of the other, once both passed.
    pub took: Option<Duration>,
}

/// In the order the requests passed.
pub type Exchanges = Arc<Mutex<Vec<Exchange>>>;

/// Listens on a port of its own and passes everything on.
pub struct CountingProxy {
    pub url: String,
    pub exchanges: Exchanges,
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl CountingProxy {
    /// In front of `target`, `host:port`.
    pub fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let exchanges = Exchanges::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (target, seen, stopped) = (target.to_owned(), Arc::clone(&exchanges), Arc::clone(&stop));
        let accepting = std::thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client else { continue };
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                relay(&client, &server, &seen);
            }
        });
        Self {
            url: format!("http://{address}"),
            exchanges,
            stop,
            address,
            accepting: Some(accepting),
        }
    }
}

impl Drop for CountingProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _wakes_the_listener = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ended = accepting.join();
        }
    }
}

fn relay(client: &TcpStream, server: &TcpStream, exchanges: &Exchanges) {
    // Indices of this connection's requests that have no answer yet, and when each passed; HTTP/1.1 answers come in order.
    let open = Arc::new(Mutex::new(VecDeque::new()));
    let (Ok(up_from), Ok(up_to), Ok(down_from), Ok(down_to)) = (
        client.try_clone(),
        server.try_clone(),
        server.try_clone(),
        client.try_clone(),
    ) else {
        return;
    };
    let (seen, asked) = (Arc::clone(exchanges), Arc::clone(&open));
    std::thread::spawn(move || {
        pump(up_from, up_to, |request| {
            let mut seen = seen.lock().expect("no panic while counting");
            let mut asked = asked.lock().expect("no panic while counting");
            asked.push_back((seen.len(), Instant::now()));
            seen.push(Exchange {
                request,
                answer: None,
                took: None,
            });
        });
    });
    let seen = Arc::clone(exchanges);
    std::thread::spawn(move || {
        pump(down_from, down_to, |status| {
            // 100 Continue is not the answer.
            if status == "100" {
                return;
            }
            let mut seen = seen.lock().expect("no panic while counting");
            if let Some((at, asked)) = open.lock().expect("no panic while counting").pop_front() {
                seen[at].answer = Some(status);
                seen[at].took = Some(asked.elapsed());
            }
        });
    });
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(String)) {
    let mut counter = Counter::default();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        counter.feed(&buffer[..count], &mut seen);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _closed = to.shutdown(Shutdown::Write);
}

/// Follows one direction of a connection: heads, and the bodies that `Content-Length` announces.
#[derive(Default)]
struct Counter {
    head: Vec<u8>,
    body_left: usize,
}

impl Counter {
    fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(String)) {
        while !bytes.is_empty() {
            let skipped = self.body_left.min(bytes.len());
            self.body_left -= skipped;
            bytes = &bytes[skipped..];
            let Some((first, rest)) = bytes.split_first() else {
                break;
            };
            self.head.push(*first);
            bytes = rest;
            if self.head.ends_with(b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.head).into_owned();
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse().ok())?
                });
                self.body_left = length.unwrap_or(0);
                self.head.clear();
                seen(start_line(&head));
            }
        }
    }
}

fn start_line(head: &str) -> String {
    let words: Vec<_> = head.lines().next().unwrap_or_default().split(' ').collect();
    match words.as_slice() {
        [version, status, ..] if version.starts_with("HTTP/") => (*status).to_owned(),
        [method, path, ..] => format!("{method} {path}"),
        _ => "?".to_owned(),
    }
}
