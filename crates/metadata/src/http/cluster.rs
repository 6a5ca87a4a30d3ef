//! Calls of the cluster's own services, under its secret: what the owner of an upload asks and tells.

use std::time::Duration;

use axum::{extract::State, response::Response};
use vstack_api::{
    ErrorCode,
    auth::header_bytes,
    metadata::{
        CompleteVideo, DecidedBatch, DecidedChunk, FailVideo, Group as GroupAnswer, GroupMember, OwnerAlive,
        RedundancyMode, RequestGroup, StatusSet, VideoStatus,
    },
};
use vstack_chunkpaxos::Placement;
use vstack_placement::{GroupRequest, choose_group};
use vstack_service::{ApiError, ApiResult, ClusterCall, Path};
use vstack_types::{ChunkId, ProcessUuid, VideoId, limits::VIDEO_CHUNKS_MAX};

use super::videos::{change_status, completed};
use crate::{
    app::{App, Shared, group_of, no_such_video, store_error},
    coded,
    commit::learned,
    registry::ByDisk,
    store::{Chunk, Completion, Group, GroupOutcome, LEARN_CHUNKS_MAX, Node, Video},
};

/// Longest reason kept, in characters.
const REASON_CHARS_MAX: usize = 1_000;
/// Most videos one process works on.
const OWNED_MAX: usize = 10_000;

fn conflict(detail: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Conflict, detail)
}

/// The video, if `owner` is who sends its chunks.
async fn owned(app: &App, id: VideoId, owner: ProcessUuid) -> ApiResult<Video> {
    let video = app.video(id).await?;
    if video.owner.is_some_and(|known| known.process == owner) {
        return Ok(video);
    }
    Err(ApiError::new(
        ErrorCode::Forbidden,
        format!("the chunks of video {id} are sent by another process"),
    ))
}

/// (cluster) The nodes of the chunks from a sequence number on.
#[utoipa::path(post, path = "/video/{id}/group", params(("id" = String, Path)), request_body = RequestGroup, responses((status = 200, body = GroupAnswer), (status = 401, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody), (status = 503, body = vstack_api::ErrorBody)))]
pub(super) async fn group(
    State(app): State<Shared>,
    Path(id): Path<VideoId>,
    call: ClusterCall,
) -> ApiResult<Response> {
    let request: RequestGroup = call.json()?;
    if request.from_seq as usize >= VIDEO_CHUNKS_MAX {
        return Err(ApiError::new(
            ErrorCode::Malformed,
            "from_seq is beyond the longest video",
        ));
    }
    let video = owned(&app, id, request.owner).await?;
    let nodes = app.registered().await?;
    let groups = app.store.groups(id).await.map_err(store_error)?;
    // Before the status: who asks again must not take the end of the video for the news that there is no such group.
    if let Some(there) = groups.iter().find(|group| group.from_seq == request.from_seq)
        && !vstack_types::planted!("a group that stands is made anew")
    {
        return call.answer_json(&group_answer(&app, &video, there, &nodes));
    }
    if video.status != VideoStatus::Uploading {
        return Err(conflict(format!(
            "the video is {} and takes no chunks",
            video.status.as_str()
        )));
    }
    let candidates = app.candidates(&nodes);
    let chosen = if video.override_mode == Some(RedundancyMode::ErasureCoding) {
        let members = coded::members(&app, &candidates, id, &request.avoid);
        members.map_err(|refusal| refusal.to_string())
    } else {
        let wanted = GroupRequest {
            video: id,
            replication_factor: app.settings.replication_factor,
            avoid: &request.avoid,
        };
        choose_group(&candidates, wanted).map_err(|refusal| refusal.to_string())
    };
    let members = match chosen {
        Ok(members) => members,
        Err(refusal) => old_members(&groups, request.from_seq).ok_or_else(|| {
            let reason = format!("{refusal}; see /nodes/all");
            ApiError::new(ErrorCode::TooFewNodes, reason).retry_after(Duration::from_secs(2))
        })?,
    };
    let chosen = Group {
        from_seq: request.from_seq,
        members,
    };
    match app.store.insert_group(id, chosen).await.map_err(store_error)? {
        GroupOutcome::Stands(group) => call.answer_json(&group_answer(&app, &video, &group, &nodes)),
        GroupOutcome::Behind => Err(conflict("chunks from from_seq on have their nodes already")),
        GroupOutcome::Closed(status) => Err(conflict(format!(
            "the video is {} and takes no chunks",
            status.as_str()
        ))),
        GroupOutcome::TooMany => Err(conflict("the video has too many groups")),
        GroupOutcome::Unknown => Err(no_such_video(id)),
    }
}

/// Who stays when no others can be had. That they stay is written down like any group: a request that was refused and
/// comes once more, late, would else find other nodes for chunks that were sent to these.
fn old_members(groups: &[Group], from_seq: u32) -> Option<Vec<vstack_types::NodeRef>> {
    group_of(groups, Some(from_seq)).map(|group| group.members.clone())
}

fn group_answer(app: &App, video: &Video, group: &Group, nodes: &[Node]) -> GroupAnswer {
    let by_disk = ByDisk::new(nodes);
    let member = |node: &vstack_types::NodeRef| GroupMember {
        node: *node,
        // One that left the registry stays a member, out of reach.
        url: by_disk.get(node.uuid).map(|node| node.url.clone()).unwrap_or_default(),
    };
    GroupAnswer {
        from_seq: group.from_seq,
        members: group.members.iter().map(member).collect(),
        coded: coded::form_on(app, video, group.members.len()),
    }
}

/// (cluster) What was decided. Telling it twice changes nothing.
#[utoipa::path(post, path = "/video/{id}/decided", params(("id" = String, Path)), request_body = DecidedBatch, responses((status = 200), (status = 401, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn decided(
    State(app): State<Shared>,
    Path(id): Path<VideoId>,
    call: ClusterCall,
) -> ApiResult<Response> {
    let batch: DecidedBatch = call.json()?;
    if batch.chunks.len() > LEARN_CHUNKS_MAX {
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("at most {LEARN_CHUNKS_MAX} chunks are told at a time"),
        ));
    }
    owned(&app, id, batch.owner).await?;
    let groups = app.store.groups(id).await.map_err(store_error)?;
    let chunks = batch
        .chunks
        .into_iter()
        .map(|chunk| checked(id, &groups, chunk))
        .collect::<ApiResult<_>>()?;
    learned(&app, id, chunks).await?;
    call.answer_json(&serde_json::json!({ "status": "ok" }))
}

/// One decision, if it can be about this video.
fn checked(video: VideoId, groups: &[Group], told: DecidedChunk) -> ApiResult<Chunk> {
    let malformed = |detail: String| ApiError::new(ErrorCode::Malformed, detail);
    let id = told.chunk_id;
    let encoded = header_bytes::decode(&told.placement)
        .ok_or_else(|| malformed(format!("the placement of {id} is no base64url")))?;
    let placement = Placement::decode(&encoded)
        .map_err(|error| malformed(format!("the placement of {id} cannot be read: {error}")))?;
    let sequence = told.place.map(|place| place.sequence_num);
    let expected = sequence.map_or_else(|| ChunkId::init_of_video(video), |seq| ChunkId::of_video(video, seq));
    if id != expected {
        return Err(malformed(format!("{id} stands where {expected} belongs")));
    }
    if let Some(place) = told.place {
        let sane = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
        if place.sequence_num as usize >= VIDEO_CHUNKS_MAX || !sane(place.start_sec) || !sane(place.duration_sec) {
            return Err(malformed(format!("the place of {id} cannot be")));
        }
    }
    if placement.version == 0 || placement.size == 0 || placement.layout.is_deleted() {
        return Err(malformed(format!("the placement of {id} places nothing")));
    }
    // Its majority need not be enough to read it.
    if placement.is_first_coded() && !vstack_types::planted!("a coded first version is told before it is settled") {
        return Err(conflict(format!("the shards of {id} are not settled")));
    }
    // A first placement is its group's, for ever: anything else was decided by acceptors nobody will ask.
    let in_group = group_of(groups, sequence).is_some_and(|group| {
        let nodes = placement.layout.nodes();
        nodes.len() == group.members.len() && nodes.iter().all(|node| group.members.contains(node))
    });
    // What is settled as version 2 was coded from its first on.
    let is_first = placement.version == 1 || (placement.version == 2 && placement.prev.is_none());
    if is_first && !in_group {
        return Err(conflict(format!(
            "the first placement of {id} is not on the nodes of its group"
        )));
    }
    Ok(Chunk {
        id,
        place: told.place,
        placement,
    })
}

/// (cluster) Everything is decided and told: the video becomes active.
#[utoipa::path(post, path = "/video/{id}/complete", params(("id" = String, Path)), request_body = CompleteVideo, responses((status = 200, body = StatusSet), (status = 401, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn complete(
    State(app): State<Shared>,
    Path(id): Path<VideoId>,
    call: ClusterCall,
) -> ApiResult<Response> {
    let request: CompleteVideo = call.json()?;
    if !request.duration_sec.is_finite() || request.duration_sec < 0.0 || request.total_chunks == 0 {
        return Err(ApiError::new(
            ErrorCode::Malformed,
            "a whole video has chunks and a duration",
        ));
    }
    owned(&app, id, request.owner).await?;
    let total = request.total_chunks;
    let completion = Completion {
        total_chunks: total,
        duration_sec: request.duration_sec,
        codecs: request.codecs,
        width: request.width,
        height: request.height,
    };
    let outcome = app.store.complete_video(id, completion).await.map_err(store_error)?;
    let answer = completed(id, outcome, total)?;
    if outcome == crate::store::CompletionOutcome::Completed {
        app.tell_status(id, answer.status, None);
    }
    call.answer_json(&answer)
}

/// (cluster) It will never be whole.
#[utoipa::path(post, path = "/video/{id}/fail", params(("id" = String, Path)), request_body = FailVideo, responses((status = 200, body = StatusSet), (status = 401, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn fail(State(app): State<Shared>, Path(id): Path<VideoId>, call: ClusterCall) -> ApiResult<Response> {
    let request: FailVideo = call.json()?;
    let reason = request.reason.chars().take(REASON_CHARS_MAX).collect();
    let answer = change_status(&app, id, VideoStatus::Failed, Some(reason)).await?;
    call.answer_json(&answer)
}

/// (cluster) A process still works on these videos.
#[utoipa::path(post, path = "/owners/{process}/alive", params(("process" = String, Path)), request_body = OwnerAlive, responses((status = 200), (status = 401, body = vstack_api::ErrorBody)))]
pub(super) async fn owner_alive(
    State(app): State<Shared>,
    Path(process): Path<ProcessUuid>,
    call: ClusterCall,
) -> ApiResult<Response> {
    let request: OwnerAlive = call.json()?;
    if request.videos.len() > OWNED_MAX {
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("a process works on at most {OWNED_MAX} videos"),
        ));
    }
    app.store
        .owner_alive(process, request.videos, app.now())
        .await
        .map_err(store_error)?;
    call.answer_json(&serde_json::json!({ "status": "ok" }))
}
