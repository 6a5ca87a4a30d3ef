//! Which path is whose.

use axum::{
    Router,
    http::{HeaderName, Method, header},
    routing::{get, head, post},
};
use vstack_api::headers;
use vstack_service::Cors;

use crate::{app::Shared, cluster, consensus, delete, get, holdings, lists, make, pull, put, status};

pub(crate) fn routes(app: Shared) -> Router {
    let chunk = get(get::get_chunk)
        .head(get::get_chunk)
        .put(put::put_chunk)
        .delete(delete::delete_chunk);
    Router::new()
        .route("/chunk/{id}", chunk)
        .route("/chunks", get(lists::chunks))
        .route("/registers", get(lists::registers))
        .route("/consensus/events", get(consensus::events))
        .route("/consensus/{id}", get(consensus::register))
        .route("/ping", head(status::ping).get(status::ping))
        .route("/health", get(status::health))
        .route("/paxos", post(cluster::decisions))
        .route("/paxos/{id}", post(cluster::message))
        .route("/paxos/{id}/pull", post(pull::pull))
        .route("/paxos/{id}/make", post(make::make))
        .route("/paxos/{id}/item/{sha256}", get(cluster::item))
        .route("/holdings", post(holdings::page))
        .route("/renew", post(cluster::renew))
        .route("/seal", post(cluster::seal))
        .route("/paxos-challenge", post(cluster::challenge))
        .with_state(app)
}

/// Pages read chunks and measure nodes; they never write.
pub(crate) fn cors(origins: Vec<String>) -> Cors {
    let names = [
        headers::CHUNK_SIZE,
        headers::SUPERBLOCK_ID,
        headers::NODE_ID,
        headers::DISK_USAGE_PERCENT,
        headers::CHUNK_COUNT,
        headers::RESPONSE_TIME,
        headers::REQUEST_ID,
        headers::ERROR_CODE,
    ];
    let standard = [
        header::ETAG,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::ACCEPT_RANGES,
    ];
    let expose = standard.into_iter().chain(names.map(HeaderName::from_static)).collect();
    Cors {
        origins,
        methods: vec![Method::GET, Method::HEAD],
        expose,
    }
}
