//! `vstack node inspect`.

use std::{path::PathBuf, process::ExitCode};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_engine::{CheckpointSeen, Depth, FORMAT_VERSION, FileDisk, Look};
use vstack_types::NodeUuid;

use super::{
    aside,
    directory::{self, Directory},
};
use crate::output::{self, bytes, out};

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
    incarnation: u32,
    format_version: u32,
    sealed: bool,
    retired: Vec<NodeUuid>,
    /// Not accepted by the metadata service with this log sequence number yet.
    claim: Option<u64>,
    votes_lost: bool,
    log_seq: u64,
    chunks: u64,
    chunk_bytes: u64,
    registers: u64,
    /// Chunks known to be damaged, of those above.
    quarantined: u64,
    checkpoint_log_seq: Option<u64>,
    checkpoint_refused: Option<String>,
    torn_bytes: u64,
    superblocks: Vec<Superblock>,
    emptied_heads: usize,
    damage: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Superblock {
    number: u32,
    allocated_bytes: u64,
    live_bytes: u64,
    /// Records are appended to it.
    last: bool,
}

/// Shows what a start would find.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let Directory { json, data_dir, .. } = options.directory.clone();
    let look = aside(&stop, move || options.directory.look(Depth::LikeAStart)).await?;
    let Some(look) = look else { return Ok(ExitCode::SUCCESS) };
    let report = report(&look, data_dir)?;
    if json {
        output::json(&report)?;
    } else {
        show(&report, look.checkpoint());
        directory::show_torn(report.torn_bytes);
        directory::show_damage(&report.damage);
    }
    Ok(ExitCode::SUCCESS)
}

fn report(look: &Look<FileDisk>, data_dir: PathBuf) -> anyhow::Result<Report> {
    let (identity, reader) = (look.identity(), look.reader());
    let stats = reader.stats();
    let superblocks = reader.space()?.into_iter().map(|space| Superblock {
        number: space.number,
        allocated_bytes: space.allocated,
        live_bytes: space.live,
        last: space.is_tail,
    });
    let (checkpoint_log_seq, checkpoint_refused) = match look.checkpoint() {
        CheckpointSeen::Absent => (None, None),
        CheckpointSeen::UpTo(log_seq) => (Some(*log_seq), None),
        CheckpointSeen::Refused(why) => (None, Some(why.clone())),
    };
    Ok(Report {
        data_dir,
        disk_uuid: identity.node.uuid,
        incarnation: identity.node.incarnation.0,
        format_version: FORMAT_VERSION,
        sealed: identity.sealed,
        retired: look.report().retired.clone(),
        claim: reader.claim(),
        votes_lost: reader.votes_lost(),
        log_seq: look.report().log_seq,
        chunks: stats.chunk_count,
        chunk_bytes: stats.chunk_bytes,
        registers: stats.register_count,
        quarantined: look.quarantined()?,
        checkpoint_log_seq,
        checkpoint_refused,
        torn_bytes: look.report().torn_bytes,
        superblocks: superblocks.collect(),
        emptied_heads: look.emptied(),
        damage: directory::damage_lines(look.report()),
    })
}

fn show(report: &Report, checkpoint: &CheckpointSeen) {
    out!("directory   {}", report.data_dir.display());
    out!(
        "disk        {}, disk format {}",
        report.disk_uuid,
        report.format_version
    );
    for retired in &report.retired {
        out!("before      {retired}, given up");
    }
    if report.sealed {
        out!("sealed      it votes no more");
    }
    if report.votes_lost {
        out!("votes       may be lost: it votes no more");
    }
    if let Some(log_seq) = report.claim {
        out!("claim       record {log_seq}: not accepted by the metadata service since");
    }
    out!("log         {} records", report.log_seq);
    out!("checkpoint  {}", directory::checkpoint(checkpoint));
    out!(
        "holds       {} chunks, {}; {} registers",
        report.chunks,
        bytes(report.chunk_bytes),
        report.registers
    );
    directory::show_quarantined(report.quarantined);
    let mut table = output::table(&["SUPERBLOCK", "ALLOCATED", "LIVE", ""]);
    for superblock in &report.superblocks {
        table.add_row([
            superblock.number.to_string(),
            bytes(superblock.allocated_bytes),
            bytes(superblock.live_bytes),
            if superblock.last { "written to" } else { "" }.to_owned(),
        ]);
    }
    out!("\n{table}\n");
}
