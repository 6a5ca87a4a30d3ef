//! `vstack sim` without the rest of the binary: quicker to build while the simulation itself is worked on.

use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    command: vstack_sim::Command,
}

fn main() -> std::process::ExitCode {
    Cli::parse().command.run()
}
