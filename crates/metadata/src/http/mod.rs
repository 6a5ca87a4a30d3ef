//! The service over HTTP: routes, and handlers that read a request, call what decides, and put the answer together.

mod census;
mod chunks;
mod cluster;
mod manifests;
mod nodes;
mod overview;
mod redundancy;
mod stream;
mod videos;

use axum::{
    Router,
    routing::{get, patch, post},
};
use utoipa::OpenApi;

use crate::app::Shared;

/// Every route of the service.
pub(crate) fn routes(app: Shared) -> Router {
    Router::new()
        .route("/", get(overview::root))
        .route("/health", get(overview::health))
        .route("/stats", get(overview::stats))
        .route("/video", post(videos::create))
        .route("/videos", get(videos::list))
        .route("/video/{id}", axum::routing::delete(videos::delete))
        .route("/video/{id}/restore", post(videos::restore))
        .route("/video/{id}/status", patch(videos::set_status))
        .route("/video/{id}/survival", get(videos::survives))
        .route("/video/{id}/popularity", get(videos::popularity))
        .route("/video/{id}/view", post(videos::count_view))
        .route("/manifest/{id}", get(manifests::manifest))
        .route("/chunk/{id}/commit", post(chunks::commit))
        .route("/chunk/{id}/fragments", get(chunks::fragments))
        .route("/consensus/events", get(stream::messages))
        .route("/consensus/{id}", get(chunks::consensus))
        .route("/nodes/healthy", get(nodes::healthy))
        .route("/nodes/all", get(nodes::all))
        .route("/nodes/health-summary", get(nodes::health_summary))
        .route("/nodes/register", post(nodes::register))
        .route("/nodes/{id}/heartbeat", post(nodes::heartbeat))
        .route("/nodes/{id}", axum::routing::delete(nodes::remove))
        .route("/nodes/{id}/drain", post(nodes::drain))
        .route("/nodes/{id}/activate", post(nodes::activate))
        .route("/redundancy/recommend/{id}", get(redundancy::recommend))
        .route("/redundancy/config", get(redundancy::config))
        .route(
            "/redundancy/override/{id}",
            post(redundancy::set_override).delete(redundancy::clear_override),
        )
        .route("/redundancy/efficiency", get(redundancy::efficiency))
        .route("/redundancy/videos", get(redundancy::videos))
        .route("/redundancy/videos/{id}", get(redundancy::keeping_of))
        .route("/redundancy/pause", post(redundancy::pause))
        .route("/redundancy/resume", post(redundancy::resume))
        .route("/storage/overhead", get(redundancy::overhead))
        .route("/census", get(census::census))
        .route("/census/{video}", get(census::census_of_video))
        .route("/repairs", get(census::repairs))
        .route("/rebalance", post(census::rebalance))
        .route("/orphans/give-up", post(census::give_up))
        .route("/events", get(stream::events))
        .route("/video/{id}/group", post(cluster::group))
        .route("/video/{id}/decided", post(cluster::decided))
        .route("/video/{id}/complete", post(cluster::complete))
        .route("/video/{id}/fail", post(cluster::fail))
        .route("/owners/{process}/alive", post(cluster::owner_alive))
        .with_state(app)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "V-Stack metadata service",
        description = "Videos, manifests, nodes and the placement of chunks."
    ),
    paths(
        overview::root,
        overview::health,
        overview::stats,
        videos::create,
        videos::list,
        videos::delete,
        videos::restore,
        videos::set_status,
        videos::survives,
        videos::popularity,
        videos::count_view,
        manifests::manifest,
        chunks::commit,
        chunks::fragments,
        chunks::consensus,
        nodes::healthy,
        nodes::all,
        nodes::health_summary,
        nodes::register,
        nodes::heartbeat,
        nodes::drain,
        nodes::activate,
        nodes::remove,
        redundancy::recommend,
        redundancy::config,
        redundancy::set_override,
        redundancy::clear_override,
        redundancy::videos,
        redundancy::keeping_of,
        redundancy::pause,
        redundancy::resume,
        redundancy::efficiency,
        redundancy::overhead,
        census::census,
        census::census_of_video,
        census::repairs,
        census::rebalance,
        census::give_up,
        stream::events,
        stream::messages,
        cluster::group,
        cluster::decided,
        cluster::complete,
        cluster::fail,
        cluster::owner_alive,
    ),
    components(schemas(vstack_api::ErrorBody))
)]
struct Description;

/// The service described for machines.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described() {
        let source = include_str!("mod.rs").split("#[cfg(test)]").next().unwrap_or_default();
        let routes = source
            .split(".route(")
            .skip(1)
            .filter_map(|rest| rest.split('"').nth(1));
        let described = openapi();
        let mut count = 0;
        for route in routes {
            assert!(described.paths.paths.contains_key(route), "{route}");
            count += 1;
        }
        assert_eq!(count, described.paths.paths.len());
    }
}
