//! How chunks are kept, and what that takes.

use axum::extract::State;
use serde::Deserialize;
use vstack_api::{
    ErrorCode,
    metadata::{NodeStatus, RedundancyConfig, RedundancyMode},
    redundancy::{EfficiencyReport, OverrideSet, Recommendation, StorageOverhead},
};
use vstack_service::{ApiError, ApiResult, Json, Path, Query};
use vstack_types::VideoId;

use crate::{
    app::{App, Shared, no_such_video, store_error},
    redundancy as rules, registry,
};

/// Nodes that bytes can be put on now.
async fn usable_nodes(app: &App) -> ApiResult<usize> {
    let (now, timeout) = (app.now(), app.settings.node_timeout());
    let nodes = app.registered().await?;
    let usable = nodes
        .iter()
        .filter(|node| node.trusted && registry::status(node, now, timeout) != NodeStatus::Down);
    Ok(usable.count())
}

/// The mode that fits a video.
#[utoipa::path(get, path = "/redundancy/recommend/{id}", params(("id" = String, Path)), responses((status = 200, body = Recommendation), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn recommend(State(app): State<Shared>, Path(id): Path<VideoId>) -> ApiResult<Json<Recommendation>> {
    let video = app.video(id).await?;
    let config = app.settings.redundancy();
    let mode = rules::recommend(video.override_mode, video.view_count, &config);
    Ok(Json(Recommendation {
        video_id: id,
        view_count: video.view_count,
        recommended_mode: mode,
        config: rules::mode_config(mode, &config),
    }))
}

/// The parameters in force.
#[utoipa::path(get, path = "/redundancy/config", responses((status = 200, body = RedundancyConfig)))]
pub(super) async fn config(State(app): State<Shared>) -> Json<RedundancyConfig> {
    Json(app.settings.redundancy())
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
    if mode == RedundancyMode::ErasureCoding {
        let (nodes, needed) = (
            usable_nodes(&app).await?,
            rules::coded_nodes_min(&app.settings.redundancy()),
        );
        if nodes < needed {
            let detail = format!("erasure coding needs {needed} nodes to survive the loss of one; {nodes} are usable");
            return Err(ApiError::new(ErrorCode::Unprocessable, detail));
        }
    }
    if !app.store.set_override(id, Some(mode)).await.map_err(store_error)? {
        return Err(no_such_video(id));
    }
    let message = format!("{} is asked for", mode.as_str());
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
    let config = app.settings.redundancy();
    Ok(Json(EfficiencyReport {
        efficiency: rules::efficiency(&totals, &config),
        mode_comparison: rules::comparison(usable_nodes(&app).await?, &config),
    }))
}

/// What everything stored takes, in bytes and chunks.
#[utoipa::path(get, path = "/storage/overhead", responses((status = 200, body = StorageOverhead)))]
pub(super) async fn overhead(State(app): State<Shared>) -> ApiResult<Json<StorageOverhead>> {
    let totals = app.store.totals().await.map_err(store_error)?;
    Ok(Json(rules::overhead(&totals, &app.settings.redundancy())))
}
