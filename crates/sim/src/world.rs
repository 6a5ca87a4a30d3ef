//! What all parts of a history share: its network, its hosts, what was seen, and whether anything went wrong.
//!
//! One thread: the locks are never contended and never held across an await.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vstack_api::auth::ClusterSecret;
use vstack_client::{HttpClient, Timeouts};
use vstack_engine::Disk as _;
use vstack_metadata::store::{MemoryStore, Store};

use crate::{
    calls::{Call, words},
    dice::Dice,
    hosts::{HostId, Hosts, METADATA},
    ledger::Ledger,
    life::Life,
    network::{Answer, Network, SimWire},
    observer::Observer,
    plan::Plan,
    rot,
    struck::{Kind, Tally},
    trace::{Event, Trace},
};

/// The secret of every simulated cluster.
pub(crate) const SECRET: &str = "the secret of a simulated cluster";

/// Something that must never be was.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which promise was broken, and how.
    pub what: String,
    /// Events so far.
    pub step: u64,
    /// Since the history's beginning.
    pub at: Duration,
    /// The last events before it, a line each.
    pub last_events: Vec<String>,
}

/// See the module.
pub(crate) struct World {
    pub plan: Plan,
    pub begun: Instant,
    pub secret: ClusterSecret,
    /// The metadata service's database: it outlives the service.
    pub store: Arc<dyn Store>,
    /// What went wrong so far.
    pub tally: Tally,
    network: Mutex<Network>,
    hosts: Mutex<Hosts>,
    trace: Mutex<Trace>,
    observer: Mutex<Observer>,
    ledger: Mutex<Ledger>,
    violation: Mutex<Option<Violation>>,
    /// Cancelled by the first violation.
    pub broken: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(plan: Plan, trace: Trace, secret: ClusterSecret) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            secret,
            store: Arc::new(MemoryStore::default()),
            tally: Tally::default(),
            network: Mutex::new(Network::new(Dice::of(plan.seed, "network"))),
            hosts: Mutex::default(),
            trace: Mutex::new(trace),
            observer: Mutex::default(),
            ledger: Mutex::default(),
            violation: Mutex::default(),
            broken: CancellationToken::new(),
            plan,
        })
    }

    pub(crate) fn network(&self) -> MutexGuard<'_, Network> {
        lock(&self.network)
    }

    pub(crate) fn hosts(&self) -> MutexGuard<'_, Hosts> {
        lock(&self.hosts)
    }

    pub(crate) fn observer(&self) -> MutexGuard<'_, Observer> {
        lock(&self.observer)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn trace(&self) -> MutexGuard<'_, Trace> {
        lock(&self.trace)
    }

    pub(crate) fn dice(&self, part: &str) -> Dice {
        Dice::of(self.plan.seed, part)
    }

    /// A client for a process with this life on `host`.
    pub(crate) fn client(self: &Arc<Self>, host: HostId, life: &Life, timeouts: Timeouts) -> HttpClient {
        let wire = SimWire {
            world: Arc::clone(self),
            from: host,
            life: life.clone(),
        };
        HttpClient::simulated(Some(self.secret.clone()), timeouts, Arc::new(wire))
    }

    /// A client for somebody who is no host of the cluster and never dies.
    pub(crate) fn outsider(self: &Arc<Self>, host: HostId) -> HttpClient {
        self.client(host, &Life::default(), Timeouts::default())
    }

    /// All machines of the cluster.
    pub(crate) fn everybody(&self) -> Vec<HostId> {
        let hosts = self.hosts();
        let nodes = hosts.nodes.keys().copied();
        std::iter::once(METADATA)
            .chain(nodes)
            .chain(hosts.uploaders.keys().copied())
            .collect()
    }

    /// Whether a process runs there.
    pub(crate) fn runs(&self, host: HostId) -> bool {
        self.hosts().life(host).is_some_and(|life| !life.is_over())
    }

    /// Whether the process there ended without having been cut off.
    pub(crate) fn ended_by_itself(&self, host: HostId) -> bool {
        let hosts = self.hosts();
        let has_power = hosts.nodes.get(&host).is_none_or(|node| !node.disk.is_down());
        has_power && hosts.life(host).is_some_and(Life::is_over)
    }

    /// Of 100 writes and syncs of a node's disk, so many take long from now on.
    pub(crate) fn slow_disk(&self, node: HostId, percent: u32) {
        if let Some(host) = self.hosts().nodes.get_mut(&node) {
            host.slowness.percent = percent;
        }
    }

    /// Whether the disk of `node` has no room.
    pub(crate) fn is_full(&self, node: HostId) -> bool {
        let hosts = self.hosts();
        let usage = hosts.nodes.get(&node).and_then(|host| host.disk.usage().ok());
        usage.is_some_and(|usage| usage.total_bytes < 1 << 40)
    }

    /// What a node that just started must still know.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn check_start(&self, host: HostId) -> Result<(), String> {
        let full = self.is_full(host);
        let hosts = self.hosts();
        let Some((node, running)) = hosts
            .nodes
            .get(&host)
            .filter(|node| node.copy.is_none())
            .and_then(|node| Some((node, node.alive()?)))
        else {
            return Ok(());
        };
        self.observer().check_node(&hosts, running, true)?;
        // A full disk has no room to say that its last batch was synced.
        let uuid = running.me.uuid;
        if full || hosts.harmed.contains(&uuid) || hosts.adopted.contains(&uuid) {
            return Ok(());
        }
        let superblock_bytes = self.plan.pace.superblock_bytes;
        let refused = |error| format!("a disk with one record that cannot be read is refused: {error}");
        if let Some(opened) = rot::opened_without_a_record(&node.disk, superblock_bytes) {
            self.tally.strikes(Kind::ProbedUnreadable);
            self.observer().check_twice(&opened.map_err(refused)?)?;
        }
        let torn = rot::opened_torn(&node.disk, superblock_bytes)
            .transpose()
            .map_err(refused)?;
        if torn.is_some() {
            self.tally.strikes(Kind::ProbedTorn);
        }
        if torn.is_some_and(|reader| reader.votes_lost()) {
            return Err("after a write that was cut off one record that cannot be read makes votes be lost".to_owned());
        }
        Ok(())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn event(&self, event: Event) {
        self.trace().add(self.begun.elapsed(), event);
    }

    /// A fault, a crash, a restart.
    pub(crate) fn happened(&self, what: impl Into<String>) {
        self.event(Event::World(what.into()));
    }

    /// What an actor did or learned.
    pub(crate) fn noted(&self, what: impl Into<String>) {
        self.event(Event::Actor(what.into()));
    }

    /// A request that came to nothing.
    pub(crate) fn message(&self, from: HostId, to: HostId, call: &Call, outcome: &str) {
        self.event(Event::Message {
            from,
            to,
            what: call.to_string(),
            outcome: outcome.to_owned(),
        });
    }

    /// A request that was handled: everything is looked at before anybody hears the answer.
    pub(crate) fn answered(&self, from: HostId, to: HostId, call: &Call, answer: &Answer) {
        let reply = call.reply(&answer.head, &answer.body);
        let said = reply.as_ref().map_or_else(|| answer.status.as_u16().to_string(), words);
        self.message(from, to, call, &said);
        let hosts = self.hosts();
        let ledger = self.ledger();
        let seen = self.observer().saw(&hosts, &ledger, to, call, reply.as_ref(), answer);
        drop((hosts, ledger));
        if let Err(what) = seen {
            self.violate(what);
        }
    }

    /// A promise was broken: the history ends. The first one counts.
    pub(crate) fn violate(&self, what: impl Into<String>) {
        let mut violation = lock(&self.violation);
        if violation.is_none() {
            let trace = self.trace();
            *violation = Some(Violation {
                what: what.into(),
                step: trace.steps(),
                at: self.begun.elapsed(),
                last_events: trace.last(),
            });
            self.broken.cancel();
        }
    }

    /// Lets go of all processes, each of which holds on to this world by the network it is on.
    pub(crate) fn dissolve(&self) {
        let hosts = std::mem::take(&mut *self.hosts());
        let doors = self.network().close_all();
        drop((hosts, doors));
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        lock(&self.violation).clone()
    }
}
