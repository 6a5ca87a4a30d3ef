//! A metadata service as far as registrations and heartbeats go.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::task::JoinHandle;
use vstack_api::{
    ErrorBody, ErrorCode,
    metadata::{Heartbeat, NodeAck, RegisterNode},
};
use vstack_types::NodeUuid;

/// The rule of the metadata service: a log never goes back.
#[derive(Default)]
pub struct Registry {
    /// 200 when it works.
    pub status: u16,
    disks: BTreeMap<String, Option<NodeUuid>>,
    /// How far the log reaches, by label.
    pub known: BTreeMap<String, u64>,
    /// What was claimed, in turn.
    pub claimed: Vec<u64>,
    /// Heartbeats heard.
    pub heartbeats: usize,
}

pub type Metadata = Arc<Mutex<Registry>>;

fn answer(status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    if status.is_success() {
        let ack = NodeAck {
            status: "ok".to_owned(),
            node_id: "n".to_owned(),
            trusted: true,
        };
        return Json(ack).into_response();
    }
    let body = ErrorBody {
        detail: "no".to_owned(),
        code: ErrorCode::Conflict,
    };
    (status, Json(body)).into_response()
}

async fn register(State(metadata): State<Metadata>, Query(node): Query<RegisterNode>) -> Response {
    let mut registry = metadata.lock().unwrap();
    registry.claimed.push(node.log_seq);
    if registry.status != 200 {
        return answer(registry.status);
    }
    // Another disk under the same label has a log of its own.
    if registry.disks.insert(node.node_id.clone(), node.disk_uuid) != Some(node.disk_uuid) {
        registry.known.remove(&node.node_id);
    }
    let known = registry.known.entry(node.node_id).or_default();
    if node.log_seq < *known {
        return answer(409);
    }
    *known = node.log_seq;
    answer(200)
}

async fn beat(State(metadata): State<Metadata>, UrlPath(id): UrlPath<String>, Json(beat): Json<Heartbeat>) -> Response {
    let mut registry = metadata.lock().unwrap();
    registry.heartbeats += 1;
    if registry.status == 200 {
        registry.known.insert(id, beat.log_seq);
    }
    answer(registry.status)
}

/// Serves such a registry, which answers with `status`, on a free port.
pub async fn serve(status: u16) -> (Metadata, String, JoinHandle<()>) {
    let metadata = Arc::new(Mutex::new(Registry {
        status,
        ..Registry::default()
    }));
    let router = Router::new()
        .route("/nodes/register", post(register))
        .route("/nodes/{id}/heartbeat", post(beat))
        .with_state(Arc::clone(&metadata));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (metadata, url, service)
}
