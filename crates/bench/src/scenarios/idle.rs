//! Memory of a cluster that has nothing to do.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;

use super::Bench;
use crate::{
    cluster::Cluster,
    process::memory_bytes,
    report::{Row, Section},
    targets,
};

/// Between two looks at whether memory still grows.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks without growth that mean it has settled.
const STEADY_LOOKS: u32 = 3;
/// Looks after which it is taken as it is.
const LOOKS_MAX: u32 = 30;
/// Growth that is no growth.
const STEADY_BYTES: u64 = 256 * 1024;

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "idle",
        format!(
            "resident memory of all processes of `vstack up`, {} starts",
            Bench::ROUNDS
        ),
    );
    let mut by_process: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let (mut totals, mut largest_nodes) = (Vec::new(), Vec::new());
    for _ in 0..Bench::ROUNDS {
        let cluster = Cluster::start(&bench.binary, &bench.directory, &[]).await?;
        let memory = settled(&cluster).await?;
        totals.push(mib(memory.values().sum()));
        let nodes = memory.iter().filter(|(name, _)| name.starts_with("storage-node"));
        largest_nodes.push(mib(nodes.map(|(_, bytes)| *bytes).max().context("no storage node")?));
        for (name, bytes) in memory {
            by_process.entry(name).or_default().push(mib(bytes));
        }
    }
    for (name, rounds) in by_process {
        section.rows.push(Row::new(name, "MiB", rounds));
    }
    section.rows.push(Row::new("all", "MiB", totals.clone()));
    section.note("VmRSS; pages of the program that processes share are counted in each of them");
    section.judge_rounds(targets::IDLE_TOTAL, "", &totals);
    section.judge_rounds(targets::IDLE_NODE, "", &largest_nodes);
    Ok(section)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Looks until the total stays where it is.
async fn settled(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut memory = look(cluster)?;
    let mut steady = 0;
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = look(cluster)?;
        let moved = now.values().sum::<u64>().abs_diff(memory.values().sum());
        steady = if moved < STEADY_BYTES { steady + 1 } else { 0 };
        memory = now;
        if steady == STEADY_LOOKS {
            break;
        }
    }
    Ok(memory)
}

fn look(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut memory = BTreeMap::from([(
        "up (supervisor)".to_owned(),
        memory_bytes(cluster.supervisor_pid(), "VmRSS")?,
    )]);
    for service in cluster.services()? {
        let pid = service.pid.with_context(|| format!("{} does not run", service.name))?;
        memory.insert(service.name, memory_bytes(pid, "VmRSS")?);
    }
    Ok(memory)
}
