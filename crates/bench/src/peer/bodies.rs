//! What peers send each other: a JSON head and bytes behind it, under the cluster's MAC.
//!
//! The MAC covers the head, which names the SHA-256 of the bytes, as with the votes of ChunkPaxos: nobody hashes a chunk
//! more often than a storage node does.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;
use vstack_api::ErrorCode;
use vstack_engine::{Buffer, Item, ItemBuilder};
use vstack_service::{ApiError, ApiResult, ClusterAuth, VerifiedCall};
use vstack_types::Digest;

/// Longest head: that of an append with many small chunks.
const HEAD_BYTES_MAX: usize = 8 << 20;
/// In which something of a body must arrive.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// The length of the head, little-endian.
const PREFIX_BYTES: usize = 4;

/// A body of several pieces, sent one after the other without being copied together.
#[derive(Debug)]
pub struct Pieces(VecDeque<Bytes>);

impl Pieces {
    /// `head`, its length before it, and `payload`.
    pub fn new(head: Bytes, payload: Vec<Bytes>) -> Self {
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let mut pieces = VecDeque::with_capacity(payload.len() + 2);
        pieces.extend([Bytes::copy_from_slice(&length.to_le_bytes()), head]);
        pieces.extend(payload);
        pieces.retain(|piece| !piece.is_empty());
        Self(pieces)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// The body of a request, as it arrives.
#[derive(Debug)]
struct Arriving {
    /// Here, and not taken.
    here: Bytes,
    body: axum::body::Body,
}

impl Arriving {
    /// The next bytes, `max` at most; none at the end.
    async fn next(&mut self, max: usize) -> ApiResult<Option<Bytes>> {
        while self.here.is_empty() {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            let frame = timeout(FRAME_TIMEOUT, frame).await;
            let frame = frame.map_err(|_late| ApiError::new(ErrorCode::RequestTimeout, "the body stopped arriving"))?;
            match frame {
                Some(Ok(frame)) => self.here = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(malformed(error.to_string())),
                None => return Ok(None),
            }
        }
        let len = max.min(self.here.len());
        Ok(Some(self.here.split_to(len)))
    }

    /// The next `len` bytes, given to `take` in pieces.
    async fn exactly(&mut self, len: usize, mut take: impl FnMut(&[u8]) -> ApiResult<()>) -> ApiResult<()> {
        let mut left = len;
        while left > 0 {
            let piece = self.next(left).await?;
            let piece = piece.ok_or_else(|| malformed("the body is cut short"))?;
            take(&piece)?;
            left -= piece.len();
        }
        Ok(())
    }

    async fn bytes(&mut self, len: usize) -> ApiResult<Vec<u8>> {
        let mut all = Vec::with_capacity(len);
        let push = |piece: &[u8]| {
            all.extend_from_slice(piece);
            Ok(())
        };
        self.exactly(len, push).await?;
        Ok(all)
    }

    async fn head(&mut self) -> ApiResult<Vec<u8>> {
        let prefix = self.bytes(PREFIX_BYTES).await?;
        let length = prefix.try_into().map_or(0, u32::from_le_bytes);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > HEAD_BYTES_MAX {
            return Err(malformed("the head is too long"));
        }
        self.bytes(length).await
    }
}

/// A call of another peer or of a client, its MAC checked.
///
/// The bytes behind the head have yet to be taken.
#[derive(Debug)]
pub struct Call {
    head: Vec<u8>,
    arriving: Arriving,
    call: VerifiedCall,
}

impl Call {
    /// What is asked.
    pub fn head<T: DeserializeOwned>(&self) -> ApiResult<T> {
        serde_json::from_slice(&self.head).map_err(|error| malformed(error.to_string()))
    }

    /// The next `len` bytes, which are those with this digest; hashed as they arrive, into `place`.
    pub async fn item(&mut self, len: usize, sha256: Digest, place: Buffer) -> ApiResult<Item> {
        let mut item = ItemBuilder::new(place);
        let push = |piece: &[u8]| {
            let pushed = item.push(piece);
            pushed.map_err(|error| ApiError::new(ErrorCode::TooLarge, error.to_string()))
        };
        self.arriving.exactly(len, push).await?;
        let item = item.finish();
        if item.sha256() == sha256 {
            Ok(item)
        } else {
            let why = "the bytes are others than announced";
            Err(ApiError::new(ErrorCode::ChecksumMismatch, why))
        }
    }

    /// The answer, signed.
    pub fn answer<T: Serialize>(&self, answer: &T) -> ApiResult<axum::response::Response> {
        let body = serde_json::to_vec(answer).map_err(ApiError::internal)?;
        Ok(self.call.answer(axum::http::StatusCode::OK, "", body))
    }
}

/// What came is not what was agreed.
pub fn malformed(why: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Malformed, why.into())
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let auth = parts.extensions.get::<ClusterAuth>();
        let auth = auth.ok_or_else(|| ApiError::internal("the router was not built by Service"))?;
        let mut arriving = Arriving {
            here: Bytes::new(),
            body,
        };
        let head = arriving.head().await?;
        let call = auth.verify(&parts.method, parts.uri.path(), &parts.headers, &head)?;
        Ok(Self { head, arriving, call })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn head_and_bytes_come_apart_as_they_went_together() {
        let pieces = || {
            let payload = vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"cde")];
            Pieces::new(Bytes::from_static(b"{}"), payload)
        };
        assert_eq!(pieces().size_hint().exact(), Some(11));
        let mut arriving = Arriving {
            here: Bytes::new(),
            body: axum::body::Body::new(pieces()),
        };
        assert_eq!(arriving.head().await.unwrap(), b"{}");
        assert_eq!(arriving.bytes(3).await.unwrap(), b"abc");
        assert_eq!(arriving.bytes(2).await.unwrap(), b"de");
        assert!(arriving.bytes(1).await.is_err(), "there is no more");
    }
}
