//! Videos: create, list, status, delete, views.

use std::collections::BTreeSet;

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue},
    response::IntoResponse,
};
use serde::Deserialize;
use vstack_api::{
    ErrorCode, WallTime, headers,
    metadata::{
        CreateVideo, Popularity, RedundancyMode, SetStatus, StatusSet, VideoCreated, VideoInfo, VideoStatus,
        VideoSurvival, ViewCounted,
    },
};
use vstack_chunkpaxos::Placement;
use vstack_placement::Liveness;
use vstack_service::{ApiError, ApiResult, Json, Path, Query};
use vstack_types::{NodeRef, Timestamp, VideoId, limits::TITLE_CHARS_MAX};
use vstack_upkeep::report::Report;

use super::manifests;
use crate::{
    app::{App, Shared, no_such_video, store_error},
    coded,
    lifecycle::may_become,
    store::{CompletionOutcome, Listing, NewVideo, Reap, Sort, SortKey, StatusChange, Video, VideoQuery},
    survival,
};

/// Longest video, in seconds: ten years.
const DURATION_SEC_MAX: f64 = 10.0 * 366.0 * 86_400.0;

/// Most videos on one page.
const LIST_MAX: u32 = 1_000;

/// Announces a video whose chunks are going to come.
#[utoipa::path(post, path = "/video", request_body = CreateVideo, responses((status = 200, body = VideoCreated), (status = 400, body = vstack_api::ErrorBody), (status = 422, body = vstack_api::ErrorBody)))]
pub(super) async fn create(
    State(app): State<Shared>,
    Json(request): Json<CreateVideo>,
) -> ApiResult<Json<VideoCreated>> {
    // Titles go to terminals and pages: control characters have no business in them.
    let title: String = request.title.chars().filter(|c| !c.is_control()).collect();
    let title = title.trim();
    if title.is_empty() || title.chars().count() > TITLE_CHARS_MAX {
        let detail = format!("a title has 1 to {TITLE_CHARS_MAX} characters");
        return Err(ApiError::new(ErrorCode::Malformed, detail));
    }
    if !(0.0..=DURATION_SEC_MAX).contains(&request.duration_sec) {
        return Err(ApiError::new(
            ErrorCode::Malformed,
            "duration_sec is a number of seconds, 0 while unknown, at most ten years",
        ));
    }
    if request.redundancy_mode == Some(RedundancyMode::ErasureCoding) {
        coded::check_nodes(&app).await?;
    }
    let video = NewVideo {
        id: VideoId::generate(),
        title: title.to_owned(),
        duration_sec: request.duration_sec,
        owner: request.owner,
        override_mode: request.redundancy_mode,
        created_at: app.now(),
    };
    let video_id = video.id;
    app.store.create_video(video).await.map_err(store_error)?;
    app.tell_status(video_id, VideoStatus::Uploading, None);
    Ok(Json(VideoCreated {
        video_id,
        upload_url: format!("/video/{video_id}"),
    }))
}

/// Which videos to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// At most so many; 1000 are the most.
    #[serde(default = "default_limit")]
    limit: u32,
    /// Without the first so many.
    #[serde(default)]
    offset: u64,
    /// In the title, whatever the case.
    q: Option<String>,
    /// `active` when absent.
    status: Option<VideoStatus>,
    /// `created_at`, `title`, `view_count` or `duration_sec`, from low to high; after `-` from high to low. Newest
    /// first when absent.
    sort: Option<String>,
}

const fn default_limit() -> u32 {
    100
}

fn sort(text: Option<&str>) -> ApiResult<Sort> {
    let text = text.unwrap_or("-created_at");
    let (word, descending) = text.strip_prefix('-').map_or((text, false), |word| (word, true));
    let key = match word {
        "created_at" => SortKey::CreatedAt,
        "title" => SortKey::Title,
        "view_count" => SortKey::ViewCount,
        "duration_sec" => SortKey::Duration,
        _ => {
            let detail = "sort is created_at, title, view_count or duration_sec, with - before it for high to low";
            return Err(ApiError::new(ErrorCode::Malformed, detail));
        }
    };
    Ok(Sort { key, descending })
}

/// Until when a video can be restored, if it can.
fn restorable_until(video: &Video, now: Timestamp) -> Option<WallTime> {
    match video.reap {
        Reap::Trashed { until, .. } => (until > now).then_some(WallTime(until)),
        Reap::NotDue | Reap::Due { .. } | Reap::Done => None,
    }
}

fn info(listing: Listing, report: &Report, now: Timestamp) -> VideoInfo {
    // What our uploader sent has an init segment besides.
    let chunks = u64::from(listing.chunk_count) + u64::from(listing.video.owner.is_some());
    let survival = survival::of_video(report, listing.video.id, chunks);
    VideoInfo {
        restorable_until: restorable_until(&listing.video, now),
        video_id: listing.video.id,
        title: listing.video.title,
        duration_sec: listing.video.duration_sec,
        status: listing.video.status,
        total_chunks: listing.chunk_count,
        size_bytes: listing.size_bytes,
        view_count: listing.video.view_count,
        created_at: WallTime(listing.video.created_at),
        failures_survived: survival.failures_survived,
        survival_counted: survival.counted,
    }
}

/// A page of videos; `X-Total-Count` says how many there are on all pages.
#[utoipa::path(get, path = "/videos", params(ListQuery), responses((status = 200, body = Vec<VideoInfo>)))]
pub(super) async fn list(State(app): State<Shared>, Query(query): Query<ListQuery>) -> ApiResult<impl IntoResponse> {
    let query = VideoQuery {
        status: query.status.unwrap_or(VideoStatus::Active),
        text: query.q.filter(|text| !text.is_empty()),
        sort: sort(query.sort.as_deref())?,
        limit: query.limit.min(LIST_MAX),
        offset: query.offset,
    };
    let page = app.store.list_videos(query).await.map_err(store_error)?;
    let (now, report) = (app.now(), app.upkeep.summary().report.clone());
    let videos = page.videos.into_iter();
    let infos: Vec<_> = videos.map(|listing| info(listing, &report, now)).collect();
    let total = (
        HeaderName::from_static(headers::TOTAL_COUNT),
        HeaderValue::from(page.total),
    );
    Ok(([total], Json(infos)))
}

/// Changes the status by hand: forward only.
#[utoipa::path(patch, path = "/video/{id}/status", params(("id" = String, Path)), request_body = SetStatus, responses((status = 200, body = StatusSet), (status = 404, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn set_status(
    State(app): State<Shared>,
    Path(id): Path<VideoId>,
    Json(SetStatus { status }): Json<SetStatus>,
) -> ApiResult<Json<StatusSet>> {
    change_status(&app, id, status, None).await.map(Json)
}

/// How a video is taken out.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// It cannot be restored; its bytes go at once.
    #[serde(default)]
    purge: bool,
}

/// Takes a video out. It can be restored for a while; then its bytes go, in the background.
#[utoipa::path(delete, path = "/video/{id}", params(("id" = String, Path), DeleteQuery), responses((status = 200, body = StatusSet), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn delete(
    State(app): State<Shared>,
    Path(id): Path<VideoId>,
    Query(DeleteQuery { purge }): Query<DeleteQuery>,
) -> ApiResult<Json<StatusSet>> {
    let mut set = change_status(&app, id, VideoStatus::Deleted, None).await?;
    if purge {
        set.restorable_until = None;
        if app.store.empty_trash(app.now(), Some(id)).await.map_err(store_error)? > 0 {
            app.reap_now.notify_one();
        }
    }
    Ok(Json(set))
}

/// Restores a deleted video, as long as its bytes are kept.
#[utoipa::path(post, path = "/video/{id}/restore", params(("id" = String, Path)), responses((status = 200, body = StatusSet), (status = 404, body = vstack_api::ErrorBody), (status = 409, body = vstack_api::ErrorBody)))]
pub(super) async fn restore(State(app): State<Shared>, Path(id): Path<VideoId>) -> ApiResult<Json<StatusSet>> {
    let set = StatusSet {
        video_id: id,
        status: VideoStatus::Active,
        restorable_until: None,
    };
    if app.store.restore(id).await.map_err(store_error)? {
        app.tell_status(id, VideoStatus::Active, None);
        return Ok(Json(set));
    }
    let video = app.video(id).await?;
    if video.status == VideoStatus::Active {
        return Ok(Json(set));
    }
    let detail = match video.status {
        VideoStatus::Deleted => "its bytes are gone, or were on their way out: upload it again".to_owned(),
        status => format!("the video is {}, and was not deleted", status.as_str()),
    };
    Err(ApiError::new(ErrorCode::Conflict, detail))
}

/// Steps to `to` if that is a legal step from where the video stands; standing there already is success.
pub(super) async fn change_status(
    app: &App,
    video_id: VideoId,
    to: VideoStatus,
    reason: Option<String>,
) -> ApiResult<StatusSet> {
    loop {
        let video = app.video(video_id).await?;
        let from = video.status;
        if from == to {
            // Said again of one that ended: whatever came after its chunks were gone goes too.
            if app.store.reap_again(video_id, app.now()).await.map_err(store_error)? {
                app.reap_now.notify_one();
            }
            return Ok(StatusSet {
                video_id,
                status: to,
                restorable_until: restorable_until(&video, app.now()),
            });
        }
        if !may_become(from, to, video.owner.is_some()) {
            let owned = video.owner.is_some() && from == VideoStatus::Uploading && to == VideoStatus::Active;
            let detail = if owned {
                "the video becomes active when its uploader has stored all of it".to_owned()
            } else {
                format!("a video that is {} cannot become {}", from.as_str(), to.as_str())
            };
            return Err(ApiError::new(ErrorCode::Conflict, detail));
        }
        if to == VideoStatus::Active {
            refuse_gaps(app, video_id).await?;
        }
        let at = app.now();
        let trash_until = trash_until(app, from, to, at);
        let set = StatusSet {
            video_id,
            status: to,
            restorable_until: trash_until.map(WallTime),
        };
        let change = StatusChange {
            from,
            to,
            reason: reason.clone(),
            owner_silent_since: None,
            trash_until,
            at,
        };
        if vstack_types::planted!("a deletion is acknowledged and not written down") && to == VideoStatus::Deleted {
            return Ok(set);
        }
        if app.store.change_status(video_id, change).await.map_err(store_error)? {
            app.tell_status(video_id, to, reason);
            return Ok(set);
        }
        // Somebody was faster. Statuses only go forward, so this ends.
    }
}

/// Until when a video that steps so at `at` is kept; what was never whole is not.
fn trash_until(app: &App, from: VideoStatus, to: VideoStatus, at: Timestamp) -> Option<Timestamp> {
    let kept = from == VideoStatus::Active && to == VideoStatus::Deleted && !app.settings.trash_time().is_zero();
    kept.then(|| at.plus(app.settings.trash_time()))
}

/// A script's video may have any number of chunks, but none may be missing between them.
async fn refuse_gaps(app: &App, id: VideoId) -> ApiResult<()> {
    let mut after = Some(None);
    let mut expected = 0;
    loop {
        let page = app.store.video_chunks(id, after, LIST_MAX).await.map_err(store_error)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.place.map(|place| place.sequence_num));
        for place in page.iter().filter_map(|chunk| chunk.place) {
            if place.sequence_num != expected {
                let detail = format!("chunk {expected} is missing: commit it first");
                return Err(ApiError::new(ErrorCode::Conflict, detail));
            }
            expected += 1;
        }
    }
}

/// How many nodes a video may lose, by the nodes there are.
#[utoipa::path(get, path = "/video/{id}/survival", params(("id" = String, Path)), responses((status = 200, body = VideoSurvival), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn survives(State(app): State<Shared>, Path(id): Path<VideoId>) -> ApiResult<Json<VideoSurvival>> {
    app.video(id).await?;
    let chunks = app.store.chunk_count(id).await.map_err(store_error)?;
    let mut known = survival::of_video(&app.upkeep.summary().report, id, chunks);
    if !known.counted {
        // A film has thousands of them, which are read for nothing once they are counted.
        let chunks = manifests::chunks(&app, id).await?;
        let placements = chunks.iter().map(|chunk| &chunk.placement);
        let placements: Vec<&Placement> = placements.filter(|it| !it.layout.is_deleted()).collect();
        let candidates = app.candidates(&app.registered().await?);
        let up = candidates
            .iter()
            .filter(|it| it.trusted && it.liveness != Liveness::Down);
        let up: BTreeSet<NodeRef> = up.map(|it| it.node).collect();
        known.failures_survived = survival::placed(placements, |node| up.contains(&node));
    }
    Ok(Json(VideoSurvival {
        video_id: id,
        failures_survived: known.failures_survived,
        survival_counted: known.counted,
    }))
}

/// Views counted.
#[utoipa::path(get, path = "/video/{id}/popularity", params(("id" = String, Path)), responses((status = 200, body = Popularity), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn popularity(State(app): State<Shared>, Path(id): Path<VideoId>) -> ApiResult<Json<Popularity>> {
    let video = app.video(id).await?;
    Ok(Json(Popularity {
        video_id: id,
        view_count: video.view_count,
    }))
}

/// Counts a view. Our players send one per session, after 10 s or half of the video.
#[utoipa::path(post, path = "/video/{id}/view", params(("id" = String, Path)), responses((status = 200, body = ViewCounted), (status = 404, body = vstack_api::ErrorBody)))]
pub(super) async fn count_view(State(app): State<Shared>, Path(id): Path<VideoId>) -> ApiResult<Json<ViewCounted>> {
    if !app.store.count_view(id).await.map_err(store_error)? {
        return Err(no_such_video(id));
    }
    Ok(Json(ViewCounted {
        status: "success".into(),
        message: format!("counted a view of {id}"),
    }))
}

/// What came of completing, as an answer.
pub(super) fn completed(video_id: VideoId, outcome: CompletionOutcome, total: u32) -> ApiResult<StatusSet> {
    let conflict = |detail: String| Err(ApiError::new(ErrorCode::Conflict, detail));
    match outcome {
        CompletionOutcome::Completed | CompletionOutcome::Stands(VideoStatus::Active) => Ok(StatusSet {
            video_id,
            status: VideoStatus::Active,
            restorable_until: None,
        }),
        CompletionOutcome::Stands(status) => conflict(format!("the video is {}", status.as_str())),
        CompletionOutcome::InitMissing => conflict("the init segment was not told of".into()),
        CompletionOutcome::ChunksMissing { learned } => conflict(format!(
            "{learned} chunks were told of, not exactly those from 0 to below {total}"
        )),
        CompletionOutcome::Unknown => Err(no_such_video(video_id)),
    }
}
