//! `vstack-bench`: measures a real cluster of real processes, beside peers alternated in the same run, and holds what it
//! finds against targets.
//!
//! Everything runs on ports of its own in a directory of its own, and is stopped and removed at the end, on errors and on
//! Ctrl-C too. A target that was missed is said to be missed and is no failure of the benchmark: the exit code is 0 unless
//! something could not be measured (1) or it was interrupted (130). With `--strict` it is 3 unless every target was
//! reached on a machine without other work.

mod bare_cluster;
mod ceiling;
mod clip;
mod cluster;
mod delay;
mod disk;
mod disturbed;
mod engine_names;
mod fast_path;
mod filled;
mod films;
mod http;
mod load;
mod machine;
mod measure;
mod metrics;
mod nginx;
mod open_loop;
mod page_cache;
mod payload;
mod peer;
mod process;
mod report;
mod rescue;
mod scenarios;
mod tally;
mod tap;
mod targets;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    machine::{Disturbance, Machine, busy_percent},
    report::{Report, Section},
    scenarios::{Bench, Length, Scenario},
    tally::Tally,
};

/// Of the JSON file.
const FORMAT: u32 = 1;
/// Exit code of `--strict` when a target is not shown to be reached.
const NOT_REACHED: u8 = 3;
/// How long threads that write may take to notice the end.
const THREADS_TIMEOUT: Duration = Duration::from_secs(10);

/// Measures the release build of `vstack` against its targets.
#[derive(Debug, Parser)]
#[command(name = "vstack-bench", version, args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    node: Option<NodeProcess>,
    /// Write what was found to this file. The last one named counts.
    #[arg(long, value_name = "FILE", overrides_with = "json")]
    json: Option<PathBuf>,
    /// Shorter rounds and smaller files.
    #[arg(long)]
    quick: bool,
    /// End with exit code 3 unless every target was reached, undisturbed by other work.
    #[arg(long)]
    strict: bool,
    /// Measure also where nginx or fio is not installed: what is held against them is not measured then.
    #[arg(long)]
    without_peers: bool,
    /// Next to nothing: shows that it works.
    #[arg(long, hide = true)]
    smoke: bool,
    /// Chunks that `restart` fills a node with, and `census` a cluster; 1,000,000 unless it is a quick run.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    chunks: Option<u32>,
    /// Where data goes: the disk that is measured. By default the system's directory for temporary files.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The program to measure.
    #[arg(long, env = "VSTACK_BIN", default_value_os_t = release_binary(), value_name = "PROGRAM")]
    binary: PathBuf,
    /// What to measure; everything when none is named.
    #[arg(value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
}

/// Processes that scenarios start.
#[derive(Debug, clap::Subcommand)]
enum NodeProcess {
    /// A node of a protocol that ChunkPaxos is compared with.
    #[command(hide = true)]
    Peer(Box<peer::Settings>),
    /// The storage node, as `vstack storage-node`: for tests, where no other program is built.
    #[command(hide = true)]
    StorageNode(Box<vstack_node::Settings>),
    /// The metadata service, as `vstack metadata`: for tests, too.
    #[command(hide = true)]
    Metadata(Box<vstack_metadata::Settings>),
}

/// Beside this program's own target directory, whatever profile it was built with.
fn release_binary() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    target.join("release/vstack")
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    let ended = match options.node.take() {
        Some(node) => run_node(node),
        None => start(options),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_node(node: NodeProcess) -> anyhow::Result<ExitCode> {
    let common = match &node {
        NodeProcess::Peer(settings) => &settings.common,
        NodeProcess::StorageNode(settings) => &settings.common,
        NodeProcess::Metadata(settings) => &settings.common,
    };
    vstack_service::init_logging(common.log_level, common.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        cancel_on_signals(&stop)?;
        match node {
            NodeProcess::Peer(settings) => peer::run(*settings, stop).await,
            NodeProcess::StorageNode(settings) => Ok(vstack_node::run(*settings, stop).await?),
            NodeProcess::Metadata(settings) => Ok(Box::pin(vstack_metadata::run(*settings, stop)).await?),
        }
    });
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    ended.map(|()| ExitCode::SUCCESS)
}

fn start(options: Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(run(options));
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    code
}

async fn run(options: Options) -> anyhow::Result<ExitCode> {
    ensure!(
        options.binary.is_file(),
        "there is no {}; `cargo build --release -p vstack` makes it",
        options.binary.display()
    );
    let binary = options.binary.canonicalize()?;
    let scenarios = if options.scenarios.is_empty() {
        Scenario::value_variants()
    } else {
        &options.scenarios
    };
    if !options.without_peers {
        peers_are_there(scenarios, |program| process::find(program).is_some())?;
    }
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new().prefix("vstack-bench-").tempdir_in(&parent);
    let directory = directory.with_context(|| format!("cannot make a directory in {}", parent.display()))?;
    let stop = CancellationToken::new();
    cancel_on_signals(&stop)?;
    let machine = Machine::look(&binary, directory.path())?;
    println!("{}", machine.text());
    if machine.filesystem == "tmpfs" {
        println!("VOID: tmpfs keeps nothing durably; name a directory on a disk with --dir\n");
    }
    let bench = Bench {
        binary,
        directory: directory.path().to_owned(),
        length: match (options.smoke, options.quick) {
            (true, _) => Length::Smoke,
            (false, true) => Length::Quick,
            (false, false) => Length::Full,
        },
        chunks: options.chunks,
        stop: stop.clone(),
    };
    let mut report = Report {
        format: FORMAT,
        started_at: jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
        quick: bench.quick(),
        interrupted: false,
        machine,
        scenarios: Vec::new(),
        errors: Vec::new(),
    };
    tokio::select! {
        () = measure(scenarios, &bench, &mut report) => {}
        // What runs is dropped, which stops its processes and removes its files.
        () = stop.cancelled() => {}
    }
    report.interrupted = stop.is_cancelled();
    finish(&options, &report)
}

/// Fails when a program is missing that is to be measured beside.
fn peers_are_there(scenarios: &[Scenario], is_there: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let wanted: BTreeSet<_> = scenarios.iter().filter_map(|scenario| scenario.peer()).collect();
    let missing: Vec<_> = wanted.into_iter().filter(|program| !is_there(program)).collect();
    ensure!(
        missing.is_empty(),
        "not installed, and measured beside: {}; `make setup-bench` (scripts/setup.sh bench) installs what is missing, `apt-get install {}` by hand; --without-peers measures without",
        missing.join(", "),
        missing.join(" ")
    );
    Ok(())
}

async fn measure(scenarios: &[Scenario], bench: &Bench, report: &mut Report) {
    for scenario in scenarios {
        match measure_one(*scenario, bench).await {
            Ok(section) => {
                println!("{}", section.text());
                report.scenarios.push(section);
            }
            Err(error) => {
                let name = scenario
                    .to_possible_value()
                    .map_or_else(String::new, |value| value.get_name().to_owned());
                eprintln!("error: {name} could not be measured: {error:#}");
                report.errors.push(format!("{name}: {error:#}"));
            }
        }
    }
}

async fn measure_one(scenario: Scenario, bench: &Bench) -> anyhow::Result<Section> {
    let busy_percent_before = busy_percent().await?;
    let mut section = scenario.run(bench).await?;
    section.disturbance = Some(Disturbance {
        busy_percent_before,
        busy_percent_after: busy_percent().await?,
    });
    Ok(section)
}

fn finish(options: &Options, report: &Report) -> anyhow::Result<ExitCode> {
    if let Some(path) = &options.json {
        let mut json = serde_json::to_vec_pretty(report)?;
        json.push(b'\n');
        let write = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, json)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        println!("\nevery round, as JSON: {}", path.display());
    }
    let tally = Tally::of(&report.scenarios);
    println!(
        "\ntargets: {} reached, {} missed, {} not measured",
        tally.reached, tally.missed, tally.unmeasured
    );
    if tally.void > 0 {
        println!("the machine was busy with other work: figures marked VOID are not to be quoted");
    }
    Ok(if report.interrupted {
        eprintln!("interrupted; everything was stopped and removed");
        ExitCode::from(130)
    } else if !report.errors.is_empty() {
        ExitCode::FAILURE
    } else if options.strict && !tally.shows_all_reached() {
        eprintln!("not every target is shown to be reached");
        ExitCode::from(NOT_REACHED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Ctrl-C, SIGTERM and SIGHUP end the benchmark in order.
fn cancel_on_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_missing_is_named_with_what_installs_it() {
        let without = |scenarios: &[Scenario], missing: &str| peers_are_there(scenarios, |program| program != missing);
        let error = without(&[Scenario::Get, Scenario::Put, Scenario::Cold], "nginx").unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("not installed, and measured beside: nginx;"),
            "{error}"
        );
        assert!(
            error.contains("make setup-bench") && error.contains("--without-peers"),
            "{error}"
        );
        assert!(without(&[Scenario::Put], "fio").is_err());
        assert!(without(&[Scenario::Put], "nginx").is_ok(), "nobody asks for it");
        assert!(without(&[Scenario::Scrub, Scenario::Restart], "nginx").is_ok());
    }

    #[test]
    fn the_last_file_named_counts() {
        let options = Options::parse_from(["vstack-bench", "--json", "a", "--json", "b", "get"]);
        assert_eq!(options.json, Some(PathBuf::from("b")));
    }
}
