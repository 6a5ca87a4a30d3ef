//! An open loop: requests are due at times set beforehand, whatever the answers do, as those of many independent
//! readers are.
//!
//! Latency counts from the moment a request was due, so a server that stalls is charged with everything that came due
//! meanwhile, and not only with the request it stalled on (coordinated omission). Workers are bounded; what is due
//! while all are busy waits, and its waiting is part of its latency. Whether the generator itself kept to its schedule
//! is measured too: see [`Paced::trouble`].

mod schedule;

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::{
    sync::mpsc::{self, error::TryRecvError},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use schedule::{Pace, Schedule};

use crate::{load::Worker, measure::Latencies};

/// Requests that may be due and not yet sent. Further ones are counted and given up: the server is far behind.
const BACKLOG_MAX: usize = 4096;
/// How long the last requests may take once the schedule has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest sleep of the thread that paces, so that it notices when nobody wants it any more.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Fewer requests have no percentiles.
const REQUESTS_MIN: f64 = 20.0;
/// Longest that requests come due for the sake of being some.
const LONGEST: Duration = Duration::from_secs(60);
/// How late, at its p99, the generator itself may be before its latencies are no longer the server's.
const OWN_DELAY_MAX: Duration = Duration::from_millis(2);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How due times lie apart.
    pub pace: Pace,
    /// Requests a second.
    pub rate: f64,
    /// How long requests come due.
    pub duration: Duration,
    /// Of the schedule.
    pub seed: u64,
}

/// What a round of an open loop showed.
#[derive(Debug, Clone, Default)]
pub struct Paced {
    /// From the moment each was due to its end.
    pub latency: Latencies,
    /// Of requests that found a free worker: from the moment they were due until they were sent. The generator's own.
    pub own_delay: Latencies,
    /// Requests that found all workers busy.
    pub waited: u64,
    /// Requests that were due and never sent.
    pub unsent: u64,
}

impl Plan {
    /// For as long as it takes for some requests to come due: where a busy machine showed that it can do but few in a
    /// second, there may be none in a short round.
    pub fn with_requests(self) -> Self {
        let least = Duration::try_from_secs_f64(REQUESTS_MIN / self.rate).unwrap_or(LONGEST);
        Self {
            duration: self.duration.max(least.min(LONGEST)),
            ..self
        }
    }
}

impl Paced {
    /// One more round of the same.
    pub fn add(&mut self, other: &Self) {
        self.latency.merge(&other.latency);
        self.own_delay.merge(&other.own_delay);
        self.waited += other.waited;
        self.unsent += other.unsent;
    }

    /// The p99, in milliseconds; none of no requests.
    pub fn p99_ms(&self) -> Option<f64> {
        self.latency.summary().map(|latency| latency.p99)
    }

    /// Share of requests that found all workers busy, in percent.
    pub fn waited_percent(&self) -> f64 {
        let all = self.latency.count() + self.unsent;
        if all == 0 {
            0.0
        } else {
            self.waited as f64 * 100.0 / all as f64
        }
    }

    /// Why these latencies are not, or not only, those of the server at this rate. None when all is well.
    pub fn trouble(&self) -> Option<String> {
        if self.unsent > 0 {
            return Some(format!(
                "could not keep up: {} requests were due and never sent",
                self.unsent
            ));
        }
        let own = self.own_delay.summary()?;
        (own.p99 > OWN_DELAY_MAX.as_secs_f64() * 1e3).then(|| {
            format!(
                "the generator itself was late: p99 {:.1} ms, longest {:.1} ms",
                own.p99, own.max
            )
        })
    }
}

/// Sends requests as they come due, each on a worker that is free. A request that fails ends the round. The workers
/// come back, for the next round.
pub async fn open_loop<W: Worker>(workers: Vec<W>, plan: Plan) -> anyhow::Result<(Paced, Vec<W>)> {
    with_backlog(workers, plan, BACKLOG_MAX).await
}

async fn with_backlog<W: Worker>(workers: Vec<W>, plan: Plan, backlog: usize) -> anyhow::Result<(Paced, Vec<W>)> {
    ensure!(!workers.is_empty(), "an open loop needs workers");
    let count = workers.len();
    let pacer = Pacer::start(plan, backlog)?;
    let mut sending = Sending::new(workers);
    let sent = timeout(plan.duration + DRAIN_TIMEOUT, sending.all(pacer)).await;
    let unsent = sent.context("requests were still waiting long after the last was due")??;
    let mut paced = std::mem::take(&mut sending.paced);
    paced.unsent = unsent;
    ensure!(sending.free.len() == count, "a worker was lost");
    Ok((paced, sending.free.into()))
}

/// A thread that wakes when a request is due: finer than the runtime's timers, and never held up by what runs there.
struct Pacer {
    due: mpsc::Receiver<Instant>,
    unsent: Arc<AtomicU64>,
    /// Ends the thread when this is dropped.
    _end: tokio_util::sync::DropGuard,
}

impl Pacer {
    fn start(plan: Plan, backlog: usize) -> anyhow::Result<Self> {
        let (due, receiver) = mpsc::channel(backlog);
        let unsent = Arc::new(AtomicU64::new(0));
        let end = CancellationToken::new();
        let (count, ended) = (Arc::clone(&unsent), end.clone());
        let run = move || pace(plan, &due, &count, &ended);
        thread::Builder::new().name("pacer".to_owned()).spawn(run)?;
        Ok(Self {
            due: receiver,
            unsent,
            _end: end.drop_guard(),
        })
    }
}

fn pace(plan: Plan, due: &mpsc::Sender<Instant>, unsent: &AtomicU64, ended: &CancellationToken) {
    let start = Instant::now();
    let schedule = Schedule::new(plan.pace, plan.rate, plan.seed);
    for offset in schedule.take_while(|offset| *offset < plan.duration) {
        let at = start + offset;
        loop {
            if ended.is_cancelled() {
                return;
            }
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(SLEEP_MAX));
        }
        if due.try_send(at).is_err() {
            unsent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What became of one request.
struct Done<W> {
    worker: W,
    due: Instant,
    ended: Instant,
}

struct Sending<W> {
    /// The one that is free for longest is taken first: a connection that nobody uses for long is closed.
    free: VecDeque<W>,
    busy: JoinSet<anyhow::Result<Done<W>>>,
    paced: Paced,
    /// When a request last had to wait for a worker: what was due before that was late for the server's sake.
    starved: Option<Instant>,
}

impl<W: Worker> Sending<W> {
    fn new(workers: Vec<W>) -> Self {
        Self {
            free: workers.into(),
            busy: JoinSet::new(),
            paced: Paced::default(),
            starved: None,
        }
    }

    /// Gives the number of requests that were never sent.
    async fn all(&mut self, mut pacer: Pacer) -> anyhow::Result<u64> {
        while let ControlFlow::Continue(due) = self.next_due(&mut pacer.due).await? {
            let worker = self.worker(due).await?;
            self.send(worker, due);
        }
        while self.finish_one().await? {}
        Ok(pacer.unsent.load(Ordering::Relaxed))
    }

    /// Waits for a request to come due, and takes back workers meanwhile.
    async fn next_due(&mut self, due: &mut mpsc::Receiver<Instant>) -> anyhow::Result<ControlFlow<(), Instant>> {
        loop {
            match due.try_recv() {
                Ok(due) => return Ok(ControlFlow::Continue(due)),
                Err(TryRecvError::Disconnected) => return Ok(ControlFlow::Break(())),
                Err(TryRecvError::Empty) => {}
            }
            tokio::select! {
                next = due.recv() => return Ok(next.map_or(ControlFlow::Break(()), ControlFlow::Continue)),
                Some(done) = self.busy.join_next() => self.take_back(done)?,
            }
        }
    }

    async fn worker(&mut self, due: Instant) -> anyhow::Result<W> {
        while let Some(done) = self.busy.try_join_next() {
            self.take_back(done)?;
        }
        if let Some(worker) = self.free.pop_front() {
            if self.starved.is_none_or(|starved| due > starved) {
                self.paced.own_delay.record(due.elapsed());
            }
            return Ok(worker);
        }
        self.paced.waited += 1;
        loop {
            ensure!(self.finish_one().await?, "there is no worker");
            if let Some(worker) = self.free.pop_front() {
                self.starved = Some(Instant::now());
                return Ok(worker);
            }
        }
    }

    fn send(&mut self, mut worker: W, due: Instant) {
        self.busy.spawn(async move {
            worker.once().await?;
            Ok(Done {
                worker,
                due,
                ended: Instant::now(),
            })
        });
    }

    /// False when none is under way.
    async fn finish_one(&mut self) -> anyhow::Result<bool> {
        match self.busy.join_next().await {
            Some(done) => self.take_back(done).map(|()| true),
            None => Ok(false),
        }
    }

    fn take_back(&mut self, done: Result<anyhow::Result<Done<W>>, tokio::task::JoinError>) -> anyhow::Result<()> {
        let done = done.context("a request ended badly")??;
        self.paced
            .latency
            .record(done.ended.saturating_duration_since(done.due));
        self.free.push_back(done.worker);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use tokio::sync::Semaphore;

    use super::*;

    const PLAN: Plan = Plan {
        pace: Pace::Fixed,
        rate: 500.0,
        duration: Duration::from_millis(400),
        seed: 1,
    };

    /// Answers after a while; the request with this number only after a long one.
    struct Server {
        takes: Duration,
        stalls_at: usize,
        stall: Duration,
        asked: usize,
    }

    impl Server {
        fn steady(takes: Duration) -> Self {
            Self {
                takes,
                stalls_at: usize::MAX,
                stall: Duration::ZERO,
                asked: 0,
            }
        }
    }

    impl Worker for Server {
        async fn once(&mut self) -> anyhow::Result<Duration> {
            self.asked += 1;
            let takes = if self.asked == self.stalls_at {
                self.stall
            } else {
                self.takes
            };
            tokio::time::sleep(takes).await;
            Ok(takes)
        }
    }

    struct Fails;

    impl Worker for Fails {
        async fn once(&mut self) -> anyhow::Result<Duration> {
            bail!("no")
        }
    }

    /// Answers nobody before so many have asked.
    struct LastToAsk {
        asked: Arc<Semaphore>,
        answered: Arc<Semaphore>,
        all: u32,
    }

    impl Worker for LastToAsk {
        async fn once(&mut self) -> anyhow::Result<Duration> {
            self.asked.add_permits(1);
            if self.asked.available_permits() >= self.all as usize {
                self.answered.add_permits(self.all as usize);
            }
            self.answered.acquire().await?.forget();
            Ok(Duration::ZERO)
        }
    }

    #[tokio::test]
    async fn requests_come_at_their_times_whatever_the_answers_do() {
        let due = 199;
        let (asked, answered) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let worker = |_| LastToAsk {
            asked: Arc::clone(&asked),
            answered: Arc::clone(&answered),
            all: due,
        };
        let workers = (0..due).map(worker).collect();
        let begun = Instant::now();
        // Who waited for an answer would wait for ever.
        let (paced, workers) = open_loop(workers, PLAN).await.unwrap();
        assert_eq!(paced.latency.count(), u64::from(due), "those due at 2, 4 .. 398 ms");
        assert_eq!(workers.len(), due as usize);
        assert_eq!((paced.waited, paced.unsent), (0, 0));
        // None before its time: the first waited for the last.
        assert!(begun.elapsed() >= Duration::from_millis(398));
        assert!(paced.latency.summary().unwrap().max >= 395.0);
    }

    #[tokio::test]
    async fn no_connection_is_left_unused_for_long() {
        let workers = (0..100).map(|_| Server::steady(Duration::from_millis(1))).collect();
        let (paced, workers) = open_loop(workers, PLAN).await.unwrap();
        assert_eq!(paced.latency.count(), 199);
        // One after the other, though a few would do.
        assert!(workers.iter().all(|worker| (1..=3).contains(&worker.asked)));
    }

    #[tokio::test]
    async fn a_stall_is_charged_to_everything_that_was_due_meanwhile() {
        let stall = Duration::from_millis(200);
        let worker = Server {
            takes: Duration::ZERO,
            stalls_at: 50,
            stall,
            asked: 0,
        };
        let (paced, _) = open_loop(vec![worker], PLAN).await.unwrap();
        let summary = paced.latency.summary().unwrap();
        assert_eq!(paced.latency.count(), 199);
        // A hundred came due during the stall, the first of them with nearly all of it before them. A closed loop
        // would know of one slow request in two hundred.
        assert!(summary.p90 > 100.0, "{summary:?}");
        assert!(paced.waited > 0);
        assert!(paced.waited_percent() > 0.0);
    }

    #[tokio::test]
    async fn a_generator_that_cannot_keep_up_says_so() {
        let worker = Server::steady(Duration::from_millis(10));
        let (paced, _) = with_backlog(vec![worker], PLAN, 5).await.unwrap();
        assert!(paced.unsent > 0);
        assert!(paced.trouble().is_some_and(|trouble| trouble.contains("never sent")));
    }

    #[tokio::test]
    async fn a_failed_request_fails_the_round() {
        assert!(open_loop(vec![Fails], PLAN).await.is_err());
        assert!(open_loop(Vec::<Fails>::new(), PLAN).await.is_err());
    }

    #[test]
    fn a_plan_with_few_requests_is_made_longer() {
        let at = |rate| Plan { rate, ..PLAN }.with_requests().duration;
        assert_eq!(at(500.0), PLAN.duration);
        assert_eq!(at(2.0), Duration::from_secs(10));
        assert_eq!([at(0.1), at(0.0)], [LONGEST; 2]);
    }

    #[test]
    fn what_the_generator_itself_delays_is_told() {
        let mut paced = Paced::default();
        assert_eq!(paced.trouble(), None);
        paced.own_delay.record(Duration::from_millis(1));
        assert_eq!(paced.trouble(), None);
        paced.own_delay.record(Duration::from_millis(50));
        assert!(
            paced
                .trouble()
                .is_some_and(|trouble| trouble.contains("itself was late"))
        );
    }
}
