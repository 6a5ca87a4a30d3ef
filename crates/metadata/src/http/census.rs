//! How whole everything is, and what is being done about it.

use axum::extract::State;
use vstack_api::census::{Census, Repairs};
use vstack_service::{ApiResult, Json};

use crate::{
    app::{Shared, store_error},
    upkeep,
};

/// The last count of everything that is stored.
#[utoipa::path(get, path = "/census", responses((status = 200, body = Census)))]
pub(super) async fn census(State(app): State<Shared>) -> ApiResult<Json<Census>> {
    Ok(Json(upkeep::census(&app).await.map_err(store_error)?))
}

/// What is being mended, was lately, and waits.
#[utoipa::path(get, path = "/repairs", responses((status = 200, body = Repairs)))]
pub(super) async fn repairs(State(app): State<Shared>) -> Json<Repairs> {
    Json(upkeep::repairs(&app))
}

/// Has nodes evened out as fast as chunks are repaired, until each holds its share.
#[utoipa::path(post, path = "/rebalance", responses((status = 200, body = Repairs)))]
pub(super) async fn rebalance(State(app): State<Shared>) -> Json<Repairs> {
    app.upkeep.hurry();
    Json(upkeep::repairs(&app))
}
