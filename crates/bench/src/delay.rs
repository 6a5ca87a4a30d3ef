//! A relay that holds everything back for a while, in both directions, without narrowing it: what a request takes longer
//! through it is its round trips, whoever makes them. So round trips are measured from outside, for every protocol in the
//! same way.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// Read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Pieces on their way, in one direction of a connection: 32 MiB, more than any request.
const PIECES_MAX: usize = 512;

/// How long a relay holds everything back in one direction. Clones are the same delay.
#[derive(Debug, Clone, Default)]
pub struct Delay(Arc<AtomicU64>);

impl Delay {
    /// From now on.
    pub fn set(&self, one_way: Duration) {
        let micros = u64::try_from(one_way.as_micros()).unwrap_or(u64::MAX);
        self.0.store(micros, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens: `host:port`.
    pub host: String,
    task: AbortHandle,
}

impl Relay {
    /// Before `target`.
    pub async fn before(target: SocketAddr, delay: Delay) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let host = listener.local_addr()?.to_string();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(relay(client, target, delay.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            host,
            task: accepting.abort_handle(),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends with the connection, on whichever side it is closed.
async fn relay(client: TcpStream, target: SocketAddr, delay: Delay) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pass(from_client, to_server, &delay),
        pass(from_server, to_client, &delay)
    )?;
    Ok(())
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: &Delay) -> std::io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Bytes)>(PIECES_MAX);
    let read = async move {
        loop {
            let mut piece = vec![0; READ_BYTES];
            let count = from.read(&mut piece).await?;
            piece.truncate(count);
            let due = Instant::now() + delay.get();
            if count == 0 || sender.send((due, piece.into())).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Connection;

    #[tokio::test]
    async fn a_large_request_takes_one_round_trip_longer_and_arrives_whole() {
        const LENGTH: usize = 2 << 20;
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            for _ in 0..2 {
                let (mut got, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
                while !got.ends_with(&[7; 1000]) {
                    let count = stream.read(&mut buffer).await.unwrap();
                    got.extend_from_slice(&buffer[..count]);
                }
                assert!(got.len() > LENGTH);
                stream
                    .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
                    .await
                    .unwrap();
            }
        });
        let delay = Delay::default();
        let relay = Relay::before(target, delay.clone()).await.unwrap();
        let mut connection = Connection::open(&relay.host).await.unwrap();
        let mut body = vec![0; LENGTH];
        body[LENGTH - 1000..].fill(7);
        connection.put("/x", &body).await.unwrap();
        delay.set(Duration::from_millis(100));
        let started = std::time::Instant::now();
        connection.put("/x", &body).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(200));
        serving.await.unwrap();
    }
}
