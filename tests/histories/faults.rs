//! What goes wrong meanwhile, drawn from a seed: every history meets every kind of fault at least once.

use std::{fmt, time::Duration};

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
};

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
        })
    }
}

const ALL: [Fault; 7] = [
    Fault::Kill,
    Fault::Stop,
    Fault::Partition,
    Fault::OneWay,
    Fault::Delay,
    Fault::Reset,
    Fault::StopMetadata,
];

/// Links of each caller to each node.
pub type Links = [Vec<Link>];

/// The faults of one history.
pub struct Faults<'a> {
    pub cluster: &'a mut Cluster,
    pub links: &'a Links,
    pub rng: StdRng,
    pub happened: Vec<Fault>,
}

/// What has to be undone.
#[derive(Default)]
struct Open {
    killed: Vec<usize>,
    stopped: Vec<usize>,
    metadata: bool,
    /// Caller and node.
    links: Vec<(usize, usize)>,
}

impl Faults<'_> {
    /// Every kind once, in a random order, the last ones two at a time; ends with everything healed.
    pub async fn run(&mut self) {
        let mut deck = ALL.to_vec();
        deck.extend(ALL);
        deck[..ALL.len()].shuffle(&mut self.rng);
        deck[ALL.len()..].shuffle(&mut self.rng);
        let mut deck = deck.into_iter();
        let mut dealt = 0;
        while let Some(fault) = deck.next() {
            let mut open = Open::default();
            self.begin(fault, &mut open).await;
            if dealt >= ALL.len()
                && let Some(second) = deck.next()
            {
                self.begin(second, &mut open).await;
                dealt += 1;
            }
            dealt += 1;
            let lasts = self.rng.random_range(300..900);
            sleep(Duration::from_millis(lasts)).await;
            self.heal(open);
            let calm = self.rng.random_range(150..450);
            sleep(Duration::from_millis(calm)).await;
        }
    }

    /// One node, or, one time in four, two: of three nodes that leaves no majority.
    fn victims(&mut self) -> Vec<usize> {
        let count = if self.rng.random_bool(0.25) { 2 } else { 1 };
        (0..self.cluster.len()).sample(&mut self.rng, count)
    }

    /// About a third of all links.
    fn some_links(&mut self) -> Vec<(usize, usize)> {
        let all = self
            .links
            .iter()
            .enumerate()
            .flat_map(|(caller, links)| (0..links.len()).map(move |node| (caller, node)));
        all.filter(|_| self.rng.random_bool(0.35)).collect()
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
            Fault::Partition => {
                let nodes = self.victims();
                let half = self.links.len().div_ceil(2);
                let callers = (0..self.links.len()).sample(&mut self.rng, half);
                for (caller, node) in callers
                    .iter()
                    .flat_map(|caller| nodes.iter().map(|node| (*caller, *node)))
                {
                    self.links[caller][node].set(Flow::Held, Flow::Held);
                    open.links.push((caller, node));
                }
            }
            Fault::OneWay => {
                for (caller, node) in self.some_links() {
                    let (to_node, to_caller) = if self.rng.random_bool(0.6) {
                        (OPEN, Flow::Held)
                    } else {
                        (Flow::Held, OPEN)
                    };
                    self.links[caller][node].set(to_node, to_caller);
                    open.links.push((caller, node));
                }
            }
            Fault::Delay => {
                for (caller, node) in self.some_links() {
                    let mut delay = || Flow::Passes(Duration::from_millis(self.rng.random_range(5..150)));
                    self.links[caller][node].set(delay(), delay());
                    open.links.push((caller, node));
                }
            }
            Fault::Reset => {
                for _ in 0..8 {
                    for (caller, node) in self.some_links() {
                        self.links[caller][node].reset();
                    }
                    sleep(Duration::from_millis(40)).await;
                }
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
        for (caller, node) in open.links {
            let link = &self.links[caller][node];
            if self.rng.random_bool(0.5) {
                link.reset();
            }
            link.set(OPEN, OPEN);
        }
    }
}
