//! Chunks: commit, fragments, consensus.

use axum::extract::State;
use vstack_api::{
    ErrorCode,
    metadata::{CommitChunk, Committed, ConsensusState, NodeStatus},
    redundancy::{FragmentInfo, FragmentList},
};
use vstack_chunkpaxos::Layout;
use vstack_service::{ApiError, ApiResult, Json, Path};
use vstack_types::ChunkId;

use crate::{
    app::{Shared, store_error},
    commit as classic, consensus as acceptors,
    registry::{self, ByDisk},
};

/// Decides the placement of bytes that were PUT on nodes.
#[utoipa::path(post, path = "/chunk/{id}/commit", params(("id" = String, Path)), request_body = CommitChunk, responses((status = 200, body = Committed), (status = 409, body = vstack_api::ErrorBody), (status = 422, body = vstack_api::ErrorBody), (status = 503, body = vstack_api::ErrorBody)))]
pub(super) async fn commit(
    State(app): State<Shared>,
    Path(id): Path<ChunkId>,
    Json(request): Json<CommitChunk>,
) -> ApiResult<Json<Committed>> {
    classic::commit(&app, id, request).await.map(Json)
}

/// The shards of a coded chunk; none of a replicated one.
#[utoipa::path(get, path = "/chunk/{id}/fragments", params(("id" = String, Path)), responses((status = 200, body = FragmentList), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn fragments(State(app): State<Shared>, Path(id): Path<ChunkId>) -> ApiResult<Json<FragmentList>> {
    let (_, chunk) = app
        .store
        .chunk(id.clone())
        .await
        .map_err(store_error)?
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no chunk {id}")))?;
    let nodes = app.registered().await?;
    let by_disk = ByDisk::new(&nodes);
    let mut fragments = Vec::new();
    if let Layout::Coded { data, shards, .. } = &chunk.placement.layout {
        for shard in shards {
            let node = by_disk.get(shard.node.uuid);
            let down = |node| registry::status(node, app.now(), app.settings.node_timeout()) == NodeStatus::Down;
            fragments.push(FragmentInfo {
                fragment_id: format!("{id}-frag-{}", shard.index),
                fragment_index: shard.index,
                node_url: node.map(|node| node.public_url.clone()).unwrap_or_default(),
                size_bytes: chunk.placement.size.div_ceil(u64::from((*data).max(1))),
                checksum: shard.sha256.prefixed(),
                status: if node.is_none_or(down) { "unreachable" } else { "active" }.into(),
            });
        }
    }
    Ok(Json(FragmentList {
        chunk_id: id,
        fragments,
    }))
}

/// What the acceptors of a chunk say.
#[utoipa::path(get, path = "/consensus/{id}", params(("id" = String, Path)), responses((status = 200, body = ConsensusState)))]
pub(super) async fn consensus(State(app): State<Shared>, Path(id): Path<ChunkId>) -> ApiResult<Json<ConsensusState>> {
    acceptors::state(&app, id).await.map(Json)
}
