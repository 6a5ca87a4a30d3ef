//! What was counted and mended, as metrics.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use vstack_upkeep::report::Tally;

use super::Harmed;

type Label = [(&'static str, &'static str); 1];

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    chunks: Family<Label, Gauge>,
    complete: Gauge,
    orphans: Gauge,
    waiting: Gauge,
    repairs: Family<Label, Counter>,
    seconds: Family<Label, Counter<f64, AtomicU64>>,
    failures: Counter,
    bytes: Counter,
    busy: Counter<f64, AtomicU64>,
    harmed: Family<Label, Gauge>,
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Chunks by how they stand in the last count";
        registry.register("vstack_census_chunks", help, self.chunks.clone());
        let help = "Whether the last count was complete";
        registry.register("vstack_census_complete", help, self.complete.clone());
        let help = "Items and registers that nothing known placed where they are";
        registry.register("vstack_census_orphans", help, self.orphans.clone());
        let help = "Time of a processor that counting took, in seconds";
        registry.register("vstack_census_busy_seconds", help, self.busy.clone());
        let help = "Copies that were ever found damaged or missing, by what became of them";
        registry.register("vstack_harmed_copies", help, self.harmed.clone());
        let help = "Chunks that wait to be mended or evened out";
        registry.register("vstack_repairs_waiting", help, self.waiting.clone());
        let help = "Chunks mended, by what was done";
        registry.register("vstack_repairs", help, self.repairs.clone());
        let help = "Time that mending a chunk took, in seconds, by what was done";
        registry.register("vstack_repair_seconds", help, self.seconds.clone());
        let help = "Repairs that did not work out, to be tried again";
        registry.register("vstack_repair_failures", help, self.failures.clone());
        let help = "Bytes that repairs moved from node to node";
        registry.register("vstack_repair_bytes", help, self.bytes.clone());
    }

    pub(super) fn counted(&self, tally: &Tally, complete: bool, orphans: u64, waiting: u64) {
        for (standing, count) in [
            ("whole", tally.whole),
            ("uncounted", tally.uncounted),
            ("under_replicated", tally.under),
            ("endangered", tally.endangered),
            ("out_of_reach", tally.out_of_reach),
            ("lost", tally.lost),
        ] {
            self.chunks.get_or_create(&[("standing", standing)]).set(gauge(count));
        }
        self.complete.set(complete.into());
        self.orphans.set(gauge(orphans));
        self.waiting.set(gauge(waiting));
    }

    pub(super) fn harmed(&self, harmed: &Harmed) {
        for (outcome, count) in [
            ("repaired", harmed.totals.repaired),
            ("ended", harmed.totals.ended),
            ("open", harmed.open - harmed.beyond_repair),
            ("beyond_repair", harmed.beyond_repair),
        ] {
            self.harmed.get_or_create(&[("outcome", outcome)]).set(gauge(count));
        }
    }

    pub(super) fn was_busy(&self, seconds: f64) {
        self.busy.inc_by(seconds);
    }

    pub(super) fn mended(&self, what: &'static str, bytes: u64, took: Duration) {
        let of = [("what", what)];
        self.repairs.get_or_create(&of).inc();
        self.seconds.get_or_create(&of).inc_by(took.as_secs_f64());
        self.bytes.inc_by(bytes);
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }
}
