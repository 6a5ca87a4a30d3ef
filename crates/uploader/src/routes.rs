//! The uploader's HTTP interface.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
    routing::{delete, get, post},
};
use futures_util::{Stream, StreamExt as _, future};
use tokio_stream::wrappers::WatchStream;
use utoipa::OpenApi;
use uuid::Uuid;
use vstack_api::{
    ErrorBody, ErrorCode, WallTime,
    metadata::{CreateVideo, RedundancyMode},
    uploader::{UploadAccepted, UploadStage, UploadStatus, UploaderHealth},
};
use vstack_client::ClientError;
use vstack_media::{
    Limits,
    probe::{ProbeError, probe},
    verdict::{Plan, Verdict, verdict},
};
use vstack_service::{ApiError, ApiResult, Json, Path};
use vstack_types::VideoId;

use crate::{
    app::SharedApp,
    cutting::Source,
    ending::told_failed,
    failure::chain,
    journal::Journal,
    pipeline::{self, Upload},
    receive::{Received, receive},
    rest::Rest,
    session::Session,
    sessions::Admission,
    spool::Spool,
};

/// When to try again after 429.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long an answer to a cancellation waits for the upload's end.
const CANCEL_WAIT: Duration = Duration::from_secs(15);
/// How long an upload waits for a metadata service that is just starting.
const METADATA_WAIT: Duration = Duration::from_secs(5);

/// The description at `/openapi.json`.
#[derive(OpenApi)]
#[openapi(
    info(title = "V-Stack uploader", description = "Takes video files in"),
    paths(health, upload, status, events, cancel),
    components(schemas(UploadAccepted, UploadStatus, UploaderHealth, ErrorBody))
)]
pub struct Api;

/// All routes.
pub fn routes(app: SharedApp) -> Router {
    Router::new()
        .route("/health", get(health))
        // The file is counted as it comes; any other limit would be a second truth.
        .route("/upload", post(upload).layer(DefaultBodyLimit::disable()))
        .route("/upload/status/{session}", get(status))
        .route("/upload/events/{session}", get(events))
        .route("/upload/{session}", delete(cancel))
        .with_state(app)
}

/// Whether the service is alive, and how busy.
#[utoipa::path(get, path = "/health", responses((status = 200, body = UploaderHealth)))]
async fn health(State(app): State<SharedApp>) -> Json<UploaderHealth> {
    let (active_uploads, queued_uploads) = app.sessions.counts();
    Json(UploaderHealth {
        status: "healthy".to_owned(),
        service: "uploader-service".to_owned(),
        active_uploads,
        queued_uploads,
        version: vstack_service::VERSION.to_owned(),
    })
}

/// Takes a video file: multipart form data with a file `video` and, optionally, `title` and `redundancy_mode`.
#[utoipa::path(
    post, path = "/upload",
    request_body(content_type = "multipart/form-data"),
    responses(
        (status = 200, body = UploadAccepted),
        (status = 400, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody), (status = 507, body = ErrorBody)
    )
)]
async fn upload(State(app): State<SharedApp>, request: Request) -> ApiResult<Json<UploadAccepted>> {
    let (request, rest) = Rest::of(request);
    let taken = take(app, request).await;
    if taken.is_err() {
        rest.drop_aside();
    }
    taken.map(Json)
}

async fn take(app: SharedApp, request: Request) -> ApiResult<UploadAccepted> {
    let Some(admission) = app.sessions.admit() else {
        let detail = "too many uploads are in progress; try again in a few seconds";
        return Err(ApiError::new(ErrorCode::TooMany, detail).retry_after(RETRY_AFTER));
    };
    let started_at = WallTime(app.clock.wall());
    let id = vstack_types::ambient::uuid();
    let spool = app.spool.create(id).map_err(ApiError::internal)?;
    let received = receive(&app, &spool, request).await?;
    let plan = look(&app, &spool, &received).await?;
    // From here on the upload lives on even when its sender hangs up: the file is here.
    let begun = tokio::spawn(begin(
        app,
        id,
        spool,
        received,
        plan,
        Source::File,
        started_at,
        admission,
    ));
    begun.await.map_err(ApiError::internal)?
}

/// What the file is and what to do with it; 415 with the reason when it is not taken.
async fn look(app: &SharedApp, spool: &Spool, received: &Received) -> ApiResult<Plan> {
    let _turn = app.probes.acquire().await.map_err(ApiError::internal)?;
    let refuse = |reason: String| Err(ApiError::new(ErrorCode::UnsupportedMedia, reason));
    match probe(&spool.source(), received.size_bytes, &spool.work_dir(), Limits::PROBE).await {
        Ok(probe) => match verdict(&probe) {
            Verdict::Take(plan) => Ok(plan),
            Verdict::Refuse(refusal) => refuse(refusal.to_string()),
        },
        Err(ProbeError::NotMedia { reason }) => refuse(reason),
        Err(ProbeError::Fence(error @ vstack_media::FenceError::Timeout { .. })) => {
            refuse(format!("the file cannot be read in reasonable time ({error})"))
        }
        Err(error) => Err(ApiError::internal(chain(&error))),
    }
}

#[expect(clippy::too_many_arguments, reason = "what an upload is begun with")]
pub async fn begin(
    app: SharedApp,
    id: Uuid,
    spool: Spool,
    received: Received,
    plan: Plan,
    source: Source,
    started_at: WallTime,
    admission: Admission,
) -> ApiResult<UploadAccepted> {
    let Received {
        filename,
        title,
        size_bytes,
        mode,
    } = received;
    let video = create_video(&app, &title, plan.expected_sec.unwrap_or(0.0), mode).await?;
    let journal = Journal {
        video,
        title: title.clone(),
        filename,
        started_at,
        completing: None,
    };
    if let Err(error) = journal.write(&spool).await {
        told_failed(&app, video, "the uploader's disk failed").await;
        return Err(ApiError::internal(error));
    }
    let status = journal.status(id, UploadStage::Uploading);
    tracing::info!(session = %id, %video, size_bytes, "upload received");
    let session = Arc::new(Session::new(id, status, app.shutdown.child_token()));
    app.sessions.insert(Arc::clone(&session));
    let upload = Upload {
        session,
        spool,
        journal,
        plan,
        source,
        size_bytes,
        admission,
    };
    app.tasks.spawn(pipeline::run(Arc::clone(&app), upload));
    Ok(UploadAccepted {
        video_id: video,
        upload_session_id: id.to_string(),
        title,
        status: UploadStage::Processing,
        message: "the video is being processed; its status is at status_url".to_owned(),
        status_url: format!("/upload/status/{id}"),
    })
}

async fn create_video(
    app: &SharedApp,
    title: &str,
    duration_sec: f64,
    redundancy_mode: Option<RedundancyMode>,
) -> ApiResult<VideoId> {
    let body = CreateVideo {
        title: title.to_owned(),
        duration_sec,
        owner: Some(app.owner),
        redundancy_mode,
    };
    let deadline = tokio::time::Instant::now() + METADATA_WAIT;
    loop {
        match app.metadata.create_video(&body).await {
            Ok(created) => return Ok(created.video_id),
            // Not reached means not created, so that another try makes no second video.
            Err(ClientError::Unreachable { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            // Too few nodes for the form asked for: that is the sender's to change.
            Err(ClientError::Refused { body, .. }) if body.code == ErrorCode::Unprocessable => {
                return Err(ApiError::new(ErrorCode::Unprocessable, body.detail));
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "no video was created");
                let detail = format!("the metadata service did not register the video ({error}); try again");
                return Err(ApiError::new(ErrorCode::Unavailable, detail).retry_after(RETRY_AFTER));
            }
        }
    }
}

fn find(app: &SharedApp, session: &str) -> ApiResult<Arc<Session>> {
    let found = Uuid::try_parse(session).ok().and_then(|id| app.sessions.get(id));
    found.ok_or_else(|| {
        ApiError::new(
            ErrorCode::NotFound,
            "there is no such upload; uploads are remembered for a day",
        )
    })
}

/// How an upload stands.
#[utoipa::path(
    get, path = "/upload/status/{session}", params(("session" = String, Path)),
    responses((status = 200, body = UploadStatus), (status = 404, body = ErrorBody))
)]
async fn status(State(app): State<SharedApp>, Path(session): Path<String>) -> ApiResult<Json<UploadStatus>> {
    find(&app, &session).map(|session| Json(session.status()))
}

/// How an upload stands, as server-sent events named `status`, until its end.
#[utoipa::path(
    get, path = "/upload/events/{session}", params(("session" = String, Path)),
    responses((status = 200, content_type = "text/event-stream"), (status = 404, body = ErrorBody))
)]
async fn events(
    State(app): State<SharedApp>,
    Path(session): Path<String>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let session = find(&app, &session)?;
    // The final status is sent, and then the end: a watch has no end of its own while copies may still be made.
    let events = WatchStream::new(session.watch())
        .flat_map(|status| {
            let event = Event::default().event("status").json_data(&status).unwrap_or_default();
            let end = status.status.is_final().then_some(None);
            futures_util::stream::iter(std::iter::once(Some(event)).chain(end))
        })
        .take_while(|event| future::ready(event.is_some()))
        .filter_map(|event| future::ready(event.map(Ok)));
    let events = events.take_until(app.shutdown.clone().cancelled_owned());
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

/// Gives an upload up. What was stored of it is collected.
#[utoipa::path(
    delete, path = "/upload/{session}", params(("session" = String, Path)),
    responses((status = 200, body = UploadStatus), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody))
)]
async fn cancel(State(app): State<SharedApp>, Path(session): Path<String>) -> ApiResult<Json<UploadStatus>> {
    let session = find(&app, &session)?;
    session.cancel.cancel();
    let mut watch = session.watch();
    let over = watch.wait_for(|status| status.status.is_final());
    let _it_goes_on_alone = tokio::time::timeout(CANCEL_WAIT, over).await;
    let status = session.status();
    if status.status == UploadStage::Completed {
        let detail = "the upload is completed; delete the video instead";
        return Err(ApiError::new(ErrorCode::Conflict, detail));
    }
    Ok(Json(status))
}
