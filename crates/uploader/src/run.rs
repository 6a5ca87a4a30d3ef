//! Starting and stopping the service.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use vstack_client::{HttpClient, MetadataClient, NodeClient, Timeouts};
use vstack_media::cutter::CutLimits;
use vstack_service::{Cors, Entrance, Service, bind, commit_costs::CommitCosts};
use vstack_types::{Clock, ProcessUuid, SystemClock};

use crate::{
    Settings,
    app::{App, PROBES_MAX, SharedApp},
    completer::Completer,
    records::Records,
    recovery::recover,
    routes::{Api, routes},
    sessions::Sessions,
    spool::{SpoolError, SpoolRoot},
};

/// How often the metadata service hears that this process lives. Its patience is a multiple of that.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// How long a spool directory that is taken is waited for, and how often it is tried.
const SPOOL_WAIT: Duration = Duration::from_secs(2);
const SPOOL_AGAIN: Duration = Duration::from_millis(50);
/// How long uploads may take to fail when the process stops.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Runs the uploader until `shutdown`.
///
/// # Errors
/// When it cannot start.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let listener = bind(SocketAddr::new(settings.common.bind_address, settings.port)).await?;
    run_on(listener, settings, shutdown).await
}

/// Runs the uploader on `listener` until `shutdown`.
///
/// # Errors
/// When it cannot start.
pub async fn run_on(listener: TcpListener, settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let secret = settings.common.secret()?;
    anyhow::ensure!(
        secret.is_some(),
        "the uploader votes for chunks and needs the cluster's secret: set CLUSTER_SECRET or CLUSTER_SECRET_FILE"
    );
    let timeouts = Timeouts {
        connect: Duration::from_secs(2),
        control: Duration::from_secs(10),
        bytes: Duration::from_secs(15),
    };
    let http = HttpClient::new(secret, timeouts)?;
    let clock = Arc::new(SystemClock::start());
    let uploader = Uploader::open(Parts { http, clock }, settings, shutdown).await?;
    tracing::info!(address = %listener.local_addr()?, owner = %uploader.app.owner, "uploader listening");
    uploader.serve(Entrance::listener(listener)).await
}

/// What an uploader is made of, so that a simulation can bring its own.
pub struct Parts {
    /// How others are called.
    pub http: HttpClient,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// An uploader that took over what the one before left, and does not serve yet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Uploader {
    pub(crate) app: SharedApp,
    settings: Arc<Settings>,
}

impl Uploader {
    /// Opens the spool directory of `settings`; address and port are not used. It works until `shutdown`.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub async fn open(parts: Parts, settings: Settings, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let Parts { http, clock } = parts;
        let nodes = NodeClient::new(http.clone());
        let spool = open_spool(&settings.temp_dir).await?;
        let records = Records::open(spool.dir()).context("cannot make TEMP_DIR/over")?;
        let app: SharedApp = Arc::new(App {
            owner: ProcessUuid::random(),
            metadata: MetadataClient::new(http, &settings.metadata_service_url),
            completer: Completer::start(nodes.clone(), records.clone(), shutdown.clone()),
            records,
            nodes,
            sessions: Sessions::new(usize::from(settings.max_concurrent_uploads)),
            spool,
            clock,
            tasks: TaskTracker::new(),
            shutdown,
            probes: Semaphore::new(PROBES_MAX),
            cut: CutLimits {
                chunk_bytes_max: settings.chunk_size as usize,
                nominal_sec: f64::from(settings.chunk_duration),
            },
            costs: CommitCosts::default(),
            upload_bytes_max: settings.max_upload_bytes,
            free_bytes_min: settings.min_free_bytes,
        });
        recover(&app)
            .await
            .context("cannot read what an earlier process left in TEMP_DIR")?;
        let settings = Arc::new(settings);
        Ok(Self { app, settings })
    }

    /// Serves what comes in by `entrance` until it stops.
    ///
    /// # Errors
    /// When the secret can no longer be read.
    pub async fn serve(self, entrance: Entrance) -> anyhow::Result<()> {
        let Self { app, settings } = self;
        let alive = AbortOnDropHandle::new(tokio::spawn(stay_alive(Arc::clone(&app))));
        let mut service = Service::new("uploader-service");
        app.costs.register(service.registry());
        let router = service
            .secret(settings.common.secret()?)
            .cors(Cors {
                origins: settings.cors_origins.clone(),
                methods: vec![
                    axum::http::Method::GET,
                    axum::http::Method::POST,
                    axum::http::Method::DELETE,
                ],
                expose: Vec::new(),
            })
            .openapi(<Api as utoipa::OpenApi>::openapi())
            .router(routes(Arc::clone(&app)));
        entrance.serve(router, app.shutdown.clone()).await;
        app.tasks.close();
        if timeout(STOP_WAIT, app.tasks.wait()).await.is_err() {
            tracing::warn!("uploads were cut off; the next start reports them failed");
        }
        // It holds the spool directory too, which is free for the next process when this returns.
        alive.abort();
        let _cancelled = alive.await;
        Ok(())
    }
}

/// Opens the spool directory; one that is taken may be about to become free, when its process is stopping.
async fn open_spool(dir: &Path) -> Result<SpoolRoot, SpoolError> {
    let deadline = Instant::now() + SPOOL_WAIT;
    loop {
        match SpoolRoot::open(dir) {
            Err(SpoolError::Taken { .. }) if Instant::now() < deadline => tokio::time::sleep(SPOOL_AGAIN).await,
            opened => return opened,
        }
    }
}

/// Keeps the metadata service from failing the videos in the works.
async fn stay_alive(app: SharedApp) {
    loop {
        let videos = app.sessions.videos_in_works();
        if !videos.is_empty()
            && let Err(error) = app.metadata.alive(app.owner, videos).await
        {
            tracing::debug!(%error, "the metadata service did not hear of us");
        }
        tokio::select! {
            biased;
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(ALIVE_EVERY) => {}
        }
    }
}
