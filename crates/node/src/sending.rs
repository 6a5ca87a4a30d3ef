//! Chunks on their way out, piece by piece through memory that is used again.
//!
//! A chunk that is being sent holds one piece of memory from its first byte to its last: the next piece is read into it
//! when the connection has taken the one before. So the memory of all answers never exceeds a limit, however slow who
//! reads them is; a reader that takes nothing at all is cut off with its connection, which frees what it held.
//!
//! What cannot be read is answered so as long as nothing was sent. After that the connection is broken: the client sees
//! fewer bytes than were announced, never others.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::{sync::Notify, time::timeout};
use vstack_api::ErrorCode;
use vstack_engine::{BoxedDisk, Buffer, BufferPool, Found, Instruments, Pieces, ReadError, Timed};
use vstack_service::{ApiError, ApiResult};
use vstack_types::{ByteRange, ChunkId, Clock, Monotonic};

use crate::{app::App, get::unreadable};

/// Bytes of a piece: small enough that a piece which was read is still in the processor's cache when it is written, large
/// enough that calls and wake-ups cost nothing beside copying.
const PIECE_BYTES: usize = 1024 * 1024;

/// A read that finds no memory by then is refused.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// Memory for pieces, `bytes` in all.
pub(crate) fn pool(bytes: u64) -> BufferPool {
    let count = usize::try_from(bytes).unwrap_or(usize::MAX) / PIECE_BYTES;
    BufferPool::new(PIECE_BYTES, count.clamp(1, u32::MAX as usize))
}

/// Reads what is to be sent and was asked for at `asked`; says how many bytes it is.
pub(crate) async fn read(
    app: &App,
    id: &ChunkId,
    found: &Found,
    range: Option<ByteRange>,
    asked: Monotonic,
) -> ApiResult<(Body, u64)> {
    let wanted = range.map_or(0..found.size(), |range| range.start..range.start + range.len());
    let len = wanted.end - wanted.start;
    let buffer = timeout(ROOM_WAIT, app.sending.take()).await.map_err(|_| {
        ApiError::new(
            ErrorCode::Unavailable,
            "too many chunks are being read at once: try again",
        )
        .retry_after(Duration::from_secs(1))
    })?;
    let first = piece(&wanted);
    let read = app.engine.read_pieces(found, first.clone(), buffer).await;
    let (pieces, buffer) = read.map_err(|error| unreadable(id, &error))?;
    let instruments = Arc::clone(app.engine.reader().instruments());
    instruments.observe(Timed::FirstByte, app.clock.monotonic().since(asked));
    let lender = Arc::new(Lender::of(UnderWay {
        asked,
        clock: Arc::clone(&app.clock),
        instruments,
    }));
    let bytes = lender.lend(buffer);
    if first.end == wanted.end {
        return Ok((Body::from(bytes), len));
    }
    let sending = Sending {
        first: Some(bytes),
        rest: first.end..wanted.end,
        pieces,
        lender,
    };
    let id = id.clone();
    let pieces = stream::try_unfold(sending, move |sending| {
        let id = id.clone();
        async move {
            let next = sending.next().await;
            if let Err(error) = &next {
                tracing::error!(%id, %error, cause = ?std::error::Error::source(error), "a chunk could not be sent to its end");
            }
            next
        }
    });
    Ok((Body::from_stream(pieces), len))
}

/// The first piece of `wanted`.
fn piece(wanted: &Range<u64>) -> Range<u64> {
    wanted.start..wanted.end.min(wanted.start + PIECE_BYTES as u64)
}

/// A chunk that is being sent.
struct Sending {
    first: Option<Bytes>,
    rest: Range<u64>,
    pieces: Pieces<BoxedDisk>,
    lender: Arc<Lender>,
}

impl Sending {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ReadError> {
        if let Some(first) = self.first.take() {
            return Ok(Some((first, self)));
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        // As long as the connection takes, which ends with it.
        let buffer = self.lender.returned().await;
        let piece = piece(&self.rest);
        self.rest.start = piece.end;
        let buffer = self.pieces.read(buffer, piece).await?;
        Ok(Some((self.lender.lend(buffer), self)))
    }
}

/// Lends the one buffer of an answer to the connection, and gets it back when its bytes were written or given up.
struct Lender {
    back: Mutex<Option<Buffer>>,
    came_back: Notify,
    _under_way: UnderWay,
}

/// Measures until the last of a chunk is written to the connection, or the connection is gone.
struct UnderWay {
    asked: Monotonic,
    clock: Arc<dyn Clock>,
    instruments: Arc<Instruments>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.instruments
            .observe(Timed::Get, self.clock.monotonic().since(self.asked));
    }
}

impl Lender {
    fn of(under_way: UnderWay) -> Self {
        Self {
            back: Mutex::default(),
            came_back: Notify::default(),
            _under_way: under_way,
        }
    }

    fn lend(self: &Arc<Self>, buffer: Buffer) -> Bytes {
        Bytes::from_owner(Lent {
            buffer: Some(buffer),
            lender: Arc::clone(self),
        })
    }

    /// The buffer, when it is back.
    async fn returned(&self) -> Buffer {
        loop {
            // Somebody else's panic leaves the buffer as whole as it was.
            let back = self.back.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(buffer) = back {
                return buffer;
            }
            self.came_back.notified().await;
        }
    }
}

/// A buffer with the connection.
struct Lent {
    buffer: Option<Buffer>,
    lender: Arc<Lender>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], Buffer::bytes)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.lender.back.lock().unwrap_or_else(PoisonError::into_inner) = self.buffer.take();
        self.lender.came_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_what_is_wanted() {
        let step = PIECE_BYTES as u64;
        assert_eq!(piece(&(0..1)), 0..1);
        assert_eq!(piece(&(7..2 * step)), 7..7 + step);
        assert_eq!(piece(&(7 + step..2 * step)), 7 + step..2 * step);
    }

    #[tokio::test]
    async fn a_buffer_comes_back_when_nobody_has_its_bytes() {
        let pool = pool(1);
        let mut buffer = pool.take().await;
        buffer.push(b"bytes").unwrap();
        let clock: Arc<dyn Clock> = Arc::new(vstack_types::SystemClock::start());
        let lender = Arc::new(Lender::of(UnderWay {
            asked: clock.monotonic(),
            clock,
            instruments: Arc::default(),
        }));
        let bytes = lender.lend(buffer);
        let part = bytes.slice(1..3);
        drop(bytes);
        assert!(timeout(Duration::from_millis(20), lender.returned()).await.is_err());
        assert_eq!(&*part, b"yt");
        drop(part);
        let again = timeout(Duration::from_secs(60), lender.returned()).await.unwrap();
        drop(lender.lend(again));
        assert_eq!(pool.used_bytes(), PIECE_BYTES);
        drop(lender);
        assert_eq!(pool.used_bytes(), 0, "it goes with who lends it");
    }
}
