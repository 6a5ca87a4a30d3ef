//! How a video's chunks should be kept, and what that costs. Pure arithmetic on views, nodes and sums.

use vstack_api::{
    metadata::{RedundancyConfig, RedundancyMode},
    redundancy::{Efficiency, ModeComparison, ModeConfig, ModeFigures, StorageOverhead},
};
use vstack_types::limits::CHUNK_BYTES_MAX;

use crate::store::{ModeTotals, Totals};

/// Shards needed to read a coded chunk.
pub const DATA_SHARDS: usize = 3;
/// Shards beyond those.
pub const PARITY_SHARDS: usize = 2;

/// The mode that fits: what was asked for by hand, or else replication for what is watched more than
/// `config.popularity_threshold` times.
pub const fn recommend(
    override_mode: Option<RedundancyMode>,
    view_count: u64,
    config: &RedundancyConfig,
) -> RedundancyMode {
    match override_mode {
        Some(mode) => mode,
        None if view_count > config.popularity_threshold => RedundancyMode::Replication,
        None => RedundancyMode::ErasureCoding,
    }
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

/// Nodes that may be lost, whichever they are, with shards spread evenly over `nodes` of them and all still readable.
pub const fn coded_failures_tolerated(nodes: usize, config: &RedundancyConfig) -> usize {
    let nodes = if nodes < config.erasure_total_shards {
        nodes
    } else {
        config.erasure_total_shards
    };
    if nodes == 0 {
        return 0;
    }
    let (fair, fuller) = (config.erasure_total_shards / nodes, config.erasure_total_shards % nodes);
    // The fullest go first.
    let (mut lost_shards, mut lost_nodes) = (0, 0);
    while lost_nodes < nodes {
        lost_shards += if lost_nodes < fuller { fair + 1 } else { fair };
        if lost_shards > config.erasure_parity_shards {
            break;
        }
        lost_nodes += 1;
    }
    lost_nodes
}

/// Fewest nodes on which coded chunks survive the loss of any one.
pub const fn coded_nodes_min(config: &RedundancyConfig) -> usize {
    let mut nodes = 1;
    while nodes < config.erasure_total_shards && coded_failures_tolerated(nodes, config) == 0 {
        nodes += 1;
    }
    nodes
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
    let physical = totals.replicated.physical_bytes + totals.coded.physical_bytes;
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
        total_physical_bytes: totals.replicated.physical_bytes + totals.coded.physical_bytes,
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
        total_physical_bytes: totals.replicated.physical_bytes + totals.coded.physical_bytes,
        storage_savings_percent: savings_percent(totals, config.replication_factor),
        replication_overhead_bytes: beyond(&totals.replicated),
        erasure_overhead_bytes: beyond(&totals.coded),
    }
}

/// The modes side by side, on `nodes` nodes.
pub fn comparison(nodes: usize, config: &RedundancyConfig) -> ModeComparison {
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
        replication: figures(float(copies as u64), copies, copies.min(nodes).saturating_sub(1)),
        erasure_coding: figures(
            shards,
            config.erasure_total_shards,
            coded_failures_tolerated(nodes, config),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: RedundancyConfig = RedundancyConfig {
        popularity_threshold: 1_000,
        replication_factor: 3,
        erasure_data_shards: DATA_SHARDS,
        erasure_parity_shards: PARITY_SHARDS,
        erasure_total_shards: DATA_SHARDS + PARITY_SHARDS,
    };

    #[test]
    fn hot_is_more_than_the_threshold_and_a_hand_comes_first() {
        use RedundancyMode::{ErasureCoding, Replication};
        let table = [
            (None, 0, ErasureCoding),
            (None, 1_000, ErasureCoding),
            (None, 1_001, Replication),
            (Some(Replication), 0, Replication),
            (Some(ErasureCoding), 5_000, ErasureCoding),
        ];
        for (by_hand, views, expected) in table {
            assert_eq!(recommend(by_hand, views, &CONFIG), expected, "{by_hand:?} {views}");
        }
    }

    #[test]
    fn failures_tolerated_follow_from_the_nodes_there_are() {
        let tolerated: Vec<_> = (0..=7).map(|nodes| coded_failures_tolerated(nodes, &CONFIG)).collect();
        assert_eq!(tolerated, [0, 0, 0, 1, 1, 2, 2, 2]);
        assert_eq!(coded_nodes_min(&CONFIG), 3);
        let comparison = comparison(3, &CONFIG);
        assert_eq!(
            (
                comparison.replication.failures_tolerated,
                comparison.replication.overhead_factor
            ),
            (2, 3.0)
        );
        assert!((comparison.erasure_coding.storage_efficiency - 60.0).abs() < 1e-9);
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
        assert_eq!(overhead(&mixed, &CONFIG).erasure_overhead_bytes, 200);
        assert!(efficiency(&Totals::default(), &CONFIG).storage_savings_percent.abs() < 1e-9);
    }
}
