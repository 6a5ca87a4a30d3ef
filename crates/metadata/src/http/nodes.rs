//! The registry: lists, registration, heartbeats.

use axum::extract::State;
use vstack_api::{
    ErrorCode,
    metadata::{Heartbeat, NodeAck, NodeInfo, NodeList, NodeStatus, NodeSummary, RegisterNode},
};
use vstack_service::{ApiError, ApiResult, Json, Path, Query};

use crate::{
    app::{App, Shared, store_error},
    registry,
    store::NodeBeat,
    watch,
};

async fn infos(app: &App) -> ApiResult<Vec<NodeInfo>> {
    let (now, timeout) = (app.now(), app.settings.node_timeout());
    Ok(app
        .registered()
        .await?
        .iter()
        .map(|node| registry::info(node, now, timeout))
        .collect())
}

/// Nodes heard of lately.
#[utoipa::path(get, path = "/nodes/healthy", responses((status = 200, body = Vec<NodeInfo>)))]
pub(super) async fn healthy(State(app): State<Shared>) -> ApiResult<Json<Vec<NodeInfo>>> {
    let mut nodes = infos(&app).await?;
    nodes.retain(|node| node.status == NodeStatus::Healthy);
    Ok(Json(nodes))
}

/// All nodes registered.
#[utoipa::path(get, path = "/nodes/all", responses((status = 200, body = NodeList)))]
pub(super) async fn all(State(app): State<Shared>) -> ApiResult<Json<NodeList>> {
    Ok(Json(NodeList {
        nodes: infos(&app).await?,
    }))
}

/// How many nodes are in which state.
#[utoipa::path(get, path = "/nodes/health-summary", responses((status = 200, body = NodeSummary)))]
pub(super) async fn health_summary(State(app): State<Shared>) -> ApiResult<Json<NodeSummary>> {
    Ok(Json(registry::summary(
        &app.registered().await?,
        app.now(),
        app.settings.node_timeout(),
    )))
}

/// Joins a node. It takes part once it proved, at its URL, that it knows the cluster secret.
#[utoipa::path(post, path = "/nodes/register", params(RegisterNode), responses((status = 200, body = NodeAck), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn register(
    State(app): State<Shared>,
    Query(request): Query<RegisterNode>,
) -> ApiResult<Json<NodeAck>> {
    let node = watch::register(&app, request).await?;
    Ok(Json(NodeAck {
        status: "registered".into(),
        node_id: node.label,
        trusted: node.trusted,
    }))
}

/// A sign of life; 404 asks the node to register again.
#[utoipa::path(post, path = "/nodes/{id}/heartbeat", params(("id" = String, Path)), request_body = Heartbeat, responses((status = 200, body = NodeAck), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn heartbeat(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Json(beat): Json<Heartbeat>,
) -> ApiResult<Json<NodeAck>> {
    if !(0.0..=100.0).contains(&beat.disk_usage_percent) {
        return Err(ApiError::new(
            ErrorCode::Malformed,
            "disk_usage_percent is between 0 and 100",
        ));
    }
    let beat = NodeBeat {
        disk_percent: beat.disk_usage_percent,
        chunk_count: beat.chunk_count,
        log_seq: beat.log_seq,
        at: app.now(),
    };
    let node = app.store.beat(id.clone(), beat).await.map_err(store_error)?;
    let node = node.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("no node {id}: register it first")))?;
    Ok(Json(NodeAck {
        status: "ok".into(),
        node_id: node.label,
        trusted: node.trusted,
    }))
}
