//! Chunks on their way out, piece by piece.
//!
//! A piece that is in the page cache goes to the socket from there and takes no memory of ours. Others are read into
//! memory that is used again: a chunk holds one piece of it from its first that was read to its last, and the next is
//! read into it when the connection has taken the one before. So the memory of all answers never exceeds a limit, however
//! slow who reads them is; a reader that takes nothing at all is cut off with its connection, which frees what it held.
//!
//! What cannot be read is answered so as long as nothing was sent. After that the connection is broken: the client sees
//! fewer bytes than were announced, never others.

use std::{ops::Range, sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures_util::stream;
use tokio::time::timeout;
use vstack_api::ErrorCode;
use vstack_engine::{BoxedDisk, Buffer, BufferPool, Found, Instruments, Pieces, ReadError, Timed};
use vstack_service::{ApiError, ApiResult};
use vstack_types::{ByteRange, ChunkId, Clock, Monotonic};

use crate::{
    app::App,
    get::unreadable,
    lender::{Lender, Lent},
};

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

/// Why a chunk is not sent, or not to its end.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("too many chunks are being read at once: try again")]
    NoRoom,
}

impl SendError {
    /// As an answer.
    fn told(&self, id: &ChunkId) -> ApiError {
        match self {
            Self::Read(error) => unreadable(id, error),
            Self::NoRoom => ApiError::new(ErrorCode::Unavailable, self.to_string()).retry_after(Duration::from_secs(1)),
        }
    }
}

/// Reads what is to be sent and was asked for at `asked`; says how many bytes it is.
pub(crate) async fn read(
    app: &Arc<App>,
    id: &ChunkId,
    found: &Found,
    range: Option<ByteRange>,
    asked: Monotonic,
) -> ApiResult<(Body, u64)> {
    let wanted = range.map_or(0..found.size(), |range| range.start..range.start + range.len());
    let len = wanted.end - wanted.start;
    let first = piece(&wanted);
    let opened = open(app, found, first.clone()).await;
    let (pieces, memory, held) = opened.map_err(|error| error.told(id))?;
    let instruments = Arc::clone(app.engine.reader().instruments());
    instruments.observe(Timed::FirstByte, app.clock.monotonic().since(asked));
    let under_way = Arc::new(UnderWay {
        asked,
        clock: Arc::clone(&app.clock),
        instruments,
    });
    let bytes = given(held, &under_way);
    if first.end == wanted.end {
        return Ok((Body::from(bytes), len));
    }
    let sending = Sending {
        first: Some(bytes),
        rest: first.end..wanted.end,
        pieces,
        memory,
        under_way,
    };
    let (app, found) = (Arc::clone(app), found.clone());
    let pieces = stream::try_unfold(sending, move |sending| {
        let (app, found) = (Arc::clone(&app), found.clone());
        async move {
            let next = sending.next().await;
            if let Err(error) = &next {
                not_to_its_end(&app, &found, error).await;
            }
            next
        }
    });
    Ok((Body::from_stream(pieces), len))
}

/// All of a chunk in memory of its own, for who looks at it here: what is in the page cache is for sockets alone, as whoever
/// looks at a byte there that the medium fails to give is killed.
pub(crate) async fn copied(app: &App, found: &Found) -> Option<Bytes> {
    let read = read_through(app, found).await;
    if let Err(error) = &read {
        not_to_its_end(app, found, error).await;
    }
    read.ok()
}

async fn read_through(app: &App, found: &Found) -> Result<Bytes, SendError> {
    let mut rest = 0..found.size();
    let mut copied = BytesMut::with_capacity(usize::try_from(found.size()).unwrap_or_default());
    let buffer = Memory::of(&app.sending).take().await?;
    let first = piece(&rest);
    rest.start = first.end;
    let (mut pieces, mut buffer) = app.engine.read_pieces(found, first, buffer).await?;
    copied.extend_from_slice(buffer.bytes());
    while !rest.is_empty() {
        let next = piece(&rest);
        rest.start = next.end;
        buffer = pieces.read(buffer, next).await?;
        copied.extend_from_slice(buffer.bytes());
    }
    Ok(copied.freeze())
}

/// Says so, and writes down what is damaged.
async fn not_to_its_end(app: &App, found: &Found, error: &SendError) {
    tracing::error!(id = %found.id(), %error, cause = ?std::error::Error::source(error), "a chunk could not be sent to its end");
    if matches!(error, SendError::Read(ReadError::Corrupt)) {
        app.engine.write_down_damage(found).await;
    }
}

/// Its first piece.
async fn open(app: &App, found: &Found, first: Range<u64>) -> Result<(Pieces<BoxedDisk>, Memory, Held), SendError> {
    let mut memory = Memory::of(&app.sending);
    if let Some((pieces, bytes)) = app.engine.cached_pieces(found, first.clone())? {
        return Ok((pieces, memory, Held::Cached(bytes)));
    }
    let buffer = memory.take().await?;
    let (pieces, buffer) = app.engine.read_pieces(found, first, buffer).await?;
    let held = memory.lend(buffer);
    Ok((pieces, memory, held))
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
    memory: Memory,
    under_way: Arc<UnderWay>,
}

impl Sending {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, SendError> {
        if let Some(first) = self.first.take() {
            return Ok(Some((first, self)));
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let piece = piece(&self.rest);
        self.rest.start = piece.end;
        let held = match self.pieces.cached(piece.clone())? {
            Some(bytes) => Held::Cached(bytes),
            None => {
                let buffer = self.memory.take().await?;
                self.memory.lend(self.pieces.read(buffer, piece).await?)
            }
        };
        Ok(Some((given(held, &self.under_way), self)))
    }
}

/// The memory that one answer may have: a piece.
struct Memory {
    pool: BufferPool,
    lender: Option<Arc<Lender>>,
}

impl Memory {
    fn of(pool: &BufferPool) -> Self {
        Self {
            pool: pool.clone(),
            lender: None,
        }
    }

    /// A buffer: the answer's own, when the connection has taken what was in it, which ends with the connection.
    async fn take(&self) -> Result<Buffer, SendError> {
        match &self.lender {
            Some(lender) => Ok(lender.returned().await),
            None => timeout(ROOM_WAIT, self.pool.take())
                .await
                .map_err(|_| SendError::NoRoom),
        }
    }

    fn lend(&mut self, buffer: Buffer) -> Held {
        let lender = self.lender.get_or_insert_default();
        Held::Read(lender.lend(buffer))
    }
}

/// Bytes with the connection.
struct Given {
    held: Held,
    _under_way: Arc<UnderWay>,
}

enum Held {
    /// In the page cache.
    Cached(Bytes),
    /// In memory of ours.
    Read(Lent),
}

fn given(held: Held, under_way: &Arc<UnderWay>) -> Bytes {
    Bytes::from_owner(Given {
        held,
        _under_way: Arc::clone(under_way),
    })
}

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        match &self.held {
            Held::Cached(bytes) => bytes,
            Held::Read(lent) => lent.bytes(),
        }
    }
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
    async fn an_answer_has_one_buffer_and_gives_it_back() {
        let pool = pool(1);
        let mut memory = Memory::of(&pool);
        let held = memory.lend(memory.take().await.unwrap());
        assert!(timeout(Duration::from_millis(20), memory.take()).await.is_err());
        drop(held);
        drop(memory.take().await.unwrap());
        drop(memory);
        assert_eq!(pool.used_bytes(), 0);
    }
}
