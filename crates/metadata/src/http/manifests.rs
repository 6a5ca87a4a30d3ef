//! `GET /manifest/{id}`.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use vstack_api::{
    ErrorCode,
    metadata::{Manifest, VideoStatus},
};
use vstack_service::{ApiError, ApiResult, Json, Path, Query};
use vstack_types::VideoId;

use crate::{
    app::{App, Shared, store_error},
    manifest::{self, UrlKind},
    registry::ByDisk,
    store::{Chunk, Video},
};

/// Chunks read at a time.
const PAGE: u32 = 4_096;
/// Times a manifest that changes while it is read is read again; the last one is then given as it is.
const READS_MAX: usize = 3;

/// Which URLs to name.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ManifestQuery {
    /// `internal`: those for services; `public`, and when absent: those for everybody.
    urls: Option<String>,
}

/// What a player needs to know of a video.
#[utoipa::path(get, path = "/manifest/{id}", params(("id" = String, Path), ManifestQuery), responses((status = 200, body = Manifest), (status = 304), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn manifest(
    State(app): State<Shared>,
    Path(id): Path<VideoId>,
    Query(query): Query<ManifestQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let urls = match query.urls.as_deref() {
        None | Some("public") => UrlKind::Public,
        Some("internal") => UrlKind::Internal,
        Some(_) => return Err(ApiError::new(ErrorCode::Malformed, "urls is public or internal")),
    };
    let video = playable(&app, id).await?;
    let nodes = app.registered().await?;
    let tag = |video: &Video| manifest::entity_tag(video.version, &nodes, urls);
    let caching = |video: &Video| {
        [
            (header::ETAG, tag(video)),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
        ]
    };
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if matches_tag(known, &tag(&video)) {
        return Ok((StatusCode::NOT_MODIFIED, caching(&video)).into_response());
    }
    let (video, chunks) = read(&app, video).await?;
    let body = manifest::build(&video, &chunks, &ByDisk::new(&nodes), urls);
    Ok((caching(&video), Json(body)).into_response())
}

/// Whether an `If-None-Match` names `tag` (RFC 9110, section 13.1.2): weakly, as for any GET.
fn matches_tag(header: &str, tag: &str) -> bool {
    header
        .split(',')
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

async fn playable(app: &App, id: VideoId) -> ApiResult<Video> {
    let video = app.video(id).await?;
    let gone = |detail: String| Err(ApiError::new(ErrorCode::NotFound, detail));
    match video.status {
        VideoStatus::Uploading | VideoStatus::Active => Ok(video),
        VideoStatus::Failed => gone(format!(
            "the upload of video {id} failed: {}",
            video.fail_reason.as_deref().unwrap_or("no reason given")
        )),
        VideoStatus::Deleted => gone(format!("video {id} was deleted")),
    }
}

/// The video with its chunks as of one version.
async fn read(app: &App, mut video: Video) -> ApiResult<(Video, Vec<Chunk>)> {
    let mut reads = 0;
    loop {
        let chunks = chunks(app, video.id).await?;
        let again = playable(app, video.id).await?;
        reads += 1;
        if again.version == video.version || reads >= READS_MAX {
            return Ok((video, chunks));
        }
        video = again;
    }
}

/// All chunks of a video, in playing order, the init segment first.
pub(super) async fn chunks(app: &App, id: VideoId) -> ApiResult<Vec<Chunk>> {
    let mut chunks: Vec<Chunk> = Vec::new();
    loop {
        let after = chunks.last().map(|chunk| chunk.place.map(|place| place.sequence_num));
        let page = app.store.video_chunks(id, after, PAGE).await.map_err(store_error)?;
        let more = page.len() == PAGE as usize;
        chunks.extend(page);
        if !more {
            return Ok(chunks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches_tag;

    #[test]
    fn if_none_match_is_a_list_and_compares_weakly() {
        for (header, expected) in [
            ("\"1-a\"", true),
            ("W/\"1-a\"", true),
            ("\"0\", \"1-a\"", true),
            ("*", true),
            ("\"1-b\"", false),
            ("1-a", false),
            ("", false),
        ] {
            assert_eq!(matches_tag(header, "\"1-a\""), expected, "{header}");
        }
    }
}
