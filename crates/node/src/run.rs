//! Starts a node: engine, listener, registration, housekeeping; and stops it in the other order.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use vstack_client::{ClientError, HttpClient, MetadataClient, NodeClient, Timeouts};
use vstack_engine::{Damage, Engine, FileDisk, OpenError, StoreOptions};
use vstack_service::{Service, bind, serve};
use vstack_types::{Clock, NodeRef, SystemClock};

use crate::{
    Settings,
    app::App,
    housekeeping,
    membership::{self, Addresses},
    metrics::NodeMetrics,
    openapi::Description,
    routes,
};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its data directory.
    #[error("the data directory {path} cannot be used")]
    Data {
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
    /// The address it listens on.
    #[error("the listener has no address")]
    Address(#[source] std::io::Error),
}

/// A node that is open and listens, and does not serve yet.
pub struct Node {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
    http: HttpClient,
    settings: Settings,
}

/// Runs a node until `shutdown`.
///
/// # Errors
/// When the data directory, the secret or the port cannot be used.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), RunError> {
    Node::start(settings).await?.serve(shutdown).await
}

/// A URL by which this machine reaches `address`.
fn reachable(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

async fn open(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Engine<FileDisk>, RunError> {
    let path = settings.data_dir.clone();
    let options = StoreOptions {
        superblock_bytes: settings.max_superblock_size,
        ..StoreOptions::new()
    };
    let opened = tokio::task::spawn_blocking(move || Engine::open(FileDisk::new(path)?, options, clock)).await;
    let opened = opened.unwrap_or_else(|error| Err(OpenError::Io(std::io::Error::other(error))));
    opened.map_err(|source| RunError::Data {
        path: settings.data_dir.display().to_string(),
        source,
    })
}

fn report(engine: &Engine<FileDisk>) {
    let report = engine.report();
    if report.torn_bytes > 0 {
        tracing::info!(
            bytes = report.torn_bytes,
            "a write that was under way when the node stopped was cut off"
        );
    }
    for damage in &report.damage {
        tracing::error!(?damage, "damage on disk");
    }
    if report
        .damage
        .iter()
        .any(|damage| matches!(damage, Damage::Votes { .. }))
    {
        tracing::error!("votes may be lost: this node serves and stores chunks, and votes no more");
    }
}

impl Node {
    /// Opens the data directory and the port.
    ///
    /// # Errors
    /// When the data directory, the secret or the port cannot be used.
    pub async fn start(settings: Settings) -> Result<Self, RunError> {
        let secret = settings.common.secret()?;
        if secret.is_none() {
            tracing::warn!("no CLUSTER_SECRET: this node takes plain chunks alone, and no part in consensus");
        }
        let http = HttpClient::new(secret, Timeouts::default())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        // The port first: a node that cannot have it leaves the data directory alone.
        let listener = bind(SocketAddr::new(settings.common.bind_address, settings.port)).await?;
        let address = listener.local_addr().map_err(RunError::Address)?;
        let engine = open(&settings, Arc::clone(&clock)).await?;
        report(&engine);
        let me = engine.reader().me();
        let uuid = me.uuid.to_string();
        let label = settings
            .node_id
            .clone()
            .unwrap_or_else(|| format!("node-{}", &uuid[..8]));
        let app = Arc::new(App {
            engine,
            clock,
            me_text: me.to_string(),
            label,
            started: Instant::now(),
            chunk_bytes_max: usize::try_from(settings.max_chunk_size).unwrap_or(usize::MAX),
            body_timeout: settings.body_timeout(),
            bodies: Semaphore::new(settings.max_concurrent_bodies.into()),
            peers: NodeClient::new(http.clone()),
            metrics: NodeMetrics::default(),
        });
        Ok(Self {
            app,
            listener,
            address,
            http,
            settings,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The acceptor it is.
    pub fn me(&self) -> NodeRef {
        self.app.me()
    }

    /// Serves until `shutdown`, then finishes what is under way and closes the data directory.
    ///
    /// # Errors
    /// When the secret can no longer be read.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let Self {
            app,
            listener,
            address,
            http,
            settings,
        } = self;
        let url = settings.node_url.clone().unwrap_or_else(|| reachable(address));
        tracing::info!(%address, url, node = app.label, disk = app.me_text, data = %settings.data_dir.display(), "storage node");
        let mut service = Service::new("storage-node")
            .secret(settings.common.secret()?)
            .cors(routes::cors(settings.cors_origins.clone()))
            .openapi(Description::openapi());
        app.metrics.register(service.registry(), app.engine.reader().clone());
        let router = service.router(routes::routes(Arc::clone(&app)));
        let mut tasks = JoinSet::new();
        tasks.spawn(housekeeping::keep(
            Arc::clone(&app),
            settings.gc_interval(),
            settings.gc_grace(),
            settings.staging_ttl(),
            shutdown.clone(),
        ));
        if let Some(metadata) = &settings.metadata_service_url {
            let addresses = Addresses {
                url,
                public_url: settings.node_public_url.clone(),
                zone: settings.zone.clone(),
            };
            let metadata = MetadataClient::new(http, metadata);
            tasks.spawn(membership::keep(
                Arc::clone(&app),
                metadata,
                addresses,
                settings.heartbeat_interval(),
                shutdown.clone(),
            ));
        }
        serve(listener, router, shutdown).await;
        tasks.join_all().await;
        app.engine.close().await;
        Ok(())
    }
}
