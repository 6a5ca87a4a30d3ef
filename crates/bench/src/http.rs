//! The load generator's HTTP/1.1: one connection, one request at a time, a megabyte a read. It leaves out what would cost
//! the machine under test time: no parsing beyond the status and the length, no copy of the body, no checksum of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Read at a time. With small reads the generator, not the server, is what is measured.
const READ_BYTES: usize = 1024 * 1024;
/// Longest head taken.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest wait for a whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection kept alive.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

/// An answer, its body read and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Bytes of the body.
    pub length: usize,
    /// From the request to the first byte of the answer.
    pub first_byte: Duration,
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    content_length: usize,
    /// Bytes of the head itself.
    length: usize,
}

impl Connection {
    /// `host` is `host:port`.
    pub async fn open(host: &str) -> anyhow::Result<Self> {
        let stream = timeout(ANSWER_TIMEOUT, TcpStream::connect(host))
            .await
            .context("no connection in time")?;
        let stream = stream.with_context(|| format!("cannot connect to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            host: host.to_owned(),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// `PUT`.
    pub async fn put(&mut self, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        self.exchange(&head, body, None).await
    }

    /// `GET`; the body is dropped.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.exchange(&head, b"", None).await
    }

    /// `GET` of `length` bytes from `start` on; the body is dropped.
    pub async fn get_range(&mut self, path: &str, start: usize, length: usize) -> anyhow::Result<Answer> {
        let last = (start + length).saturating_sub(1);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nRange: bytes={start}-{last}\r\n\r\n",
            self.host
        );
        self.exchange(&head, b"", None).await
    }

    /// `DELETE`.
    pub async fn delete(&mut self, path: &str) -> anyhow::Result<Answer> {
        let head = format!("DELETE {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.exchange(&head, b"", None).await
    }

    /// `GET`; the body is kept.
    pub async fn get_body(&mut self, path: &str) -> anyhow::Result<(Answer, Vec<u8>)> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        let mut body = Vec::new();
        let answer = self.exchange(&head, b"", Some(&mut body)).await?;
        Ok((answer, body))
    }

    async fn exchange(&mut self, head: &str, body: &[u8], keep: Option<&mut Vec<u8>>) -> anyhow::Result<Answer> {
        let exchange = async {
            let started = Instant::now();
            self.stream.write_all(head.as_bytes()).await?;
            self.stream.write_all(body).await?;
            self.answer(started, keep).await
        };
        timeout(ANSWER_TIMEOUT, exchange)
            .await
            .with_context(|| format!("no answer within {ANSWER_TIMEOUT:?}"))?
    }

    async fn answer(&mut self, started: Instant, mut keep: Option<&mut Vec<u8>>) -> anyhow::Result<Answer> {
        let mut filled = 0;
        let mut first_byte = None;
        let head = loop {
            let count = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(count > 0, "the connection was closed before the answer");
            first_byte.get_or_insert_with(|| started.elapsed());
            filled += count;
            if let Some(head) = parse_head(&self.buffer[..filled])? {
                break head;
            }
            ensure!(filled < HEAD_BYTES_MAX, "the head of the answer is too long");
        };
        let mut have = filled - head.length;
        ensure!(have <= head.content_length, "more bytes than announced");
        if let Some(body) = keep.as_deref_mut() {
            body.extend_from_slice(&self.buffer[head.length..filled]);
        }
        while have < head.content_length {
            let limit = READ_BYTES.min(head.content_length - have);
            let count = self.stream.read(&mut self.buffer[..limit]).await?;
            ensure!(count > 0, "the connection was closed within the answer");
            if let Some(body) = keep.as_deref_mut() {
                body.extend_from_slice(&self.buffer[..count]);
            }
            have += count;
        }
        Ok(Answer {
            status: head.status,
            length: have,
            first_byte: first_byte.unwrap_or_default(),
        })
    }
}

/// None while the head is not whole.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let searched = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let Some(end) = searched.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).context("the head of the answer is no text")?;
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("no status in the answer")?;
    let content_length = text.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    match content_length {
        Some(content_length) => Ok(Some(Head {
            status,
            content_length,
            length: end + 4,
        })),
        None if status == 204 => Ok(Some(Head {
            status,
            content_length: 0,
            length: end + 4,
        })),
        None => bail!("an answer with status {status} without Content-Length"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let whole = b"HTTP/1.1 201 Created\r\nCONTENT-length:  12\r\nETag: \"x\"\r\n\r\nbody";
        assert_eq!(
            parse_head(whole).unwrap(),
            Some(Head {
                status: 201,
                content_length: 12,
                length: whole.len() - 4
            })
        );
        assert_eq!(parse_head(&whole[..30]).unwrap(), None);
        assert_eq!(
            parse_head(b"HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap()
                .map(|head| head.content_length),
            Some(0)
        );
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(parse_head(b"what\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn bodies_longer_than_a_read_are_read_to_their_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let sent: Vec<u8> = (0..3 * READ_BYTES + 7)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let body = sent.clone();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
                    .await
                    .unwrap();
                stream.write_all(&body).await.unwrap();
            }
        });
        let mut connection = Connection::open(&host).await.unwrap();
        let answer = connection.get("/x").await.unwrap();
        assert_eq!((answer.status, answer.length), (200, sent.len()));
        let (_, kept) = connection.get_body("/x").await.unwrap();
        assert!(kept == sent);
        server.await.unwrap();
        assert!(connection.get("/x").await.is_err());
    }
}
