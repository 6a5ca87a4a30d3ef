//! The last minutes of a session as curves.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use vstack_api::web::{PlayerMetrics, Sample};
use vstack_types::Monotonic;

use crate::{Monitor, NodeUrl};

/// Between two samples.
const STEP: Duration = Duration::from_secs(1);
/// Five minutes.
const SAMPLES_MAX: usize = 300;

#[derive(Debug, Clone, Default)]
struct Curve(VecDeque<Sample>);

impl Curve {
    fn add(&mut self, time_sec: f64, value: f64) {
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Sample { time_sec, value });
    }

    fn to_vec(&self) -> Vec<Sample> {
        self.0.iter().copied().collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct History {
    opened: Monotonic,
    due: Monotonic,
    sampled: Monotonic,
    bytes: u64,
    levels: Curve,
    throughputs: Curve,
    scores: BTreeMap<NodeUrl, Curve>,
}

impl History {
    pub(crate) fn new(now: Monotonic) -> Self {
        Self {
            opened: now,
            due: now + STEP,
            sampled: now,
            bytes: 0,
            levels: Curve::default(),
            throughputs: Curve::default(),
            scores: BTreeMap::new(),
        }
    }

    pub(crate) fn received(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(crate) fn due(&self) -> Monotonic {
        self.due
    }

    pub(crate) fn sample(&mut self, now: Monotonic, level: Duration, monitor: &Monitor) {
        if now < self.due {
            return;
        }
        let time = now.since(self.opened).as_secs_f64();
        let mbps = self.bytes as f64 * 8.0 / 1e6 / now.since(self.sampled).as_secs_f64().max(1e-3);
        self.levels.add(time, level.as_secs_f64());
        self.throughputs.add(time, mbps);
        for (node, score) in monitor.scores() {
            self.scores.entry(node.clone()).or_default().add(time, score);
        }
        // Curves of nodes that are no longer watched end, and go.
        let watched: Vec<&NodeUrl> = monitor.nodes().collect();
        self.scores.retain(|node, _| watched.contains(&node));
        (self.sampled, self.due, self.bytes) = (now, now + STEP, 0);
    }

    pub(crate) fn metrics(&self) -> PlayerMetrics {
        PlayerMetrics {
            buffer_history: self.levels.to_vec(),
            throughput_history: self.throughputs.to_vec(),
            node_score_history: self
                .scores
                .iter()
                .map(|(node, curve)| (node.to_string(), curve.to_vec()))
                .collect(),
        }
    }
}
