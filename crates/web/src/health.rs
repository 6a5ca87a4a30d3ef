//! `/api/health` and `/api/stats`: what the other services say of themselves, asked anew each time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::extract::State;
use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;
use vstack_api::{
    ErrorBody, ErrorCode,
    metadata::{NodeInfo, NodeList, NodeStatus},
    web::{ServiceHealth, SystemHealth, SystemStats},
};
use vstack_client::{ClientError, HttpClient};
use vstack_service::{ApiError, ApiResult, Json, VERSION};

use crate::service::App;

/// A service that takes longer to say how it is counts as unreachable.
const TIMEOUT: Duration = Duration::from_secs(2);

/// `GET /health` of the web service.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct WebHealth {
    /// `healthy`.
    status: &'static str,
    /// `web`.
    service: &'static str,
    /// Of the service.
    version: &'static str,
}

/// That this service runs.
#[utoipa::path(get, path = "/health", responses((status = 200, body = WebHealth)))]
pub(crate) async fn own_health() -> Json<WebHealth> {
    Json(WebHealth {
        status: "healthy",
        service: "web",
        version: VERSION,
    })
}

/// How the system is doing.
#[utoipa::path(get, path = "/api/health", responses((status = 200, body = SystemHealth)))]
pub(crate) async fn system_health(State(app): State<App>) -> Json<SystemHealth> {
    let asked = app.watched.iter().map(|(name, url)| {
        let http = &app.http;
        async move { ((*name).to_owned(), ask(http, url).await) }
    });
    let nodes = tokio::time::timeout(TIMEOUT, app.metadata_client.node_list());
    let (services, nodes) = futures_util::future::join(join_all(asked), nodes).await;
    let services: BTreeMap<String, ServiceHealth> = services.into_iter().collect();
    let NodeList { nodes, refused } = nodes.ok().and_then(Result::ok).unwrap_or_default();
    Json(SystemHealth {
        status: judge(&services, &nodes).to_owned(),
        services,
        nodes,
        refused,
    })
}

/// The metadata service's figures, and the uploads under way.
#[utoipa::path(get, path = "/api/stats", responses((status = 200, body = SystemStats), (status = 503, body = ErrorBody)))]
pub(crate) async fn system_stats(State(app): State<App>) -> ApiResult<Json<SystemStats>> {
    let uploader = tokio::time::timeout(TIMEOUT, app.uploader_client.health());
    let (stats, uploader) = futures_util::future::join(app.metadata_client.stats(), uploader).await;
    let stats = stats.map_err(refusal)?;
    // No uploader: no upload runs.
    let uploads = uploader.ok().and_then(Result::ok);
    Ok(Json(SystemStats {
        stats,
        active_uploads: uploads.as_ref().map_or(0, |health| health.active_uploads),
        queued_uploads: uploads.as_ref().map_or(0, |health| health.queued_uploads),
    }))
}

async fn ask(http: &HttpClient, url: &str) -> ServiceHealth {
    let started = Instant::now();
    let answer = http
        .transport()
        .get(format!("{url}/health"))
        .timeout(TIMEOUT)
        .send()
        .await;
    let status = match &answer {
        Ok(answer) if answer.status().is_success() => "healthy",
        Ok(_) => "unhealthy",
        Err(_) => "unreachable",
    };
    let latency_ms = answer.is_ok().then(|| started.elapsed().as_secs_f64() * 1000.0);
    ServiceHealth {
        status: status.to_owned(),
        latency_ms,
    }
}

/// `healthy` when all is; `degraded` while videos can still be found and one node may have them.
fn judge(services: &BTreeMap<String, ServiceHealth>, nodes: &[NodeInfo]) -> &'static str {
    let healthy = |service: &ServiceHealth| service.status == "healthy";
    let metadata = services.get("metadata-service").is_some_and(healthy);
    if !metadata || !nodes.iter().any(|node| node.status != NodeStatus::Down) {
        "unhealthy"
    } else if services.values().all(healthy) && nodes.iter().all(|node| node.status == NodeStatus::Healthy) {
        "healthy"
    } else {
        "degraded"
    }
}

fn refusal(error: ClientError) -> ApiError {
    match error {
        ClientError::Refused { body, .. } => ApiError::new(body.code, body.detail),
        ClientError::Timeout { .. } => ApiError::new(ErrorCode::UpstreamTimeout, error.to_string()),
        _ => ApiError::new(ErrorCode::Unavailable, error.to_string()).retry_after(TIMEOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: NodeStatus) -> NodeInfo {
        NodeInfo {
            node_url: String::new(),
            node_id: String::new(),
            last_heartbeat: None,
            disk_usage_percent: 0.0,
            chunk_count: 0,
            status,
            version: String::new(),
            public_url: String::new(),
            disk_uuid: None,
            incarnation: 0,
            trusted: true,
            damaged_chunks: 0,
            role: vstack_api::metadata::NodeRole::Active,
            zone: String::new(),
        }
    }

    #[test]
    fn the_whole_is_judged_by_its_parts() {
        use NodeStatus::{Degraded, Down, Healthy};
        let table = [
            ("healthy", "healthy", vec![Healthy, Healthy], "healthy"),
            ("healthy", "healthy", vec![Healthy, Degraded], "degraded"),
            ("healthy", "healthy", vec![Healthy, Down], "degraded"),
            ("healthy", "unreachable", vec![Healthy, Healthy], "degraded"),
            ("healthy", "healthy", vec![Down, Down], "unhealthy"),
            ("healthy", "healthy", vec![], "unhealthy"),
            ("unreachable", "healthy", vec![Healthy], "unhealthy"),
        ];
        for (metadata, uploader, nodes, expected) in table {
            let service = |status: &str| ServiceHealth {
                status: status.to_owned(),
                latency_ms: None,
            };
            let services = BTreeMap::from([
                ("metadata-service".to_owned(), service(metadata)),
                ("uploader-service".to_owned(), service(uploader)),
            ]);
            let nodes: Vec<_> = nodes.into_iter().map(node).collect();
            assert_eq!(judge(&services, &nodes), expected, "{metadata} {uploader} {nodes:?}");
        }
    }
}
