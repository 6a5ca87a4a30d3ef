//! What goes wrong meanwhile, drawn from a seed: every history meets every kind of fault at least once.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{
    RngExt as _,
    rngs::StdRng,
    seq::{IteratorRandom as _, SliceRandom as _},
};
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    harness::Signal,
    links::{Flow, Link, OPEN},
    namespaces::Namespaces,
    recorder::Progress,
};

/// Messages that are to meet a fault, so that it says something: a busy machine takes its time to send them.
const MET_MIN: usize = 16;
/// A fault that nobody meets ends nevertheless: callers may all be waiting for those whom it silenced.
const MET_WITHIN: Duration = Duration::from_secs(3);
/// Calls that are to be answered between two faults, and of all calls those for each that was not: fewer show little.
const CALM_ANSWERS: usize = 32;
const ANSWERED_FOR_EACH: usize = 5;
/// For that.
const CALM_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at how far callers are.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL, and a start on the same disk.
    Kill,
    /// SIGSTOP and SIGCONT: what was asked meanwhile is answered late.
    Stop,
    /// Some callers and some nodes cannot reach each other.
    Partition,
    /// Questions arrive and answers do not, or the other way about.
    OneWay,
    /// Messages take their time, each link its own.
    Delay,
    /// Connections break, again and again.
    Reset,
    /// The metadata service says nothing.
    StopMetadata,
    /// Nodes that nobody reaches, neither callers nor other nodes nor the metadata service, and that do not reach it.
    Isolate,
    /// Nodes that do not reach the metadata service, whom everybody reaches.
    LoseMetadata,
    /// Nodes from whom no other node can fetch bytes, whom everybody else reaches.
    NodesApart,
    /// Whose link is down is cut off from everybody. In namespaces only, as the next one.
    LinkDown,
    /// What some processes of the cluster send to some others is lost.
    RoutesLost,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Partition => "partition",
            Self::OneWay => "one way",
            Self::Delay => "delay",
            Self::Reset => "reset",
            Self::StopMetadata => "metadata stop",
            Self::Isolate => "isolation",
            Self::LoseMetadata => "metadata lost",
            Self::NodesApart => "nodes apart",
            Self::LinkDown => "link down",
            Self::RoutesLost => "routes lost",
        })
    }
}

const ALL: [Fault; 10] = [
    Fault::Kill,
    Fault::Stop,
    Fault::Partition,
    Fault::OneWay,
    Fault::Delay,
    Fault::Reset,
    Fault::StopMetadata,
    Fault::Isolate,
    Fault::LoseMetadata,
    Fault::NodesApart,
];

/// What can go wrong where no link of ours is between the processes.
const IN_NAMESPACES: [Fault; 6] = [
    Fault::Kill,
    Fault::Stop,
    Fault::StopMetadata,
    Fault::LinkDown,
    Fault::RoutesLost,
    Fault::RoutesLost,
];

/// Which link.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    /// From a caller to a node.
    Way { caller: usize, node: usize },
    /// From everybody to a node.
    Front(usize),
    /// From a node to the metadata service.
    ToMetadata(usize),
    /// Of a namespace.
    Link(usize),
    /// Between two namespaces, in one direction.
    Route { from: usize, to: usize },
}

/// Links of each caller, to each node and to the metadata service.
pub type Links = [Vec<Link>];

/// The faults of one history.
pub struct Faults<'a> {
    pub cluster: &'a mut Cluster,
    pub links: &'a Links,
    pub progress: Arc<Progress>,
    pub rng: StdRng,
    pub happened: Vec<Fault>,
}

/// What has to be undone.
#[derive(Default)]
struct Open {
    killed: Vec<usize>,
    stopped: Vec<usize>,
    metadata: bool,
    links: Vec<At>,
}

impl Faults<'_> {
    /// Every kind once, in a random order, the last ones two at a time; ends with everything healed. Each lasts until callers
    /// met it, and what is between them until callers came on.
    pub async fn run(&mut self) {
        let all: &[Fault] = if self.cluster.net().is_some() {
            &IN_NAMESPACES
        } else {
            &ALL
        };
        let mut deck = all.repeat(2);
        deck[..all.len()].shuffle(&mut self.rng);
        deck[all.len()..].shuffle(&mut self.rng);
        let mut deck = deck.into_iter();
        let mut dealt = 0;
        while let Some(fault) = deck.next() {
            let mut open = Open::default();
            let sent = self.progress.sent();
            self.begin(fault, &mut open).await;
            if dealt >= all.len()
                && let Some(second) = deck.next()
            {
                self.begin(second, &mut open).await;
                dealt += 1;
            }
            dealt += 1;
            let lasts = self.rng.random_range(300..800);
            sleep(Duration::from_millis(lasts)).await;
            let progress = Arc::clone(&self.progress);
            self.at_most(MET_WITHIN, || progress.sent() >= sent + MET_MIN).await;
            let answered = progress.answered();
            self.heal(open);
            let calm = self.rng.random_range(150..350);
            sleep(Duration::from_millis(calm)).await;
            let is_enough = || {
                let now = progress.answered();
                now >= answered + CALM_ANSWERS && now >= ANSWERED_FOR_EACH * progress.unanswered()
            };
            self.at_most(CALM_WITHIN, is_enough).await;
        }
    }

    /// Waits until something is so; no longer than that.
    async fn at_most(&self, limit: Duration, is_so: impl Fn() -> bool) {
        let until = Instant::now() + limit;
        while !is_so() && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
    }

    /// One node, or, one time in four, two: of three nodes that leaves no majority.
    fn victims(&mut self) -> Vec<usize> {
        let count = if self.rng.random_bool(0.25) { 2 } else { 1 };
        (0..self.cluster.len()).sample(&mut self.rng, count)
    }

    /// None for one of the kernel's.
    fn link(&self, at: At) -> Option<&Link> {
        match at {
            At::Way { caller, node } => Some(&self.links[caller][node]),
            At::Front(node) => Some(self.cluster.front(node)),
            At::ToMetadata(node) => Some(self.cluster.to_metadata(node)),
            At::Link(_) | At::Route { .. } => None,
        }
    }

    fn net(&self) -> &Namespaces {
        self.cluster.net().expect("only dealt in namespaces")
    }

    /// About a third of all links: of the callers, between the nodes, and to the metadata service.
    fn some_links(&mut self) -> Vec<At> {
        let ways = self.links.iter().enumerate();
        let ways = ways.flat_map(|(caller, links)| (0..links.len()).map(move |node| At::Way { caller, node }));
        let nodes = 0..self.cluster.len();
        let all = ways.chain(nodes.flat_map(|node| [At::Front(node), At::ToMetadata(node)]));
        all.filter(|_| self.rng.random_bool(0.35)).collect()
    }

    fn cut(&mut self, at: At, (questions, answers): (Flow, Flow), open: &mut Open) {
        if let Some(link) = self.link(at) {
            link.set(questions, answers);
        }
        open.links.push(at);
    }

    /// Questions are held up, more often answers, so that what was asked has happened and nobody knows.
    fn one_direction(&mut self) -> (Flow, Flow) {
        if self.rng.random_bool(0.6) {
            (OPEN, Flow::Held)
        } else {
            (Flow::Held, OPEN)
        }
    }

    /// Both directions or one of them.
    fn some_direction(&mut self) -> (Flow, Flow) {
        if self.rng.random_bool(0.5) {
            (Flow::Held, Flow::Held)
        } else {
            self.one_direction()
        }
    }

    async fn begin(&mut self, fault: Fault, open: &mut Open) {
        self.happened.push(fault);
        match fault {
            Fault::Kill => {
                for node in self.victims() {
                    self.cluster.kill(node);
                    open.killed.push(node);
                }
            }
            Fault::Stop => {
                for node in self.victims() {
                    self.cluster.signal(node, Signal::STOP);
                    open.stopped.push(node);
                }
            }
            Fault::StopMetadata => {
                self.cluster.signal_metadata(Signal::STOP);
                open.metadata = true;
            }
            Fault::Partition => self.partition(open),
            Fault::LinkDown => self.take_links_down(open),
            Fault::RoutesLost => self.lose_routes(open),
            Fault::OneWay => self.lose_a_direction(open),
            Fault::Delay => self.delay(open),
            Fault::Reset => self.break_connections().await,
            Fault::Isolate => self.isolate(open),
            Fault::LoseMetadata => self.lose_metadata(open),
            Fault::NodesApart => self.set_nodes_apart(open),
        }
    }

    fn lose_a_direction(&mut self, open: &mut Open) {
        for at in self.some_links() {
            let flows = self.one_direction();
            self.cut(at, flows, open);
        }
    }

    fn delay(&mut self, open: &mut Open) {
        for at in self.some_links() {
            let mut delay = || Flow::Passes(Duration::from_millis(self.rng.random_range(5..150)));
            let flows = (delay(), delay());
            self.cut(at, flows, open);
        }
    }

    async fn break_connections(&mut self) {
        for _ in 0..8 {
            for at in self.some_links() {
                self.link(at).into_iter().for_each(Link::reset);
            }
            sleep(Duration::from_millis(40)).await;
        }
    }

    fn isolate(&mut self, open: &mut Open) {
        for node in self.victims() {
            let flows = self.some_direction();
            self.cut(At::Front(node), flows, open);
            self.cut(At::ToMetadata(node), (Flow::Held, Flow::Held), open);
        }
    }

    fn lose_metadata(&mut self, open: &mut Open) {
        let half = self.cluster.len().div_ceil(2);
        for node in (0..self.cluster.len()).sample(&mut self.rng, half) {
            let flows = self.some_direction();
            self.cut(At::ToMetadata(node), flows, open);
        }
    }

    fn set_nodes_apart(&mut self, open: &mut Open) {
        let most = self.cluster.len() - 1;
        for node in (0..self.cluster.len()).sample(&mut self.rng, most) {
            self.cluster.front(node).hold_pulls(true);
            open.links.push(At::Front(node));
        }
    }

    fn take_links_down(&mut self, open: &mut Open) {
        let mut down = self.victims();
        if self.rng.random_bool(0.3) {
            down.push(self.cluster.len());
        }
        for number in down {
            let at = At::Link(number);
            if !open.links.contains(&at) {
                self.net().take_down(number);
                open.links.push(at);
            }
        }
    }

    fn lose_routes(&mut self, open: &mut Open) {
        let all = self.net().len();
        let pairs = (0..all).flat_map(|from| (0..all).map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            let at = At::Route { from, to };
            if self.rng.random_bool(0.4) && !open.links.contains(&at) {
                self.net().cut(from, to);
                open.links.push(at);
            }
        }
    }

    /// Half of the callers and some nodes cannot reach each other; all others can.
    fn partition(&mut self, open: &mut Open) {
        let nodes = self.victims();
        let half = self.links.len().div_ceil(2);
        for caller in (0..self.links.len()).sample(&mut self.rng, half) {
            for node in &nodes {
                self.cut(At::Way { caller, node: *node }, (Flow::Held, Flow::Held), open);
            }
        }
    }

    fn heal(&mut self, open: Open) {
        for node in open.stopped {
            self.cluster.signal(node, Signal::CONT);
        }
        for node in open.killed {
            self.cluster.restart(node);
        }
        if open.metadata {
            self.cluster.signal_metadata(Signal::CONT);
        }
        // What was held up is delivered late on some links and lost on the others.
        for at in open.links {
            let lost = self.rng.random_bool(0.5);
            match at {
                At::Link(number) => self.net().bring_up(number),
                At::Route { from, to } => self.net().mend(from, to),
                At::Way { .. } | At::Front(_) | At::ToMetadata(_) => {
                    let Some(link) = self.link(at) else { continue };
                    if lost {
                        link.reset();
                    }
                    link.set(OPEN, OPEN);
                    link.hold_pulls(false);
                }
            }
        }
    }
}
