//! `vstack node scrub`.

use std::{path::PathBuf, process::ExitCode};

use indicatif::ProgressBar;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_engine::{Engine, Scrubbed};
use vstack_types::NodeUuid;

use super::{
    aside, close,
    directory::{self, DAMAGE_FOUND, Directory},
    say_interrupted,
};
use crate::output::{self, bytes, out, say};

/// Which directory, and how fast.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    directory: Directory,
    /// Most bytes a second that are read; as many as the disk gives when it is not given. The node itself takes its
    /// SCRUB_PERIOD for everything.
    #[arg(long, value_name = "BYTES", default_value_t = u64::MAX, hide_default_value = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    data_dir: PathBuf,
    disk_uuid: NodeUuid,
    /// False when it was interrupted.
    complete: bool,
    damage_found: bool,
    records: u64,
    chunks: u64,
    chunk_bytes: u64,
    torn_bytes: u64,
    votes_lost: bool,
    /// Chunks quarantined: they are served no more.
    quarantined: usize,
    /// Chunks of which a register was written again from its other copy.
    mended: u64,
    damage: Vec<String>,
}

/// Reads everything, quarantines what is damaged, and mends what has another copy. Exit code 3 when damage was found.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let Options { directory, rate } = options;
    if !directory.json {
        say!("Opening {}", directory.path().display());
    }
    let opening = directory.clone();
    let engine = aside(&stop, move || opening.open()).await?;
    let Some(engine) = engine else {
        return Ok(ExitCode::SUCCESS);
    };
    let (mut all, bar) = (
        Scrubbed::default(),
        directory::bar("scrubbing", engine.reader().stats().chunk_bytes),
    );
    let scrubbed = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        scrubbed = scrub(&engine, rate, &mut all, &bar) => Some(scrubbed),
    };
    close(&engine).await;
    let complete = scrubbed.transpose()?.is_some();
    if !complete {
        say_interrupted(&format!("after {} of chunks", bytes(bar.position())));
    }
    let report = report(&engine, &directory, all, complete);
    if directory.json {
        output::json(&report)?;
    } else {
        show(&report);
    }
    Ok(if report.damage_found {
        ExitCode::from(DAMAGE_FOUND)
    } else {
        ExitCode::SUCCESS
    })
}

/// Adds up what superblocks that were read to their end came to.
async fn scrub(engine: &Engine, rate: u64, all: &mut Scrubbed, bar: &ProgressBar) -> anyhow::Result<()> {
    for number in engine.reader().superblock_numbers() {
        let before = all.bytes;
        let scrubbed = engine
            .scrub(number, rate, |so_far| bar.set_position(before + so_far.bytes))
            .await?;
        all.add(scrubbed);
    }
    bar.finish_and_clear();
    Ok(())
}

fn report(engine: &Engine, directory: &Directory, scrubbed: Scrubbed, complete: bool) -> Report {
    let mut damage = directory::damage_lines(engine.report());
    let chunks = scrubbed.damaged.iter();
    damage.extend(chunks.map(|(id, sha256)| format!("{}: quarantined", directory::damaged_chunk(id.as_str(), sha256))));
    for (count, what) in [
        (
            scrubbed.mended,
            "chunks with one damaged copy of their register: mended",
        ),
        (scrubbed.unnamed, "records of which nothing is left"),
        (scrubbed.stretches, "stretches that are no records"),
    ] {
        if count > 0 {
            damage.push(format!("{count} {what}"));
        }
    }
    Report {
        data_dir: directory.data_dir.clone(),
        disk_uuid: engine.reader().me().uuid,
        complete,
        damage_found: !damage.is_empty(),
        records: scrubbed.records,
        chunks: scrubbed.items,
        chunk_bytes: scrubbed.bytes,
        torn_bytes: engine.report().torn_bytes,
        votes_lost: engine.reader().votes_lost(),
        quarantined: scrubbed.damaged.len(),
        mended: scrubbed.mended,
        damage,
    }
}

fn show(report: &Report) {
    out!("disk        {}", report.disk_uuid);
    out!(
        "read        {} records, {} chunks, {}{}",
        report.records,
        report.chunks,
        bytes(report.chunk_bytes),
        if report.complete { "" } else { "; interrupted" }
    );
    if report.torn_bytes > 0 {
        out!(
            "torn tail   {} of a write that was cut off, cut",
            bytes(report.torn_bytes)
        );
    }
    if report.votes_lost {
        out!("votes       may be lost: it votes no more");
    }
    directory::show_damage(&report.damage);
}
