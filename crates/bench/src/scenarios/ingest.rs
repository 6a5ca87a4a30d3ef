//! Upload of a large H.264 MP4 until it can be played, beside doing by hand what has to be done at least: take the file,
//! hash it, and keep three synced copies.

use std::{path::Path, time::Instant};

use anyhow::Context as _;

use super::Bench;
use crate::{
    clip::Clip,
    cluster::{Cluster, Service},
    disk,
    measure::ratios,
    process::{command, memory_bytes, run as run_command},
    report::{Row, Section},
    targets,
};

/// The file itself, its copies and the spool, for every round, with room for the file system.
const FREE_BYTES: u64 = 12 << 30;
const COPIES: usize = 3;

pub async fn run(bench: &Bench) -> anyhow::Result<Section> {
    disk::require_free(&bench.directory, FREE_BYTES)?;
    let clip = Clip {
        megabytes: if bench.quick() { 60 } else { 300 },
        megabits_per_second: 10,
    };
    let cluster = Cluster::start(&bench.binary, &bench.directory, &[]).await?;
    let file = clip.make(cluster.scratch(), "clip.mp4").await?;
    let megabytes = file.metadata()?.len() as f64 / 1e6;
    let about = format!(
        "`vstack upload` of {megabytes:.0} MB of H.264 in MP4 until it can be played, beside cp + sha256sum + {COPIES} synced \
         copies, {} alternated rounds",
        Bench::ROUNDS
    );
    let mut section = Section::new("ingest", about);
    disk::settle().await?;
    let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
    for _ in 0..Bench::ROUNDS {
        let started = Instant::now();
        let video = cluster.upload(&file).await?;
        ours.push(started.elapsed().as_secs_f64());
        // Copies that come later would be charged to the peer.
        cluster.wait_copied(video).await?;
        disk::settle().await?;
        by_hand.push(copy_by_hand(&file, cluster.scratch()).await?);
        disk::settle().await?;
    }
    section.rows.push(Row::new("vstack upload", "s", ours.clone()));
    section
        .rows
        .push(Row::new("cp + sha256sum + three synced copies", "s", by_hand.clone()));
    let rates: Vec<_> = ours.iter().map(|seconds| megabytes / seconds).collect();
    section.rows.push(Row::new("vstack upload", "MB/s", rates));
    section.judge_rounds(targets::INGEST_TIME, "", &ratios(&ours, &by_hand));
    for service in cluster.services()? {
        if service.name == "uploader" || service.name.starts_with("storage-node") {
            let peak = peak_mib(&service)?;
            if service.name == "uploader" {
                section.judge(targets::INGEST_MEMORY, "", Some(peak));
            }
            section.rows.push(Row::new(
                format!("{}, peak memory (VmHWM)", service.name),
                "MiB",
                vec![peak],
            ));
        }
    }
    section.note(
        "the file's pages are cached for both; ffmpeg and ffprobe are processes of their own and not in the peak",
    );
    Ok(section)
}

fn peak_mib(service: &Service) -> anyhow::Result<f64> {
    let pid = service.pid.with_context(|| format!("{} does not run", service.name))?;
    Ok(memory_bytes(pid, "VmHWM")? as f64 / f64::from(1 << 20))
}

/// In seconds.
async fn copy_by_hand(file: &Path, scratch: &Path) -> anyhow::Result<f64> {
    let directory = tempfile::Builder::new().prefix("by-hand-").tempdir_in(scratch)?;
    let taken = directory.path().join("taken");
    let started = Instant::now();
    let mut copy = command("cp");
    copy.arg(file).arg(&taken);
    run_command(copy).await?;
    let mut hash = command("sha256sum");
    hash.arg(&taken);
    run_command(hash).await?;
    for copy in 0..COPIES {
        let mut store = command("dd");
        store
            .arg(format!("if={}", taken.display()))
            .arg(format!("of={}", directory.path().join(copy.to_string()).display()));
        store.args(["bs=2M", "conv=fsync", "status=none"]);
        run_command(store).await?;
    }
    Ok(started.elapsed().as_secs_f64())
}
