//! `/api/health` and `/api/stats`: what the other services say of themselves, asked anew each time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::extract::State;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;
use vstack_api::{
    ErrorBody, ErrorCode,
    census::Health,
    metadata::{NodeList, NodeStatus},
    web::{ServiceHealth, SystemHealth, SystemStats},
};
use vstack_client::{ClientError, HttpClient};
use vstack_service::{ApiError, ApiResult, Json, VERSION};

use crate::service::App;

/// A service that takes longer to say how it is counts as unreachable.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest `/health` that is read.
const HEALTH_BYTES_MAX: usize = 64 * 1024;
/// More videos than there are: of a census without any by name, little has to be looked up.
const ALL_VIDEOS: usize = 1_000_000_000;

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

/// How the system is doing: its services, its nodes and what is stored. `healthy` when all of it is known to be well,
/// `counting` while of what is stored that is not known yet, `unknown` when nobody says it.
#[utoipa::path(get, path = "/api/health", responses((status = 200, body = SystemHealth)))]
pub(crate) async fn system_health(State(app): State<App>) -> Json<SystemHealth> {
    let asked = app.watched.iter().map(|(name, url)| {
        let http = &app.http;
        async move { ((*name).to_owned(), ask(http, url).await) }
    });
    let nodes = timeout(TIMEOUT, app.metadata_client.node_list());
    let census = timeout(TIMEOUT, app.metadata_client.census_from(ALL_VIDEOS));
    let (services, nodes, census) = futures_util::future::join3(join_all(asked), nodes, census).await;
    let services: BTreeMap<String, ServiceHealth> = services.into_iter().collect();
    let nodes = nodes.ok().and_then(Result::ok).unwrap_or_default();
    let stored = census.ok().and_then(Result::ok).map(|census| census.health);
    let status = judge(&services, &nodes, stored).to_owned();
    let NodeList { nodes, refused } = nodes;
    Json(SystemHealth {
        status,
        services,
        nodes,
        refused,
    })
}

/// The metadata service's figures, and the uploads under way.
#[utoipa::path(get, path = "/api/stats", responses((status = 200, body = SystemStats), (status = 503, body = ErrorBody)))]
pub(crate) async fn system_stats(State(app): State<App>) -> ApiResult<Json<SystemStats>> {
    let uploader = timeout(TIMEOUT, app.uploader_client.health());
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
    let latency_ms = answer.is_ok().then(|| started.elapsed().as_secs_f64() * 1000.0);
    let status = match answer {
        Ok(answer) if answer.status().is_success() => said(answer).await,
        Ok(_) => "unhealthy",
        Err(_) => "unreachable",
    };
    ServiceHealth {
        status: status.to_owned(),
        latency_ms,
    }
}

/// What a `/health` says.
#[derive(Debug, Default, Deserialize)]
struct Said {
    status: Option<String>,
    /// Where `status` is about more than the service: that of the service alone. What is stored is asked for by itself.
    service_status: Option<String>,
}

/// What a service that answers says of itself. One that says nothing is well by that it answers.
async fn said(mut answer: reqwest::Response) -> &'static str {
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(part)) if body.len() + part.len() <= HEALTH_BYTES_MAX => body.extend_from_slice(&part),
            Ok(None) => break,
            Ok(Some(_)) | Err(_) => return "unhealthy",
        }
    }
    word_of(&body)
}

/// The same of a body. Where a service says how it is by itself, and how what is stored is, only the former is asked here.
fn word_of(body: &[u8]) -> &'static str {
    let said = serde_json::from_slice::<Said>(body).unwrap_or_default();
    match said.service_status.or(said.status) {
        Some(status) if status != "healthy" => "degraded",
        _ => "healthy",
    }
}

/// The worst of what is known. `unhealthy` when videos cannot be found, no node may have them, or some of what is stored
/// cannot be read; never `healthy` while something is not known to be.
fn judge(services: &BTreeMap<String, ServiceHealth>, nodes: &NodeList, stored: Option<Health>) -> &'static str {
    let metadata = services.get("metadata-service");
    let answers = metadata.is_some_and(|service| ["healthy", "degraded"].contains(&service.status.as_str()));
    let any_node = nodes.nodes.iter().any(|node| node.status != NodeStatus::Down);
    if !answers || !any_node {
        return "unhealthy";
    }
    let is_well = nodes.is_well() && services.values().all(|service| service.status == "healthy");
    match stored {
        Some(Health::Lost | Health::OutOfReach) => "unhealthy",
        _ if !is_well => "degraded",
        Some(health) if health.is_well() => "healthy",
        Some(Health::Counting) => "counting",
        Some(_) => "degraded",
        None => "unknown",
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
    use vstack_api::{
        WallTime,
        metadata::{NodeInfo, NodeRole, RefusedNode},
    };
    use vstack_types::Timestamp;

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
            role: NodeRole::Active,
            zone: String::new(),
        }
    }

    fn services(metadata: &str, uploader: &str) -> BTreeMap<String, ServiceHealth> {
        let service = |status: &str| ServiceHealth {
            status: status.to_owned(),
            latency_ms: None,
        };
        BTreeMap::from([
            ("metadata-service".to_owned(), service(metadata)),
            ("uploader-service".to_owned(), service(uploader)),
        ])
    }

    #[test]
    fn the_whole_is_judged_by_its_parts() {
        use NodeStatus::{Degraded, Down, Healthy};
        let table = [
            ("healthy", "healthy", vec![Healthy, Healthy], "healthy"),
            ("healthy", "healthy", vec![Healthy, Degraded], "degraded"),
            ("healthy", "healthy", vec![Healthy, Down], "degraded"),
            ("degraded", "healthy", vec![Healthy, Healthy], "degraded"),
            ("healthy", "unreachable", vec![Healthy, Healthy], "degraded"),
            ("healthy", "healthy", vec![Down, Down], "unhealthy"),
            ("healthy", "healthy", vec![], "unhealthy"),
            ("unreachable", "healthy", vec![Healthy], "unhealthy"),
        ];
        for (metadata, uploader, nodes, expected) in table {
            let list = NodeList {
                nodes: nodes.iter().copied().map(node).collect(),
                refused: Vec::new(),
            };
            let judged = judge(&services(metadata, uploader), &list, Some(Health::Healthy));
            assert_eq!(judged, expected, "{metadata} {uploader} {nodes:?}");
        }
    }

    #[test]
    fn a_service_is_judged_by_itself_and_not_by_what_is_stored() {
        for (body, expected) in [
            (r#"{"status":"healthy"}"#, "healthy"),
            (r#"{"status":"warning"}"#, "degraded"),
            (r#"{"status":"counting","service_status":"healthy"}"#, "healthy"),
            (
                r#"{"status":"degraded","service_status":"healthy","stored":"lost"}"#,
                "healthy",
            ),
            (
                r#"{"status":"degraded","service_status":"degraded","stored":"healthy"}"#,
                "degraded",
            ),
            ("{}", "healthy"),
        ] {
            assert_eq!(word_of(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn nothing_is_called_healthy_that_is_not_known_to_be() {
        let well = NodeList {
            nodes: vec![node(NodeStatus::Healthy), node(NodeStatus::Healthy)],
            refused: Vec::new(),
        };
        let mut unproved = well.clone();
        unproved.nodes[1].trusted = false;
        let mut with_refused = well.clone();
        with_refused.refused.push(RefusedNode {
            node_id: String::new(),
            node_url: String::new(),
            why: String::new(),
            asked_at: WallTime(Timestamp(0)),
        });
        for (nodes, stored, expected) in [
            (&well, Some(Health::Healthy), "healthy"),
            (&unproved, Some(Health::Healthy), "degraded"),
            (&with_refused, Some(Health::Healthy), "degraded"),
            (&well, Some(Health::Counting), "counting"),
            (&unproved, Some(Health::Counting), "degraded"),
            (&well, None, "unknown"),
            (&unproved, None, "degraded"),
            (&well, Some(Health::Unexplained), "degraded"),
            (&well, Some(Health::UnderReplicated), "degraded"),
            (&well, Some(Health::Endangered), "degraded"),
            (&well, Some(Health::OutOfReach), "unhealthy"),
            (&unproved, Some(Health::Lost), "unhealthy"),
        ] {
            let judged = judge(&services("healthy", "healthy"), nodes, stored);
            assert_eq!(judged, expected, "{nodes:?} {stored:?}");
        }
    }
}
