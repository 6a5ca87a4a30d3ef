//! How whole everything is, and what is being done about it.

use axum::extract::State;
use serde::Deserialize;
use vstack_api::{
    ErrorCode,
    census::{Census, GIVEN_UP_AT_ONCE, GiveUp, GivenUp, Repairs, VideoCensus},
};
use vstack_service::{ApiError, ApiResult, Json, Path, Query};
use vstack_types::VideoId;

use crate::{
    app::{Shared, no_such_video, store_error},
    upkeep,
};

/// Chunks in one answer at most.
const CHUNKS_MAX: usize = 2_000;

/// Which videos that are not whole.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct VideosQuery {
    /// Without the first so many, the worst first.
    #[serde(default)]
    offset: usize,
}

/// The last count of everything that is stored.
#[utoipa::path(get, path = "/census", params(VideosQuery), responses((status = 200, body = Census)))]
pub(super) async fn census(State(app): State<Shared>, Query(query): Query<VideosQuery>) -> ApiResult<Json<Census>> {
    Ok(Json(upkeep::census(&app, query.offset).await.map_err(store_error)?))
}

/// Which chunks that are not whole.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ChunksQuery {
    /// At most so many; 2000 are the most.
    #[serde(default = "default_limit")]
    limit: usize,
    /// Without the first so many, the worst first.
    #[serde(default)]
    offset: usize,
}

const fn default_limit() -> usize {
    1_000
}

/// One video in the last count of everything that is stored.
#[utoipa::path(get, path = "/census/{video}", params(("video" = String, Path), ChunksQuery),
    responses((status = 200, body = VideoCensus), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn census_of_video(
    State(app): State<Shared>,
    Path(video): Path<VideoId>,
    Query(query): Query<ChunksQuery>,
) -> ApiResult<Json<VideoCensus>> {
    let census = upkeep::of_video(&app, video, query.offset, query.limit.min(CHUNKS_MAX));
    let census = census.await.map_err(store_error)?;
    census.map(Json).ok_or_else(|| no_such_video(video))
}

/// What is being mended, was lately, and waits.
#[utoipa::path(get, path = "/repairs", responses((status = 200, body = Repairs)))]
pub(super) async fn repairs(State(app): State<Shared>) -> ApiResult<Json<Repairs>> {
    Ok(Json(upkeep::repairs(&app).await.map_err(store_error)?))
}

/// Has nodes evened out as fast as chunks are repaired, until each holds its share.
#[utoipa::path(post, path = "/rebalance", responses((status = 200, body = Repairs), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn rebalance(State(app): State<Shared>) -> ApiResult<Json<Repairs>> {
    if !app.settings.repairs {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            "REPAIRS=false: nothing is moved; start the metadata service without it",
        ));
    }
    app.upkeep.hurry();
    repairs(State(app)).await
}

/// Has chunks deleted that nothing known explains, for good: as the deletion of any chunk it is decided by the nodes that
/// decide about it, who collect the bytes in their time. What is known is never given up here.
#[utoipa::path(post, path = "/orphans/give-up", request_body = GiveUp, responses((status = 200, body = GivenUp),
    (status = 400, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn give_up(
    State(app): State<Shared>,
    Json(GiveUp { chunks }): Json<GiveUp>,
) -> ApiResult<Json<GivenUp>> {
    if !(1..=GIVEN_UP_AT_ONCE).contains(&chunks.len()) {
        let detail = format!("chunks are named from 1 to {GIVEN_UP_AT_ONCE} at a time");
        return Err(ApiError::new(ErrorCode::Malformed, detail));
    }
    if !app.settings.repairs {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            "REPAIRS=false: nothing is given up; start the metadata service without it",
        ));
    }
    Ok(Json(upkeep::give_up(&app, chunks).await.map_err(store_error)?))
}
