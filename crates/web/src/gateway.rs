//! Bytes of videos, fetched from the nodes, verified, and streamed with bounded memory: of a stream there is never more
//! here than the chunk being sent and the one fetched ahead.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use vstack_api::ErrorCode;
use vstack_media::virtual_mp4::{Piece, Source};
use vstack_player::{ChunkSource, FetchError};
use vstack_service::{ApiError, ApiResult};
use vstack_types::{ByteRange, VideoId};

use crate::{
    manifests::Manifests,
    presentation::{Presentation, Stored, pieces},
};

/// Chunks of one stream in memory: the one being sent, and the next.
const CHUNKS_AHEAD: usize = 2;

/// Fetches. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gateway {
    manifests: Arc<Manifests>,
    chunks: ChunkSource,
}

impl Gateway {
    pub(crate) fn new(manifests: Manifests, chunks: ChunkSource) -> Self {
        Self {
            manifests: Arc::new(manifests),
            chunks,
        }
    }

    /// What is known of `video`.
    pub(crate) async fn presentation(&self, video: VideoId) -> ApiResult<Arc<Presentation>> {
        self.manifests.get(video).await
    }

    /// Asks anew the next time.
    pub(crate) fn forget(&self, video: VideoId) {
        self.manifests.distrust(video);
    }

    /// A whole stored thing of `video`.
    ///
    /// The manifest is looked up for every chunk, not once for a stream: a download may go on for hours, and chunks
    /// move meanwhile.
    pub(crate) async fn stored(&self, video: VideoId, source: Source) -> ApiResult<Bytes> {
        let presentation = self.presentation(video).await?;
        match self.fetch(&presentation, source).await {
            Err(FetchError::Unavailable { chunk }) => {
                tracing::warn!(%chunk, "no replica gives the chunk; asking where it is now");
                self.manifests.distrust(video);
                let presentation = self.presentation(video).await?;
                self.fetch(&presentation, source).await.map_err(|error| refusal(&error))
            }
            fetched => fetched.map_err(|error| refusal(&error)),
        }
    }

    /// `range` of the virtual file, as a body. What can be known to fail fails before the body begins; later failures
    /// break it off.
    pub(crate) async fn body(&self, video: VideoId, presentation: &Presentation, range: ByteRange) -> ApiResult<Body> {
        let mut rest = pieces(presentation, range).into_iter();
        let Some(first) = rest.next() else {
            return Ok(Body::empty());
        };
        let first = self.piece(video, first).await?;
        let gateway = self.clone();
        let rest = stream::iter(rest)
            .map(move |piece| {
                let gateway = gateway.clone();
                async move { gateway.piece(video, piece).await }
            })
            .buffered(CHUNKS_AHEAD);
        Ok(Body::from_stream(logged(video, stream::iter([Ok(first)]).chain(rest))))
    }

    async fn piece(&self, video: VideoId, piece: Piece) -> ApiResult<Bytes> {
        let whole = self.stored(video, piece.source).await?;
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

    async fn fetch(&self, presentation: &Presentation, source: Source) -> Result<Bytes, FetchError> {
        match presentation.stored(source) {
            Some(Stored::Init(init)) => self.chunks.init(init).await,
            Some(Stored::Chunk(chunk)) => self.chunks.chunk(chunk).await,
            None => Ok(Bytes::new()),
        }
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
