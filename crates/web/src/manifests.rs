//! The manifests of the videos that are being served, a few seconds old at most while the metadata service answers.
//!
//! An old manifest is asked for again with its ETag, by one request at a time; the others meanwhile use what there is.
//! One by which a chunk could not be read is used no more: whoever comes waits for a newer one, all for the same answer.
//! While the metadata service is silent, the last manifest is served on, also such a one: chunks do not change, and a
//! replica that moved is at worst a failed try. That it is silent is found out by few, and not again by everybody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared};
use tokio::time::timeout;
use vstack_api::{ErrorCode, metadata::Manifest};
use vstack_service::{ApiError, ApiResult, aside};
use vstack_types::VideoId;

use crate::{
    presentation::{NotPlayable, Presentation},
    upstream::{Answer, Upstream},
};

/// So long a manifest is used without asking.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(3);
/// So long readers wait for a newer one where there is an old one. Pages leave a gateway that gives nothing for eight
/// seconds, in which it may have to ask twice, and has to try the nodes as well.
pub(crate) const NEWER_WITHIN: Duration = Duration::from_secs(2);
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

/// What is known against a manifest.
enum Standing {
    Good,
    /// A chunk could not be read by it, and when a newer one was asked for in vain since.
    Distrusted {
        in_vain_at: Option<Instant>,
    },
}

struct Entry {
    version: Version,
    standing: Standing,
    checked_at: Instant,
    used_at: Instant,
}

impl Entry {
    /// It is used without asking. One that is distrusted too, for a while after nobody could say anything newer.
    fn is_fresh(&self, now: Instant, fresh_for: Duration) -> bool {
        let asked_at = match self.standing {
            Standing::Good => Some(self.checked_at),
            Standing::Distrusted { in_vain_at } => in_vain_at,
        };
        asked_at.is_some_and(|at| now.duration_since(at) < fresh_for)
    }
}

/// Being asked for a manifest, by as many as want it.
type Answering = BoxFuture<'static, ApiResult<Arc<Presentation>>>;

/// What is being asked for. It ends with the last who waits for it; where there is an old one, with its answer.
struct Asking {
    number: u64,
    answering: WeakShared<Answering>,
    /// Somebody waited for it as long as anybody does: the others take the old one at once.
    is_slow: bool,
}

#[derive(Default)]
struct Known {
    entries: HashMap<VideoId, Entry>,
    asking: HashMap<VideoId, Asking>,
    asked: u64,
}

/// The cache.
pub(crate) struct Manifests {
    metadata: Upstream,
    fresh_for: Duration,
    newer_within: Duration,
    known: Mutex<Known>,
}

/// What the cache says of a video.
enum Found {
    Fresh(Arc<Presentation>),
    /// To be waited for; where there is an old one, not for long, and that will do if nothing comes of it.
    Asked {
        number: u64,
        answering: Shared<Answering>,
        old: Option<Arc<Presentation>>,
    },
}

impl Manifests {
    pub(crate) fn new(metadata: Upstream, fresh_for: Duration, newer_within: Duration) -> Self {
        Self {
            metadata,
            fresh_for,
            newer_within,
            known: Mutex::default(),
        }
    }

    /// The video, when it can be served.
    pub(crate) async fn get(self: &Arc<Self>, video: VideoId) -> ApiResult<Arc<Presentation>> {
        let (number, answering, old) = match self.look_up(video, Instant::now()) {
            Found::Fresh(presentation) => return Ok(presentation),
            Found::Asked {
                answering, old: None, ..
            } => return answering.await,
            Found::Asked {
                number,
                answering,
                old: Some(old),
            } => (number, answering, old),
        };
        match timeout(self.newer_within, answering).await {
            Ok(Err(error)) if error.status().is_server_error() => {
                tracing::warn!(%video, %error, "serving the manifest as it was last known");
                Ok(old)
            }
            Ok(answered) => answered,
            Err(_) => {
                self.lock().waited_in_vain(video, number);
                Ok(old)
            }
        }
    }

    /// A chunk could not be read by this manifest: whoever comes next waits for a newer one, unless it is there already.
    pub(crate) fn distrust(&self, video: VideoId, presentation: &Arc<Presentation>) {
        let mut known = self.lock();
        if let Some(entry) = known.entries.get_mut(&video)
            && Arc::ptr_eq(&entry.version.presentation, presentation)
            && matches!(entry.standing, Standing::Good)
        {
            entry.standing = Standing::Distrusted { in_vain_at: None };
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
        let under_way = known.under_way(video);
        let is_slow = matches!(under_way, Some((_, _, true)));
        let mut old = None;
        if let Some(entry) = known.entries.get_mut(&video) {
            entry.used_at = now;
            if is_slow || entry.is_fresh(now, self.fresh_for) {
                return Found::Fresh(Arc::clone(&entry.version.presentation));
            }
            // Claims the asking: whoever comes meanwhile takes the old one, unless that is distrusted.
            entry.checked_at = now;
            old = Some(entry.version.clone());
        }
        let presentation = old.as_ref().map(|old| Arc::clone(&old.presentation));
        if let Some((number, answering, _)) = under_way {
            return Found::Asked {
                number,
                answering,
                old: presentation,
            };
        }
        known.asked += 1;
        let number = known.asked;
        let answering = Arc::clone(self).answer(number, video, old).boxed().shared();
        if presentation.is_some() {
            // Its readers do not wait for it to the end, and what is answered late is newer all the same.
            tokio::spawn(answering.clone());
        }
        known.began(video, number, &answering);
        Found::Asked {
            number,
            answering,
            old: presentation,
        }
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
        if known.asking.get(&video).is_some_and(|asking| asking.number == number) {
            known.asking.remove(&video);
            match &answered {
                Ok(version) => known.remember(video, version.clone(), Instant::now()),
                Err(error) if error.status().is_server_error() => known.asked_in_vain(video, Instant::now()),
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
    /// What is being asked for: by which number, and whether it is slow.
    fn under_way(&self, video: VideoId) -> Option<(u64, Shared<Answering>, bool)> {
        let asking = self.asking.get(&video)?;
        Some((asking.number, asking.answering.upgrade()?, asking.is_slow))
    }

    fn began(&mut self, video: VideoId, number: u64, answering: &Shared<Answering>) {
        // Those for which nobody waited to the end.
        self.asking.retain(|_, asking| asking.answering.upgrade().is_some());
        if let Some(answering) = answering.downgrade() {
            let asking = Asking {
                number,
                answering,
                is_slow: false,
            };
            self.asking.insert(video, asking);
        }
    }

    /// Somebody waited for this answer as long as anybody does.
    fn waited_in_vain(&mut self, video: VideoId, number: u64) {
        if let Some(asking) = self.asking.get_mut(&video).filter(|asking| asking.number == number)
            && !asking.is_slow
        {
            asking.is_slow = true;
            tracing::warn!(%video, "the metadata service is slow: serving the manifest as it was last known");
        }
    }

    /// Nobody could say whether there is a newer one.
    fn asked_in_vain(&mut self, video: VideoId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&video)
            && let Standing::Distrusted { in_vain_at } = &mut entry.standing
        {
            *in_vain_at = Some(now);
        }
    }

    fn remember(&mut self, video: VideoId, version: Version, now: Instant) {
        let entry = Entry {
            version,
            standing: Standing::Good,
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
mod tests;
