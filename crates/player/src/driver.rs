//! Runs a playback session: does what it says, tells it what happened. One task owns everything.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::rngs::StdRng;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use vstack_api::{
    metadata::VideoStatus,
    web::{PlayerMetrics, PlayerPerformance, PlayerStats, PlayerStatus},
};
use vstack_client::{ClientError, HttpClient, MetadataClient, NodeClient, Tagged};
use vstack_playback::{Action, End, Input, Part, PieceId, Session, Settings, ShardId, Speed, TransferId};
use vstack_types::{Clock as _, SystemClock, VideoId};

use crate::{
    beginning,
    catalog::{Catalog, CatalogError},
    downloads::{Downloads, Report},
    joining::Joining,
    renewal::Renewal,
    sink::{Sink, SinkError, Target},
};

/// Reports handled before the session is asked what to do: bounds how long it can be kept from deciding.
const REPORTS_AT_ONCE: usize = 256;
/// Between two snapshots.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(250);
/// A count or a manifest still under way when playback ends gets this long.
const CALLS_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a video could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// Options that cannot go together.
    #[error("{0}")]
    Usage(&'static str),
    /// There is no such video.
    #[error("there is no video {video}; `vstack ls` lists those there are")]
    UnknownVideo {
        /// The one asked for.
        video: VideoId,
    },
    /// It is not there yet, or no longer.
    #[error("video {video} cannot be played: its status is {}", status.as_str())]
    NotActive {
        /// The one asked for.
        video: VideoId,
        /// Where it stands.
        status: VideoStatus,
    },
    /// The metadata service did not give the manifest.
    #[error("cannot get the manifest from {url}: {source}")]
    Metadata {
        /// Who was asked.
        url: String,
        /// Why not.
        source: ClientError,
    },
    /// The manifest cannot be played.
    #[error(transparent)]
    Manifest(#[from] CatalogError),
    /// Nobody gave anything.
    #[error("none of the nodes that hold the video can be reached: {}", nodes.join(", "))]
    NoNode {
        /// Who was asked.
        nodes: Vec<String>,
    },
    /// Somewhere on the way every replica of a piece failed for too long.
    #[error("no replica of {piece} could be read; {} of {chunks} chunks were played", played)]
    Unavailable {
        /// Which.
        piece: PieceId,
        /// How far it came.
        played: u32,
        /// Of how many.
        chunks: usize,
    },
    /// The output could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// No HTTP client could be made.
    #[error("cannot set up HTTP: {0}")]
    Http(ClientError),
}

/// A session at a moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// `/api/status`.
    pub status: PlayerStatus,
    /// `/api/stats`.
    pub stats: PlayerStats,
    /// `/api/metrics`.
    pub metrics: PlayerMetrics,
    /// `/api/performance`.
    pub performance: PlayerPerformance,
}

impl Snapshot {
    fn of(session: &Session) -> Arc<Self> {
        Arc::new(Self {
            status: session.status(),
            stats: session.stats(),
            metrics: session.metrics(),
            performance: session.performance(),
        })
    }
}

/// How it ended, other than by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Played,
    Interrupted,
}

/// Told once that the metadata service at an address does not answer yet, and why; it is asked again.
pub(crate) type NotYet = fn(&str, &ClientError);

/// The services a session needs.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) http: HttpClient,
    pub(crate) metadata: MetadataClient,
}

impl Services {
    pub(crate) fn new(metadata_url: &str) -> Result<Self, PlayError> {
        let http = HttpClient::new(None, vstack_client::Timeouts::default()).map_err(PlayError::Http)?;
        let metadata = MetadataClient::new(http.clone(), metadata_url);
        Ok(Self { http, metadata })
    }

    /// The manifest of a video that can be played; waited for while the metadata service cannot answer yet.
    pub(crate) async fn manifest(&self, video: VideoId, not_yet: NotYet) -> Result<Tagged, PlayError> {
        let url = self.metadata.url();
        let failed = |source| PlayError::Metadata {
            url: url.to_owned(),
            source,
        };
        let ask = || self.metadata.newer_manifest(video, None);
        match beginning::asked(ask, |error| not_yet(url, error)).await {
            Ok(Some(tagged)) if tagged.manifest.status == VideoStatus::Active => Ok(tagged),
            Ok(Some(tagged)) => Err(PlayError::NotActive {
                video,
                status: tagged.manifest.status,
            }),
            Ok(None) => Err(failed(ClientError::BadAnswer {
                url: url.to_owned(),
                reason: "it says that the manifest did not change, to one who has none".to_owned(),
            })),
            Err(error) if error.status() == Some(404) => Err(PlayError::UnknownVideo { video }),
            Err(source) => Err(failed(source)),
        }
    }
}

/// What is played, how, and where to.
pub(crate) struct Order {
    pub(crate) tagged: Tagged,
    pub(crate) settings: Settings,
    pub(crate) speed: Speed,
    pub(crate) target: Target,
}

/// Plays until the end, an error, or `shutdown`.
pub(crate) async fn drive(
    services: Services,
    order: Order,
    snapshots: &watch::Sender<Arc<Snapshot>>,
    shutdown: &CancellationToken,
) -> Result<Outcome, PlayError> {
    let clock = SystemClock::start();
    let Tagged { manifest, etag } = order.tagged;
    let (catalog, plan) = Catalog::read(&manifest)?;
    // It is long, and all that is needed of it was taken.
    drop(manifest);
    let chunks = plan.chunks.len();
    let sink = Sink::open(order.target, order.settings.scheduler.pieces_ahead_max).await?;
    let session = Session::new(
        order.settings,
        order.speed,
        plan,
        rand::make_rng::<StdRng>(),
        clock.monotonic(),
    );
    let downloads = Downloads::new(NodeClient::new(services.http.clone()));
    let driver = Driver {
        clock,
        services,
        catalog,
        session,
        downloads,
        sink,
        here: HashMap::new(),
        joining: Joining::new(),
        pieces: HashMap::new(),
        calls: JoinSet::new(),
        snapshots,
        snapshot_due: Instant::now(),
        renewal: Renewal::new(etag),
    };
    // On the heap: whoever awaits this would otherwise carry some 10 KB of session in its own future.
    Box::pin(driver.run(chunks, shutdown)).await
}

/// What a call to the metadata service brought.
enum Called {
    Manifest(Option<Box<Tagged>>),
    ViewCounted,
}

/// Why the loop ended.
enum Stop {
    Ended(End),
    Interrupted,
    SinkFailed,
}

struct Driver<'a> {
    clock: SystemClock,
    services: Services,
    catalog: Catalog,
    session: Session,
    downloads: Downloads,
    sink: Sink,
    /// Verified parts of pieces that are not yet handed to the sink.
    here: HashMap<PieceId, Vec<(Part, Bytes)>>,
    joining: Joining<PieceId>,
    /// What each transfer under way brings.
    pieces: HashMap<TransferId, (PieceId, Part)>,
    calls: JoinSet<Called>,
    snapshots: &'a watch::Sender<Arc<Snapshot>>,
    snapshot_due: Instant,
    renewal: Renewal,
}

impl Driver<'_> {
    async fn run(mut self, chunks: usize, shutdown: &CancellationToken) -> Result<Outcome, PlayError> {
        let stop = loop {
            if let Some(stop) = self.act() {
                break stop;
            }
            self.publish();
            if let Some(stop) = self.wait(shutdown).await {
                break stop;
            }
        };
        self.snapshots.send_replace(Snapshot::of(&self.session));
        let Self {
            session, sink, calls, ..
        } = self;
        match stop {
            Stop::Ended(End::Played) => {
                finish_calls(calls).await;
                sink.finish().await?;
                Ok(Outcome::Played)
            }
            Stop::Ended(End::Unavailable { piece }) => {
                sink.abandon().await;
                Err(unavailable(&session, piece, chunks))
            }
            Stop::Interrupted => {
                sink.abandon().await;
                Ok(Outcome::Interrupted)
            }
            Stop::SinkFailed => Err(sink.failure().await.into()),
        }
    }

    /// Does all the session asks for.
    fn act(&mut self) -> Option<Stop> {
        while let Some(action) = self.session.poll(self.clock.monotonic()) {
            match action {
                Action::Ping { ping, node } => self.downloads.ping(ping, node),
                Action::Fetch {
                    transfer,
                    piece,
                    part,
                    node,
                } => {
                    if let Some(source) = self.catalog.stored(piece).and_then(|stored| stored.part(part)) {
                        self.pieces.insert(transfer, (piece, part));
                        self.downloads.fetch(transfer, node, source.clone());
                    }
                }
                Action::Cancel { transfer } => {
                    self.pieces.remove(&transfer);
                    self.downloads.cancel(transfer);
                }
                Action::Join { piece, sets } => self.join(piece, &sets),
                Action::Deliver { piece } => {
                    let parts = self.here.remove(&piece).unwrap_or_default();
                    let whole = parts.into_iter().find(|(part, _)| *part == Part::Whole);
                    let (_, bytes) = whole.expect("what is delivered came whole or was joined");
                    if !self.sink.put(piece, bytes) {
                        return Some(Stop::SinkFailed);
                    }
                }
                Action::RefreshManifest { is_missed } => {
                    if self.renewal.want(is_missed) {
                        self.refresh(is_missed);
                    }
                }
                Action::CountView => self.count_view(),
                Action::Finished(end) => return Some(Stop::Ended(end)),
            }
        }
        None
    }

    /// Has a piece made of its shards.
    fn join(&mut self, piece: PieceId, sets: &[Vec<ShardId>]) {
        let here = self.here.get(&piece).map_or(&[][..], Vec::as_slice);
        match self.catalog.stored(piece).and_then(|stored| stored.join(here, sets)) {
            Some(join) => self.joining.begin(piece, move || join.run()),
            None => self.joined(piece, None),
        }
    }

    fn joined(&mut self, piece: PieceId, bytes: Option<Bytes>) {
        // It is kept in another form by now, and begun anew: what is here is of that.
        if !self.session.is_joining(piece) {
            return;
        }
        let input = match bytes {
            Some(bytes) => {
                self.here.insert(piece, vec![(Part::Whole, bytes)]);
                Input::Joined { piece }
            }
            None => Input::NotJoined { piece },
        };
        self.session.handle(self.clock.monotonic(), input);
    }

    /// Waits for something to happen, and takes in all that already has.
    async fn wait(&mut self, shutdown: &CancellationToken) -> Option<Stop> {
        let now = self.clock.monotonic();
        let pause = self
            .session
            .deadline()
            .map_or(SNAPSHOT_INTERVAL, |deadline| deadline.since(now));
        let wake = (Instant::now() + pause).min(self.snapshot_due);
        tokio::select! {
            () = shutdown.cancelled() => return Some(Stop::Interrupted),
            report = self.downloads.next() => self.take(report),
            (piece, bytes) = self.joining.next() => self.joined(piece, bytes),
            taken = self.sink.taken() => match taken {
                Some(piece) => self.session.handle(self.clock.monotonic(), Input::Consumed { piece }),
                None => return Some(Stop::SinkFailed),
            },
            Some(called) = self.calls.join_next() => self.called(called.ok()),
            () = tokio::time::sleep_until(wake) => {}
        }
        for _ in 0..REPORTS_AT_ONCE {
            let Some(report) = self.downloads.try_next() else { break };
            self.take(report);
        }
        None
    }

    fn take(&mut self, report: Report) {
        let input = match report {
            Report::Pinged { ping, rtt } => Input::Pinged { ping, rtt },
            Report::Progress { transfer, bytes } => Input::Progress { transfer, bytes },
            Report::Done { transfer, body } => {
                if let Some((piece, part)) = self.pieces.remove(&transfer) {
                    self.here.entry(piece).or_default().push((part, body));
                }
                Input::Done { transfer }
            }
            Report::Failed { transfer, failure } => {
                self.pieces.remove(&transfer);
                Input::Failed { transfer, failure }
            }
        };
        self.session.handle(self.clock.monotonic(), input);
    }

    fn refresh(&mut self, is_missed: bool) {
        let (metadata, video) = (self.services.metadata.clone(), self.catalog.video);
        let etag = self.renewal.etag.clone();
        self.calls.spawn(async move {
            match metadata.newer_manifest(video, etag.as_deref()).await {
                Ok(newer) => Called::Manifest(newer.map(Box::new)),
                Err(error) => {
                    if is_missed {
                        tracing::warn!(%video, %error, "no newer manifest");
                    } else {
                        tracing::debug!(%video, %error, "no newer manifest");
                    }
                    Called::Manifest(None)
                }
            }
        });
    }

    fn count_view(&mut self) {
        let (metadata, video) = (self.services.metadata.clone(), self.catalog.video);
        self.calls.spawn(async move {
            if let Err(error) = metadata.count_view(video).await {
                tracing::warn!(%video, %error, "the view was not counted");
            }
            Called::ViewCounted
        });
    }

    fn called(&mut self, called: Option<Called>) {
        let newer = match called {
            Some(Called::ViewCounted) => return,
            Some(Called::Manifest(newer)) => newer,
            // It ended badly, and is told elsewhere.
            None => None,
        };
        if let Some(newer) = newer {
            self.renew(*newer);
        }
        if self.renewal.ended() {
            self.refresh(true);
        }
    }

    fn renew(&mut self, Tagged { manifest, etag }: Tagged) {
        let Some(pieces) = self.catalog.renew(&manifest) else {
            tracing::debug!(video = %self.catalog.video, version = manifest.version, "an older manifest is not used");
            return;
        };
        self.renewal.etag = etag;
        self.session.handle(self.clock.monotonic(), Input::Holders { pieces });
    }

    fn publish(&mut self) {
        let now = Instant::now();
        if now >= self.snapshot_due {
            self.snapshot_due = now + SNAPSHOT_INTERVAL;
            self.snapshots.send_replace(Snapshot::of(&self.session));
        }
    }
}

async fn finish_calls(mut calls: JoinSet<Called>) {
    let all = async { while calls.join_next().await.is_some() {} };
    if tokio::time::timeout(CALLS_END_TIMEOUT, all).await.is_err() {
        tracing::debug!("calls still under way were dropped");
    }
}

fn unavailable(session: &Session, piece: PieceId, chunks: usize) -> PlayError {
    let nodes = session.stats().nodes;
    if nodes
        .values()
        .all(|node| node.chunks == 0 && node.network.latency_ms == 0.0)
    {
        return PlayError::NoNode {
            nodes: nodes.into_keys().collect(),
        };
    }
    PlayError::Unavailable {
        piece,
        played: session.stats().buffer.total_chunks_played,
        chunks,
    }
}
