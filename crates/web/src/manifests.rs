//! The manifests of the videos that are being served, a few seconds old at most while the metadata service answers.
//!
//! An old manifest is asked for again with its ETag, by one request at a time; the others meanwhile use what there is.
//! One by which a chunk could not be read is used no more: whoever comes waits for a newer one, all for the same answer.
//! While the metadata service is silent, the last manifest is served on: chunks do not change, and a replica that
//! moved is at worst a failed try.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use vstack_api::{ErrorCode, metadata::Manifest};
use vstack_service::{ApiError, ApiResult, aside};
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

/// A manifest as it was given.
#[derive(Clone)]
struct Version {
    presentation: Arc<Presentation>,
    etag: Option<HeaderValue>,
}

struct Entry {
    version: Version,
    /// A chunk could not be read by it.
    is_distrusted: bool,
    checked_at: Instant,
    used_at: Instant,
}

/// Being asked for a manifest, by as many as want it.
type Answering = BoxFuture<'static, ApiResult<Arc<Presentation>>>;

#[derive(Default)]
struct Known {
    entries: HashMap<VideoId, Entry>,
    /// What is being asked for, and by which number: it ends with the last who waits for it.
    asking: HashMap<VideoId, (u64, WeakShared<Answering>)>,
    asked: u64,
}

/// The cache.
pub(crate) struct Manifests {
    metadata: Upstream,
    fresh_for: Duration,
    known: Mutex<Known>,
}

/// What the cache says of a video.
enum Found {
    Fresh(Arc<Presentation>),
    /// To be waited for; where there is an old one, that will do if nothing comes of it.
    Asked(Shared<Answering>, Option<Arc<Presentation>>),
}

impl Manifests {
    pub(crate) fn new(metadata: Upstream, fresh_for: Duration) -> Self {
        Self {
            metadata,
            fresh_for,
            known: Mutex::default(),
        }
    }

    /// The video, when it can be served.
    pub(crate) async fn get(self: &Arc<Self>, video: VideoId) -> ApiResult<Arc<Presentation>> {
        let (answering, old) = match self.look_up(video, Instant::now()) {
            Found::Fresh(presentation) => return Ok(presentation),
            Found::Asked(answering, old) => (answering, old),
        };
        match (answering.await, old) {
            (Err(error), Some(old)) if error.status().is_server_error() => {
                tracing::warn!(%video, %error, "serving the manifest as it was last known");
                Ok(old)
            }
            (answered, _) => answered,
        }
    }

    /// A chunk could not be read by this manifest: whoever comes next waits for a newer one, unless it is there already.
    pub(crate) fn distrust(&self, video: VideoId, presentation: &Arc<Presentation>) {
        let mut known = self.lock();
        if let Some(entry) = known.entries.get_mut(&video)
            && Arc::ptr_eq(&entry.version.presentation, presentation)
            && !entry.is_distrusted
        {
            entry.is_distrusted = true;
            // What is being asked for may have been answered before anything was wrong.
            known.asking.remove(&video);
        }
    }

    /// Knows nothing of a video any more.
    pub(crate) fn forget(&self, video: VideoId) {
        let mut known = self.lock();
        known.entries.remove(&video);
        known.asking.remove(&video);
    }

    fn look_up(self: &Arc<Self>, video: VideoId, now: Instant) -> Found {
        let mut known = self.lock();
        let mut old = None;
        if let Some(entry) = known.entries.get_mut(&video) {
            entry.used_at = now;
            if !entry.is_distrusted && now.duration_since(entry.checked_at) < self.fresh_for {
                return Found::Fresh(Arc::clone(&entry.version.presentation));
            }
            // Claims the asking: whoever comes meanwhile takes the old one, unless that is distrusted.
            entry.checked_at = now;
            old = Some(entry.version.clone());
        }
        let presentation = old.as_ref().map(|old| Arc::clone(&old.presentation));
        let under_way = known.asking.get(&video).and_then(|(_, asking)| asking.upgrade());
        if let Some(answering) = under_way {
            return Found::Asked(answering, presentation);
        }
        known.asked += 1;
        let number = known.asked;
        let answering = Arc::clone(self).answer(number, video, old).boxed().shared();
        // Those for which nobody waited to the end.
        known.asking.retain(|_, (_, asking)| asking.upgrade().is_some());
        if let Some(asking) = answering.downgrade() {
            known.asking.insert(video, (number, asking));
        }
        Found::Asked(answering, presentation)
    }

    /// Asks, and remembers what came of it, unless it was asked anew since.
    async fn answer(
        self: Arc<Self>,
        number: u64,
        video: VideoId,
        old: Option<Version>,
    ) -> ApiResult<Arc<Presentation>> {
        let answered = self.ask(video, old).await;
        let mut known = self.lock();
        if known.asking.get(&video).is_some_and(|(latest, _)| *latest == number) {
            known.asking.remove(&video);
            match &answered {
                Ok(version) => known.remember(video, version.clone(), Instant::now()),
                Err(error) if error.status().is_server_error() => {}
                Err(_) => drop(known.entries.remove(&video)),
            }
        }
        drop(known);
        answered.map(|version| version.presentation)
    }

    /// The manifest as it is now; the old one, where it is that still.
    async fn ask(&self, video: VideoId, old: Option<Version>) -> ApiResult<Version> {
        let mut headers = HeaderMap::new();
        if let Some(etag) = old.as_ref().and_then(|old| old.etag.clone()) {
            headers.insert(header::IF_NONE_MATCH, etag);
        }
        let answer = self
            .metadata
            .call(Method::GET, &format!("/manifest/{video}?urls=internal"), headers)
            .await?;
        if answer.status() == StatusCode::NOT_MODIFIED
            && let Some(old) = old
        {
            return Ok(old);
        }
        let etag = answer.headers().get(header::ETAG).cloned();
        let presentation = Arc::new(read(answer).await?);
        Ok(Version { presentation, etag })
    }

    /// Held for look-ups only, never across an await; what a panicking holder left is whole all the same.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn remember(&mut self, video: VideoId, version: Version, now: Instant) {
        let entry = Entry {
            version,
            is_distrusted: false,
            checked_at: now,
            used_at: now,
        };
        self.entries.insert(video, entry);
        if self.entries.len() > VIDEOS_MAX
            && let Some(oldest) = self
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.used_at)
                .map(|(video, _)| *video)
        {
            self.entries.remove(&oldest);
        }
    }
}

/// That of a long film takes some milliseconds to read, in which nobody else would be served.
async fn read(answer: Answer) -> ApiResult<Presentation> {
    let answer = answer.or_refusal().await?;
    let body = answer.read(MANIFEST_BYTES_MAX).await?;
    let read = move || {
        let manifest: Manifest = serde_json::from_slice(&body).map_err(|error| {
            ApiError::new(
                ErrorCode::Upstream,
                format!("the metadata service gave a manifest that cannot be read: {error}"),
            )
        })?;
        Presentation::new(manifest).map_err(refusal)
    };
    aside(read).await.map_err(ApiError::internal)?
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
    use futures_util::future::join_all;
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

    async fn cache(fresh_for: Duration) -> (Arc<Manifests>, Arc<Metadata>) {
        let metadata = Arc::new(Metadata::default());
        metadata.status.store(200, SeqCst);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/manifest/{id}", get(answer))
            .with_state(Arc::clone(&metadata));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let http = HttpClient::new(None, Timeouts::default()).unwrap();
        let manifests = Manifests::new(Upstream::new("metadata", http, &url), fresh_for);
        (Arc::new(manifests), metadata)
    }

    /// So many readers that come at once.
    async fn together(manifests: &Arc<Manifests>, video: VideoId) -> Vec<Arc<Presentation>> {
        let readers = join_all((0..20).map(|_| manifests.get(video))).await;
        readers.into_iter().map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn a_fresh_manifest_is_not_asked_for_again() {
        let (manifests, metadata) = cache(Duration::from_secs(3600)).await;
        let video = VideoId::random();
        manifests.get(video).await.unwrap();
        manifests.get(video).await.unwrap();
        assert_eq!(metadata.asked.load(SeqCst), 1);
        manifests.forget(video);
        manifests.get(video).await.unwrap();
        assert_eq!(metadata.asked.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn who_come_together_ask_once() {
        let (manifests, metadata) = cache(Duration::from_secs(3600)).await;
        let video = VideoId::random();
        let given = together(&manifests, video).await;
        assert_eq!(metadata.asked.load(SeqCst), 1);
        assert!(given.iter().all(|one| Arc::ptr_eq(one, &given[0])));
        // Who goes away takes it from nobody, and leaves nothing behind.
        let other = VideoId::random();
        let gone = manifests.look_up(other, Instant::now());
        drop(gone);
        together(&manifests, other).await;
        assert_eq!(metadata.asked.load(SeqCst), 2);
        assert!(manifests.lock().asking.is_empty());
    }

    #[tokio::test]
    async fn all_whom_a_manifest_failed_ask_once_for_a_newer_one() {
        let (manifests, metadata) = cache(Duration::from_secs(3600)).await;
        let video = VideoId::random();
        let first = manifests.get(video).await.unwrap();
        // It did not change: by its tag that is asked for, not all of it.
        metadata.status.store(304, SeqCst);
        manifests.distrust(video, &first);
        manifests.distrust(video, &first);
        let same = together(&manifests, video).await;
        assert!(same.iter().all(|one| Arc::ptr_eq(one, &first)));
        assert_eq!((metadata.asked.load(SeqCst), metadata.tagged.load(SeqCst)), (2, 1));
        metadata.status.store(200, SeqCst);
        manifests.distrust(video, &first);
        let newer = together(&manifests, video).await;
        assert!(
            newer
                .iter()
                .all(|one| Arc::ptr_eq(one, &newer[0]) && !Arc::ptr_eq(one, &first))
        );
        assert_eq!(metadata.asked.load(SeqCst), 3);
        // Whom the first one fails only now finds the newer one there.
        manifests.distrust(video, &first);
        assert!(Arc::ptr_eq(&manifests.get(video).await.unwrap(), &newer[0]));
        assert_eq!(metadata.asked.load(SeqCst), 3);
        // It is the best there is while nobody says anything newer.
        metadata.status.store(503, SeqCst);
        manifests.distrust(video, &newer[0]);
        assert!(Arc::ptr_eq(&manifests.get(video).await.unwrap(), &newer[0]));
        metadata.status.store(304, SeqCst);
        manifests.get(video).await.unwrap();
        manifests.get(video).await.unwrap();
        assert_eq!(
            metadata.asked.load(SeqCst),
            5,
            "it is distrusted until somebody says so"
        );
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
