//! `vstack node adopt`.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde::Serialize;
use vstack_engine::{AdoptError, Adoption, FileDisk, Finding, OpenError, Reason};
use vstack_types::{Clock as _, NodeUuid, SystemClock};

use super::directory::damage;
use crate::output::{self, bytes, out, say};

/// Which directory.
#[derive(Debug, clap::Args)]
pub struct Adopt {
    /// The node's data directory (DATA_DIR). The node must not run.
    #[arg(value_name = "DATA_DIR")]
    data_dir: PathBuf,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Report as JSON; asks nothing, so --yes is needed.
    #[arg(long)]
    json: bool,
}

/// Most that a superblock file ever has: what one that is gone may have held.
const SUPERBLOCK_BYTES_MAX: u64 = u32::MAX as u64;

#[derive(Debug, Serialize)]
struct Report<'a> {
    data_dir: &'a Path,
    reason: &'static str,
    adopted_before: bool,
    old_disk_uuid: NodeUuid,
    disk_uuid: NodeUuid,
    chunks: u64,
    chunk_bytes: u64,
    registers_given_up: u64,
    damage: Vec<String>,
}

/// Runs it.
pub fn run(options: &Adopt) -> anyhow::Result<ExitCode> {
    let directory = options.data_dir.as_path();
    anyhow::ensure!(directory.is_dir(), "{} is no directory", directory.display());
    let disk = FileDisk::new(directory).with_context(|| format!("{} cannot be used", directory.display()))?;
    let clock = SystemClock::start();
    let adoption = Adoption::look(disk, SUPERBLOCK_BYTES_MAX, clock.wall()).map_err(|error| plain(directory, error))?;
    let finding = adoption.finding().clone();
    if !options.json {
        explain(directory, &finding);
    }
    if !finding.adopted_already && !options.yes && !agreed(options.json)? {
        say!("Nothing was changed.");
        return Ok(ExitCode::FAILURE);
    }
    let uuid = adoption
        .adopt(NodeUuid::random())
        .map_err(|error| plain(directory, error))?;
    if options.json {
        output::json(&Report {
            data_dir: directory,
            reason: code(finding.reason),
            adopted_before: finding.adopted_already,
            old_disk_uuid: if finding.adopted_already {
                last_name(&finding)
            } else {
                finding.uuid
            },
            disk_uuid: uuid,
            chunks: finding.items,
            chunk_bytes: finding.item_bytes,
            registers_given_up: finding.registers,
            damage: finding.report.damage.iter().map(damage).collect(),
        })?;
    } else {
        out!("{uuid}");
        next_steps(uuid);
    }
    Ok(ExitCode::SUCCESS)
}

fn last_name(finding: &Finding) -> NodeUuid {
    finding.report.retired.last().copied().unwrap_or(finding.uuid)
}

fn plain(directory: &Path, error: AdoptError) -> anyhow::Error {
    let place = directory.display();
    match error {
        AdoptError::Open(OpenError::Locked) => {
            anyhow::anyhow!("{place} is in use: stop the node first, then adopt its directory")
        }
        error => anyhow::Error::new(error).context(format!("{place} was not adopted")),
    }
}

fn explain(directory: &Path, finding: &Finding) {
    say!("Data directory {}, disk {}", directory.display(), finding.uuid);
    if finding.adopted_already {
        say!(
            "It was adopted and not used since: disk {} is retired.",
            last_name(finding)
        );
        return;
    }
    say!("{}", why(finding.reason));
    for found in &finding.report.damage {
        say!("  damage: {}", damage(found));
    }
    say!("Kept: {}, {}.", chunks(finding.items), bytes(finding.item_bytes));
    say!(
        "Given up, for good: the disk's identity, and its votes; those that can be read are about {}.",
        chunks(finding.registers)
    );
    say!("To the cluster the old disk is lost: chunks that were placed on it have a copy less until they are moved.");
    if finding.items > 0 {
        say!(
            "Kept bytes are without a vote from now on, and are collected after the node's STAGING_TTL (24 h if not set)."
        );
    }
}

fn chunks(count: u64) -> String {
    format!("{count} {}", if count == 1 { "chunk" } else { "chunks" })
}

const fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::VotesLost => {
            "Records are damaged of which no copy is left. Votes may have been among them, so this disk votes no more."
        }
        Reason::IdentityMissing => "The identity file is gone: nothing says whose votes these are.",
        Reason::IdentityDamaged => "The identity file is damaged: it cannot be trusted to say whose votes these are.",
        Reason::SuperblocksMissing => "All superblocks under its name are gone, and the votes that were in them.",
        Reason::NotAccepted => {
            "The metadata service has not accepted it since its node was started last. If the node's log says \"went back in time\", this is a restored snapshot or a copy that has forgotten votes. If it was only never reached, start the node again instead."
        }
        Reason::NothingSeen => {
            "Nothing that can be seen from here is wrong with it. Adopt it only when you know that it is a copy or that it went back in time."
        }
    }
}

const fn code(reason: Reason) -> &'static str {
    match reason {
        Reason::VotesLost => "votes_lost",
        Reason::IdentityMissing => "identity_missing",
        Reason::IdentityDamaged => "identity_damaged",
        Reason::SuperblocksMissing => "superblocks_missing",
        Reason::NotAccepted => "not_accepted",
        Reason::NothingSeen => "nothing_seen",
    }
}

/// Whether a person at a terminal says yes.
fn agreed(json: bool) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    anyhow::ensure!(
        !json && stdin.is_terminal(),
        "nobody to ask: say --yes to give up the disk's identity and votes"
    );
    let mut stderr = std::io::stderr();
    write!(stderr, "Give it a new identity? Type yes: ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

fn next_steps(uuid: NodeUuid) {
    say!("The directory is disk {uuid} now. Start the node on it: it registers as a new disk.");
}
