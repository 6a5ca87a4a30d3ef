//! `vstack node verify`.

use std::{ops::ControlFlow, path::PathBuf, process::ExitCode};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_engine::{CheckpointSeen, Depth, FileDisk, Look, OpenReport, Verified};
use vstack_types::NodeUuid;

use super::{
    aside,
    directory::{self, DAMAGE_FOUND, Directory},
    say_interrupted,
};
use crate::output::{self, bytes, out, say};

/// Which directory.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    directory: Directory,
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
    /// Known to be damaged already, and served no more.
    quarantined: u64,
    torn_bytes: u64,
    votes_lost: bool,
    checkpoint: String,
    /// Chunks of which one copy of a register is damaged, and the other is not.
    mendable: u64,
    damage: Vec<String>,
}

/// Reads everything, changes nothing. Exit code 3 when damage was found.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let directory = options.directory;
    let json = directory.json;
    if !json {
        say!("Reading the log of {}", directory.path().display());
    }
    let (place, depth) = (directory.clone(), Depth::Everything);
    let look = aside(&stop, move || place.look(depth)).await?;
    let Some(look) = look else { return Ok(ExitCode::SUCCESS) };
    let report = tokio::task::spawn_blocking(move || verify(&directory, &look, &stop)).await??;
    if !report.complete {
        say_interrupted(&format!("after {} of chunks", bytes(report.chunk_bytes)));
    }
    if json {
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

fn verify(directory: &Directory, look: &Look<FileDisk>, stop: &CancellationToken) -> anyhow::Result<Report> {
    let quarantined = look.quarantined()?;
    let bar = directory::bar("verifying", look.reader().stats().chunk_bytes);
    let verified = look.verify(|so_far| {
        bar.set_position(so_far.bytes);
        if stop.is_cancelled() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    bar.finish_and_clear();
    let damage = all_damage(look.report(), look.checkpoint(), &verified);
    Ok(Report {
        data_dir: directory.data_dir.clone(),
        disk_uuid: look.identity().node.uuid,
        complete: !verified.ended_early,
        damage_found: !damage.is_empty(),
        records: verified.records,
        chunks: verified.items,
        chunk_bytes: verified.bytes,
        quarantined,
        torn_bytes: look.report().torn_bytes,
        votes_lost: look.reader().votes_lost(),
        checkpoint: directory::checkpoint(look.checkpoint()),
        mendable: verified.mendable,
        damage,
    })
}

fn all_damage(report: &OpenReport, checkpoint: &CheckpointSeen, verified: &Verified) -> Vec<String> {
    let mut lines = directory::damage_lines(report);
    if let (CheckpointSeen::Refused(why), None) = (checkpoint, &report.checkpoint_refused) {
        lines.push(format!("checkpoint: {why}"));
    }
    let chunks = verified.damaged.iter();
    lines.extend(chunks.map(|(id, sha256)| directory::damaged_chunk(id.as_str(), sha256)));
    if verified.mendable > 0 {
        lines.push(format!(
            "one of two copies of the registers of {} chunks: `vstack node scrub` writes them again",
            verified.mendable
        ));
    }
    if verified.lists > 0 {
        lines.push(format!(
            "the second copies of what {} batches of records say",
            verified.lists
        ));
    }
    lines
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
    out!("checkpoint  {}", report.checkpoint);
    directory::show_torn(report.torn_bytes);
    directory::show_quarantined(report.quarantined);
    if report.votes_lost {
        out!("votes       may be lost: it votes no more");
    }
    directory::show_damage(&report.damage);
}
