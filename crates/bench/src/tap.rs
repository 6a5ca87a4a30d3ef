//! A relay before a storage node that notes when a chunk was asked for and when the first byte of an answer passed:
//! the player's own report does not say which node gave which byte when.
//!
//! What happens to the node shows through: a refused or broken connection is reset towards the client, silence stays
//! silence.

use std::{net::SocketAddr, time::Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
};

/// Relayed at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// What passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// A request for the chunk.
    Asked,
    /// The first byte of its answer.
    FirstByte,
}

/// Something that passed through a tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// Index of the node behind the tap.
    pub node: usize,
    /// Its id, as in the path.
    pub chunk: String,
    /// What.
    pub passed: Passed,
}

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Tap {
    /// Where it listens.
    pub url: String,
    task: AbortHandle,
}

impl Tap {
    /// Before the node with this index at `target`. Events that find `events` full are lost; a reader that sees it full
    /// has to distrust what it read.
    pub async fn before(node: usize, target: SocketAddr, events: mpsc::Sender<Event>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let accepting = tokio::spawn(async move {
            let mut relays = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let events = events.clone();
                relays.spawn(async move {
                    let mut relay = Relay {
                        node,
                        client,
                        events,
                        asked: None,
                    };
                    if relay.run(target).await.is_err() {
                        let _closed_anyway = relay.client.set_zero_linger();
                    }
                });
                while relays.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            url,
            task: accepting.abort_handle(),
        })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Relay {
    node: usize,
    client: TcpStream,
    events: mpsc::Sender<Event>,
    /// The chunk whose answer has not begun.
    asked: Option<String>,
}

impl Relay {
    /// Ends without error when the client does; with one when the node does.
    async fn run(&mut self, target: SocketAddr) -> std::io::Result<()> {
        let (mut up, mut down) = (vec![0; 16 * 1024], vec![0; BUFFER_BYTES]);
        let first = self.client.read(&mut up).await?;
        if first == 0 {
            return Ok(());
        }
        self.note_request(&up[..first]);
        let mut server = TcpStream::connect(target).await?;
        server.set_nodelay(true)?;
        self.client.set_nodelay(true)?;
        server.write_all(&up[..first]).await?;
        loop {
            tokio::select! {
                count = self.client.read(&mut up) => {
                    let count = count?;
                    if count == 0 {
                        return Ok(());
                    }
                    self.note_request(&up[..count]);
                    server.write_all(&up[..count]).await?;
                }
                count = server.read(&mut down) => {
                    let count = count?;
                    if count == 0 {
                        return Err(std::io::ErrorKind::ConnectionReset.into());
                    }
                    if let Some(chunk) = self.asked.take() {
                        self.note(chunk, Passed::FirstByte);
                    }
                    self.client.write_all(&down[..count]).await?;
                }
            }
        }
    }

    fn note_request(&mut self, bytes: &[u8]) {
        if let Some(chunk) = chunk_asked_for(bytes) {
            self.asked = Some(chunk.to_owned());
            self.note(chunk.to_owned(), Passed::Asked);
        }
    }

    fn note(&self, chunk: String, passed: Passed) {
        let _lost_when_full = self.events.try_send(Event {
            at: Instant::now(),
            node: self.node,
            chunk,
            passed,
        });
    }
}

/// Of the head of a request. The client sends one request at a time, and its head in one piece.
fn chunk_asked_for(bytes: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(bytes).ok()?.lines().next()?;
    line.strip_prefix("GET /chunk/")?.split(' ').next()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::Connection;

    #[test]
    fn only_requests_for_chunks_are_noted() {
        assert_eq!(
            chunk_asked_for(b"GET /chunk/a-1 HTTP/1.1\r\nHost: x\r\n\r\n"),
            Some("a-1")
        );
        assert_eq!(chunk_asked_for(b"HEAD /ping HTTP/1.1\r\n\r\n"), None);
        assert_eq!(chunk_asked_for(b"\xff\xfe"), None);
    }

    #[tokio::test]
    async fn it_notes_what_passes_and_shows_that_the_node_is_gone() {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = node.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = node.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
        });
        let (sender, mut events) = mpsc::channel(16);
        let tap = Tap::before(7, target, sender).await.unwrap();
        let host = tap.url.trim_start_matches("http://").to_owned();
        let mut connection = Connection::open(&host).await.unwrap();
        assert_eq!(connection.get("/chunk/x").await.unwrap().status, 200);
        let (asked, answered) = (events.recv().await.unwrap(), events.recv().await.unwrap());
        assert_eq!(
            (asked.passed, asked.node, asked.chunk.as_str()),
            (Passed::Asked, 7, "x")
        );
        assert_eq!((answered.passed, answered.chunk.as_str()), (Passed::FirstByte, "x"));
        assert!(answered.at >= asked.at);
        serving.await.unwrap();
        let refused = async { Connection::open(&host).await.unwrap().get("/chunk/y").await };
        assert!(
            tokio::time::timeout(Duration::from_secs(10), refused)
                .await
                .unwrap()
                .is_err()
        );
    }
}
