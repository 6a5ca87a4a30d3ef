//! `vstack node compact`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use vstack_engine::{Engine, Reader, SuperblockSpace, Waste};
use vstack_types::NodeUuid;

use super::{
    aside, close,
    directory::{self, DAMAGE_FOUND, Directory},
    say_interrupted,
};
use crate::output::{self, bytes, out, say};

/// Which directory, what of it, and how fast.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    directory: Directory,
    /// Empty this superblock, however much of it is wanted; without it all that are worth it.
    #[arg(long, value_name = "N")]
    superblock: Option<u32>,
    /// Empty superblocks of which so many percent are waste, the one that is written to, too; without it those that are
    /// worth it beside a node's work.
    #[arg(long, value_name = "PERCENT", conflicts_with = "superblock", value_parser = clap::value_parser!(u64).range(1..=100))]
    waste: Option<u64>,
    /// Most bytes a second that are written again; as many as the disk takes when it is not given. The node itself keeps
    /// to its COMPACT_RATE.
    #[arg(long, value_name = "BYTES", default_value_t = u64::MAX, hide_default_value = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
}

#[derive(Debug, Default, Serialize)]
struct Done {
    /// Superblocks that are gone.
    emptied: Vec<u32>,
    /// Superblocks that hold something damaged, which cannot be moved.
    stayed: Vec<u32>,
    moved_records: u64,
    moved_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    data_dir: PathBuf,
    disk_uuid: NodeUuid,
    /// False when it was interrupted: what was done counts.
    complete: bool,
    allocated_bytes_before: u64,
    allocated_bytes_after: u64,
    #[serde(flatten)]
    done: Done,
}

/// Empties superblocks. Exit code 3 when one stayed because something in it is damaged.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<ExitCode> {
    let directory = options.directory.clone();
    if !directory.json {
        say!("Opening {}", directory.path().display());
    }
    let opening = directory.clone();
    let engine = aside(&stop, move || opening.open()).await?;
    let Some(engine) = engine else {
        return Ok(ExitCode::SUCCESS);
    };
    let before = allocated(&engine.reader().space()?);
    let mut done = Done::default();
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        ended = compact(&engine, &options, &mut done) => Some(ended),
    };
    close(&engine).await;
    let complete = ended.is_some();
    ended.transpose()?;
    if !complete {
        let (superblocks, moved) = (done.emptied.len(), bytes(done.moved_bytes));
        say_interrupted(&format!(
            "after {superblocks} superblocks were emptied, {moved} written again"
        ));
    }
    let report = Report {
        data_dir: directory.data_dir,
        disk_uuid: engine.reader().me().uuid,
        complete,
        allocated_bytes_before: before,
        allocated_bytes_after: allocated(&engine.reader().space()?),
        done,
    };
    if directory.json {
        output::json(&report)?;
    } else {
        show(&report);
    }
    Ok(if report.done.stayed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DAMAGE_FOUND)
    })
}

fn allocated(space: &[SuperblockSpace]) -> u64 {
    space.iter().map(|one| one.allocated).sum()
}

async fn compact(engine: &Engine, options: &Options, done: &mut Done) -> anyhow::Result<()> {
    anyhow::ensure!(
        !engine.reader().votes_lost(),
        "records of it are lost, votes perhaps: what is left stays where it is"
    );
    if let Some(number) = options.superblock {
        check(engine, number)?;
        return one(engine, number, options.rate, done).await;
    }
    let bytes = options.directory.max_superblock_size;
    let waste = options.waste.map_or(Waste::BESIDE, Waste::percent);
    let is_tail_worth_it = move |reader: &Reader<_>| reader.is_tail_wasteful(bytes, waste);
    if options.waste.is_some() && engine.look_aside(is_tail_worth_it).await?? {
        engine.turn().await?;
    }
    // What it makes is as close as it gets, whatever was thought of it before.
    let made = engine.reader().superblock_numbers().last().copied().unwrap_or(u32::MAX);
    loop {
        let worth = engine
            .look_aside(move |reader| reader.most_wasteful(bytes, waste, 0..made))
            .await??;
        let Some(number) = worth else { break };
        one(engine, number, options.rate, done).await?;
    }
    engine.rest().await?;
    Ok(())
}

fn check(engine: &Engine, number: u32) -> anyhow::Result<()> {
    let space = engine.reader().space()?;
    let found = space.iter().find(|one| one.number == number);
    let found = found.with_context(|| format!("there is no superblock {number}"))?;
    anyhow::ensure!(
        !found.is_tail,
        "superblock {number} is the one that is written to: it stays"
    );
    Ok(())
}

async fn one(engine: &Engine, number: u32, rate: u64, done: &mut Done) -> anyhow::Result<()> {
    let live = engine
        .reader()
        .space()?
        .iter()
        .find(|one| one.number == number)
        .map_or(0, |one| one.live);
    let bar = directory::bar(&format!("emptying {number}"), live);
    let compacted = engine
        .compact(number, rate, |so_far| bar.set_position(so_far.moved_bytes))
        .await?;
    bar.finish_and_clear();
    done.moved_records += compacted.moved;
    done.moved_bytes += compacted.moved_bytes;
    if compacted.emptied {
        done.emptied.push(number);
    } else {
        done.stayed.push(number);
    }
    engine.look_aside(Reader::reclaim).await??;
    Ok(())
}

fn show(report: &Report) {
    let numbers = |numbers: &[u32]| {
        let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
        texts.join(", ")
    };
    let Done {
        emptied,
        stayed,
        moved_records,
        moved_bytes,
    } = &report.done;
    if emptied.is_empty() && stayed.is_empty() {
        out!("Nothing is worth emptying.");
    }
    if !emptied.is_empty() {
        out!("emptied     superblocks {}", numbers(emptied));
    }
    if !stayed.is_empty() {
        out!(
            "stayed      superblocks {}: they hold what is damaged and cannot be moved",
            numbers(stayed)
        );
    }
    out!("written     {moved_records} records again, {}", bytes(*moved_bytes));
    out!(
        "takes       {}, before {}{}",
        bytes(report.allocated_bytes_after),
        bytes(report.allocated_bytes_before),
        if report.complete { "" } else { "; interrupted" }
    );
}
