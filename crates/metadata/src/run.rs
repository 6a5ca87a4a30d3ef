//! Starts the service: database, listener, workers; stops them together.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;
use vstack_client::{ClientError, HttpClient, NodeClient, Timeouts};
use vstack_service::{Entrance, Service, bind, commit_costs::CommitCosts};
use vstack_types::{Clock, SystemClock};

use crate::{
    Settings,
    app::App,
    events::Events,
    hearing::Hearing,
    keeping::{self, KeepingDesk},
    reaper::{self, ReaperPace},
    silence,
    store::{DatabaseUrl, OpenError, SqliteStore, Store},
    trace::TraceHub,
    upkeep::{self, Upkeep},
    watch,
};

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database.
    #[error("the metadata database at {path} cannot be used")]
    Database {
        /// Where.
        path: String,
        /// Why not.
        source: OpenError,
    },
    /// The listener.
    #[error(transparent)]
    Serve(#[from] vstack_service::ServeError),
    /// The cluster secret.
    #[error(transparent)]
    Secret(#[from] vstack_service::settings::SecretSettingError),
    /// The HTTP client.
    #[error("no HTTP client")]
    Client(#[from] ClientError),
}

/// What the service is made of, so that simulations and tests can bring their own.
pub struct Parts {
    /// Where requests arrive.
    pub listener: TcpListener,
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// When deleted chunks are looked for.
    pub pace: ReaperPace,
}

/// Runs the service until `shutdown`, on the database and port of `settings`.
///
/// # Errors
/// When the database, the secret or the port cannot be used.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), RunError> {
    let DatabaseUrl::Sqlite(path) = &settings.database_url;
    let store = SqliteStore::open(path).await.map_err(|source| RunError::Database {
        path: path.display().to_string(),
        source,
    })?;
    let listener = bind(SocketAddr::new(settings.common.bind_address, settings.port)).await?;
    tracing::info!(address = ?listener.local_addr().ok(), database = %path.display(), "metadata service");
    let parts = Parts {
        listener,
        store: Arc::new(store.clone()),
        clock: Arc::new(SystemClock::start()),
        pace: ReaperPace::default(),
    };
    let served = serve_with(parts, settings, shutdown).await;
    store.close().await;
    served
}

/// Runs the service until `shutdown` on what it is given; of the settings, database, address and port are not used.
///
/// # Errors
/// When the secret cannot be used.
pub async fn serve_with(parts: Parts, settings: Settings, shutdown: CancellationToken) -> Result<(), RunError> {
    let http = HttpClient::new(settings.common.secret()?, Timeouts::default())?;
    let Parts {
        listener,
        store,
        clock,
        pace,
    } = parts;
    serve_at(
        Entrance::listener(listener),
        http,
        Backing { store, clock, pace },
        settings,
        shutdown,
    )
    .await
}

/// What stands behind the service.
pub struct Backing {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// When deleted chunks are looked for.
    pub pace: ReaperPace,
}

/// Runs the service until `shutdown` on what comes in by `entrance`, calling others by `http`.
///
/// # Errors
/// When the secret cannot be used.
pub async fn serve_at(
    entrance: Entrance,
    http: HttpClient,
    backing: Backing,
    settings: Settings,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let secret = settings.common.secret()?;
    if secret.is_none() {
        tracing::warn!("no CLUSTER_SECRET: no node can prove itself, so nothing can be placed");
    }
    let trace = TraceHub::new(backing.clock.wall());
    let app = Arc::new(App {
        store: backing.store,
        nodes: NodeClient::new(http),
        clock: backing.clock,
        settings,
        events: Events::new(),
        hearing: Hearing::default(),
        pace: backing.pace,
        costs: CommitCosts::default(),
        trace,
        upkeep: Upkeep::default(),
        keeping: KeepingDesk::default(),
        refused: Mutex::default(),
        reap_now: Notify::new(),
        shutdown: shutdown.clone(),
    });
    let mut service = Service::new("metadata-service");
    app.costs.register(service.registry());
    app.upkeep.register(service.registry());
    let router = service
        .secret(secret)
        .openapi(crate::http::openapi())
        .router(crate::http::routes(Arc::clone(&app)));
    let workers = [
        tokio::spawn(reaper::run(Arc::clone(&app))),
        tokio::spawn(silence::run(Arc::clone(&app))),
        tokio::spawn(upkeep::run(Arc::clone(&app))),
        tokio::spawn(keeping::run(Arc::clone(&app))),
        tokio::spawn(watch::run(app)),
    ];
    entrance.serve(router, shutdown).await;
    for worker in workers {
        if let Err(error) = worker.await {
            tracing::error!(%error, "a worker ended badly");
        }
    }
    Ok(())
}
