//! The page's API, as far as another service answers it. Ids are checked here, so that nothing but the paths written
//! below can be reached through this service.

use std::str::FromStr;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, Method},
    response::Response,
};
use serde::Deserialize;
use vstack_api::{
    ErrorBody,
    census::{Census, Repairs, VideoCensus},
    metadata::{ConsensusState, Manifest, RedundancyMode, StatusSet, VideoInfo, VideoSurvival, ViewCounted},
    redundancy::{EfficiencyReport, KeepingOfVideo, Keepings, Migration, OverrideSet, StorageOverhead},
    uploader::UploadStatus,
};
use vstack_service::{ApiResult, Path, Query};
use vstack_types::{ChunkId, VideoId};

use crate::{
    service::App,
    upstream::{Upstream, passed_on},
};

/// The name of an upload: 1 to 100 letters, digits and hyphens.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct SessionId(String);

/// Not the name of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an upload session is named by 1 to 100 letters, digits and hyphens")]
pub(crate) struct BadSessionId;

impl FromStr for SessionId {
    type Err = BadSessionId;
    fn from_str(text: &str) -> Result<Self, BadSessionId> {
        let good = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if good && (1..=100).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadSessionId)
        }
    }
}

impl TryFrom<String> for SessionId {
    type Error = BadSessionId;
    fn try_from(text: String) -> Result<Self, BadSessionId> {
        text.parse()
    }
}

async fn pass(service: &Upstream, method: Method, path: &str, headers: &HeaderMap) -> ApiResult<Response> {
    Ok(service.call(method, path, passed_on(headers)).await?.into_response())
}

/// Videos; the query is that of the metadata service: `limit`, `offset`, `q`, `status`, `sort`.
#[utoipa::path(get, path = "/api/videos", responses((status = 200, body = Vec<VideoInfo>), (status = 503, body = ErrorBody)))]
pub(crate) async fn videos(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    pass(&app.metadata, Method::GET, &format!("/videos{query}"), &headers).await
}

/// A video's manifest, with the URLs by which browsers reach the nodes.
#[utoipa::path(get, path = "/api/manifest/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = Manifest), (status = 404, body = ErrorBody)))]
pub(crate) async fn manifest(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    pass(&app.metadata, Method::GET, &format!("/manifest/{video}"), &headers).await
}

/// How a video is taken out.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DeleteQuery {
    /// It cannot be restored; its bytes go at once.
    #[serde(default)]
    purge: bool,
}

/// Takes a video out. The answer says until when it can be restored.
#[utoipa::path(delete, path = "/api/video/{id}", params(("id" = String, Path),
    ("purge" = Option<bool>, Query, description = "true: for good, its bytes go at once")), responses(
    (status = 200, body = StatusSet), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_video(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    Query(DeleteQuery { purge }): Query<DeleteQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    app.gateway.forget(video);
    let query = if purge { "?purge=true" } else { "" };
    pass(
        &app.metadata,
        Method::DELETE,
        &format!("/video/{video}{query}"),
        &headers,
    )
    .await
}

/// Restores a video that was taken out, as long as its bytes are kept.
#[utoipa::path(post, path = "/api/video/{id}/restore", params(("id" = String, Path)), responses(
    (status = 200, body = StatusSet), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn restore_video(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    pass(
        &app.metadata,
        Method::POST,
        &format!("/video/{video}/restore"),
        &headers,
    )
    .await
}

/// How many nodes a video may lose.
#[utoipa::path(get, path = "/api/video/{id}/survival", params(("id" = String, Path)), responses(
    (status = 200, body = VideoSurvival), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn survival(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let path = format!("/video/{video}/survival");
    pass(&app.metadata, Method::GET, &path, &headers).await
}

/// Counts a view.
#[utoipa::path(post, path = "/api/video/{id}/view", params(("id" = String, Path)), responses(
    (status = 200, body = ViewCounted), (status = 404, body = ErrorBody)))]
pub(crate) async fn count_view(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    pass(&app.metadata, Method::POST, &format!("/video/{video}/view"), &headers).await
}

/// What each acceptor says of a chunk.
#[utoipa::path(get, path = "/api/consensus/{chunk}", params(("chunk" = String, Path)), responses(
    (status = 200, body = ConsensusState), (status = 404, body = ErrorBody)))]
pub(crate) async fn consensus(
    State(app): State<App>,
    Path(chunk): Path<ChunkId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    pass(&app.metadata, Method::GET, &format!("/consensus/{chunk}"), &headers).await
}

/// How whole everything is that is stored.
#[utoipa::path(get, path = "/api/census", responses((status = 200, body = Census), (status = 503, body = ErrorBody)))]
pub(crate) async fn census(State(app): State<App>, headers: HeaderMap) -> ApiResult<Response> {
    pass(&app.metadata, Method::GET, "/census", &headers).await
}

/// One video in that.
#[utoipa::path(get, path = "/api/census/{video}", params(("video" = String, Path)), responses(
    (status = 200, body = VideoCensus), (status = 404, body = ErrorBody)))]
pub(crate) async fn census_of_video(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    pass(&app.metadata, Method::GET, &format!("/census/{video}{query}"), &headers).await
}

/// What is being mended, and was.
#[utoipa::path(get, path = "/api/repairs", responses((status = 200, body = Repairs), (status = 503, body = ErrorBody)))]
pub(crate) async fn repairs(State(app): State<App>, headers: HeaderMap) -> ApiResult<Response> {
    pass(&app.metadata, Method::GET, "/repairs", &headers).await
}

/// What storing takes.
#[utoipa::path(get, path = "/api/redundancy/efficiency", responses((status = 200, body = EfficiencyReport)))]
pub(crate) async fn efficiency(State(app): State<App>, headers: HeaderMap) -> ApiResult<Response> {
    pass(&app.metadata, Method::GET, "/redundancy/efficiency", &headers).await
}

/// The same in bytes and chunks.
#[utoipa::path(get, path = "/api/storage/overhead", responses((status = 200, body = StorageOverhead), (status = 503, body = ErrorBody)))]
pub(crate) async fn overhead(State(app): State<App>, headers: HeaderMap) -> ApiResult<Response> {
    pass(&app.metadata, Method::GET, "/storage/overhead", &headers).await
}

/// How videos are kept, those with most to be done first.
#[utoipa::path(get, path = "/api/redundancy/videos", params(
    ("limit" = Option<usize>, Query, description = "at most so many; 1000 are the most"),
    ("offset" = Option<usize>, Query, description = "without the first so many")), responses(
    (status = 200, body = Keepings), (status = 503, body = ErrorBody)))]
pub(crate) async fn keepings(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    pass(
        &app.metadata,
        Method::GET,
        &format!("/redundancy/videos{query}"),
        &headers,
    )
    .await
}

/// How one video is kept.
#[utoipa::path(get, path = "/api/redundancy/videos/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = KeepingOfVideo), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn keeping_of(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let path = format!("/redundancy/videos/{video}");
    pass(&app.metadata, Method::GET, &path, &headers).await
}

/// Has nothing brought into another form until it is resumed.
#[utoipa::path(post, path = "/api/redundancy/pause", responses((status = 200, body = Migration), (status = 503, body = ErrorBody)))]
pub(crate) async fn pause_migration(State(app): State<App>, headers: HeaderMap) -> ApiResult<Response> {
    pass(&app.metadata, Method::POST, "/redundancy/pause", &headers).await
}

/// Has videos brought into the form that is decided again.
#[utoipa::path(post, path = "/api/redundancy/resume", responses((status = 200, body = Migration), (status = 503, body = ErrorBody)))]
pub(crate) async fn resume_migration(State(app): State<App>, headers: HeaderMap) -> ApiResult<Response> {
    pass(&app.metadata, Method::POST, "/redundancy/resume", &headers).await
}

/// Which mode is asked for.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct OverrideQuery {
    mode: RedundancyMode,
}

/// Asks for a mode of a video by hand.
#[utoipa::path(post, path = "/api/redundancy/override/{id}", params(("id" = String, Path),
    ("mode" = String, Query, description = "replication or erasure_coding")), responses(
    (status = 200, body = OverrideSet), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 422, body = ErrorBody)))]
pub(crate) async fn set_override(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    Query(OverrideQuery { mode }): Query<OverrideQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let path = format!("/redundancy/override/{video}?mode={}", mode.as_str());
    pass(&app.metadata, Method::POST, &path, &headers).await
}

/// Leaves the mode of a video to the policy again.
#[utoipa::path(delete, path = "/api/redundancy/override/{id}", params(("id" = String, Path)), responses(
    (status = 200, body = OverrideSet), (status = 404, body = ErrorBody)))]
pub(crate) async fn clear_override(
    State(app): State<App>,
    Path(video): Path<VideoId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let path = format!("/redundancy/override/{video}");
    pass(&app.metadata, Method::DELETE, &path, &headers).await
}

/// Where an upload stands.
#[utoipa::path(get, path = "/api/upload/status/{session}", params(("session" = String, Path)), responses(
    (status = 200, body = UploadStatus), (status = 404, body = ErrorBody)))]
pub(crate) async fn upload_status(
    State(app): State<App>,
    Path(SessionId(session)): Path<SessionId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    pass(
        &app.uploader,
        Method::GET,
        &format!("/upload/status/{session}"),
        &headers,
    )
    .await
}

/// Gives an upload up.
#[utoipa::path(delete, path = "/api/upload/{session}", params(("session" = String, Path)), responses(
    (status = 200, body = UploadStatus), (status = 404, body = ErrorBody)))]
pub(crate) async fn cancel_upload(
    State(app): State<App>,
    Path(SessionId(session)): Path<SessionId>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    pass(&app.uploader, Method::DELETE, &format!("/upload/{session}"), &headers).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_cannot_lead_elsewhere() {
        for good in ["a", "0190-ab", &"x".repeat(100)] {
            assert!(good.parse::<SessionId>().is_ok(), "{good}");
        }
        for bad in ["", "../health", "a?b", "a%2fb", "a b", &"x".repeat(101)] {
            assert_eq!(bad.parse::<SessionId>().err(), Some(BadSessionId), "{bad}");
        }
    }
}
