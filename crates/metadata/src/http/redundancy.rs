//! How chunks are kept, and what that takes.

use axum::extract::State;
use serde::Deserialize;
use vstack_api::{
    ErrorCode,
    metadata::{RedundancyConfig, RedundancyMode},
    redundancy::{EfficiencyReport, KeepingOfVideo, Keepings, Migration, OverrideSet, Recommendation, StorageOverhead},
};
use vstack_service::{ApiError, ApiResult, Json, Path, Query};
use vstack_types::VideoId;

use crate::{
    app::{App, Shared, no_such_video, store_error},
    coded::{self, Prospect},
    keeping::asked_of,
    redundancy::{self as rules, ByForm, Survived},
    upkeep,
};

/// How a video would be kept if that were decided now, and why.
#[utoipa::path(get, path = "/redundancy/recommend/{id}", params(("id" = String, Path)), responses((status = 200, body = Recommendation), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn recommend(State(app): State<Shared>, Path(id): Path<VideoId>) -> ApiResult<Json<Recommendation>> {
    let decided = app.would_decide(id).await.map_err(store_error)?;
    let (view_count, decision) = decided.ok_or_else(|| no_such_video(id))?;
    let mode = asked_of(decision.mode);
    Ok(Json(Recommendation {
        video_id: id,
        view_count,
        recommended_mode: mode,
        why: decision.why.as_str().to_owned(),
        config: rules::mode_config(mode, &app.settings.redundancy()),
    }))
}

/// The parameters in force.
#[utoipa::path(get, path = "/redundancy/config", responses((status = 200, body = RedundancyConfig)))]
pub(super) async fn config(State(app): State<Shared>) -> Json<RedundancyConfig> {
    Json(app.settings.redundancy())
}

/// Why copies are not asked for where there could be none.
fn no_copies(prospect: &Prospect) -> ApiError {
    let detail = format!(
        "no node can be given a copy now: {}; add a node, or make room on one, and ask again",
        prospect.takers
    );
    ApiError::new(ErrorCode::Unprocessable, detail)
}

/// What follows from asking for a mode, in words.
fn asked_for(mode: RedundancyMode, prospect: &Prospect, survived: usize, config: &RedundancyConfig) -> String {
    let counted = |count: usize, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
    let items = match mode {
        RedundancyMode::Replication => counted(prospect.copies, "copy", "copies"),
        RedundancyMode::ErasureCoding => {
            format!("{}+{} shards", config.erasure_data_shards, config.erasure_parity_shards)
        }
    };
    format!(
        "{} is asked for: chunks that are made anew get {items}, and survive the loss of {}; {}",
        mode.as_str(),
        counted(survived, "node", "nodes"),
        prospect.takers
    )
}

/// Which mode.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OverrideQuery {
    /// `replication` or `erasure_coding`.
    mode: String,
}

/// Asks for a mode by hand.
#[utoipa::path(post, path = "/redundancy/override/{id}", params(("id" = String, Path), OverrideQuery), responses((status = 200, body = OverrideSet), (status = 400, body = vstack_api::ErrorBody), (status = 404, body = vstack_api::ErrorBody), (status = 422, body = vstack_api::ErrorBody)))]
pub(super) async fn set_override(
    State(app): State<Shared>,
    Path(id): Path<VideoId>,
    Query(query): Query<OverrideQuery>,
) -> ApiResult<Json<OverrideSet>> {
    let mode: RedundancyMode = query
        .mode
        .parse()
        .map_err(|()| ApiError::new(ErrorCode::Malformed, "mode is replication or erasure_coding"))?;
    app.video(id).await?;
    let prospect = coded::prospect(&app, id).await?;
    let survived = match mode {
        RedundancyMode::Replication if prospect.copies == 0 => return Err(no_copies(&prospect)),
        RedundancyMode::Replication => prospect.copies.saturating_sub(1),
        RedundancyMode::ErasureCoding => prospect.shards.map_err(coded::refusal)?,
    };
    if !app.store.set_override(id, Some(mode)).await.map_err(store_error)? {
        return Err(no_such_video(id));
    }
    app.keeping.look_now.notify_one();
    let message = asked_for(mode, &prospect, survived, &app.settings.redundancy());
    Ok(Json(OverrideSet {
        status: "success".into(),
        video_id: id,
        override_mode: Some(mode),
        message,
    }))
}

/// Leaves the mode to the policy again.
#[utoipa::path(delete, path = "/redundancy/override/{id}", params(("id" = String, Path)), responses((status = 200, body = OverrideSet), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn clear_override(State(app): State<Shared>, Path(id): Path<VideoId>) -> ApiResult<Json<OverrideSet>> {
    if !app.store.set_override(id, None).await.map_err(store_error)? {
        return Err(no_such_video(id));
    }
    app.keeping.look_now.notify_one();
    let message = "the views decide again".to_owned();
    Ok(Json(OverrideSet {
        status: "success".into(),
        video_id: id,
        override_mode: None,
        message,
    }))
}

/// What everything stored takes, and what the modes cost.
#[utoipa::path(get, path = "/redundancy/efficiency", responses((status = 200, body = EfficiencyReport)))]
pub(super) async fn efficiency(State(app): State<Shared>) -> ApiResult<Json<EfficiencyReport>> {
    let totals = app.store.totals().await.map_err(store_error)?;
    let by_form = ByForm::of(&app.upkeep.summary().report);
    let config = app.settings.redundancy();
    let prospect = coded::prospect(&app, coded::ANY).await?;
    let survived = Survived {
        copies: prospect.copies.saturating_sub(1),
        shards: prospect.shards.unwrap_or_default(),
    };
    Ok(Json(EfficiencyReport {
        efficiency: rules::efficiency(&totals, &by_form, &config),
        mode_comparison: rules::comparison(survived, &config),
    }))
}

/// What everything stored takes, in bytes and chunks.
#[utoipa::path(get, path = "/storage/overhead", responses((status = 200, body = StorageOverhead)))]
pub(super) async fn overhead(State(app): State<Shared>) -> ApiResult<Json<StorageOverhead>> {
    let totals = app.store.totals().await.map_err(store_error)?;
    let by_form = ByForm::of(&app.upkeep.summary().report);
    Ok(Json(rules::overhead(&totals, &by_form, &app.settings.redundancy())))
}

/// Which videos.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct KeepingsQuery {
    /// At most so many; 1000 are the most.
    #[serde(default = "default_limit")]
    limit: usize,
    /// Without the first so many.
    #[serde(default)]
    offset: usize,
}

/// Videos in one answer at most.
const VIDEOS_MAX: usize = 1_000;

const fn default_limit() -> usize {
    100
}

/// How videos are kept, those with most to be done first.
#[utoipa::path(get, path = "/redundancy/videos", params(KeepingsQuery), responses((status = 200, body = Keepings)))]
pub(super) async fn videos(State(app): State<Shared>, Query(query): Query<KeepingsQuery>) -> ApiResult<Json<Keepings>> {
    let keepings = upkeep::keepings(&app, query.offset, query.limit.min(VIDEOS_MAX));
    Ok(Json(keepings.await.map_err(store_error)?))
}

/// How one video is kept.
#[utoipa::path(get, path = "/redundancy/videos/{id}", params(("id" = String, Path)), responses((status = 200, body = KeepingOfVideo), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn keeping_of(State(app): State<Shared>, Path(id): Path<VideoId>) -> ApiResult<Json<KeepingOfVideo>> {
    let Some(keeping) = app.keeping_of(id).await.map_err(store_error)? else {
        app.video(id).await?;
        let detail = format!(
            "nothing is decided about {id}: that is done some seconds after it is whole, and of none that was deleted"
        );
        return Err(ApiError::new(ErrorCode::NotFound, detail));
    };
    let migration = upkeep::migration(&app);
    Ok(Json(KeepingOfVideo { keeping, migration }))
}

/// Has nothing brought into another form until it is resumed. What was begun is ended.
#[utoipa::path(post, path = "/redundancy/pause", responses((status = 200, body = Migration)))]
pub(super) async fn pause(State(app): State<Shared>) -> ApiResult<Json<Migration>> {
    paused(&app, true).await
}

/// Has videos brought into the form that is decided again.
#[utoipa::path(post, path = "/redundancy/resume", responses((status = 200, body = Migration)))]
pub(super) async fn resume(State(app): State<Shared>) -> ApiResult<Json<Migration>> {
    paused(&app, false).await
}

async fn paused(app: &App, paused: bool) -> ApiResult<Json<Migration>> {
    app.store.pause_migration(paused).await.map_err(store_error)?;
    app.keeping.pause(paused);
    app.upkeep.count_now.notify_one();
    Ok(Json(upkeep::migration(app)))
}
