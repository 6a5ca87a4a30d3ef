//! What was counted and mended, as metrics.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use vstack_api::holdings::Holdings;
use vstack_upkeep::report::Tally;

use super::{Harmed, Summary};

type Label = [(&'static str, &'static str); 1];

/// What tells repairs apart: words of which there are few.
#[derive(Debug, Clone, Copy)]
pub(super) struct RepairLabels {
    /// What was done.
    pub(super) what: &'static str,
    /// How the chunk stood.
    pub(super) why: &'static str,
    /// What made it so.
    pub(super) reason: &'static str,
}

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    chunks: Family<Label, Gauge>,
    complete: Gauge,
    orphans: Gauge,
    waiting: Gauge,
    repairs: Family<[(&'static str, &'static str); 3], Counter>,
    /// The same by what was done alone, for answers: it is printed by nobody.
    done: Family<Label, Counter>,
    seconds: Family<Label, Counter<f64, AtomicU64>>,
    failures: Counter,
    bytes: Counter,
    busy: Counter<f64, AtomicU64>,
    told: Family<Label, Counter>,
    harmed: Family<Label, Gauge>,
    audits: Family<Label, Counter>,
    migrating_chunks: Gauge,
    migrating_bytes: Gauge,
    saved_bytes: Gauge,
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
        let help = "Items and registers that nodes told of, by whether that was everything they hold or what changed";
        registry.register("vstack_census_told", help, self.told.clone());
        let help = "Copies that were ever found damaged or missing, by what became of them";
        registry.register("vstack_harmed_copies", help, self.harmed.clone());
        let help = "Audits of chunks in shards, by what was found of whether all of them give the chunk";
        registry.register("vstack_audits", help, self.audits.clone());
        let help = "Chunks that have another form than is decided";
        registry.register("vstack_migration_waiting_chunks", help, self.migrating_chunks.clone());
        let help = "Bytes of these chunks, each counted once";
        registry.register("vstack_migration_waiting_bytes", help, self.migrating_bytes.clone());
        let help = "Bytes that decisions place less than if all chunks were copies; below 0, more";
        registry.register("vstack_saved_bytes", help, self.saved_bytes.clone());
        let help = "Chunks that wait to be mended, brought into another form or evened out";
        registry.register("vstack_repairs_waiting", help, self.waiting.clone());
        let help = "Chunks mended, by what was done, how they stood, and what made them so";
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

    /// In which form chunks are in the last count; `copies` are made of one that is replicated.
    pub(super) fn kept(&self, summary: &Summary, copies: usize) {
        let waiting = || summary.migrations.waiting.values();
        self.migrating_chunks
            .set(gauge(waiting().map(|waiting| waiting.chunks).sum()));
        self.migrating_bytes
            .set(gauge(waiting().map(|waiting| waiting.bytes).sum()));
        let forms = || summary.report.kept.values().flat_map(|kept| [kept.copies, kept.shards]);
        let logical: u64 = forms().map(|form| form.logical_bytes).sum();
        let placed: u64 = forms().map(|form| form.placed_bytes).sum();
        let replicated = gauge(logical.saturating_mul(copies as u64));
        self.saved_bytes.set(replicated.saturating_sub(gauge(placed)));
    }

    pub(super) fn was_busy(&self, seconds: f64) {
        self.busy.inc_by(seconds);
    }

    /// What a node told: everything, or what changed.
    pub(super) fn told(&self, is_whole: bool, holdings: &Holdings) {
        let of = if is_whole { "everything" } else { "changes" };
        let entries = holdings.items.len() + holdings.registers.len();
        self.told.get_or_create(&[("of", of)]).inc_by(entries as u64);
    }

    pub(super) fn mended(&self, labels: RepairLabels, bytes: u64, took: Duration) {
        let RepairLabels { what, why, reason } = labels;
        let of = [("what", what)];
        self.repairs
            .get_or_create(&[("what", what), ("why", why), ("reason", reason)])
            .inc();
        self.done.get_or_create(&of).inc();
        self.seconds.get_or_create(&of).inc_by(took.as_secs_f64());
        self.bytes.inc_by(bytes);
    }

    pub(super) fn audited(&self, found: &'static str) {
        self.audits.get_or_create(&[("found", found)]).inc();
    }

    /// How many chunks that was done to.
    pub(super) fn done(&self, what: &'static str) -> u64 {
        self.done.get_or_create(&[("what", what)]).get()
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::encoding::text::encode;
    use vstack_types::VideoId;
    use vstack_upkeep::{
        migrate::{Migrations, Waiting},
        report::{InForm, Kept, Report},
    };

    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

    /// Texts between quotation marks.
    fn quoted(source: &str) -> impl Iterator<Item = &str> {
        source.split('"').skip(1).step_by(2)
    }

    #[test]
    fn every_metric_is_documented() {
        let source = include_str!("metrics.rs")
            .split("#[cfg(test)]")
            .next()
            .unwrap_or_default();
        let mut count = 0;
        for name in quoted(source).filter(|text| text.starts_with("vstack_")) {
            let ends = ["`", "{", "_total`", "_total{"];
            assert!(
                ends.iter().any(|end| DOCUMENT.contains(&format!("`{name}{end}"))),
                "docs/metrics.md does not name {name}"
            );
            count += 1;
        }
        assert!(count > 14, "{count}");
    }

    #[test]
    fn every_word_for_what_was_done_is_documented() {
        let of = |metric: &str| {
            let mut lines = DOCUMENT.lines();
            lines
                .find(|line| line.starts_with(&format!("| `{metric}{{")))
                .expect("its line")
        };
        let body = |source: &'static str, begins: &str| {
            let (_, rest) = source.split_once(begins).expect("the function");
            rest.split("\n    }\n").next().unwrap_or_default()
        };
        let done = body(include_str!("mending.rs"), "fn what(&self) -> &'static str {");
        let reasons = body(
            include_str!("reason.rs"),
            "fn word(&self, purpose: Purpose) -> &'static str {",
        );
        let standings = body(
            include_str!("counting.rs"),
            "const fn word(standing: Standing) -> &'static str {",
        );
        let found = body(include_str!("diagnosis.rs"), "fn word(&self) -> &'static str {");
        for (metric, words, least) in [
            ("vstack_repairs_total", done, 10),
            ("vstack_repairs_total", reasons, 12),
            ("vstack_repairs_total", standings, 6),
            ("vstack_repair_seconds_total", done, 10),
            ("vstack_audits_total", found, 4),
        ] {
            assert!(quoted(words).count() >= least, "{words}");
            let line = match metric {
                // The words are those of the line above it.
                "vstack_repair_seconds_total" => of("vstack_repairs_total"),
                metric => of(metric),
            };
            for word in quoted(words) {
                assert!(
                    line.contains(&format!("`{word}`")),
                    "{metric} does not name {word}: {line}"
                );
            }
        }
    }

    #[test]
    fn repairs_are_told_apart_by_what_was_done_and_why() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mended = |what, why, reason| {
            let labels = RepairLabels { what, why, reason };
            metrics.mended(labels, 5, Duration::from_secs(2));
        };
        mended("restore_copy", "under_replicated", "damaged");
        mended("restore_copy", "under_replicated", "missing");
        mended("restore_copy", "under_replicated", "missing");
        mended("move", "endangered", "gone");
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        let of = |what: &str, why: &str, reason: &str, count: u64| {
            format!("vstack_repairs_total{{what=\"{what}\",why=\"{why}\",reason=\"{reason}\"}} {count}")
        };
        for line in [
            of("restore_copy", "under_replicated", "damaged", 1),
            of("restore_copy", "under_replicated", "missing", 2),
            of("move", "endangered", "gone", 1),
            "vstack_repair_seconds_total{what=\"restore_copy\"} 6.0".to_owned(),
            "vstack_repair_bytes_total 20".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert_eq!((metrics.done("restore_copy"), metrics.done("move")), (3, 1));
    }

    #[test]
    fn what_waits_for_another_form_and_what_shards_save_is_shown() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let video = VideoId::from_bytes([1; 16]);
        let form = |chunks, logical_bytes, placed_bytes| InForm {
            chunks,
            logical_bytes,
            placed_bytes,
            ..InForm::default()
        };
        let show = |shards: InForm, waiting: Waiting| {
            let kept = Kept {
                copies: form(2, 2_000, 6_000),
                shards,
                survives: Some(2),
            };
            let summary = Summary {
                report: Arc::new(Report {
                    kept: [(video, kept)].into(),
                    ..Report::default()
                }),
                migrations: Arc::new(Migrations {
                    waiting: [(video, waiting)].into(),
                    ..Migrations::default()
                }),
                ..Summary::default()
            };
            metrics.kept(&summary, 3);
            let mut text = String::new();
            encode(&mut text, &registry).expect("text");
            text
        };
        let waiting = Waiting {
            chunks: 2,
            bytes: 2_000,
            ..Waiting::default()
        };
        let text = show(form(3, 3_000, 5_000), waiting);
        for line in [
            "vstack_migration_waiting_chunks 2",
            "vstack_migration_waiting_bytes 2000",
            // 15,000 if all were copies, of which 11,000 are placed.
            "vstack_saved_bytes 4000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        // While a move is under way, both halves are placed.
        let text = show(form(1, 1_000, 5_000), Waiting::default());
        for line in ["vstack_migration_waiting_bytes 0", "vstack_saved_bytes -2000"] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
}
