//! `vstack client`: the smart client as a service with a dashboard. One session at a time, without a sink: it measures
//! what a viewer would see.
//!
//! One task owns the session; handlers send it commands and read snapshots.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    response::Html,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use utoipa::{OpenApi, ToSchema};
use vstack_api::{
    ErrorBody, ErrorCode,
    web::{PlayerMetrics, PlayerPerformance, PlayerStats, PlayerStatus},
};
use vstack_client::{ClientError, Tagged};
use vstack_playback::Speed;
use vstack_service::{ApiError, ApiResult, Json, Path, Service, VERSION};
use vstack_types::VideoId;

use crate::{
    PlayError, Settings, Snapshot,
    driver::{Order, Services, drive},
    sink::Target,
};

/// Commands that wait for the session's task; each is quick.
const COMMANDS_MAX: usize = 8;

/// Runs the service until `shutdown`.
///
/// # Errors
/// When it cannot listen or the settings cannot go together.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = vstack_service::bind(SocketAddr::new(settings.common.bind_address, settings.port)).await?;
    serve_on(listener, settings, shutdown).await
}

/// As [`run`], on a listener that is there already.
///
/// # Errors
/// When the settings cannot go together.
pub async fn serve_on(listener: TcpListener, settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    tracing::info!(address = %listener.local_addr()?, metadata = settings.metadata_service_url, "smart client listens");
    let routes = routes(&settings, &shutdown)?;
    let router = Service::new("smart-client")
        .secret(settings.common.secret()?)
        .openapi(Api::openapi())
        .router(routes);
    vstack_service::serve(listener, router, shutdown).await;
    Ok(())
}

/// The service's own routes; starts the task behind them, which ends with `shutdown`.
///
/// # Errors
/// When the settings cannot go together.
pub fn routes(settings: &Settings, shutdown: &CancellationToken) -> anyhow::Result<Router> {
    let services = Services::new(&settings.metadata_service_url)?;
    let playback = settings.playback()?;
    let (commands, incoming) = mpsc::channel(COMMANDS_MAX);
    let (sender, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    let player = Player {
        services: services.clone(),
        playback,
        snapshots: Arc::new(sender),
        current: None,
    };
    tokio::spawn(player.run(incoming, shutdown.child_token()));
    let handle = Handle {
        services,
        commands,
        snapshots,
        shutdown: shutdown.clone(),
    };
    Ok(Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/api/status", get(status))
        .route("/api/stats", get(stats))
        .route("/api/metrics", get(metrics))
        .route("/api/performance", get(performance))
        .route("/play/{id}", post(play))
        .route("/stop", post(stop))
        .with_state(handle))
}

enum Command {
    Play {
        tagged: Box<Tagged>,
        started: oneshot::Sender<()>,
    },
    Stop {
        stopped: oneshot::Sender<()>,
    },
}

/// What handlers have.
#[derive(Debug, Clone)]
struct Handle {
    services: Services,
    commands: mpsc::Sender<Command>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown: CancellationToken,
}

impl Handle {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    async fn tell(&self, command: Command, done: oneshot::Receiver<()>) -> ApiResult<()> {
        self.commands.send(command).await.map_err(|_| stopping())?;
        done.await.map_err(|_| stopping())
    }
}

fn stopping() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the service is stopping")
}

/// The task that owns the session.
struct Player {
    services: Services,
    playback: vstack_playback::Settings,
    snapshots: Arc<watch::Sender<Arc<Snapshot>>>,
    current: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Player {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, shutdown: CancellationToken) {
        loop {
            let command = tokio::select! {
                () = shutdown.cancelled() => break,
                command = commands.recv() => command,
            };
            // Whoever asked may be gone by the time it is done.
            match command {
                None => break,
                Some(Command::Play { tagged, started }) => {
                    self.end_current().await;
                    self.start(*tagged);
                    let _gone = started.send(());
                }
                Some(Command::Stop { stopped }) => {
                    self.end_current().await;
                    self.snapshots.send_replace(Arc::new(Snapshot::default()));
                    let _gone = stopped.send(());
                }
            }
        }
        self.end_current().await;
    }

    fn start(&mut self, tagged: Tagged) {
        let video = tagged.manifest.video_id;
        let order = Order {
            tagged,
            settings: self.playback,
            speed: Speed::RealTime,
            target: Target::Nowhere,
        };
        let (services, snapshots, stop) = (
            self.services.clone(),
            Arc::clone(&self.snapshots),
            CancellationToken::new(),
        );
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            match drive(services, order, &snapshots, &stopped).await {
                Ok(outcome) => tracing::info!(%video, ?outcome, "session ended"),
                Err(error) => {
                    tracing::warn!(%video, %error, "session failed");
                    let mut last = Snapshot::clone(&snapshots.borrow());
                    last.status.video_id = Some(video);
                    last.status.error = Some(error.to_string());
                    snapshots.send_replace(Arc::new(last));
                }
            }
        });
        self.current = Some((stop, task));
    }

    /// Stops the session, if there is one, and waits until it publishes no more.
    async fn end_current(&mut self) {
        if let Some((stop, task)) = self.current.take() {
            stop.cancel();
            if let Err(error) = task.await {
                tracing::error!(%error, "the session's task failed");
            }
        }
    }
}

/// `GET /health` of the smart client.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClientHealth {
    /// `healthy`.
    pub status: String,
    /// `smart-client`.
    pub service: String,
    /// Of the service.
    pub version: String,
    /// A session plays.
    pub playing: bool,
}

/// The answer to `POST /play/{id}` and `POST /stop`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionAck {
    /// `playing` or `stopped`.
    pub status: String,
    /// What plays now.
    #[schema(value_type = Option<String>)]
    pub video_id: Option<VideoId>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "V-Stack smart client",
        description = "Plays a video as a viewer would, and shows what it sees."
    ),
    paths(health, status, stats, metrics, performance, play, stop)
)]
struct Api;

async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}

#[utoipa::path(get, path = "/health", responses((status = 200, body = ClientHealth)))]
async fn health(State(handle): State<Handle>) -> Json<ClientHealth> {
    Json(ClientHealth {
        status: "healthy".to_owned(),
        service: "smart-client".to_owned(),
        version: VERSION.to_owned(),
        playing: handle.snapshot().status.playing,
    })
}

#[utoipa::path(get, path = "/api/status", responses((status = 200, body = PlayerStatus)))]
async fn status(State(handle): State<Handle>) -> Json<PlayerStatus> {
    Json(handle.snapshot().status.clone())
}

#[utoipa::path(get, path = "/api/stats", responses((status = 200, body = PlayerStats)))]
async fn stats(State(handle): State<Handle>) -> Json<PlayerStats> {
    Json(handle.snapshot().stats.clone())
}

#[utoipa::path(get, path = "/api/metrics", responses((status = 200, body = PlayerMetrics)))]
async fn metrics(State(handle): State<Handle>) -> Json<PlayerMetrics> {
    Json(handle.snapshot().metrics.clone())
}

#[utoipa::path(get, path = "/api/performance", responses((status = 200, body = PlayerPerformance)))]
async fn performance(State(handle): State<Handle>) -> Json<PlayerPerformance> {
    Json(handle.snapshot().performance.clone())
}

/// Starts a session; one that runs is ended first. Waits, half a minute at most, while the metadata service does not
/// answer yet.
#[utoipa::path(post, path = "/play/{id}", params(("id" = String, Path, description = "Video id")), responses(
    (status = 200, body = SessionAck),
    (status = 404, body = ErrorBody, description = "no such video"),
    (status = 409, body = ErrorBody, description = "the video is not active"),
    (status = 503, body = ErrorBody, description = "the metadata service cannot be reached"),
))]
async fn play(State(handle): State<Handle>, Path(video): Path<VideoId>) -> ApiResult<Json<SessionAck>> {
    let found = tokio::select! {
        found = handle.services.manifest(video, log_not_yet) => found,
        () = handle.shutdown.cancelled() => return Err(stopping()),
    };
    let tagged = Box::new(found.map_err(|error| refusal(&error))?);
    let (started, done) = oneshot::channel();
    handle.tell(Command::Play { tagged, started }, done).await?;
    Ok(Json(SessionAck {
        status: "playing".to_owned(),
        video_id: Some(video),
    }))
}

/// Ends the session, if there is one.
#[utoipa::path(post, path = "/stop", responses((status = 200, body = SessionAck)))]
async fn stop(State(handle): State<Handle>) -> ApiResult<Json<SessionAck>> {
    let (stopped, done) = oneshot::channel();
    handle.tell(Command::Stop { stopped }, done).await?;
    Ok(Json(SessionAck {
        status: "stopped".to_owned(),
        video_id: None,
    }))
}

fn log_not_yet(url: &str, error: &ClientError) {
    tracing::warn!(url, %error, "the metadata service does not answer yet, and is asked again");
}

fn refusal(error: &PlayError) -> ApiError {
    let code = match error {
        PlayError::UnknownVideo { .. } => ErrorCode::NotFound,
        PlayError::NotActive { .. } => ErrorCode::Conflict,
        PlayError::Metadata { .. } => ErrorCode::Unavailable,
        PlayError::Manifest(_) => ErrorCode::Unprocessable,
        _ => ErrorCode::Internal,
    };
    ApiError::new(code, error.to_string())
}
