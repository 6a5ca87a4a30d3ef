//! Choosing a node for a chunk, watching the transfer, and going on to the next node when it fails.
//!
//! Used by [`crate::Session`] for a whole video, and by whoever fetches single chunks (the gateway), who keeps a
//! [`crate::Gathering`] for each. The selector does not know which chunks there are, nor whether anybody plays them.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use vstack_types::Monotonic;

use crate::{
    Attempts, Candidate, Explore, Gate, Monitor, NodeUrl, PingId,
    monitor::Outcome,
    score::rank,
    settings::{MonitorSettings, SchedulerSettings},
};

/// Names one transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(u64);

/// Why a transfer gave no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke.
    Unreachable,
    /// The node answered that it cannot, now.
    Refused,
    /// The node does not have the chunk.
    Missing,
    /// The bytes are not those the manifest promises.
    Corrupt,
    /// No byte came for too long. Found by the selector itself; a shell's own timeout may report it too.
    Stalled,
    /// It came, but too slowly to be there in time. Found by the session itself.
    Slow,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another replica can be asked at once.
    TryAnother,
    /// All replicas failed: not before this moment, and with a newer manifest if there is one.
    WaitUntil(Monotonic),
}

/// What came of wanting a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// This transfer is to be run.
    Started(TransferId, NodeUrl),
    /// Not before this moment.
    WaitUntil(Monotonic),
}

#[derive(Debug, Clone)]
struct Transfer {
    node: NodeUrl,
    began: Monotonic,
    progress_at: Monotonic,
    bytes: u64,
    first_byte: bool,
    patience: Duration,
    exploring: bool,
}

/// Chooses nodes and watches transfers.
#[derive(Debug)]
pub struct Selector {
    settings: SchedulerSettings,
    monitor: Monitor,
    rng: StdRng,
    transfers: BTreeMap<TransferId, Transfer>,
    begun: u64,
    failovers: u32,
    ended_well: u32,
    ended_badly: u32,
}

impl Selector {
    /// Knows no node and runs no transfer yet.
    pub fn new(monitor: MonitorSettings, scheduler: SchedulerSettings, rng: StdRng) -> Self {
        Self {
            settings: scheduler,
            monitor: Monitor::new(monitor),
            rng,
            transfers: BTreeMap::new(),
            begun: 0,
            failovers: 0,
            ended_well: 0,
            ended_badly: 0,
        }
    }

    /// What is known of the nodes.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// These nodes will be asked: they are watched from now on.
    pub fn know<'a>(&mut self, now: Monotonic, nodes: impl IntoIterator<Item = &'a NodeUrl>) {
        nodes.into_iter().for_each(|node| self.monitor.know(now, node));
    }

    /// The next ping to send.
    pub fn poll_ping(&mut self, now: Monotonic) -> Option<(PingId, NodeUrl)> {
        self.monitor.poll_ping(now, &mut self.rng)
    }

    /// A ping came back after `rtt`, or failed.
    pub fn pinged(&mut self, now: Monotonic, ping: PingId, rtt: Option<Duration>) {
        self.monitor.pinged(now, ping, rtt, &mut self.rng);
    }

    /// Starts a transfer from the best of `replicas`, unless the chunk has to wait.
    pub fn begin(&mut self, now: Monotonic, replicas: &[NodeUrl], attempts: &mut Attempts, explore: Explore) -> Begin {
        if now < attempts.retry_at() || self.end_round(now, replicas, attempts) {
            return Begin::WaitUntil(attempts.retry_at());
        }
        self.know(now, replicas);
        // One exploration at a time: the others keep to what is known.
        let explore = if self.transfers.values().any(|transfer| transfer.exploring) {
            Explore::No
        } else {
            explore
        };
        let mut candidates: Vec<Candidate> = replicas
            .iter()
            .filter(|node| attempts.is_untried(node))
            .map(|node| self.monitor.candidate(now, node, attempts.avoids(node)))
            .collect();
        candidates.shuffle(&mut self.rng);
        let order = rank(&candidates, explore);
        let best = &candidates[*order.first().expect("a round with nobody left to ask was ended above")];
        let exploring = best.measure.is_none() || best.stale || best.gate != Gate::Ready;
        let transfer = Transfer {
            node: best.node.clone(),
            began: now,
            progress_at: now,
            bytes: 0,
            first_byte: false,
            patience: self.patience(best.latency_ms, attempts.rounds()),
            exploring,
        };
        self.failovers += u32::from(attempts.is_failover_to(&transfer.node));
        self.monitor.transfer_began(now, &transfer.node);
        self.begun += 1;
        let id = TransferId(self.begun);
        let node = transfer.node.clone();
        self.transfers.insert(id, transfer);
        Begin::Started(id, node)
    }

    /// `bytes` more arrived; 0 for an answer's head.
    pub fn progress(&mut self, now: Monotonic, id: TransferId, bytes: u64) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        transfer.progress_at = now;
        transfer.bytes = transfer.bytes.saturating_add(bytes);
        if !std::mem::replace(&mut transfer.first_byte, true) {
            self.monitor.first_byte(&transfer.node, now.since(transfer.began));
        }
        self.monitor.progress(now, &transfer.node, bytes);
    }

    /// The chunk arrived whole and its SHA-256 is right. False when the transfer was given up before.
    pub fn finished(&mut self, now: Monotonic, id: TransferId) -> bool {
        let Some(transfer) = self.transfers.remove(&id) else {
            return false;
        };
        self.ended_well += 1;
        let outcome = Outcome::Good { bytes: transfer.bytes };
        self.monitor.transfer_ended(now, &transfer.node, outcome, &mut self.rng);
        true
    }

    /// The transfer gave no chunk. None when it was given up before.
    pub(crate) fn failed(
        &mut self,
        now: Monotonic,
        id: TransferId,
        failure: Failure,
        attempts: &mut Attempts,
    ) -> Option<()> {
        let transfer = self.transfers.remove(&id)?;
        let outcome = match failure {
            Failure::Unreachable | Failure::Refused | Failure::Stalled => Outcome::Down,
            Failure::Missing | Failure::Corrupt => Outcome::BadCopy,
            Failure::Slow => Outcome::Unwanted,
        };
        self.ended_badly += 1;
        self.monitor.transfer_ended(now, &transfer.node, outcome, &mut self.rng);
        if failure == Failure::Corrupt {
            attempts.mark_corrupt(&transfer.node);
        }
        attempts.fail(now, transfer.node);
        Some(())
    }

    /// What follows when these could still be asked.
    pub(crate) fn verdict(&mut self, now: Monotonic, replicas: &[NodeUrl], attempts: &mut Attempts) -> Verdict {
        if self.end_round(now, replicas, attempts) {
            Verdict::WaitUntil(attempts.retry_at())
        } else {
            Verdict::TryAnother
        }
    }

    /// The transfer is no longer wanted and says nothing about its node (whoever wanted the chunk is gone).
    pub fn abandon(&mut self, now: Monotonic, id: TransferId) {
        if let Some(transfer) = self.transfers.remove(&id) {
            self.monitor
                .transfer_ended(now, &transfer.node, Outcome::Unwanted, &mut self.rng);
        }
    }

    /// Others were faster than this transfer of `bytes` bytes. That it would have taken longer still says how fast its node
    /// is at most: who learned nothing from it would go on asking a node that has become slow.
    pub(crate) fn overtaken(&mut self, now: Monotonic, id: TransferId, bytes: u64) {
        if let Some(transfer) = self.transfers.get(&id) {
            let after = now.since(transfer.began);
            self.monitor.overtaken(now, &transfer.node, bytes, after);
        }
        self.abandon(now, id);
    }

    /// A transfer that made no progress for too long: to be cancelled, and to be reported as [`Failure::Stalled`].
    /// Ask only after every progress that is already known was reported.
    pub fn stuck(&self, now: Monotonic) -> Option<TransferId> {
        let silent = |transfer: &Transfer| now >= transfer.progress_at + transfer.patience;
        self.transfers
            .iter()
            .find(|(_, transfer)| silent(transfer))
            .map(|(id, _)| *id)
    }

    /// When [`Self::stuck`] or [`Self::poll_ping`] may have something without an input before.
    pub fn deadline(&self) -> Option<Monotonic> {
        let stuck = self
            .transfers
            .values()
            .map(|transfer| transfer.progress_at + transfer.patience)
            .min();
        stuck.into_iter().chain(self.monitor.deadline()).min()
    }

    /// Transfers under way.
    pub fn running(&self) -> usize {
        self.transfers.len()
    }

    /// Transfers that ended well, that ended badly, and that went to another node after a failure.
    pub(crate) fn counts(&self) -> (u32, u32, u32) {
        (self.ended_well, self.ended_badly, self.failovers)
    }

    /// How long until `size` bytes are here, at the transfer's own pace; none in its first second.
    pub(crate) fn remaining(&self, now: Monotonic, id: TransferId, size: u64) -> Option<Duration> {
        let transfer = self.transfers.get(&id)?;
        let age = now.since(transfer.began);
        if age < Duration::from_secs(1) || transfer.bytes == 0 {
            return None;
        }
        let left = size.saturating_sub(transfer.bytes);
        Some(age.mul_f64(left as f64 / transfer.bytes as f64))
    }

    /// How long the best other replica would need for `size` bytes, by what is known; none when nothing is.
    pub(crate) fn elsewhere(
        &self,
        now: Monotonic,
        id: TransferId,
        size: u64,
        replicas: &[NodeUrl],
        attempts: &Attempts,
    ) -> Option<Duration> {
        let current = &self.transfers.get(&id)?.node;
        let others = replicas
            .iter()
            .filter(|node| *node != current && attempts.is_untried(node));
        let needed = others.filter_map(|node| self.expected(now, node, size, attempts));
        needed.min()
    }

    /// How long a node would need for `size` bytes, by what is known; none when nothing is, or when it is only asked where
    /// nobody else is left.
    pub(crate) fn expected(&self, now: Monotonic, node: &NodeUrl, size: u64, attempts: &Attempts) -> Option<Duration> {
        let candidate = self.monitor.candidate(now, node, attempts.avoids(node));
        let mbps = candidate.measure?.bandwidth_mbps / f64::from(candidate.pending + 1);
        let seconds = size as f64 * 8.0 / 1e6 / mbps + candidate.latency_ms.unwrap_or(0.0) / 1000.0;
        (candidate.gate == Gate::Ready && !candidate.avoid).then(|| Duration::try_from_secs_f64(seconds).ok())?
    }

    /// Nothing speaks against asking this node now.
    pub(crate) fn is_ready(&self, now: Monotonic, node: &NodeUrl, attempts: &Attempts) -> bool {
        let candidate = self.monitor.candidate(now, node, attempts.avoids(node));
        candidate.gate != Gate::BackingOff && !candidate.avoid
    }

    fn end_round(&mut self, now: Monotonic, replicas: &[NodeUrl], attempts: &mut Attempts) -> bool {
        let jitter = self.rng.random_range(0.75..1.0);
        attempts.end_round(now, replicas, &self.settings, jitter)
    }

    /// How long a transfer may be silent: a few round trips, within bounds; doubled with every round in which all
    /// replicas failed, because then it is likelier that everything is slow than that everything is dead.
    fn patience(&self, latency_ms: Option<f64>, rounds: u32) -> Duration {
        let settings = &self.settings;
        let by_latency = latency_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
        let patience = by_latency.map_or(settings.patience_max, |rtt| {
            rtt.saturating_mul(settings.patience_rtts)
                .max(settings.patience_min)
                .min(settings.patience_max)
        });
        patience.saturating_mul(1 << rounds.min(4))
    }
}
