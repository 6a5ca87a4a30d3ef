//! Bytes of videos, fetched from the nodes, verified, and streamed with bounded memory: of a stream there is never more
//! here than the chunk being sent and the ones fetched ahead, and of all streams together no more than there is room for.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use tokio_util::task::AbortOnDropHandle;
use vstack_api::ErrorCode;
use vstack_media::virtual_mp4::{Piece, Source};
use vstack_player::{ChunkSource, FetchError};
use vstack_service::{ApiError, ApiResult};
use vstack_types::{ByteRange, VideoId};

use crate::{
    manifests::Manifests,
    presentation::{Presentation, Stored, pieces},
    room::Room,
};

/// Chunks of one stream in memory: the one being sent, and the next.
const CHUNKS_AHEAD: usize = 2;
/// How long an answer waits for room before it begins, and once it has begun: by then all who took nothing in the
/// meantime are cut off.
const PATIENCE_FIRST: Duration = Duration::from_secs(3);
const PATIENCE_NEXT: Duration = Duration::from_secs(60);

/// Where a piece is in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Whoever asked waits for it.
    First,
    /// It is fetched ahead, while others are sent.
    Next,
}

impl Turn {
    const fn patience(self) -> Duration {
        match self {
            Self::First => PATIENCE_FIRST,
            Self::Next => PATIENCE_NEXT,
        }
    }
}

/// Fetches. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gateway {
    manifests: Arc<Manifests>,
    chunks: ChunkSource,
    room: Room,
}

impl Gateway {
    /// Readers have `bytes_max` bytes on their way to them at a time.
    pub(crate) fn new(manifests: Manifests, chunks: ChunkSource, bytes_max: u64) -> Self {
        Self {
            manifests: Arc::new(manifests),
            chunks,
            room: Room::new(bytes_max),
        }
    }

    /// What is known of `video`.
    pub(crate) async fn presentation(&self, video: VideoId) -> ApiResult<Arc<Presentation>> {
        self.manifests.get(video).await
    }

    /// Asks anew the next time.
    pub(crate) fn forget(&self, video: VideoId) {
        self.manifests.forget(video);
    }

    /// A whole stored thing of `video`, which is presented so now, when there is room for it; it takes that room until it
    /// is dropped.
    pub(crate) async fn stored(
        &self,
        video: VideoId,
        presentation: &Arc<Presentation>,
        source: Source,
    ) -> ApiResult<Bytes> {
        self.stored_at(Turn::First, video, presentation, source).await
    }

    async fn stored_at(
        &self,
        turn: Turn,
        video: VideoId,
        presentation: &Arc<Presentation>,
        source: Source,
    ) -> ApiResult<Bytes> {
        let fetched = match self.fetch(turn, presentation, source).await? {
            Err(FetchError::Unavailable { chunk, why }) => {
                tracing::warn!(%chunk, ?why, "no replica gives the chunk; asking where it is now");
                self.manifests.distrust(video, presentation);
                // No room is taken meanwhile: others can make use of it.
                let newer = self.presentation(video).await?;
                self.fetch(turn, &newer, source).await?
            }
            fetched => fetched,
        };
        fetched.map_err(|error| refusal(&error))
    }

    /// `range` of the virtual file, as a body. What can be known to fail fails before the body begins; later failures
    /// break it off.
    ///
    /// For every chunk but the first the manifest is looked up when it is its turn: a download may go on for hours, and
    /// chunks move meanwhile.
    pub(crate) async fn body(
        &self,
        video: VideoId,
        presentation: &Arc<Presentation>,
        range: ByteRange,
    ) -> ApiResult<Body> {
        let mut rest = pieces(presentation, range).into_iter();
        let Some(first) = rest.next() else {
            return Ok(Body::empty());
        };
        let first = self.piece(Turn::First, video, presentation, first).await?;
        let gateway = self.clone();
        let rest = stream::iter(rest)
            .map(move |piece| {
                let gateway = gateway.clone();
                // A task of its own: a future that waits for room must not wait for its reader too.
                let piece = async move {
                    let presentation = gateway.presentation(video).await?;
                    gateway.piece(Turn::Next, video, &presentation, piece).await
                };
                AbortOnDropHandle::new(tokio::spawn(piece))
                    .map(|piece| piece.unwrap_or_else(|panicked| Err(ApiError::internal(panicked))))
            })
            .buffered(CHUNKS_AHEAD);
        Ok(Body::from_stream(logged(video, stream::iter([Ok(first)]).chain(rest))))
    }

    async fn piece(
        &self,
        turn: Turn,
        video: VideoId,
        presentation: &Arc<Presentation>,
        piece: Piece,
    ) -> ApiResult<Bytes> {
        let whole = self.stored_at(turn, video, presentation, piece.source).await?;
        let bounds = usize::try_from(piece.offset)
            .ok()
            .zip(usize::try_from(piece.offset + piece.len).ok());
        bounds
            .filter(|(_, end)| *end <= whole.len())
            .map(|(start, end)| whole.slice(start..end))
            .ok_or_else(|| {
                ApiError::new(
                    ErrorCode::Upstream,
                    "the video is not what it was when this answer began",
                )
            })
    }

    /// What there was room for.
    async fn fetch(
        &self,
        turn: Turn,
        presentation: &Presentation,
        source: Source,
    ) -> ApiResult<Result<Bytes, FetchError>> {
        let chunks = match turn {
            Turn::First => self.chunks.awaited(),
            Turn::Next => self.chunks.clone(),
        };
        let Some(stored) = presentation.stored(source) else {
            return Ok(Ok(Bytes::new()));
        };
        let place = self.room.place(stored.size_bytes(), turn.patience()).await?;
        let fetched = match stored {
            Stored::Init(init) => chunks.init(init).await,
            Stored::Chunk(chunk) => chunks.chunk(chunk).await,
        };
        Ok(fetched.map(|bytes| place.hold(bytes)))
    }
}

fn logged(
    video: VideoId,
    body: impl Stream<Item = ApiResult<Bytes>> + Send + 'static,
) -> impl Stream<Item = ApiResult<Bytes>> + Send + 'static {
    body.inspect(move |piece| {
        if let Err(error) = piece {
            tracing::warn!(%video, %error, "a stream broke off");
        }
    })
}

fn refusal(error: &FetchError) -> ApiError {
    let code = match error {
        FetchError::Manifest(_) => ErrorCode::Unprocessable,
        FetchError::Unavailable { .. } | FetchError::Stopped => ErrorCode::Unavailable,
        FetchError::TimedOut { .. } => ErrorCode::UpstreamTimeout,
        FetchError::Busy => ErrorCode::TooMany,
    };
    let refused = ApiError::new(code, error.to_string());
    if error == &FetchError::Busy {
        refused.retry_after(std::time::Duration::from_secs(1))
    } else {
        refused
    }
}
