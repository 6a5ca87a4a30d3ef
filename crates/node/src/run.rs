//! Starts a node: engine, listener, registration, housekeeping; and stops it in the other order.

use std::{
    error::Error as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use vstack_client::{ClientError, HttpClient, MetadataClient, NodeClient, Timeouts};
use vstack_engine::{
    BoxedDisk, BufferPool, Damage, Engine, FileDisk, OpenError, OpenReport, Reader, Runs, StoreOptions,
};
use vstack_service::{Entrance, Service, aside, bind};
use vstack_types::{Clock, NodeRef, NodeUuid, ProcessUuid, SystemClock};

use crate::{
    Settings,
    app::App,
    background::Background,
    body,
    gaps::Gaps,
    housekeeping,
    membership::{self, Addresses},
    metrics::{Memory, NodeMetrics},
    open_files,
    openapi::Description,
    routes, scrubbing, sending,
    standing::{CurrentStanding, Standing},
    trace,
};

/// So often it is tried to read the end of the log. After that it is given up, and the votes in it with it: a disk that
/// is to be replaced serves what else it has.
const END_TRIES: u32 = 6;

/// Between two of them: what a controller that resets a link needs.
const END_RETRY: Duration = Duration::from_secs(5);

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
    /// Its disk is to give up its name. Started again, it does, and goes on.
    #[error("the disk lost votes and is to have a new name: the node ends, to be started again")]
    Renewal,
    /// The address it listens on.
    #[error("the listener has no address")]
    Address(#[source] io::Error),
}

/// What a node is made of, so that simulations and tests can bring their own.
pub struct Parts {
    /// Where chunks and votes are kept.
    pub disk: BoxedDisk,
    /// Where the engine's writer runs.
    pub runs: Runs,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How others are called.
    pub http: HttpClient,
}

/// What waits in a node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queues {
    /// Operations of the engine.
    pub ops: usize,
    /// Bytes of the items in them.
    pub op_bytes: usize,
    /// Memory for chunks that arrive.
    pub arriving_bytes: usize,
    /// As much as there may be of it.
    pub arriving_bytes_max: usize,
}

/// A node that is open, and does not serve yet.
pub struct OpenNode {
    pub(crate) app: Arc<App>,
    http: HttpClient,
    settings: Settings,
}

/// A node that is open and listens, and does not serve yet.
pub struct Node {
    open: OpenNode,
    listener: TcpListener,
    address: SocketAddr,
}

/// Runs a node until `shutdown`.
///
/// # Errors
/// When the data directory, the secret or the port cannot be used.
pub async fn run(mut settings: Settings, shutdown: CancellationToken) -> Result<(), RunError> {
    loop {
        let node = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            // What is being opened meanwhile changes nothing that the next start does not find.
            node = Node::start(settings.clone()) => node?,
        };
        // Where others know it, if it took any free one.
        settings.port = node.address().port();
        match node.serve(shutdown.clone()).await {
            Err(RunError::Renewal) => {}
            ended => return ended,
        }
    }
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
    disk: impl FnOnce() -> io::Result<BoxedDisk> + Send + 'static,
    runs: Runs,
    clock: Arc<dyn Clock>,
) -> Result<Engine<BoxedDisk>, RunError> {
    let mut options = StoreOptions {
        superblock_bytes: settings.max_superblock_size,
        reverify_after: settings.reverify_after(),
        // Until it is accepted again it claims the log it was opened with, from start to start: see
        // [`crate::standing`].
        claims: settings.metadata_services().is_some(),
        ..StoreOptions::new()
    };
    if vstack_types::planted!("an empty disk takes the UUID of the one before it") {
        options.new_uuid = uuid_of(settings);
    }
    let failed = |source| RunError::Data {
        path: settings.data_dir.display().to_string(),
        source,
    };
    let disk = aside(disk)
        .await
        .flatten()
        .map_err(|error| failed(OpenError::Io(error)))?;
    renew_if_asked(&disk, options.new_uuid, &clock).await;
    for tries_left in (0..END_TRIES).rev() {
        options.blind = tries_left == 0;
        let (disk, options) = (disk.clone(), options.clone());
        let (clock, runs) = (Arc::clone(&clock), runs.clone());
        let opened = aside(move || Engine::open_as(disk, options, clock, runs)).await;
        match opened.unwrap_or_else(|error| Err(OpenError::Io(error))) {
            Err(error @ OpenError::End { .. }) if tries_left > 0 => {
                tracing::error!(%error, source = ?error.source(), tries_left, "tried again: without it the votes in it are lost");
                tokio::time::sleep(END_RETRY).await;
            }
            opened => return opened.map_err(failed),
        }
    }
    unreachable!("the last try is returned")
}

/// A disk that was to give up its name does. One that cannot serves on, without a vote.
async fn renew_if_asked(disk: &BoxedDisk, new: NodeUuid, clock: &Arc<dyn Clock>) {
    let (disk, at) = (disk.clone(), clock.wall());
    match aside(move || vstack_engine::renew(&disk, new, at)).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(old))) => tracing::warn!(%old, %new, "the disk has a new name: it lost votes under the old one"),
        Ok(Err(error)) => tracing::error!(%error, source = ?error.source(), "the disk cannot be given a new name"),
        Err(error) => tracing::error!(%error, "the disk cannot be given a new name"),
    }
}

/// The same for every disk of a machine: a fault that only the simulation plants.
fn uuid_of(settings: &Settings) -> NodeUuid {
    let mut bytes = [0; 16];
    let name = settings.node_id.clone().unwrap_or_default().into_bytes();
    bytes.iter_mut().zip(name).for_each(|(byte, of_name)| *byte = of_name);
    NodeUuid::from_bytes(bytes)
}

/// Ends the node when its writer has failed: what cannot write is of no use, and opening the directory again is the
/// way to go on.
async fn end_with_the_writer(app: Arc<App>, ended: CancellationToken) {
    tokio::select! {
        biased;
        () = ended.cancelled() => {}
        () = app.engine.failed() => {
            tracing::error!("the writer failed: the node ends");
            ended.cancel();
        }
    }
}

/// Ends the node when its disk is to give up its name, which it does at the next start.
async fn end_to_be_renewed(app: Arc<App>, ended: CancellationToken) {
    tokio::select! {
        biased;
        () = ended.cancelled() => {}
        () = app.renews.cancelled() => {
            tracing::warn!("this disk lost votes, and nothing is placed on it any more: it goes on under a new name");
            ended.cancel();
        }
    }
}

/// Streams have no end of their own: the connections they are on could not be closed in order.
async fn end_the_watching(app: Arc<App>, ended: CancellationToken) {
    ended.cancelled().await;
    app.trace.close();
}

fn report(engine: &Engine<BoxedDisk>) {
    let report = engine.report();
    if report.torn_bytes > 0 {
        tracing::info!(
            bytes = report.torn_bytes,
            "a write that was under way when the node stopped was cut off"
        );
    }
    match (report.checkpoint, &report.checkpoint_refused) {
        (Some(log_seq), _) => tracing::info!(log_seq, "opened from a checkpoint"),
        (None, Some(why)) => tracing::warn!(why, "the checkpoint is of no use: everything was read"),
        (None, None) => {}
    }
    for uuid in &report.retired {
        tracing::info!(%uuid, "the data directory was this disk before it was adopted; its chunks are kept, its votes are not");
    }
    for damage in &report.damage {
        tracing::error!(?damage, "damage on disk");
    }
    if engine.reader().is_sealed() {
        tracing::warn!("this disk is sealed: the node serves and stores chunks, and votes no more");
    }
    if report
        .damage
        .iter()
        .any(|damage| matches!(damage, Damage::Votes { .. }))
    {
        tracing::error!(
            "votes may be lost: this node serves and stores chunks, deletes none, and votes no more; `vstack node adopt` makes it a new disk with these chunks"
        );
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
        open_files::raise_limit();
        let secret = settings.common.secret()?;
        if secret.is_none() {
            tracing::warn!("no CLUSTER_SECRET: this node takes plain chunks alone, and no part in consensus");
        }
        let http = HttpClient::new(secret, Timeouts::default())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        // The port first: a node that cannot have it leaves the data directory alone.
        let listener = bind(SocketAddr::new(settings.common.bind_address, settings.port)).await?;
        let address = listener.local_addr().map_err(RunError::Address)?;
        let boxed = move || disk().map(BoxedDisk::new);
        let engine = open(&settings, boxed, Runs::OnAThread, Arc::clone(&clock)).await?;
        Ok(Self {
            open: OpenNode::of(engine, clock, http, settings),
            listener,
            address,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The acceptor it is.
    pub fn me(&self) -> NodeRef {
        self.open.me()
    }

    /// Serves until `shutdown`, then finishes what is under way and closes the data directory.
    ///
    /// # Errors
    /// When the secret can no longer be read, and when a write failed: it ends by itself then.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let Self {
            open,
            listener,
            address,
        } = self;
        let url = open.settings.node_url.clone().unwrap_or_else(|| reachable(address));
        tracing::info!(%address, "listening");
        let entrance = Entrance::counting(listener, open.app.metrics.cut_off());
        open.serve(entrance, url, shutdown).await
    }
}

impl OpenNode {
    /// Opens a node made of `parts`. Of the settings, data directory, address and port are not used.
    ///
    /// # Errors
    /// When the disk cannot be used.
    pub async fn open(parts: Parts, settings: Settings) -> Result<Self, RunError> {
        let Parts {
            disk,
            runs,
            clock,
            http,
        } = parts;
        let engine = open(&settings, move || Ok(disk), runs, Arc::clone(&clock)).await?;
        Ok(Self::of(engine, clock, http, settings))
    }

    fn of(engine: Engine<BoxedDisk>, clock: Arc<dyn Clock>, http: HttpClient, settings: Settings) -> Self {
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
        let trace = trace::ring(clock.wall());
        let gaps = Gaps::of(engine.report());
        let app = Arc::new(App {
            engine,
            clock,
            me_text: me.to_string(),
            label,
            process: ProcessUuid::random(),
            started: Instant::now(),
            chunk_bytes_max: usize::try_from(settings.max_chunk_size).unwrap_or(usize::MAX),
            body_timeout: settings.body_timeout(),
            body_pause: settings.body_pause(),
            gaps,
            bodies: BufferPool::new(
                usize::try_from(settings.max_chunk_size).unwrap_or(usize::MAX),
                settings.max_concurrent_bodies.into(),
            ),
            turns_of_anyone: Arc::new(Semaphore::new(body::turns_of_anyone(settings.max_concurrent_bodies))),
            sending: sending::pool(settings.max_sending_bytes),
            standing: CurrentStanding::new(standing),
            renews: CancellationToken::new(),
            peers: NodeClient::new(http.clone()),
            background: Background::new(),
            metrics: NodeMetrics::default(),
            trace,
        });
        Self { app, http, settings }
    }

    /// The acceptor it is.
    pub fn me(&self) -> NodeRef {
        self.app.me()
    }

    /// Looks at what is stored, beside the node: for checks.
    pub fn reader(&self) -> &Reader<BoxedDisk> {
        self.app.engine.reader()
    }

    /// What opening the disk found: for checks.
    pub fn report(&self) -> &OpenReport {
        self.app.engine.report()
    }

    /// Looks at what waits in the node, as often as it is called: for metrics and checks.
    pub fn queues(&self) -> impl Fn() -> Queues + Send + Sync + use<> {
        let app = Arc::downgrade(&self.app);
        move || {
            let Some(app) = app.upgrade() else {
                return Queues::default();
            };
            Queues {
                ops: app.engine.queued_ops(),
                op_bytes: app.engine.queued_bytes(),
                arriving_bytes: app.bodies.used_bytes(),
                arriving_bytes_max: app.bodies.bytes_max(),
            }
        }
    }

    /// Serves what comes in by `entrance` until `shutdown`, then finishes what is under way and closes the disk. Others
    /// reach it at `url`.
    ///
    /// # Errors
    /// When the secret can no longer be read, and when a write failed: it ends by itself then.
    pub async fn serve(self, entrance: Entrance, url: String, shutdown: CancellationToken) -> Result<(), RunError> {
        let queues = self.queues();
        let Self { app, http, settings } = self;
        tracing::info!(url, node = app.label, disk = app.me_text, data = %settings.data_dir.display(), "storage node");
        let mut service = Service::new("storage-node")
            .secret(settings.common.secret()?)
            .cors(routes::cors(settings.cors_origins.clone()))
            .openapi(Description::openapi());
        let memory = Memory {
            arriving: app.bodies.clone(),
            sending: app.sending.clone(),
        };
        let reader = app.engine.reader().clone();
        app.metrics.register(service.registry(), reader, memory, queues);
        let router = service.router(routes::routes(Arc::clone(&app)));
        let ended = shutdown.child_token();
        let mut tasks = JoinSet::new();
        tasks.spawn(end_with_the_writer(Arc::clone(&app), ended.clone()));
        tasks.spawn(end_the_watching(Arc::clone(&app), ended.clone()));
        tasks.spawn(end_to_be_renewed(Arc::clone(&app), ended.clone()));
        let habits = settings.habits();
        tasks.spawn(housekeeping::keep(Arc::clone(&app), habits, ended.clone()));
        if let Some(period) = habits.scrub_period {
            tasks.spawn(scrubbing::keep(Arc::clone(&app), period, ended.clone()));
        }
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
        entrance.serve(router, ended.clone()).await;
        ended.cancel();
        tasks.join_all().await;
        let failed = app.engine.is_failed();
        // While the data directory is this process's.
        housekeeping::last_checkpoint(&app).await;
        app.engine.close().await;
        if failed {
            let path = settings.data_dir.display().to_string();
            return Err(RunError::Writer { path });
        }
        if app.renews.is_cancelled() {
            return Err(RunError::Renewal);
        }
        Ok(())
    }
}
