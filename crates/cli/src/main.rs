//! `vstack`: every service and tool of V-Stack in one binary, a subcommand each.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done and damage
//! found in a data directory, 130 interrupted.

mod commands;
mod config_file;
#[cfg(test)]
mod documented_settings;
mod output;
mod signals;
mod up;

use std::{future::Future, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::output::say;

/// A distributed video store: videos in as files, out as smooth playback, from machines that may die.
#[derive(Debug, Parser)]
#[command(name = "vstack", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    /// TOML file with settings of the subcommand: keys are flag names with `_` for `-`; flags and environment win.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster on this machine, every service a supervised process.
    Up(up::Options),
    /// Upload video files and wait until they can be played.
    Upload(commands::upload::Options),
    /// List the videos.
    Ls(commands::ls::Options),
    /// Show how services and nodes are doing, and how whole what is stored is.
    ///
    /// Exit code 0: everything runs, was counted and is as it should be; 1: something is not, or is not known. After a
    /// start it takes a moment until everything is counted.
    Status(commands::status::Options),
    /// Show how whole everything is that is stored, and name what is not.
    ///
    /// Exit code 0: everything was counted and is as it should be; 1: something is not, or is not known.
    Census(commands::census::Options),
    /// Show what is being mended, and was.
    Repairs(commands::repairs::Options),
    /// List what nodes keep where nobody expects it, and give up what nothing known explains.
    #[command(after_help = commands::orphans::EXAMPLES)]
    Orphans(commands::orphans::Options),
    /// Empty a node: what it holds is moved to others, and nothing new goes there.
    Drain(commands::membership::Options),
    /// Let a node take chunks again that was being emptied or taken out.
    Activate(commands::membership::Options),
    /// Take a node out of the cluster: empty it, seal its disk, forget it. Of a dead one, what it held is made anew.
    Remove(commands::membership::Options),
    /// Even out what nodes hold, as fast as chunks are repaired; slowly, it is done without a command.
    Rebalance(commands::membership::RebalanceOptions),
    /// Show how videos are kept, as copies or as shards, why, and what that takes; ask for either.
    #[command(after_help = commands::redundancy::EXAMPLES)]
    Redundancy(commands::redundancy::Options),
    /// Take videos out.
    Rm(commands::rm::Options),
    /// Play a video with the smart client, or save it.
    Play(vstack_player::PlayOptions),
    /// Show the logs of a cluster started by `vstack up`.
    Logs(commands::logs::Options),
    /// Look after a storage node's data directory.
    #[command(subcommand)]
    Node(commands::node::Command),
    /// Run the metadata service.
    Metadata(Box<vstack_metadata::Settings>),
    /// Run a storage node.
    StorageNode(Box<vstack_node::Settings>),
    /// Run the uploader.
    Uploader(Box<vstack_uploader::Settings>),
    /// Run the web application and the gateway.
    Web(Box<vstack_web::Settings>),
    /// Run the smart client as a service.
    Client(Box<vstack_player::Settings>),
    /// Simulate whole clusters while things go wrong, and check that every promise is kept.
    Sim(vstack_sim::Command),
}

fn main() -> ExitCode {
    let arguments = match config_file::merge(Cli::command(), std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => return fail(&error, 2),
    };
    let matches = Cli::command().get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    say!("error: {error:#}");
    ExitCode::from(code)
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(options) => up::run(options),
        Command::Upload(options) => tool(|stop| commands::upload::run(options, stop)),
        Command::Ls(options) => tool(|stop| commands::ls::run(options, stop)),
        Command::Status(options) => tool(|stop| commands::status::run(options, stop)),
        Command::Census(options) => tool(|stop| commands::census::run(options, stop)),
        Command::Repairs(options) => tool(|stop| commands::repairs::run(options, stop)),
        Command::Orphans(options) => tool(|stop| commands::orphans::run(options, stop)),
        Command::Drain(options) => tool(|stop| commands::membership::drain(options, stop)),
        Command::Activate(options) => tool(|stop| commands::membership::activate(options, stop)),
        Command::Remove(options) => tool(|stop| commands::membership::remove(options, stop)),
        Command::Rebalance(options) => tool(|stop| commands::membership::rebalance(options, stop)),
        Command::Redundancy(options) => tool(|stop| commands::redundancy::run(options, stop)),
        Command::Rm(options) => tool(|stop| commands::rm::run(options, stop)),
        Command::Logs(options) => tool(|stop| commands::logs::run(options, stop)),
        Command::Node(commands::node::Command::Adopt(options)) => commands::node::adopt(&options),
        Command::Node(command) => tool(|stop| commands::node::run(command, stop)),
        Command::Sim(command) => Ok(command.run()),
        Command::Play(options) => tool(|stop| async move {
            vstack_player::play(options, stop).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Metadata(settings) => service(&settings.common.clone(), |stop| async {
            Ok(vstack_metadata::run(*settings, stop).await?)
        }),
        Command::StorageNode(settings) => service(&settings.common.clone(), |stop| async {
            Ok(vstack_node::run(*settings, stop).await?)
        }),
        Command::Uploader(settings) => service(&settings.common.clone(), |stop| vstack_uploader::run(*settings, stop)),
        Command::Web(settings) => service(&settings.common.clone(), |stop| vstack_web::run(*settings, stop)),
        Command::Client(settings) => service(&settings.common.clone(), |stop| vstack_player::run(*settings, stop)),
    }
}

/// Runs a service until it ends or is told to stop (SIGTERM, Ctrl-C).
fn service<F>(common: &vstack_service::Common, start: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>>,
{
    vstack_service::init_logging(common.log_level, common.log_format);
    signals::die_with_supervisor()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        signals::cancel_on_stop(&stop)?;
        start(stop).await
    });
    // Blocking work that hangs must not keep a stopped service alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result.map(|()| ExitCode::SUCCESS)
}

/// Runs a tool; a first Ctrl-C cancels what it does.
fn tool<F>(start: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        signals::cancel_on_stop(&stop)?;
        let code = start(stop.clone()).await?;
        Ok(if stop.is_cancelled() { ExitCode::from(130) } else { code })
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_scrub_and_compact_says_how_fast_and_of_what() {
        let mut all = Cli::command();
        let node = all.find_subcommand_mut("node").expect("tools of a directory");
        for name in ["scrub", "compact"] {
            let tool = node.find_subcommand_mut(name).expect("a tool");
            let help = tool.render_long_help().to_string();
            for word in ["--rate <BYTES>", "--max-superblock-size <BYTES>"] {
                assert!(help.contains(word), "{name}: {help}");
            }
        }
    }
}
