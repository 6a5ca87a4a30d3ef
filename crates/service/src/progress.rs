//! Connections whose peer must go on reading.
//!
//! A peer that stops reading would otherwise hold what is being sent to it, and its place among the connections, for as
//! long as it likes. A connection with nothing to send may be silent for ever.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress<S> {
    stream: S,
    /// How long a peer may take none of what is sent.
    stall_max: Duration,
    /// Made at the first stall, because most connections never have one.
    limit: Option<Pin<Box<Sleep>>>,
    stalled: bool,
    cut_off: Counter,
}

impl<S> Progress<S> {
    /// Fails when the peer takes nothing of what is sent for `stall_max`, and counts it.
    pub(crate) const fn new(stream: S, stall_max: Duration, cut_off: Counter) -> Self {
        Self {
            stream,
            stall_max,
            limit: None,
            stalled: false,
            cut_off,
        }
    }

    /// What came of a try to write; an error when nothing has come of any for too long.
    fn tried<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = false;
            return written;
        }
        let stall_max = self.stall_max;
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(stall_max)));
        if !self.stalled {
            self.stalled = true;
            limit.as_mut().reset(Instant::now() + stall_max);
        }
        ready!(limit.as_mut().poll(context));
        self.cut_off.inc();
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer reads nothing of what is sent to it",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Progress<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progress<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.tried(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.tried(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.tried(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.tried(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::timeout,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_cut_off() {
        let (ours, _peer) = duplex(16);
        let cut_off = Counter::default();
        let mut ours = Progress::new(ours, SHORT, cut_off.clone());
        ours.write_all(&[1; 16]).await.unwrap();
        let begun = Instant::now();
        let error = ours.write_all(&[2; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= SHORT);
        assert_eq!(cut_off.get(), 1);
    }

    /// Whether a byte could be written.
    async fn try_byte(ours: &mut Progress<impl AsyncWrite + Unpin>) -> bool {
        poll_fn(|context| Poll::Ready(Pin::new(&mut *ours).poll_write(context, &[1]).is_ready())).await
    }

    #[tokio::test]
    async fn every_byte_taken_begins_the_time_anew() {
        let (ours, mut peer) = duplex(1);
        let mut ours = Progress::new(ours, Duration::from_secs(3600), Counter::default());
        assert!(try_byte(&mut ours).await && !try_byte(&mut ours).await);
        let first = ours.limit.as_ref().unwrap().deadline();
        assert!(!try_byte(&mut ours).await);
        assert_eq!(ours.limit.as_ref().unwrap().deadline(), first, "one stall, one limit");
        peer.read_u8().await.unwrap();
        assert!(try_byte(&mut ours).await && !try_byte(&mut ours).await);
        assert!(ours.limit.as_ref().unwrap().deadline() > first);
    }

    #[tokio::test]
    async fn silence_with_nothing_to_send_is_no_stall() {
        let (ours, _peer) = duplex(16);
        let mut ours = Progress::new(ours, SHORT, Counter::default());
        ours.write_all(&[1; 8]).await.unwrap();
        let mut buffer = [0; 1];
        assert!(timeout(SHORT * 3, ours.read(&mut buffer)).await.is_err());
        ours.write_all(&[1; 8]).await.unwrap();
    }
}
