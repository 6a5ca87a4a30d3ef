//! Starts a node: engine, listener, registration, housekeeping; and stops it in the other order.

use std::{
    io,
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
    sending::Room,
    standing::{CurrentStanding, Standing},
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
    /// A write or sync failed, or the writer panicked. Started again, it goes on from what is on the disk.
    #[error("a write to the data directory {path} failed: the node ends, to be started again")]
    Writer {
        /// Where.
        path: String,
    },
    /// The address it listens on.
    #[error("the listener has no address")]
    Address(#[source] io::Error),
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

async fn open(
    settings: &Settings,
    disk: impl FnOnce() -> io::Result<FileDisk> + Send + 'static,
    clock: Arc<dyn Clock>,
) -> Result<Engine<FileDisk>, RunError> {
    let registers = settings.metadata_services().is_some();
    let options = StoreOptions {
        superblock_bytes: settings.max_superblock_size,
        ..StoreOptions::new()
    };
    let opened = tokio::task::spawn_blocking(move || {
        let engine = Engine::open(disk()?, options, clock)?;
        if registers && engine.reader().claim().is_none() {
            claim(&engine);
        }
        Ok(engine)
    });
    let opened = opened
        .await
        .unwrap_or_else(|error| Err(OpenError::Io(io::Error::other(error))));
    opened.map_err(|source| RunError::Data {
        path: settings.data_dir.display().to_string(),
        source,
    })
}

/// Until it is accepted again it claims the log it was opened with, from start to start: see [`crate::standing`].
fn claim(engine: &Engine<FileDisk>) {
    if let Err(error) = engine.reader().set_claim(Some(engine.report().log_seq)) {
        tracing::warn!(%error, "what this disk claims could not be written down; it holds until the node ends");
    }
}

/// Ends the node when its writer has failed: what cannot write is of no use, and opening the directory again is the
/// way to go on.
async fn end_with_the_writer(app: Arc<App>, ended: CancellationToken) {
    tokio::select! {
        () = ended.cancelled() => {}
        () = app.engine.failed() => {
            tracing::error!("the writer failed: the node ends");
            ended.cancel();
        }
    }
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
        let disk = settings.data_dir.clone();
        Self::start_on(settings, move || FileDisk::new(disk)).await
    }

    /// The same, on a disk that `disk` makes; it is not asked before the port is had.
    ///
    /// # Errors
    /// When the disk, the data directory, the secret or the port cannot be used.
    pub async fn start_on(
        settings: Settings,
        disk: impl FnOnce() -> io::Result<FileDisk> + Send + 'static,
    ) -> Result<Self, RunError> {
        let secret = settings.common.secret()?;
        if secret.is_none() {
            tracing::warn!("no CLUSTER_SECRET: this node takes plain chunks alone, and no part in consensus");
        }
        let http = HttpClient::new(secret, Timeouts::default())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        // The port first: a node that cannot have it leaves the data directory alone.
        let listener = bind(SocketAddr::new(settings.common.bind_address, settings.port)).await?;
        let address = listener.local_addr().map_err(RunError::Address)?;
        let engine = open(&settings, disk, Arc::clone(&clock)).await?;
        report(&engine);
        let me = engine.reader().me();
        let uuid = me.uuid.to_string();
        let label = settings
            .node_id
            .clone()
            .unwrap_or_else(|| format!("node-{}", &uuid[..8]));
        // A disk that was to register before waits for it also when nobody tells it where.
        let standing = if engine.reader().claim().is_some() {
            Standing::Waits
        } else {
            Standing::Votes
        };
        let app = Arc::new(App {
            engine,
            clock,
            me_text: me.to_string(),
            label,
            started: Instant::now(),
            chunk_bytes_max: usize::try_from(settings.max_chunk_size).unwrap_or(usize::MAX),
            body_timeout: settings.body_timeout(),
            bodies: Semaphore::new(settings.max_concurrent_bodies.into()),
            sending: Room::new(settings.max_sending_bytes),
            standing: CurrentStanding::new(standing),
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
    /// When the secret can no longer be read, and when a write failed: it ends by itself then.
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
        let ended = shutdown.child_token();
        let mut tasks = JoinSet::new();
        tasks.spawn(end_with_the_writer(Arc::clone(&app), ended.clone()));
        tasks.spawn(housekeeping::keep(
            Arc::clone(&app),
            settings.gc_interval(),
            settings.gc_grace(),
            settings.staging_ttl(),
            ended.clone(),
        ));
        if let Some(metadata) = settings.metadata_services() {
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
                ended.clone(),
            ));
        }
        serve(listener, router, ended.clone()).await;
        ended.cancel();
        tasks.join_all().await;
        let failed = app.engine.is_failed();
        app.engine.close().await;
        if failed {
            let path = settings.data_dir.display().to_string();
            return Err(RunError::Writer { path });
        }
        Ok(())
    }
}
