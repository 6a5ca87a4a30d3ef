//! The processor's own ceiling for a verified PUT: a server that receives and hashes, and writes nothing anywhere. No
//! durable store on this machine, fed by the same generator, can be faster.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use vstack_types::DigestBuilder;

/// Read at a time: what is hashed is then still in the processor's cache.
const READ_BYTES: usize = 256 * 1024;
/// Longest head taken.
const HEAD_BYTES_MAX: usize = 4096;

/// The server. It has threads of its own, as a process of its own would.
#[derive(Debug)]
pub struct Ceiling {
    /// `host:port`.
    pub host: String,
    runtime: Option<Runtime>,
}

impl Ceiling {
    /// Listens on a port of its own.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("ceiling")
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        listener.set_nonblocking(true)?;
        let host = listener.local_addr()?.to_string();
        runtime.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away ends its connection; the generator notices whatever else is wrong.
                tokio::spawn(async move { serve(stream).await.ok() });
            }
        });
        Ok(Self {
            host,
            runtime: Some(runtime),
        })
    }
}

impl Drop for Ceiling {
    /// Nothing in it is worth waiting for, and a caller that is async itself may not wait.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut filled = 0;
        let (head, length) = loop {
            let count = stream.read(&mut buffer[filled..]).await?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
            if let Some(found) = head(&buffer[..filled])? {
                break found;
            }
        };
        let mut digest = DigestBuilder::default();
        digest.update(&buffer[head..filled]);
        let mut left = length.checked_sub(filled - head).context("more bytes than announced")?;
        while left > 0 {
            let limit = left.min(READ_BYTES);
            let count = stream.read(&mut buffer[..limit]).await?;
            anyhow::ensure!(count > 0, "closed within a body");
            digest.update(&buffer[..count]);
            left -= count;
        }
        let answer = format!(
            "HTTP/1.1 201 Created\r\nETag: \"{}\"\r\nContent-Length: 0\r\n\r\n",
            digest.finish()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Length of the head and of the body it announces.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let searched = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let Some(end) = searched.windows(4).position(|window| window == b"\r\n\r\n") else {
        anyhow::ensure!(bytes.len() < HEAD_BYTES_MAX, "a head that is too long");
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end])?;
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
    Ok(Some((end + 4, length.context("no Content-Length")?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::Connection, payload::Payload};

    #[tokio::test]
    async fn it_takes_bodies_one_after_the_other() {
        let payload = Payload::make();
        let ceiling = Ceiling::start().unwrap();
        let mut connection = Connection::open(&ceiling.host).await.unwrap();
        for index in 0..3 {
            let answer = connection.put("/chunk/x", &payload.chunk(index).bytes).await.unwrap();
            assert_eq!((answer.status, answer.length), (201, 0));
        }
    }
}
