//! The node's description of itself. Kept beside the routes: a call that is not here does not exist for people.

use utoipa::OpenApi;
use vstack_api::{
    ErrorBody,
    consensus::{ConsensusEvent, NodeStanding, PlacementView, RegisterView},
    node::{ChunkPage, DiskStatus, HeldItem, NodeHealth, RegisterEntry, RegisterPage},
};

/// `/openapi.json`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "V-Stack storage node",
        description = "Keeps chunks and votes. Errors are {detail, code}."
    ),
    paths(
        put_chunk,
        get_chunk,
        head_chunk,
        delete_chunk,
        ping,
        health,
        chunks,
        registers,
        register,
        messages,
        paxos,
        decisions,
        pull,
        make,
        item,
        challenge
    ),
    components(schemas(
        ErrorBody,
        NodeHealth,
        DiskStatus,
        ChunkPage,
        HeldItem,
        RegisterPage,
        RegisterEntry,
        RegisterView,
        NodeStanding,
        PlacementView,
        ConsensusEvent
    ))
)]
pub(crate) struct Description;

macro_rules! described {
    ($($(#[$attribute:meta])* $name:ident;)*) => {
        $($(#[$attribute])* #[allow(dead_code, reason = "carries the description alone")] fn $name() {})*
    };
}

described! {
    /// Stores a chunk, synced; with `X-VStack-Vote` also the owner's vote; with `?item=` as a cluster call.
    #[utoipa::path(put, path = "/chunk/{id}", params(("id" = String, Path), ("item" = Option<String>, Query),
        ("X-Chunk-Checksum" = Option<String>, Header, description = "hex SHA-256 of the body")),
        request_body(content = Vec<u8>, content_type = "application/octet-stream"),
        responses((status = 201, description = "stored"), (status = 200, description = "was there"),
            (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 408, body = ErrorBody),
            (status = 409, body = ErrorBody), (status = 411, body = ErrorBody), (status = 413, body = ErrorBody),
            (status = 421, body = ErrorBody), (status = 424, body = ErrorBody), (status = 503, body = ErrorBody),
            (status = 507, body = ErrorBody)))]
    put_chunk;
    /// The bytes of a chunk, verified; `Range` and `If-None-Match` are honoured.
    #[utoipa::path(get, path = "/chunk/{id}", params(("id" = String, Path), ("sha256" = Option<String>, Query)),
        responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
            (status = 206, description = "a range"), (status = 304, description = "known already"),
            (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 416, body = ErrorBody),
            (status = 500, body = ErrorBody), (status = 503, body = ErrorBody)))]
    get_chunk;
    /// The headers of GET.
    #[utoipa::path(head, path = "/chunk/{id}", params(("id" = String, Path)),
        responses((status = 200, description = "here"), (status = 404, description = "not here"),
            (status = 503, description = "not known")))]
    head_chunk;
    /// Deletes what was staged and never placed.
    #[utoipa::path(delete, path = "/chunk/{id}", params(("id" = String, Path)),
        responses((status = 204, description = "gone"), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
    delete_chunk;
    /// Is it there, how full, how quick.
    #[utoipa::path(head, path = "/ping", responses((status = 200, description = "here")))]
    ping;
    /// Liveness and details.
    #[utoipa::path(get, path = "/health", responses((status = 200, body = NodeHealth), (status = 503, body = NodeHealth)))]
    health;
    /// Items held, in log order; of one video, in none.
    #[utoipa::path(get, path = "/chunks", params(("cursor" = Option<String>, Query), ("limit" = Option<usize>, Query),
        ("video" = Option<String>, Query)), responses((status = 200, body = ChunkPage), (status = 400, body = ErrorBody)))]
    chunks;
    /// Registers kept, in log order; of one video, in none.
    #[utoipa::path(get, path = "/registers", params(("cursor" = Option<String>, Query), ("limit" = Option<usize>, Query),
        ("video" = Option<String>, Query)), responses((status = 200, body = RegisterPage), (status = 400, body = ErrorBody)))]
    registers;
    /// This acceptor's register of a chunk.
    #[utoipa::path(get, path = "/consensus/{id}", params(("id" = String, Path)),
        responses((status = 200, body = RegisterView), (status = 400, body = ErrorBody)))]
    register;
    /// The messages this node's acceptor answers: events `message`; `lagged`, with a number, for a reader that was too
    /// slow, whose stream then ends. `Last-Event-ID` goes on after that event; without it, the `recent` last come first.
    #[utoipa::path(get, path = "/consensus/events", params(("chunk" = Option<String>, Query),
        ("prefix" = Option<String>, Query), ("recent" = Option<usize>, Query), ("Last-Event-ID" = Option<String>, Header)),
        responses((status = 200, body = ConsensusEvent, content_type = "text/event-stream"), (status = 503, body = ErrorBody)))]
    messages;
    /// (cluster) A message to an acceptor.
    #[utoipa::path(post, path = "/paxos/{id}", params(("id" = String, Path)),
        responses((status = 200, description = "encoded reply"), (status = 401, body = ErrorBody),
            (status = 409, description = "nack"), (status = 421, description = "wrong node"),
            (status = 424, description = "need bytes"), (status = 503, description = "damaged")))]
    paxos;
    /// (cluster) Decisions of many registers.
    #[utoipa::path(post, path = "/paxos", responses((status = 200, description = "noted"), (status = 401, body = ErrorBody)))]
    decisions;
    /// (cluster) Fetches an item from other nodes.
    #[utoipa::path(post, path = "/paxos/{id}/pull", params(("id" = String, Path)),
        responses((status = 201, description = "stored"), (status = 200, description = "was there"),
            (status = 401, body = ErrorBody), (status = 424, body = ErrorBody)))]
    pull;
    /// (cluster) Gathers a chunk, and stores items made of it.
    #[utoipa::path(post, path = "/paxos/{id}/make", params(("id" = String, Path)),
        responses((status = 200, description = "stored; their digests"),
            (status = 401, body = ErrorBody), (status = 424, body = ErrorBody)))]
    make;
    /// (cluster) An item's bytes.
    #[utoipa::path(get, path = "/paxos/{id}/item/{sha256}", params(("id" = String, Path), ("sha256" = String, Path)),
        responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
            (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
    item;
    /// (cluster) Proves that this node has the secret.
    #[utoipa::path(post, path = "/paxos-challenge",
        responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream", description = "the UUID of the process; the MAC is the proof"), (status = 401, body = ErrorBody)))]
    challenge;
}
