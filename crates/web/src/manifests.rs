//! The manifests of the videos that are being served, a few seconds old at most while the metadata service answers.
//!
//! An old manifest is asked for again with its ETag, by one request at a time; the others meanwhile use what there is.
//! While the metadata service is silent, the last manifest is served on: chunks do not change, and a replica that
//! moved is at worst a failed try.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use vstack_api::{ErrorCode, metadata::Manifest};
use vstack_service::{ApiError, ApiResult};
use vstack_types::VideoId;

use crate::{
    presentation::{NotPlayable, Presentation},
    upstream::{Answer, Upstream},
};

/// So long a manifest is used without asking.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(3);
/// Videos remembered; beyond, the one asked for longest ago goes.
const VIDEOS_MAX: usize = 64;
/// Longest manifest read: `VIDEO_CHUNKS_MAX` chunks at about half a kilobyte each.
const MANIFEST_BYTES_MAX: usize = 160 * 1024 * 1024;

struct Entry {
    presentation: Arc<Presentation>,
    etag: Option<HeaderValue>,
    checked_at: Instant,
    used_at: Instant,
}

/// The cache.
pub(crate) struct Manifests {
    metadata: Upstream,
    fresh_for: Duration,
    entries: Mutex<HashMap<VideoId, Entry>>,
}

/// What the cache says of a video.
enum Known {
    Fresh(Arc<Presentation>),
    /// To be asked for again, by whoever got this.
    Old(Arc<Presentation>, Option<HeaderValue>),
    Nothing,
}

impl Manifests {
    pub(crate) fn new(metadata: Upstream, fresh_for: Duration) -> Self {
        Self {
            metadata,
            fresh_for,
            entries: Mutex::new(HashMap::new()),
        }
    }

    /// The video, when it can be served.
    pub(crate) async fn get(&self, video: VideoId) -> ApiResult<Arc<Presentation>> {
        match self.look_up(video, Instant::now()) {
            Known::Fresh(presentation) => Ok(presentation),
            Known::Nothing => self.fetch(video, None).await,
            Known::Old(old, etag) => match self.fetch(video, etag).await {
                Err(error) if error.status().is_server_error() => {
                    tracing::warn!(%video, %error, "serving the manifest as it was last known");
                    Ok(old)
                }
                fetched => fetched,
            },
        }
    }

    /// Makes the next request ask again.
    pub(crate) fn distrust(&self, video: VideoId) {
        self.lock().remove(&video);
    }

    async fn fetch(&self, video: VideoId, etag: Option<HeaderValue>) -> ApiResult<Arc<Presentation>> {
        let mut headers = HeaderMap::new();
        if let Some(etag) = etag {
            headers.insert(header::IF_NONE_MATCH, etag);
        }
        let answer = self
            .metadata
            .call(Method::GET, &format!("/manifest/{video}?urls=internal"), headers)
            .await?;
        if answer.status() == StatusCode::NOT_MODIFIED
            && let Some(presentation) = self.lock().get(&video).map(|entry| Arc::clone(&entry.presentation))
        {
            return Ok(presentation);
        }
        let etag = answer.headers().get(header::ETAG).cloned();
        let read = read(answer)
            .await
            .and_then(|manifest| Presentation::new(manifest).map_err(refusal));
        match read {
            Ok(presentation) => {
                let presentation = Arc::new(presentation);
                self.remember(video, Arc::clone(&presentation), etag);
                Ok(presentation)
            }
            Err(error) => {
                if !error.status().is_server_error() {
                    self.lock().remove(&video);
                }
                Err(error)
            }
        }
    }

    fn look_up(&self, video: VideoId, now: Instant) -> Known {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&video) else {
            return Known::Nothing;
        };
        entry.used_at = now;
        if now.duration_since(entry.checked_at) < self.fresh_for {
            return Known::Fresh(Arc::clone(&entry.presentation));
        }
        // Claims the asking: whoever comes meanwhile takes the old one.
        entry.checked_at = now;
        Known::Old(Arc::clone(&entry.presentation), entry.etag.clone())
    }

    fn remember(&self, video: VideoId, presentation: Arc<Presentation>, etag: Option<HeaderValue>) {
        let now = Instant::now();
        let mut entries = self.lock();
        entries.insert(
            video,
            Entry {
                presentation,
                etag,
                checked_at: now,
                used_at: now,
            },
        );
        if entries.len() > VIDEOS_MAX
            && let Some(oldest) = entries
                .iter()
                .min_by_key(|(_, entry)| entry.used_at)
                .map(|(video, _)| *video)
        {
            entries.remove(&oldest);
        }
    }

    /// Held for look-ups only, never across an await; what a panicking holder left is whole all the same.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<VideoId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(answer: Answer) -> ApiResult<Manifest> {
    let answer = answer.or_refusal().await?;
    let body = answer.read(MANIFEST_BYTES_MAX).await?;
    serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(
            ErrorCode::Upstream,
            format!("the metadata service gave a manifest that cannot be read: {error}"),
        )
    })
}

/// How a video that cannot be served is refused.
pub(crate) fn refusal(reason: NotPlayable) -> ApiError {
    let code = match reason {
        NotPlayable::Uploading | NotPlayable::Failed => ErrorCode::Conflict,
        NotPlayable::Deleted => ErrorCode::NotFound,
        NotPlayable::Empty | NotPlayable::NotCmaf => ErrorCode::Unprocessable,
        NotPlayable::BadChecksum => ErrorCode::Upstream,
    };
    ApiError::new(code, reason.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::SeqCst};

    use axum::{Router, extract::State, response::IntoResponse as _, routing::get};
    use vstack_client::{HttpClient, Timeouts};

    use super::*;

    /// Answers with the status it is set to; counts what it was asked, and how often with the right tag.
    #[derive(Default)]
    struct Metadata {
        status: AtomicU16,
        asked: AtomicU64,
        tagged: AtomicU64,
    }

    async fn answer(State(metadata): State<Arc<Metadata>>, headers: HeaderMap) -> axum::response::Response {
        metadata.asked.fetch_add(1, SeqCst);
        let tagged = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "\"one\"");
        metadata.tagged.fetch_add(u64::from(tagged), SeqCst);
        match metadata.status.load(SeqCst) {
            200 => {
                let chunk = serde_json::json!({
                    "chunk_id": "a", "sequence_num": 0, "size_bytes": 3, "checksum": "0".repeat(64),
                    "redundancy_mode": "replication", "replicas": [], "replica_ids": [], "segment": 0, "start_sec": 0.0,
                    "duration_sec": 1.0, "independent": true,
                });
                let manifest = serde_json::json!({
                    "video_id": VideoId::random(), "title": "", "duration_sec": 1.0, "total_chunks": 1,
                    "chunk_duration_sec": 10, "chunk_size_bytes": 3, "created_at": "2026-01-01T00:00:00Z",
                    "status": "active", "version": 1, "init": null, "chunks": [chunk],
                });
                ([(header::ETAG, "\"one\"")], axum::Json(manifest)).into_response()
            }
            status => StatusCode::from_u16(status).unwrap().into_response(),
        }
    }

    async fn cache(fresh_for: Duration) -> (Manifests, Arc<Metadata>) {
        let metadata = Arc::new(Metadata::default());
        metadata.status.store(200, SeqCst);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/manifest/{id}", get(answer))
            .with_state(Arc::clone(&metadata));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let http = HttpClient::new(None, Timeouts::default()).unwrap();
        (
            Manifests::new(Upstream::new("metadata", http, &url), fresh_for),
            metadata,
        )
    }

    #[tokio::test]
    async fn a_fresh_manifest_is_not_asked_for_again() {
        let (manifests, metadata) = cache(Duration::from_secs(3600)).await;
        let video = VideoId::random();
        manifests.get(video).await.unwrap();
        manifests.get(video).await.unwrap();
        assert_eq!(metadata.asked.load(SeqCst), 1);
        manifests.distrust(video);
        manifests.get(video).await.unwrap();
        assert_eq!(metadata.asked.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn an_old_one_is_asked_for_by_its_tag_and_kept_through_silence() {
        let (manifests, metadata) = cache(Duration::ZERO).await;
        let video = VideoId::random();
        let first = manifests.get(video).await.unwrap();
        for status in [304, 503] {
            metadata.status.store(status, SeqCst);
            let again = manifests.get(video).await.unwrap();
            assert!(Arc::ptr_eq(&first, &again), "{status}");
        }
        assert_eq!((metadata.asked.load(SeqCst), metadata.tagged.load(SeqCst)), (3, 2));
        metadata.status.store(404, SeqCst);
        assert!(manifests.get(video).await.unwrap_err().status().is_client_error());
    }
}
