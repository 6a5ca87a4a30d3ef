//! How a video's chunks should be kept, and what that costs. Pure arithmetic on views, nodes and sums.

use vstack_api::{
    metadata::{RedundancyConfig, RedundancyMode},
    redundancy::{Efficiency, ModeComparison, ModeConfig, ModeFigures, StorageOverhead},
};
use vstack_redundancy::{Decision, Heat, Policy, Rules, Seen, decide};
use vstack_types::{Timestamp, limits::CHUNK_BYTES_MAX};

use crate::{
    keeping::mode_of,
    registry,
    store::{ModeTotals, Totals, Watched},
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

/// What is decided about a video when it is looked at now.
pub fn would_decide(watched: &Watched, rules: &Rules, policy: &dyn Policy, now: Timestamp) -> Decision {
    let seen = Seen {
        age: now.since(watched.created_at),
        views: watched.view_count,
        heat: heat_of(watched, now),
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

fn factor(mode: &ModeTotals) -> f64 {
    if mode.logical_bytes == 0 {
        0.0
    } else {
        float(mode.physical_bytes) / float(mode.logical_bytes)
    }
}

fn savings_percent(totals: &Totals, replication_factor: usize) -> f64 {
    let logical = totals.replicated.logical_bytes + totals.coded.logical_bytes;
    let physical = totals.physical_bytes();
    let replicated = float(logical) * float(replication_factor as u64);
    if logical == 0 {
        0.0
    } else {
        100.0 * (1.0 - float(physical) / replicated)
    }
}

/// What everything stored takes.
pub fn efficiency(totals: &Totals, config: &RedundancyConfig) -> Efficiency {
    Efficiency {
        storage_savings_percent: savings_percent(totals, config.replication_factor),
        total_logical_bytes: totals.replicated.logical_bytes + totals.coded.logical_bytes,
        total_physical_bytes: totals.physical_bytes(),
        total_placed_bytes: totals.placed_bytes(),
        held: registry::held(&totals.held),
        replication_overhead_factor: factor(&totals.replicated),
        erasure_coding_overhead_factor: factor(&totals.coded),
    }
}

/// The same in bytes and chunks.
pub fn overhead(totals: &Totals, config: &RedundancyConfig) -> StorageOverhead {
    let beyond = |mode: &ModeTotals| mode.physical_bytes.saturating_sub(mode.logical_bytes);
    StorageOverhead {
        replication_chunks: totals.replicated.chunks,
        erasure_coded_chunks: totals.coded.chunks,
        total_logical_bytes: totals.replicated.logical_bytes + totals.coded.logical_bytes,
        total_physical_bytes: totals.physical_bytes(),
        total_placed_bytes: totals.placed_bytes(),
        held: registry::held(&totals.held),
        replication_logical_bytes: totals.replicated.logical_bytes,
        replication_physical_bytes: totals.replicated.physical_bytes,
        erasure_logical_bytes: totals.coded.logical_bytes,
        erasure_physical_bytes: totals.coded.physical_bytes,
        storage_savings_percent: savings_percent(totals, config.replication_factor),
        replication_overhead_bytes: beyond(&totals.replicated),
        erasure_overhead_bytes: beyond(&totals.coded),
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
    let figures = |overhead_factor: f64, nodes_required: usize, failures_tolerated: usize| ModeFigures {
        overhead_factor,
        storage_efficiency: 100.0 / overhead_factor,
        storage_per_chunk_mb: overhead_factor * float(CHUNK_BYTES_MAX as u64) / (1024.0 * 1024.0),
        nodes_required,
        failures_tolerated,
    };
    let copies = config.replication_factor.max(1);
    let shards = float(config.erasure_total_shards as u64) / float(config.erasure_data_shards.max(1) as u64);
    ModeComparison {
        replication: figures(float(copies as u64), copies, survived.copies),
        erasure_coding: figures(shards, config.erasure_total_shards, survived.shards),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vstack_redundancy::{Adaptive, Mode, Threshold, Why};
    use vstack_types::VideoId;

    use super::*;
    use crate::store::Keeping;

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
        assert_eq!((shards.failures_tolerated, shards.nodes_required), (1, 5));
        assert!((copies.overhead_factor - 3.0).abs() < 1e-9);
        assert!((shards.storage_efficiency - 60.0).abs() < 1e-9);
    }

    #[test]
    fn savings_are_measured_against_full_replication() {
        let mode = |logical_bytes, physical_bytes| ModeTotals {
            chunks: 1,
            logical_bytes,
            physical_bytes,
        };
        let replicated = Totals {
            replicated: mode(100, 300),
            ..Totals::default()
        };
        assert!(efficiency(&replicated, &CONFIG).storage_savings_percent.abs() < 1e-9);
        let mixed = Totals {
            coded: mode(300, 500),
            ..replicated
        };
        let figures = efficiency(&mixed, &CONFIG);
        assert!((figures.storage_savings_percent - 100.0 * (1.0 - 800.0 / 1_200.0)).abs() < 1e-9);
        let told = overhead(&mixed, &CONFIG);
        assert_eq!(told.erasure_overhead_bytes, 200);
        assert_eq!(
            (told.replication_logical_bytes, told.replication_physical_bytes),
            (100, 300)
        );
        assert_eq!((told.erasure_logical_bytes, told.erasure_physical_bytes), (300, 500));
        assert!(efficiency(&Totals::default(), &CONFIG).storage_savings_percent.abs() < 1e-9);
    }
}
