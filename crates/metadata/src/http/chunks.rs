//! Chunks: commit, fragments, consensus.

use std::time::Duration;

use axum::extract::State;
use vstack_api::{
    ErrorCode,
    metadata::{CommitChunk, Committed, ConsensusState, NodeStatus},
    redundancy::{FragmentInfo, FragmentList},
};
use vstack_chunkpaxos::{Placement, Shard};
use vstack_service::{ApiError, ApiResult, Json, Path};
use vstack_types::ChunkId;
use vstack_upkeep::standing::Seen;

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

/// How a shard is, by what was counted, and whether its node is there.
const fn status_of(seen: Seen, is_reachable: bool, is_doubtful: bool) -> &'static str {
    match seen {
        // Nobody's return makes it right.
        Seen::Wrong => "wrong",
        _ if !is_reachable => "unreachable",
        Seen::Whole if is_doubtful => "doubtful",
        Seen::Whole => "active",
        Seen::Damaged => "damaged",
        Seen::Absent => "missing",
        Seen::NotCounted => "uncounted",
    }
}

/// The shards that a placement names, of both halves while it is joint, by index; `of` gives the URL and the status of each.
fn shards_of(id: &ChunkId, placement: &Placement, of: impl Fn(&Shard) -> (String, &'static str)) -> Vec<FragmentInfo> {
    let Some(mut set) = placement.sources().shards else {
        return Vec::new();
    };
    set.of.sort_by_key(|shard| shard.index);
    let size_bytes = placement.size.div_ceil(u64::from(set.data.max(1)));
    let told = |shard: &Shard| {
        let (node_url, status) = of(shard);
        FragmentInfo {
            fragment_id: format!("{id}-frag-{}", shard.index),
            fragment_index: shard.index,
            node_url,
            size_bytes,
            checksum: shard.sha256.prefixed(),
            status: status.to_owned(),
        }
    };
    set.of.iter().map(told).collect()
}

/// The shards of a chunk, each as it was counted; none of one that is nothing but copies.
#[utoipa::path(get, path = "/chunk/{id}/fragments", params(("id" = String, Path)), responses((status = 200, body = FragmentList), (status = 404, body = vstack_api::ErrorBody), (status = 503, body = vstack_api::ErrorBody)))]
pub(super) async fn fragments(State(app): State<Shared>, Path(id): Path<ChunkId>) -> ApiResult<Json<FragmentList>> {
    let (video, chunk) = app
        .store
        .chunk(id.clone())
        .await
        .map_err(store_error)?
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no chunk {id}")))?;
    let nodes = app.registered().await?;
    let by_disk = ByDisk::new(&nodes);
    let seen = app.upkeep.seen_of(video, &chunk).await.ok_or_else(|| {
        let detail = "everything that is stored is just being gone through; try again";
        ApiError::new(ErrorCode::Unavailable, detail).retry_after(Duration::from_secs(1))
    })?;
    let fragments = shards_of(&id, &chunk.placement, |shard| {
        let node = by_disk.get(shard.node.uuid);
        let is_up = |node| registry::status(node, app.now(), app.settings.node_timeout()) != NodeStatus::Down;
        let url = node.map(|node| node.public_url.clone()).unwrap_or_default();
        let of_shard = seen.of(shard.node, shard.sha256);
        (url, status_of(of_shard, node.is_some_and(is_up), seen.is_doubtful))
    });
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

#[cfg(test)]
mod tests {
    use vstack_chunkpaxos::Layout;
    use vstack_types::{Digest, NodeRef, NodeUuid, VideoId};

    use super::*;

    fn node(n: u8) -> NodeRef {
        NodeRef::first(NodeUuid::from_bytes([n; 16]))
    }

    fn copies() -> Layout {
        Layout::Replicated {
            nodes: [1, 2, 3].map(node).to_vec(),
        }
    }

    fn shards(on: [u8; 5]) -> Layout {
        let shard = |(index, n): (u8, u8)| Shard {
            index,
            node: node(n),
            sha256: Digest::of(&[index]),
        };
        Layout::Coded {
            data: 3,
            parity: 2,
            shards: (0..).zip(on).map(shard).collect(),
        }
    }

    #[test]
    fn a_shard_is_active_only_where_it_was_found_whole_at_a_node_that_is_there() {
        for (seen, there, away) in [
            (Seen::Whole, "active", "unreachable"),
            (Seen::Damaged, "damaged", "unreachable"),
            (Seen::Absent, "missing", "unreachable"),
            (Seen::NotCounted, "uncounted", "unreachable"),
            (Seen::Wrong, "wrong", "wrong"),
        ] {
            assert_eq!(
                (status_of(seen, true, false), status_of(seen, false, false)),
                (there, away),
                "{seen:?}"
            );
        }
        assert_eq!(status_of(Seen::Whole, true, true), "doubtful");
        assert_eq!(status_of(Seen::Wrong, true, true), "wrong");
    }

    #[test]
    fn while_a_chunk_is_moved_the_shards_of_both_halves_are_told() {
        let id = ChunkId::of_video(VideoId::from_bytes([3; 16]), 0);
        let of = |layout: Layout, prev: Option<Layout>| -> Vec<(u8, String)> {
            let placement = Placement {
                version: 2,
                size: 100,
                sha256: Digest::of(b"chunk"),
                layout,
                prev,
                back: false,
            };
            let told = shards_of(&id, &placement, |shard| (shard.node.uuid.to_string(), "active"));
            assert!(told.iter().all(|told| told.size_bytes == 34), "{told:?}");
            told.into_iter()
                .map(|told| (told.fragment_index, told.node_url))
                .collect()
        };
        let at = |index: u8, n: u8| (index, node(n).uuid.to_string());
        let all: Vec<(u8, String)> = (0..5).map(|index| at(index, index + 1)).collect();
        let settled = shards([1, 2, 3, 4, 5]);
        assert_eq!(of(settled.clone(), None), all);
        assert_eq!(of(copies(), Some(settled.clone())), all, "it becomes copies");
        assert_eq!(of(settled.clone(), Some(copies())), all, "it was copies");
        assert_eq!(of(copies(), None), Vec::new());
        let moved = of(shards([1, 2, 3, 4, 9]), Some(settled));
        assert_eq!(moved[4..], [at(4, 9), at(4, 5)], "where it is going to be first");
        assert_eq!(moved[..4], all[..4]);
    }
}
