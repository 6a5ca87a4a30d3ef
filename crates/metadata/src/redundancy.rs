//! How a video's chunks should be kept, and what that costs. Pure arithmetic on views, nodes and sums.

use vstack_api::{
    metadata::{RedundancyConfig, RedundancyMode},
    redundancy::{Efficiency, ModeComparison, ModeConfig, ModeFigures, StorageOverhead},
};
use vstack_placement::losses_survivable;
use vstack_redundancy::{Changed, Decision, Heat, Policy, Rules, Seen, decide};
use vstack_types::{Timestamp, limits::CHUNK_BYTES_MAX};
use vstack_upkeep::report::{Counted, InForm, Kept, Report};

use crate::{
    keeping::mode_of,
    registry,
    store::{Totals, Watched},
};

/// Shards needed to read a coded chunk.
pub const DATA_SHARDS: usize = 3;
/// Shards beyond those.
pub const PARITY_SHARDS: usize = 2;

/// The views of a video as of now. Those that came since it was looked at last are of now; of one about which nothing was
/// decided yet, all are as old as it is.
pub fn heat_of(watched: &Watched, now: Timestamp) -> Heat {
    let Some(keeping) = watched.keeping else {
        return Heat::default().with(watched.view_count, watched.created_at).at(now);
    };
    let newly = watched.view_count.saturating_sub(keeping.heat_views);
    keeping.heat.with(newly, now)
}

/// When chunks of a video changed their form last, as of now. Those that did so since it was looked at last did so now, and
/// so did all of one about which nothing was decided yet: nothing is moved too soon by that, and at most a look too late.
pub fn changed_of(watched: &Watched, now: Timestamp) -> Changed {
    let known = watched.keeping.map(|keeping| (keeping.changed, keeping.turns));
    let (changed, known) = known.unwrap_or_default();
    let latest = |turns: u64, known: u64, at: Option<Timestamp>| if turns > known { Some(now) } else { at };
    Changed {
        to_copies: latest(watched.turns.to_copies, known.to_copies, changed.to_copies),
        to_shards: latest(watched.turns.to_shards, known.to_shards, changed.to_shards),
    }
}

/// What is decided about a video when it is looked at now.
pub fn would_decide(watched: &Watched, rules: &Rules, policy: &dyn Policy, now: Timestamp) -> Decision {
    let seen = Seen {
        age: now.since(watched.created_at),
        views: watched.view_count,
        heat: heat_of(watched, now),
        changed: changed_of(watched, now),
    };
    let last = watched.keeping.map(|keeping| keeping.decision);
    decide(rules, policy, &seen, watched.override_mode.map(mode_of), last, now)
}

/// The parameters of a mode.
pub const fn mode_config(mode: RedundancyMode, config: &RedundancyConfig) -> ModeConfig {
    let none = ModeConfig {
        mode,
        replication_factor: None,
        data_shards: None,
        parity_shards: None,
        total_shards: None,
        min_shards_for_recovery: None,
    };
    match mode {
        RedundancyMode::Replication => ModeConfig {
            replication_factor: Some(config.replication_factor),
            ..none
        },
        RedundancyMode::ErasureCoding => ModeConfig {
            data_shards: Some(config.erasure_data_shards),
            parity_shards: Some(config.erasure_parity_shards),
            total_shards: Some(config.erasure_total_shards),
            min_shards_for_recovery: Some(config.erasure_data_shards),
            ..none
        },
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share of bytes needs no more than the 52 bits a float has"
)]
const fn float(value: u64) -> f64 {
    value as f64
}

/// What was counted of all videos, by form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByForm {
    /// Of copies.
    pub copies: Counted,
    /// Of shards.
    pub shards: Counted,
    /// Chunks that have the form of copies, or are going to have it, of which nobody has yet to tell what he has.
    pub told_as_copies: u64,
    /// The same of shards.
    pub told_as_shards: u64,
}

impl ByForm {
    /// By the last count. Nodes tell what they hold in sum for all forms, so that only a count tells forms apart.
    pub fn of(report: &Report) -> Self {
        let told = |form: &InForm| form.chunks.saturating_sub(form.uncounted);
        let sum = |sum: Self, kept: &Kept| Self {
            copies: sum.copies.and(kept.copies.counted),
            shards: sum.shards.and(kept.shards.counted),
            told_as_copies: sum.told_as_copies + told(&kept.copies),
            told_as_shards: sum.told_as_shards + told(&kept.shards),
        };
        report.kept.values().fold(Self::default(), sum)
    }
}

fn factor(counted: &Counted) -> f64 {
    if counted.logical_bytes == 0 {
        0.0
    } else {
        float(counted.held_bytes) / float(counted.logical_bytes)
    }
}

/// What is saved against so many copies of everything, by `taken` bytes; none where those are not known.
fn savings_percent(totals: &Totals, taken: Option<u64>, replication_factor: usize) -> Option<f64> {
    let logical = totals.logical_bytes();
    if logical == 0 {
        return Some(0.0);
    }
    let replicated = float(logical) * float(replication_factor as u64);
    taken.map(|taken| 100.0 * (1.0 - float(taken) / replicated))
}

/// What everything stored takes.
pub fn efficiency(totals: &Totals, by_form: &ByForm, config: &RedundancyConfig) -> Efficiency {
    let (physical, disk) = (totals.physical_bytes(), totals.disk_bytes());
    Efficiency {
        storage_savings_percent: savings_percent(totals, physical, config.replication_factor),
        disk_savings_percent: savings_percent(totals, disk, config.replication_factor),
        total_logical_bytes: totals.logical_bytes(),
        total_physical_bytes: physical,
        total_disk_bytes: disk,
        total_placed_bytes: totals.placed_bytes,
        held: registry::held(&totals.held),
        replication_overhead_factor: factor(&by_form.copies),
        erasure_coding_overhead_factor: factor(&by_form.shards),
    }
}

/// The same in bytes and chunks.
pub fn overhead(totals: &Totals, by_form: &ByForm, config: &RedundancyConfig) -> StorageOverhead {
    let ByForm { copies, shards, .. } = by_form;
    let beyond = |counted: &Counted| counted.held_bytes.saturating_sub(counted.logical_bytes);
    let (physical, disk) = (totals.physical_bytes(), totals.disk_bytes());
    StorageOverhead {
        replication_chunks: totals.replicated.chunks,
        erasure_coded_chunks: totals.coded.chunks,
        total_logical_bytes: totals.logical_bytes(),
        total_physical_bytes: physical,
        total_disk_bytes: disk,
        total_placed_bytes: totals.placed_bytes,
        held: registry::held(&totals.held),
        replication_logical_bytes: totals.replicated.logical_bytes,
        replication_counted_chunks: copies.chunks,
        replication_uncounted_chunks: totals.replicated.chunks.saturating_sub(by_form.told_as_copies),
        replication_physical_bytes: copies.held_bytes,
        erasure_logical_bytes: totals.coded.logical_bytes,
        erasure_counted_chunks: shards.chunks,
        erasure_uncounted_chunks: totals.coded.chunks.saturating_sub(by_form.told_as_shards),
        erasure_physical_bytes: shards.held_bytes,
        storage_savings_percent: savings_percent(totals, physical, config.replication_factor),
        disk_savings_percent: savings_percent(totals, disk, config.replication_factor),
        replication_overhead_bytes: beyond(copies),
        erasure_overhead_bytes: beyond(shards),
    }
}

/// After the loss of how many nodes, whichever they are, a chunk could still be read that is made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survived {
    /// Of copies.
    pub copies: usize,
    /// Of shards; 0 where there can be none.
    pub shards: usize,
}

/// The modes side by side.
pub fn comparison(survived: Survived, config: &RedundancyConfig) -> ModeComparison {
    // Of items any `needed` of which give the chunk, when as many nodes as `required` have them all.
    let figures = |[needed, items, required]: [usize; 3], failures_tolerated: usize| {
        let overhead_factor = float(items as u64) / float(needed as u64);
        ModeFigures {
            overhead_factor,
            storage_efficiency: 100.0 / overhead_factor,
            storage_per_chunk_mb: overhead_factor * float(CHUNK_BYTES_MAX as u64) / (1024.0 * 1024.0),
            nodes_required: required,
            failures_tolerated_by_required: losses_survivable(required, needed, items),
            nodes_for_most_failures: items,
            most_failures_tolerated: losses_survivable(items, needed, items),
            failures_tolerated,
        }
    };
    let copies = config.replication_factor.max(1);
    let (data, shards) = (config.erasure_data_shards.max(1), config.erasure_total_shards.max(1));
    // As few as are not refused: the loss of one of them is survived.
    let is_enough = |nodes: &usize| losses_survivable(*nodes, data, shards) > 0;
    let fewest = (1..=shards).find(is_enough).unwrap_or(shards);
    ModeComparison {
        replication: figures([1, copies, copies], survived.copies),
        erasure_coding: figures([data, shards, fewest], survived.shards),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vstack_redundancy::{Adaptive, Mode, Threshold, Why};
    use vstack_types::VideoId;

    use super::*;
    use crate::store::{HeldTotals, Keeping, ModeTotals, Turns};

    const DAY: Duration = Duration::from_secs(86_400);
    const CONFIG: RedundancyConfig = RedundancyConfig {
        popularity_threshold: 1_000,
        replication_factor: 3,
        erasure_data_shards: DATA_SHARDS,
        erasure_parity_shards: PARITY_SHARDS,
        erasure_total_shards: DATA_SHARDS + PARITY_SHARDS,
    };

    const RULES: Rules = Rules {
        threshold: 1_000.0,
        cold_after: DAY,
        dwell: DAY,
    };

    /// After so many days.
    fn at(days: u32) -> Timestamp {
        Timestamp(1_700_000_000_000).plus(DAY * days)
    }

    fn watched(views: u64, by_hand: Option<RedundancyMode>, keeping: Option<Keeping>) -> Watched {
        Watched {
            video: VideoId::from_bytes([1; 16]),
            created_at: at(0),
            view_count: views,
            override_mode: by_hand,
            turns: Turns::default(),
            keeping,
        }
    }

    /// It was kept so from that day on, and all of its views were seen then.
    fn kept(mode: Mode, why: Why, days: u32, views: u64) -> Option<Keeping> {
        let since = at(days);
        Some(Keeping {
            decision: Decision { mode, since, why },
            heat: Heat::default().with(views, since),
            heat_views: views,
            changed: Changed::default(),
            turns: Turns::default(),
        })
    }

    #[test]
    fn a_hand_comes_first_then_being_new_then_the_policy_and_what_was_moved_stays() {
        use RedundancyMode::{ErasureCoding, Replication};
        let cold = kept(Mode::Coded, Why::Cold, 9, 0);
        let hot = kept(Mode::Replicated, Why::Hot, 1, 900);
        let table = [
            (watched(0, None, None), 0, Mode::Replicated, Why::New),
            (watched(0, None, None), 1, Mode::Coded, Why::Cold),
            (watched(1_000, None, None), 1, Mode::Coded, Why::Cold),
            (watched(1_001, None, None), 1, Mode::Replicated, Why::Hot),
            (watched(0, Some(ErasureCoding), None), 0, Mode::Coded, Why::Asked),
            (watched(0, Some(Replication), cold), 9, Mode::Replicated, Why::Asked),
            (watched(2_000, None, cold), 9, Mode::Coded, Why::Dwells),
            (watched(2_000, None, cold), 10, Mode::Replicated, Why::Hot),
            // As when the threshold was raised since.
            (watched(900, None, hot), 5, Mode::Replicated, Why::Hot),
        ];
        for (video, days, mode, why) in table {
            let decision = would_decide(&video, &RULES, &Threshold, at(days));
            assert_eq!((decision.mode, decision.why), (mode, why), "{video:?} {days}");
        }
    }

    #[test]
    fn the_adaptive_policy_counts_views_by_their_age() {
        let decided = |video: &Watched, days| {
            let decision = would_decide(video, &RULES, &Adaptive, at(days));
            (decision.mode, decision.why)
        };
        let once_hot = watched(100_000, None, None);
        assert_eq!(decided(&once_hot, 2), (Mode::Replicated, Why::Hot));
        assert_eq!(decided(&once_hot, 60), (Mode::Coded, Why::Cold));
        // Views that came since it was looked at last are of now.
        let again = watched(200_000, None, kept(Mode::Coded, Why::Cold, 50, 100_000));
        assert_eq!(decided(&again, 60), (Mode::Replicated, Why::Hot));
    }

    #[test]
    fn modes_are_compared_by_what_they_take_and_what_is_survived() {
        let comparison = comparison(Survived { copies: 2, shards: 1 }, &CONFIG);
        let (copies, shards) = (comparison.replication, comparison.erasure_coding);
        assert_eq!((copies.failures_tolerated, copies.nodes_required), (2, 3));
        assert_eq!((shards.failures_tolerated, shards.nodes_required), (1, 3));
        let told = |mode: &ModeFigures| {
            [
                mode.failures_tolerated_by_required,
                mode.nodes_for_most_failures,
                mode.most_failures_tolerated,
            ]
        };
        assert_eq!((told(&copies), told(&shards)), ([2, 3, 2], [1, 5, 2]));
        assert!((copies.overhead_factor - 3.0).abs() < 1e-9);
        assert!((shards.storage_efficiency - 60.0).abs() < 1e-9);
    }

    fn stored(copied_bytes: u64, coded_bytes: u64, held: HeldTotals) -> Totals {
        let mode = |logical_bytes| ModeTotals {
            chunks: 1,
            logical_bytes,
        };
        Totals {
            replicated: mode(copied_bytes),
            coded: mode(coded_bytes),
            placed_bytes: 12_345,
            held,
            ..Totals::default()
        }
    }

    /// As all of five nodes told.
    const fn held(item_bytes: u64, allocated_bytes: u64) -> HeldTotals {
        HeldTotals {
            nodes: 5,
            told: 5,
            item_bytes,
            allocated_bytes,
            as_of: None,
        }
    }

    #[test]
    fn savings_are_of_what_nodes_told_and_apart_of_what_they_take_of_their_disks() {
        let is = |found: Option<f64>, expected: f64| found.is_some_and(|found| (found - expected).abs() < 1e-9);
        let none = ByForm::default();
        let replicated = efficiency(&stored(100, 0, held(300, 450)), &none, &CONFIG);
        assert!(is(replicated.storage_savings_percent, 0.0) && is(replicated.disk_savings_percent, -50.0));
        let mixed = efficiency(&stored(100, 300, held(800, 900)), &none, &CONFIG);
        assert!(is(mixed.storage_savings_percent, 100.0 * (1.0 - 800.0 / 1_200.0)));
        assert!(is(mixed.disk_savings_percent, 25.0));
        assert_eq!(
            (
                mixed.total_physical_bytes,
                mixed.total_disk_bytes,
                mixed.total_placed_bytes
            ),
            (Some(800), Some(900), 12_345)
        );
        let empty = efficiency(&Totals::default(), &none, &CONFIG);
        assert!(is(empty.storage_savings_percent, 0.0) && is(empty.disk_savings_percent, 0.0));
    }

    #[test]
    fn nothing_stands_for_what_a_node_did_not_tell() {
        let untold = HeldTotals {
            told: 4,
            ..held(800, 900)
        };
        let totals = stored(100, 300, untold);
        let of_all = efficiency(&totals, &ByForm::default(), &CONFIG);
        let told = overhead(&totals, &ByForm::default(), &CONFIG);
        assert_eq!((of_all.total_physical_bytes, of_all.total_disk_bytes), (None, None));
        assert_eq!((told.total_physical_bytes, told.total_disk_bytes), (None, None));
        assert_eq!(
            (of_all.storage_savings_percent, of_all.disk_savings_percent),
            (None, None)
        );
        assert_eq!((told.storage_savings_percent, told.disk_savings_percent), (None, None));
        assert_eq!((told.held.nodes_told, told.total_placed_bytes), (4, 12_345));
    }

    #[test]
    fn what_each_form_takes_is_what_was_counted_of_it() {
        let counted = |chunks, logical_bytes, held_bytes| Counted {
            chunks,
            logical_bytes,
            held_bytes,
        };
        let form = |counted: Counted, moved: u64, uncounted: u64| InForm {
            chunks: counted.chunks - moved + uncounted,
            uncounted,
            counted,
            ..InForm::default()
        };
        let kept = |copies, shards| Kept {
            copies,
            shards,
            survives: None,
        };
        let video = |n| VideoId::from_bytes([n; 16]);
        let report = Report {
            // Of the second a copy is missing. One of the first is shards yet, and is to be a copy; of another copy nothing is
            // known.
            kept: [
                (
                    video(1),
                    kept(form(counted(1, 100, 300), 0, 1), form(counted(2, 300, 500), 1, 0)),
                ),
                (video(2), kept(form(counted(1, 100, 200), 0, 0), InForm::default())),
            ]
            .into(),
            ..Report::default()
        };
        let by_form = ByForm::of(&report);
        // One more was not learned yet.
        let mut totals = stored(300, 300, held(1_000, 2_000));
        (totals.replicated.chunks, totals.coded.chunks) = (4, 1);
        let told = overhead(&totals, &by_form, &CONFIG);
        assert_eq!(
            (told.replication_uncounted_chunks, told.erasure_uncounted_chunks),
            (2, 0)
        );
        assert_eq!(
            (told.replication_logical_bytes, told.replication_counted_chunks),
            (300, 2)
        );
        assert_eq!(
            (told.replication_physical_bytes, told.replication_overhead_bytes),
            (500, 300)
        );
        assert_eq!((told.erasure_physical_bytes, told.erasure_overhead_bytes), (500, 200));
        let of_all = efficiency(&totals, &by_form, &CONFIG);
        assert!((of_all.replication_overhead_factor - 2.5).abs() < 1e-9);
        assert!((of_all.erasure_coding_overhead_factor - 5.0 / 3.0).abs() < 1e-9);
        let uncounted = efficiency(&totals, &ByForm::default(), &CONFIG);
        assert!(
            uncounted.replication_overhead_factor.abs() < 1e-9,
            "nothing stands for it"
        );
    }
}
