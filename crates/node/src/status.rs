//! `HEAD /ping` and `GET /health`.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::time::Instant;
use vstack_api::{
    headers,
    node::{DiskStatus, NodeHealth},
};
use vstack_service::{Json, VERSION};

use crate::app::Shared;

pub(crate) async fn ping(State(app): State<Shared>) -> Response {
    let started = Instant::now();
    let disk = format!("{:.2}", app.disk_percent());
    let chunks = app.engine.reader().stats().chunk_count.to_string();
    let mut answer = HeaderMap::new();
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let took = format!("{:.3}", started.elapsed().as_secs_f64() * 1000.0);
    for (name, value) in [
        (headers::NODE_ID, app.label.as_str()),
        (headers::DISK_USAGE_PERCENT, &disk),
        (headers::CHUNK_COUNT, &chunks),
        (headers::RESPONSE_TIME, &took),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.insert(name, value);
        }
    }
    (StatusCode::OK, answer).into_response()
}

pub(crate) async fn health(State(app): State<Shared>) -> Response {
    let disk_usage = app.disk_percent();
    // A node that can write nothing any more is about to end.
    let status = if app.engine.is_failed() {
        DiskStatus::Critical
    } else {
        match DiskStatus::of(disk_usage) {
            DiskStatus::Healthy if app.gaps.any() => DiskStatus::Degraded,
            full => full,
        }
    };
    let health = NodeHealth {
        status,
        disk_usage,
        chunk_count: app.engine.reader().stats().chunk_count,
        uptime: app.started.elapsed().as_secs_f64(),
        node_id: app.label.clone(),
        disk_uuid: app.me().uuid,
        lost_superblocks: app.gaps.superblocks.clone(),
        version: VERSION.to_owned(),
    };
    let code = if status == DiskStatus::Critical {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (code, Json(health)).into_response()
}
