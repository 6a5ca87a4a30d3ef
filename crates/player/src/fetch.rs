//! Single verified chunks for the gateway: the best node first, the next at once when it fails, one transfer for all
//! who want the same chunk at the same time, the last chunks kept for a while.
//!
//! One task owns the [`Selector`]; callers talk to it over a bounded channel.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use vstack_api::metadata::{ManifestChunk, ManifestInit};
use vstack_client::{HttpClient, NodeClient};
use vstack_playback::{
    Arrived, Explore, Failure, Gathering, Holders, MonitorSettings, More, OneMore, Part, SchedulerSettings, Selector,
    TransferId,
};
use vstack_types::{ChunkId, Clock as _, SystemClock};

use crate::{
    cache::Cache,
    catalog::{CatalogError, Stored},
    downloads::{Downloads, Report},
};

/// Requests that wait for the task to look at them.
const REQUESTS_MAX: usize = 64;

/// While chunks are wanted, whoever wants them is looked after this often: a reader that went away does not say so.
const WAITERS_CHECK: Duration = Duration::from_millis(100);
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// Limits of a [`ChunkSource`].
#[derive(Debug, Clone, Copy)]
pub struct FetchSettings {
    /// Most transfers at a time: with 2 MiB each this bounds memory, and more would only share the same link.
    pub parallel_max: usize,
    /// Most chunks wanted at a time; more are refused as [`FetchError::Busy`].
    pub wanted_max: usize,
    /// Bytes of chunks kept for the next reader.
    pub cache_bytes: usize,
    /// Longest wait for one chunk.
    pub deadline: Duration,
    /// So often every replica may fail before the chunk is called unavailable.
    pub rounds_max: u32,
    /// When one more shard of a chunk is asked for than is needed. What is urgent is not known here: by default when one
    /// is late.
    pub one_more: OneMore,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            parallel_max: 16,
            wanted_max: 256,
            cache_bytes: 64 * 1024 * 1024,
            deadline: Duration::from_secs(15),
            rounds_max: 3,
            one_more: OneMore::default(),
        }
    }
}

/// Why there is no chunk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The manifest's entry cannot be used.
    #[error(transparent)]
    Manifest(#[from] CatalogError),
    /// Every replica failed, several times.
    #[error("no replica of {chunk} could be read")]
    Unavailable {
        /// Which.
        chunk: ChunkId,
    },
    /// It took too long.
    #[error("{chunk} did not arrive in time")]
    TimedOut {
        /// Which.
        chunk: ChunkId,
    },
    /// Too much is wanted at a time: try again.
    #[error("too many chunks are wanted at a time")]
    Busy,
    /// The service is going down.
    #[error("the service is stopping")]
    Stopped,
}

struct Request {
    stored: Stored,
    holders: Holders,
    answer: oneshot::Sender<Result<Bytes, FetchError>>,
}

/// Gives verified chunks. Cheap to clone; all clones share transfers, cache and what is known of the nodes.
#[derive(Debug, Clone)]
pub struct ChunkSource {
    requests: mpsc::Sender<Request>,
    deadline: Duration,
}

impl ChunkSource {
    /// Starts the task behind it, which ends with `shutdown` or with the last clone. To be called in a tokio runtime.
    pub fn start(http: HttpClient, settings: FetchSettings, shutdown: CancellationToken) -> Self {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let scheduler = SchedulerSettings {
            parallel_max: settings.parallel_max,
            ..SchedulerSettings::default()
        };
        let fetcher = Fetcher {
            settings,
            clock: SystemClock::start(),
            selector: Selector::new(MonitorSettings::default(), scheduler, rand::make_rng::<StdRng>()),
            downloads: Downloads::new(NodeClient::new(http)),
            cache: Cache::new(settings.cache_bytes),
            jobs: Vec::new(),
        };
        tokio::spawn(fetcher.run(requests, shutdown));
        Self {
            requests: sender,
            deadline: settings.deadline,
        }
    }

    /// The whole chunk, verified.
    ///
    /// # Errors
    /// When it cannot be had in time from any of the replicas that the manifest names.
    pub async fn chunk(&self, chunk: &ManifestChunk) -> Result<Bytes, FetchError> {
        let stored = Stored::of_chunk(chunk)?;
        let holders = stored.holders(&chunk.replicas);
        self.fetch(stored, holders).await
    }

    /// The whole init segment, verified.
    ///
    /// # Errors
    /// As [`Self::chunk`].
    pub async fn init(&self, init: &ManifestInit) -> Result<Bytes, FetchError> {
        let stored = Stored::of_init(init)?;
        let holders = stored.holders(&init.replicas);
        self.fetch(stored, holders).await
    }

    async fn fetch(&self, stored: Stored, holders: Holders) -> Result<Bytes, FetchError> {
        let chunk = stored.whole.chunk.clone();
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.requests
                .send(Request {
                    stored,
                    holders,
                    answer,
                })
                .await
                .map_err(|_| FetchError::Stopped)?;
            answered.await.map_err(|_| FetchError::Stopped)?
        };
        tokio::time::timeout(self.deadline, asked)
            .await
            .unwrap_or(Err(FetchError::TimedOut { chunk }))
    }
}

/// A chunk that somebody wants.
struct Job {
    stored: Stored,
    gathering: Gathering,
    /// Shards of it that came.
    here: Vec<(Part, Bytes)>,
    waiters: Vec<oneshot::Sender<Result<Bytes, FetchError>>>,
}

struct Fetcher {
    settings: FetchSettings,
    clock: SystemClock,
    selector: Selector,
    downloads: Downloads,
    cache: Cache,
    /// In the order they were wanted; at most `wanted_max`.
    jobs: Vec<Job>,
}

impl Fetcher {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, shutdown: CancellationToken) {
        loop {
            self.act();
            let wake = self.wake();
            tokio::select! {
                () = shutdown.cancelled() => return,
                request = requests.recv() => match request {
                    Some(request) => self.want(request),
                    None => return,
                },
                report = self.downloads.next() => self.take(report),
                () = tokio::time::sleep_until(wake) => {}
            }
            while let Some(report) = self.downloads.try_next() {
                self.take(report);
            }
        }
    }

    fn want(&mut self, request: Request) {
        let digest = request.stored.whole.digest;
        if let Some(bytes) = self.cache.get(&digest) {
            // Whoever asked may be gone by now; so everywhere below.
            let _gone = request.answer.send(Ok(bytes));
            return;
        }
        if let Some(job) = self.jobs.iter_mut().find(|job| job.stored.whole.digest == digest) {
            // Of another code by now, it is fetched as it was begun.
            job.stored.add(request.stored);
            job.gathering.add(request.holders);
            job.waiters.push(request.answer);
        } else if self.jobs.len() >= self.settings.wanted_max {
            let _gone = request.answer.send(Err(FetchError::Busy));
        } else {
            self.jobs.push(Job {
                stored: request.stored,
                gathering: Gathering::new(request.holders),
                here: Vec::new(),
                waiters: vec![request.answer],
            });
        }
    }

    fn act(&mut self) {
        let now = self.clock.monotonic();
        while let Some(transfer) = self.selector.stuck(now) {
            self.downloads.cancel(transfer);
            self.failed(transfer, Failure::Stalled);
        }
        self.drop_unwanted();
        for job in &mut self.jobs {
            // What was begun is not held up by what was not: of a chunk in shards several are fetched at once.
            while (self.selector.running() < self.settings.parallel_max || job.gathering.is_running())
                && job.gathering.wants_more(now, self.settings.one_more)
                && let More::Started(transfer, node, part) =
                    job.gathering
                        .begin(now, &mut self.selector, job.stored.whole.bytes, Explore::All)
            {
                if let Some(source) = job.stored.part(part) {
                    self.downloads.fetch(transfer, node, source.clone());
                }
            }
        }
        self.give_up_hopeless();
        while let Some((ping, node)) = self.selector.poll_ping(now) {
            self.downloads.ping(ping, node);
        }
    }

    fn wake(&self) -> Instant {
        let now = self.clock.monotonic();
        let again = self.jobs.iter().filter_map(|job| job.gathering.more_at());
        let next = again.filter(|at| *at > now).chain(self.selector.deadline()).min();
        let longest = if self.jobs.is_empty() { IDLE_WAIT } else { WAITERS_CHECK };
        Instant::now() + next.map_or(longest, |at| at.since(now).min(longest))
    }

    fn take(&mut self, report: Report) {
        let now = self.clock.monotonic();
        match report {
            Report::Progress { transfer, bytes } => self.selector.progress(now, transfer, bytes),
            Report::Pinged { ping, rtt } => self.selector.pinged(now, ping, rtt),
            Report::Failed { transfer, failure } => self.failed(transfer, failure),
            Report::Done { transfer, body } => self.done(transfer, body),
        }
    }

    fn done(&mut self, transfer: TransferId, body: Bytes) {
        let now = self.clock.monotonic();
        self.selector.finished(now, transfer);
        let Some(at) = self.jobs.iter().position(|job| job.gathering.runs(transfer)) else {
            return;
        };
        let job = &mut self.jobs[at];
        let part = job.gathering.part(transfer).map(|(part, _)| part);
        let arrived = job.gathering.done(now, &mut self.selector, transfer);
        if let Some(shard @ Part::Shard(_)) = part {
            job.here.push((shard, body.clone()));
        }
        let (bytes, spare) = match arrived {
            None | Some(Arrived::Partly) => return,
            Some(Arrived::Whole { spare }) => (Some(body), spare),
            Some(Arrived::Joinable { sets, spare }) => (job.stored.joined(&job.here, &sets), spare),
        };
        for transfer in spare {
            self.downloads.cancel(transfer);
        }
        let Some(bytes) = bytes else {
            job.gathering.not_joined();
            return;
        };
        let job = self.jobs.remove(at);
        self.cache.put(job.stored.whole.digest, bytes.clone());
        answer(job, &Ok(bytes));
    }

    fn failed(&mut self, transfer: TransferId, failure: Failure) {
        let now = self.clock.monotonic();
        if let Some(job) = self.jobs.iter_mut().find(|job| job.gathering.runs(transfer)) {
            job.gathering.failed(now, &mut self.selector, transfer, failure);
        }
    }

    /// Chunks that nobody waits for any more are not fetched to their end.
    fn drop_unwanted(&mut self) {
        let now = self.clock.monotonic();
        for job in &mut self.jobs {
            job.waiters.retain(|waiter| !waiter.is_closed());
            if job.waiters.is_empty() {
                for transfer in job.gathering.give_up() {
                    self.selector.abandon(now, transfer);
                    self.downloads.cancel(transfer);
                }
            }
        }
        self.jobs.retain(|job| !job.waiters.is_empty());
    }

    fn give_up_hopeless(&mut self) {
        let rounds_max = self.settings.rounds_max;
        let hopeless = self.jobs.extract_if(.., |job| {
            !job.gathering.is_running() && job.gathering.attempts().rounds() >= rounds_max
        });
        for job in hopeless {
            let error = FetchError::Unavailable {
                chunk: job.stored.whole.chunk.clone(),
            };
            answer(job, &Err(error));
        }
    }
}

fn answer(job: Job, result: &Result<Bytes, FetchError>) {
    for waiter in job.waiters {
        let _gone = waiter.send(result.clone());
    }
}
