//! Single verified chunks for the gateway: the best node first, the next at once when it fails, one transfer for all
//! who want the same chunk at the same time, the last chunks kept for a while.
//!
//! One task owns the [`Selector`]; callers talk to it over a bounded channel.

use std::{collections::VecDeque, time::Duration};

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
    Arrived, Explore, Failure, Gathering, Holders, MonitorSettings, More, NodeUrl, OneMore, Part, SchedulerSettings,
    Selector, TransferId,
};
use vstack_types::{ChunkId, Clock as _, Digest, SystemClock};

use crate::{
    cache::Cache,
    catalog::{CatalogError, Stored},
    downloads::{Downloads, Report},
    joining::Joining,
};

/// Requests that wait for the task to look at them.
const REQUESTS_MAX: usize = 64;

/// While chunks are wanted, whoever wants them is looked after this often: a reader that went away does not say so.
const WAITERS_CHECK: Duration = Duration::from_millis(100);
/// Failures that are told of a chunk that nobody gives: the last ones.
const FAILURES_TOLD: usize = 8;
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// Limits of a [`ChunkSource`].
#[derive(Debug, Clone, Copy)]
pub struct FetchSettings {
    /// Most transfers at a time: with 2 MiB each this bounds memory, and more would only share the same link. Chunks that are
    /// being made of their shards count as one each.
    pub parallel_max: usize,
    /// Most chunks wanted at a time; more are refused as [`FetchError::Busy`].
    pub wanted_max: usize,
    /// Bytes of chunks kept for the next reader. They give way to shards that came and wait for others, of chunks of which
    /// nothing is under way; where those alone are more, some are given up, and fetched again.
    pub cache_bytes: usize,
    /// Longest wait for one chunk.
    pub deadline: Duration,
    /// So often every replica may fail before the chunk is called unavailable.
    pub rounds_max: u32,
    /// When one more shard is asked for than is needed, of chunks that nobody is known to wait for
    /// ([`ChunkSource::awaited`]).
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
        /// Who failed last, and how; nobody where there was nobody to ask. For those who run the nodes: not in the message.
        why: Vec<(NodeUrl, Failure)>,
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
    one_more: OneMore,
    answer: oneshot::Sender<Result<Bytes, FetchError>>,
}

/// Gives verified chunks. Cheap to clone; all clones share transfers, cache and what is known of the nodes.
#[derive(Debug, Clone)]
pub struct ChunkSource {
    requests: mpsc::Sender<Request>,
    deadline: Duration,
    one_more: OneMore,
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
            joining: Joining::new(),
            jobs: Vec::new(),
        };
        tokio::spawn(fetcher.run(requests, shutdown));
        Self {
            requests: sender,
            deadline: settings.deadline,
            one_more: settings.one_more,
        }
    }

    /// The same for who can do nothing before a chunk is here: one shard more than is needed is asked for at once, and
    /// whichever comes last is not waited for, so that no single slow node holds it up.
    #[must_use]
    pub fn awaited(&self) -> Self {
        Self {
            one_more: OneMore::AtOnce,
            ..self.clone()
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
                    one_more: self.one_more,
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
    /// As the most urgent of its waiters wants it.
    one_more: OneMore,
    /// Shards of it that came.
    here: Vec<(Part, Bytes)>,
    /// Who is asked for it.
    asked: Vec<(TransferId, NodeUrl)>,
    /// Who failed last.
    failures: VecDeque<(NodeUrl, Failure)>,
    waiters: Vec<oneshot::Sender<Result<Bytes, FetchError>>>,
}

impl Job {
    /// Bytes of shards that wait for others, while nothing is under way that bounds how many such jobs there are.
    fn waiting_bytes(&self) -> usize {
        if self.gathering.is_running() || self.gathering.is_joining() {
            return 0;
        }
        self.here.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    fn let_go(&mut self) {
        self.here.clear();
        self.gathering.let_go();
    }
}

struct Fetcher {
    settings: FetchSettings,
    clock: SystemClock,
    selector: Selector,
    downloads: Downloads,
    cache: Cache,
    /// Chunks that are made of their shards, by their SHA-256.
    joining: Joining<Digest>,
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
                (digest, bytes) = self.joining.next() => self.joined(digest, bytes),
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
            job.one_more = job.one_more.max(request.one_more);
            job.waiters.push(request.answer);
        } else if self.jobs.len() >= self.settings.wanted_max {
            let _gone = request.answer.send(Err(FetchError::Busy));
        } else {
            self.jobs.push(Job {
                stored: request.stored,
                gathering: Gathering::new(request.holders),
                one_more: request.one_more,
                here: Vec::new(),
                asked: Vec::new(),
                failures: VecDeque::new(),
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
            while (self.selector.running() + self.joining.len() < self.settings.parallel_max
                || job.gathering.is_running())
                && job.gathering.wants_more(now, job.one_more)
                && let More::Started(transfer, node, part) =
                    job.gathering
                        .begin(now, &mut self.selector, job.stored.whole.bytes, Explore::All)
            {
                if let Some(source) = job.stored.part(part) {
                    job.asked.retain(|(asked, _)| job.gathering.runs(*asked));
                    job.asked.push((transfer, node.clone()));
                    self.downloads.fetch(transfer, node, source.clone());
                }
            }
        }
        self.give_up_hopeless();
        self.make_room();
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
        let (is_whole, spare) = match arrived {
            None | Some(Arrived::Partly) => return,
            Some(Arrived::Whole { spare }) => (true, spare),
            Some(Arrived::Joinable { sets, spare }) => {
                match job.stored.join(&job.here, &sets) {
                    Some(join) => self.joining.begin(job.stored.whole.digest, move || join.run()),
                    None => job.gathering.not_joined(),
                }
                (false, spare)
            }
        };
        for transfer in spare {
            self.downloads.cancel(transfer);
        }
        if is_whole {
            self.arrived(at, body);
        }
    }

    /// What came of its shards.
    fn joined(&mut self, digest: Digest, bytes: Option<Bytes>) {
        let Some(at) = self.jobs.iter().position(|job| job.stored.whole.digest == digest) else {
            return;
        };
        match bytes {
            Some(bytes) => self.arrived(at, bytes),
            None => self.jobs[at].gathering.not_joined(),
        }
    }

    fn arrived(&mut self, at: usize, bytes: Bytes) {
        let job = self.jobs.remove(at);
        self.cache.put(job.stored.whole.digest, bytes.clone());
        answer(job, &Ok(bytes));
    }

    fn failed(&mut self, transfer: TransferId, failure: Failure) {
        let now = self.clock.monotonic();
        if let Some(job) = self.jobs.iter_mut().find(|job| job.gathering.runs(transfer)) {
            if let Some((_, node)) = job.asked.iter().find(|(asked, _)| *asked == transfer) {
                if job.failures.len() == FAILURES_TOLD {
                    job.failures.pop_front();
                }
                job.failures.push_back((node.clone(), failure));
            }
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
                self.joining.forget(&job.stored.whole.digest);
            }
        }
        self.jobs.retain(|job| !job.waiters.is_empty());
    }

    fn give_up_hopeless(&mut self) {
        let rounds_max = self.settings.rounds_max;
        let hopeless = self.jobs.extract_if(.., |job| {
            let is_over = !job.gathering.is_running() && !job.gathering.is_joining();
            is_over && job.gathering.attempts().rounds() >= rounds_max
        });
        for job in hopeless {
            let error = FetchError::Unavailable {
                chunk: job.stored.whole.chunk.clone(),
                why: job.failures.iter().cloned().collect(),
            };
            answer(job, &Err(error));
        }
    }

    /// Has shards that wait for others counted among what is kept, and gives up those that are too many: of the chunks that
    /// were wanted last.
    fn make_room(&mut self) {
        let mut waiting: usize = self.jobs.iter().map(Job::waiting_bytes).sum();
        for job in self.jobs.iter_mut().rev() {
            if waiting <= self.settings.cache_bytes {
                break;
            }
            let bytes = job.waiting_bytes();
            if bytes > 0 {
                job.let_go();
                waiting -= bytes;
            }
        }
        self.cache.leave(waiting);
    }
}

fn answer(job: Job, result: &Result<Bytes, FetchError>) {
    for waiter in job.waiters {
        let _gone = waiter.send(result.clone());
    }
}
