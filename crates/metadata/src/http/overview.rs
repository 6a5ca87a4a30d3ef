//! `/`, `/health`, `/stats`.

use axum::extract::State;
use vstack_api::{
    census::Health,
    metadata::{MetadataHealth, ServiceMessage, Stats},
};
use vstack_service::{ApiResult, Json, VERSION};
use vstack_types::Timestamp;

use crate::{
    app::{Shared, store_error},
    registry, survival, upkeep,
};

/// What this is.
#[utoipa::path(get, path = "/", responses((status = 200, body = ServiceMessage)))]
pub(super) async fn root() -> Json<ServiceMessage> {
    Json(ServiceMessage {
        message: "V-Stack metadata service".into(),
        version: VERSION.into(),
    })
}

/// What the service calls itself. Never healthy while something that is stored is not, or is not known to be.
const fn status_of(is_service_well: bool, stored: Health) -> &'static str {
    match stored {
        _ if !is_service_well => "degraded",
        Health::Healthy => "healthy",
        Health::Counting => "counting",
        Health::Unexplained | Health::UnderReplicated | Health::Endangered | Health::OutOfReach | Health::Lost => {
            "degraded"
        }
    }
}

/// Liveness and details. Whoever answers lives, and answers 200, whatever the details are.
#[utoipa::path(get, path = "/health", responses((status = 200, body = MetadataHealth)))]
pub(super) async fn health(State(app): State<Shared>) -> Json<MetadataHealth> {
    let nodes = match app.store.ping().await {
        Ok(()) => app.known_nodes().await,
        Err(error) => Err(error),
    };
    let (nodes, database_status) = match nodes {
        Ok(nodes) => (nodes, "connected".to_owned()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    let healthy_nodes = registry::summary(&nodes, app.now(), app.settings.node_timeout()).healthy;
    let is_well = database_status == "connected" && healthy_nodes >= app.settings.replication_factor;
    let stored = upkeep::stored_health(&app);
    Json(MetadataHealth {
        status: status_of(is_well, stored).into(),
        service_status: Some(if is_well { "healthy" } else { "degraded" }.into()),
        stored: Some(stored),
        service: "metadata-service".into(),
        healthy_nodes,
        total_nodes: nodes.len(),
        database_status,
    })
}

/// Sums.
#[utoipa::path(get, path = "/stats", responses((status = 200, body = Stats)))]
pub(super) async fn stats(State(app): State<Shared>) -> ApiResult<Json<Stats>> {
    let totals = app.store.totals().await.map_err(store_error)?;
    let copies = u32::try_from(app.settings.replication_factor).unwrap_or(u32::MAX);
    let under_replicated_chunks = app.store.under_replicated(copies).await.map_err(store_error)?;
    let nodes = app.registered().await?;
    let (summary, decided) = (app.upkeep.summary(), app.keeping.decided());
    // Of what became active since, some of the chunks may not have been counted.
    let is_known = |since: Timestamp| summary.at.is_some_and(|at| since <= at);
    let known = decided.of.iter().filter(|(_, decision)| is_known(decision.since));
    let known = known.map(|(video, _)| *video);
    Ok(Json(Stats {
        total_videos: totals.active_videos,
        total_chunks: totals.active_chunks,
        total_replicas: totals.active_replicas,
        under_replicated_chunks,
        survival: survival::of_library(&summary.report, known, totals.active_videos),
        healthy_nodes: registry::summary(&nodes, app.now(), app.settings.node_timeout()).healthy,
        service_version: VERSION.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_healthy_by_who_does_not_know_that_everything_stored_is() {
        for (stored, expected) in [
            (Health::Healthy, "healthy"),
            (Health::Counting, "counting"),
            (Health::Unexplained, "degraded"),
            (Health::UnderReplicated, "degraded"),
            (Health::Endangered, "degraded"),
            (Health::OutOfReach, "degraded"),
            (Health::Lost, "degraded"),
        ] {
            assert_eq!(status_of(true, stored), expected, "{stored:?}");
            assert_eq!(status_of(false, stored), "degraded", "{stored:?}");
        }
    }
}
