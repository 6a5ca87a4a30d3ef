//! The service: its routes, and what their handlers share.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    middleware::{Next, from_fn},
    response::Response,
    routing::{delete, get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use vstack_client::{HttpClient, MetadataClient, Timeouts, UploaderClient};
use vstack_player::{ChunkSource, FetchSettings};
use vstack_service::Service;

use crate::{
    Settings, consensus, download,
    gateway::Gateway,
    health, hls,
    manifests::{FRESH_FOR, Manifests, NEWER_WITHIN},
    page, proxy, upload,
    upstream::Upstream,
};

/// What handlers have. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) http: HttpClient,
    pub(crate) metadata: Upstream,
    pub(crate) metadata_client: MetadataClient,
    pub(crate) uploader: Upstream,
    pub(crate) uploader_client: UploaderClient,
    pub(crate) gateway: Gateway,
    /// Services whose health is shown.
    pub(crate) watched: Arc<[(&'static str, String)]>,
    pub(crate) shutdown: CancellationToken,
}

impl App {
    fn new(settings: &Settings, shutdown: &CancellationToken) -> anyhow::Result<Self> {
        // Only public calls are made here: the cluster's secret stays out of the service that faces the world.
        let http = HttpClient::new(None, Timeouts::default())?;
        let metadata = Upstream::new("the metadata service", http.clone(), &settings.metadata_service_url);
        let chunks = ChunkSource::start(http.clone(), FetchSettings::default(), shutdown.child_token());
        Ok(Self {
            gateway: Gateway::new(
                Manifests::new(metadata.clone(), FRESH_FOR, NEWER_WITHIN),
                chunks,
                settings.gateway_bytes_max,
            ),
            metadata_client: MetadataClient::new(http.clone(), &settings.metadata_service_url),
            uploader: Upstream::new("the uploader", http.clone(), &settings.uploader_service_url),
            uploader_client: UploaderClient::new(http.clone(), &settings.uploader_service_url),
            watched: settings.watched().into(),
            shutdown: shutdown.clone(),
            metadata,
            http,
        })
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "V-Stack web",
        description = "The page's API, and the gateway for players that are not smart. What changes something is \
                       refused with 403 to pages of other origins."
    ),
    paths(
        health::own_health,
        health::system_health,
        health::system_stats,
        proxy::videos,
        proxy::manifest,
        proxy::delete_video,
        proxy::restore_video,
        proxy::survival,
        proxy::count_view,
        proxy::consensus,
        proxy::census,
        proxy::census_of_video,
        proxy::repairs,
        consensus::events,
        consensus::costs,
        proxy::efficiency,
        proxy::overhead,
        proxy::keepings,
        proxy::keeping_of,
        proxy::pause_migration,
        proxy::resume_migration,
        proxy::set_override,
        proxy::clear_override,
        proxy::upload_status,
        proxy::cancel_upload,
        upload::upload,
        hls::hls,
        hls::chunk,
        download::download
    )
)]
struct Api;

/// Runs the service until `shutdown`.
///
/// # Errors
/// When it cannot listen.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let address = SocketAddr::new(settings.common.bind_address, settings.listen_port());
    let listener = vstack_service::bind(address).await?;
    serve_on(listener, settings, shutdown).await
}

/// As [`run`], on a listener that is there already.
///
/// # Errors
/// When the system offers no HTTP client.
pub async fn serve_on(listener: TcpListener, settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    tracing::info!(address = %listener.local_addr()?, metadata = settings.metadata_service_url, "web service listens");
    let app = App::new(&settings, &shutdown)?;
    let router = Service::new("web").openapi(Api::openapi()).router(routes(app));
    vstack_service::serve(listener, router, shutdown).await;
    Ok(())
}

fn routes(app: App) -> Router {
    let pages = [
        "/",
        "/watch/{id}",
        "/nodes",
        "/census",
        "/consensus",
        "/storage-efficiency",
    ];
    let router = pages
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, get(page::index)));
    router
        .route("/health", get(health::own_health))
        .route("/api/health", get(health::system_health))
        .route("/api/stats", get(health::system_stats))
        .route("/api/videos", get(proxy::videos))
        .route("/api/manifest/{id}", get(proxy::manifest))
        .route("/api/video/{id}", delete(proxy::delete_video))
        .route("/api/video/{id}/restore", post(proxy::restore_video))
        .route("/api/video/{id}/survival", get(proxy::survival))
        .route("/api/video/{id}/view", post(proxy::count_view))
        .route("/api/consensus/events", get(consensus::events))
        .route("/api/consensus/costs", get(consensus::costs))
        .route("/api/consensus/{chunk}", get(proxy::consensus))
        .route("/api/census", get(proxy::census))
        .route("/api/census/{video}", get(proxy::census_of_video))
        .route("/api/repairs", get(proxy::repairs))
        .route("/api/redundancy/efficiency", get(proxy::efficiency))
        .route("/api/redundancy/videos", get(proxy::keepings))
        .route("/api/redundancy/videos/{id}", get(proxy::keeping_of))
        .route("/api/redundancy/pause", post(proxy::pause_migration))
        .route("/api/redundancy/resume", post(proxy::resume_migration))
        .route(
            "/api/redundancy/override/{id}",
            post(proxy::set_override).delete(proxy::clear_override),
        )
        .route("/api/storage/overhead", get(proxy::overhead))
        .route("/api/upload", post(upload::upload))
        .route("/api/upload/{session}", delete(proxy::cancel_upload))
        .route("/api/upload/status/{session}", get(proxy::upload_status))
        .route("/hls/{id}/{file}", get(hls::hls))
        .route("/gateway/{id}/{chunk}", get(hls::chunk))
        .route("/video/{id}/download", get(download::download))
        .fallback(page::fallback)
        .layer(from_fn(no_sniffing))
        .with_state(app)
}

/// Nothing served here is to be taken for another type than it says: videos and titles come from strangers.
async fn no_sniffing(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
