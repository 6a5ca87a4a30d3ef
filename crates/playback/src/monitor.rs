//! What is known of every node, and when to ping it.
//!
//! Invariants: at most one ping per node is under way; a node no chunk names any more is forgotten; a node that was
//! never measured has no score (it is explored, not guessed at).

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt as _, rngs::StdRng};
use vstack_api::web::{NetworkStats, NodeDownloads};
use vstack_types::Monotonic;

use crate::{
    Candidate, Gate, Measure, NodeUrl,
    breaker::{Breaker, Evidence},
    estimate::{Latency, Outcomes, Rate},
    score::score,
    settings::MonitorSettings,
};

/// Names one ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId(u64);

/// How a transfer went, as far as the node is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It gave `bytes` of good data.
    Good { bytes: u64 },
    /// It failed in a way that will likely happen again at once.
    Down,
    /// It failed for this chunk only: missing or corrupt.
    BadCopy,
    /// We no longer wanted it.
    Unwanted,
}

#[derive(Debug, Clone, Default)]
struct Node {
    latency: Latency,
    rate: Rate,
    outcomes: Outcomes,
    breaker: Breaker,
    ping_due: Monotonic,
    ping: Option<(PingId, Monotonic)>,
    wanted_at: Monotonic,
    chunks: u32,
    bytes: u64,
    failures: u32,
}

/// All nodes.
#[derive(Debug, Clone)]
pub struct Monitor {
    settings: MonitorSettings,
    nodes: BTreeMap<NodeUrl, Node>,
    pings: u64,
}

impl Monitor {
    /// Knows nobody yet.
    pub fn new(settings: MonitorSettings) -> Self {
        Self {
            settings,
            nodes: BTreeMap::new(),
            pings: 0,
        }
    }

    /// A chunk names `node`: it is watched from now on, its first ping due at once.
    pub fn know(&mut self, now: Monotonic, node: &NodeUrl) {
        if !self.nodes.contains_key(node) {
            self.nodes.insert(
                node.clone(),
                Node {
                    ping_due: now,
                    ..Node::default()
                },
            );
        }
        if let Some(known) = self.nodes.get_mut(node) {
            known.wanted_at = now;
        }
    }

    /// The next ping that is due.
    pub fn poll_ping(&mut self, now: Monotonic, rng: &mut StdRng) -> Option<(PingId, NodeUrl)> {
        let settings = self.settings;
        self.nodes
            .retain(|_, node| node.rate.running() > 0 || now.since(node.wanted_at) < settings.forget_after);
        self.time_pings_out(now, rng);
        let (url, node) = self
            .nodes
            .iter_mut()
            .find(|(_, node)| node.ping.is_none() && node.ping_due <= now)?;
        self.pings += 1;
        let ping = PingId(self.pings);
        node.ping = Some((ping, now));
        node.ping_due = now + settings.interval.mul_f64(rng.random_range(0.8..1.2));
        Some((ping, url.clone()))
    }

    /// A ping came back after `rtt`, or failed. Late answers of pings already given up are ignored.
    pub fn pinged(&mut self, now: Monotonic, ping: PingId, rtt: Option<Duration>, rng: &mut StdRng) {
        let settings = self.settings;
        let Some(node) = self
            .nodes
            .values_mut()
            .find(|node| node.ping.is_some_and(|(id, _)| id == ping))
        else {
            return;
        };
        node.ping = None;
        node.outcomes.add(rtt.is_some());
        if let Some(rtt) = rtt {
            node.latency.add_ping(rtt);
            node.breaker.succeed(Evidence::Ping);
        } else {
            node.fail(now, Evidence::Ping, &settings, rng);
        }
    }

    /// When something is due without an input.
    pub fn deadline(&self) -> Option<Monotonic> {
        let due = |node: &Node| {
            node.ping
                .map_or(node.ping_due, |(_, sent)| sent + self.settings.ping_timeout)
        };
        self.nodes.values().map(due).min()
    }

    /// `(bandwidth * reliability) / (1 + latency * 0.1)` of all measured nodes.
    pub fn scores(&self) -> impl Iterator<Item = (&NodeUrl, f64)> {
        self.nodes.iter().filter_map(|(url, node)| Some((url, node.score()?)))
    }

    /// All nodes watched.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeUrl> {
        self.nodes.keys()
    }

    /// What is known of all nodes.
    pub fn network_stats(&self) -> BTreeMap<String, NetworkStats> {
        self.nodes
            .iter()
            .map(|(url, node)| (url.to_string(), node.network_stats()))
            .collect()
    }

    /// What all nodes gave.
    pub fn downloads(&self) -> BTreeMap<String, NodeDownloads> {
        let entry = |node: &Node| NodeDownloads {
            chunks: node.chunks,
            bytes: node.bytes,
            failures: node.failures,
            network: node.network_stats(),
        };
        self.nodes
            .iter()
            .map(|(url, node)| (url.to_string(), entry(node)))
            .collect()
    }

    pub(crate) fn candidate(&self, now: Monotonic, url: &NodeUrl, avoid: bool) -> Candidate {
        let node = self.nodes.get(url);
        let sampled_at = node.and_then(|node| node.rate.sampled_at());
        Candidate {
            node: url.clone(),
            measure: node.and_then(Node::measure),
            latency_ms: node.and_then(|node| node.latency.ms()),
            pending: node.map_or(0, |node| node.rate.running()),
            gate: node.map_or(Gate::Ready, |node| node.breaker.gate(now)),
            stale: sampled_at.is_some_and(|sampled| now.since(sampled) >= self.settings.stale_after),
            avoid,
        }
    }

    pub(crate) fn transfer_began(&mut self, now: Monotonic, url: &NodeUrl) {
        self.know(now, url);
        if let Some(node) = self.nodes.get_mut(url) {
            node.rate.begin(now);
        }
    }

    pub(crate) fn first_byte(&mut self, url: &NodeUrl, wait: Duration) {
        if let Some(node) = self.nodes.get_mut(url) {
            node.latency.add_first_byte(wait);
        }
    }

    pub(crate) fn progress(&mut self, now: Monotonic, url: &NodeUrl, bytes: u64) {
        if let Some(node) = self.nodes.get_mut(url) {
            node.rate.progress(now, bytes);
        }
    }

    /// A transfer of `bytes` bytes that began so long ago is overtaken by others.
    pub(crate) fn overtaken(&mut self, now: Monotonic, url: &NodeUrl, bytes: u64, after: Duration) {
        if let Some(node) = self.nodes.get_mut(url) {
            node.rate.no_more_than(now, bytes, after);
        }
    }

    pub(crate) fn transfer_ended(&mut self, now: Monotonic, url: &NodeUrl, outcome: Outcome, rng: &mut StdRng) {
        let settings = self.settings;
        let Some(node) = self.nodes.get_mut(url) else { return };
        node.rate.end(now);
        match outcome {
            Outcome::Good { bytes } => {
                node.chunks += 1;
                node.bytes = node.bytes.saturating_add(bytes);
                node.outcomes.add(true);
                node.breaker.succeed(Evidence::Transfer);
            }
            Outcome::Down => {
                node.failures += 1;
                node.outcomes.add(false);
                node.fail(now, Evidence::Transfer, &settings, rng);
            }
            Outcome::BadCopy => {
                node.failures += 1;
                node.outcomes.add(false);
            }
            Outcome::Unwanted => {}
        }
    }

    fn time_pings_out(&mut self, now: Monotonic, rng: &mut StdRng) {
        let settings = self.settings;
        for node in self.nodes.values_mut() {
            if node
                .ping
                .is_some_and(|(_, sent)| now.since(sent) >= settings.ping_timeout)
            {
                node.ping = None;
                node.outcomes.add(false);
                node.fail(now, Evidence::Ping, &settings, rng);
            }
        }
    }
}

impl Node {
    fn measure(&self) -> Option<Measure> {
        Some(Measure {
            bandwidth_mbps: self.rate.mbps()?,
            reliability: self.outcomes.reliability(),
        })
    }

    fn score(&self) -> Option<f64> {
        Some(score(self.measure()?, self.latency.ms().unwrap_or(0.0)))
    }

    fn fail(&mut self, now: Monotonic, by: Evidence, settings: &MonitorSettings, rng: &mut StdRng) {
        let jitter = rng.random_range(0.75..1.0);
        self.breaker
            .fail(now, by, settings.backoff_first, settings.backoff_max, jitter);
        // The pause over, a ping looks first, so that a node that came back is known before a chunk needs it.
        if let Some(until) = self.breaker.until() {
            self.ping_due = self.ping_due.min(until);
        }
    }

    fn network_stats(&self) -> NetworkStats {
        NetworkStats {
            latency_ms: self.latency.ms().unwrap_or(0.0),
            bandwidth_mbps: self.rate.mbps().unwrap_or(0.0),
            success_rate: self.outcomes.reliability() * 100.0,
        }
    }
}
